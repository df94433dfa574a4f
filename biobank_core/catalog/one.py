"""What one object is by itself, whatever a catalog holds: its kind, unique keys and exact JSON."""

from __future__ import annotations

import functools
from typing import Any, Final, NamedTuple

import msgspec

from biobank_core.errors import InputError
from biobank_core.model import codec
from biobank_core.model.base import Object, Reference
from biobank_core.model.kinds import Device, Enrollment, Study, Tombstone, Vessel
from biobank_core.model.registry import is_a, kinds

# Parameters nested deeper than this are somebody's mistake or attack; programs that read them
# recursively would fail later, far from the cause.
MAX_DEPTH: Final = 100


class UniqueKey(NamedTuple):
    """What no two living objects may share: `key` is compared; `field` and `value` are shown."""

    key: str
    field: str
    value: str


def kind_of(obj: Object) -> str:
    """The kind that a VID has for ever: of a Tombstone, that of the deleted object."""
    return obj.of if isinstance(obj, Tombstone) else obj.kind


def unique_keys(obj: Object) -> tuple[UniqueKey, ...]:
    """What must be unique about this object among all living ones."""
    match obj:
        case Vessel():
            label = UniqueKey(f"vessel {obj.study} {obj.label}", "label", obj.label)
            if obj.barcode is None:
                return (label,)
            return (label, UniqueKey(f"barcode {obj.barcode}", "barcode", obj.barcode))
        case Enrollment():
            return (UniqueKey(f"code {obj.study} {obj.code}", "code", obj.code),)
        case Study():
            return (UniqueKey(f"study {obj.label}", "label", obj.label),)
        case Device():
            pair = msgspec.json.encode([obj.label, obj.release]).decode()
            shown = obj.label if obj.release is None else f"{obj.label} {obj.release}"
            return (UniqueKey(f"device {pair}", "label", shown),)
    return ()


@functools.cache
def fits(reference: Reference, kind: str) -> bool:
    """Whether such a reference may point to an object of this kind."""
    return any(is_a(kind, allowed) for allowed in reference.kinds)


def misfit(reference: Reference, kind: str) -> str:
    """The reason to give when it does not."""
    return f"names a {kind}; allowed are {', '.join(reference.kinds)}"


def refuse_depth(obj: Object) -> None:
    """Raises InputError when a free JSON field is nested deeper than MAX_DEPTH."""
    for field in _free_fields(obj.kind):
        value = getattr(obj, field)
        level = [value]
        for _ in range(MAX_DEPTH):
            level = [
                part
                for holder in level
                for part in (holder.values() if isinstance(holder, dict) else holder)
                if isinstance(part, dict | list | tuple)
            ]
            if not level:
                break
        else:
            raise InputError(
                f"{obj.kind} {obj.vid}: nested deeper than {MAX_DEPTH} levels", field=field
            )


def exact_body(obj: Object) -> bytes:
    """Its JSON, proven to give the same object again.

    An object that was made in Python, not decoded, was never checked against its types.
    """
    try:
        body = codec.encode(obj)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise InputError(f"{obj.kind} {obj.vid}: {exc}") from exc
    try:
        again = codec.decode(body)
    except InputError as exc:
        raise InputError(
            f"{obj.kind} {obj.vid}: {exc.reason}", field=exc.field, value=exc.value
        ) from exc
    if again != obj and msgspec.to_builtins(again) != _plain(msgspec.to_builtins(obj)):
        raise InputError(
            f"{obj.kind} {obj.vid}: holds a number that JSON can't say exactly "
            "(NaN, infinity, or beyond 64 bits)"
        )
    return body


def _plain(value: Any) -> Any:
    """The same with lists for tuples, as JSON gives them back."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


@functools.cache
def _free_fields(kind: str) -> tuple[str, ...]:
    cls = kinds()[kind]
    return tuple(
        field.name
        for field in msgspec.structs.fields(cls)
        if getattr(field.type, "__origin__", None) is dict
    )
