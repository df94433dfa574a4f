"""What may be asked of `Catalog.find`: the same fields and values, whatever keeps the catalog."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from biobank_core.errors import InputError
from biobank_core.model.base import Value
from biobank_core.model.registry import kind_class


def wanted_values(kind: str, name: str, value: object) -> tuple[Any, ...]:
    """The values, as they stand in JSON, that the field `name` may have; a tuple means "one of".

    Raises InputError unless the kind has that field and it holds one plain value.
    """
    _refuse_unknown(kind, name)
    return tuple(_plain(part) for part in (value if isinstance(value, tuple) else (value,)))


def _refuse_unknown(kind: str, name: str) -> None:
    first, _, inner = name.partition(".")
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind_class(kind))}
    if first not in fields:
        raise InputError(f"{kind} has no such field; it has {', '.join(fields)}", field=name)
    structure = _structure(fields[first].type)
    if inner and structure is not None and issubclass(structure, Value):
        known = [field.encode_name for field in msgspec.structs.fields(structure)]
        if inner not in known:
            raise InputError(
                f"{kind} has no such field; {first} has {', '.join(known)}", field=name
            )
    elif inner or structure is not None:
        raise InputError(f"objects can't be found by this field of {kind}", field=name)


def _structure(hint: Any) -> type | None:
    """The class of what a field holds when that is not one plain value."""
    for option in getattr(hint, "__args__", (hint,)):
        if isinstance(option, type) and issubclass(option, Value):
            return option
    origin = getattr(hint, "__origin__", None)
    return origin if origin in (tuple, dict) else None


def _plain(value: object) -> Any:
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC)
    plain = msgspec.to_builtins(value)
    if plain is not None and not isinstance(plain, str | int | float):
        raise InputError("an object can't be found by such a value", value=plain)
    return plain
