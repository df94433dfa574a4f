"""Objects to and from JSON, with errors that name the field, the value and what is allowed."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, Final

import msgspec

from biobank_core.errors import InputError
from biobank_core.model.base import Object, UnreadKind
from biobank_core.model.registry import decoder, kinds, missing_kinds

_PATH: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_UNKNOWN_FIELD: Final = re.compile(r"unknown field `(?P<name>.*)`$", re.DOTALL)
_MISSING_FIELD: Final = re.compile(r"missing required field `(?P<name>.*)`$", re.DOTALL)
_OWN_MESSAGE: Final = re.compile(r"^(?P<field>[a-z_0-9]+): (?P<reason>.*)$", re.DOTALL)
_STEP: Final = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")

# A NUL ends a C string in half of the programs that may read it later; nobody means one.
_NUL_ESCAPED: Final = b"\\u0000"


def encode(obj: Object) -> bytes:
    """One line of JSON, fields in the order of the class, without a line end.

    Raises InputError for text that can't be stored exactly (NUL, lone surrogates).
    """
    if isinstance(obj, UnreadKind):
        return obj.line
    try:
        data = msgspec.json.encode(obj)
    except UnicodeEncodeError as exc:
        raise InputError(f"{obj.kind} {obj.vid}: text holds a lone surrogate") from exc
    if _NUL_ESCAPED in data and _holds_nul(msgspec.to_builtins(obj)):
        raise InputError(f"{obj.kind} {obj.vid}: text holds a NUL character")
    return data


def decode(data: bytes) -> Object:
    """The object that a line of JSON describes. Raises InputError naming field and value."""
    try:
        obj: Object = decoder().decode(data)
    except msgspec.ValidationError as exc:
        raise _explained(exc, data) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InputError(f"not a JSON object in UTF-8 ({exc})") from exc
    except RecursionError as exc:
        raise InputError("JSON is nested too deeply") from exc
    if _NUL_ESCAPED in data and _holds_nul(msgspec.to_builtins(obj)):
        raise InputError(f"{obj.kind} {obj.vid}: text holds a NUL character")
    return obj


def decode_stored(data: bytes) -> Object:
    """The object that a catalog stored; an UnreadKind where the plug-in of its kind is missing."""
    try:
        obj: Object = decoder().decode(data)
    except msgspec.ValidationError:
        raw: Any = msgspec.json.decode(data)
        if not isinstance(raw, dict) or raw.get("kind") not in missing_kinds():
            raise
        return UnreadKind(
            vid=raw["vid"],
            stored_kind=raw["kind"],
            line=data,
            label=raw.get("label", ""),
            study=raw.get("study"),
        )
    return obj


def convert(fields: dict[str, Any]) -> Object:
    """The object that a mapping describes (`kind` names its class); strings are taken as they are.

    Raises InputError naming field and value.
    """
    try:
        return decode(msgspec.json.encode(fields))
    except UnicodeEncodeError as exc:
        raise InputError("text holds a lone surrogate") from exc


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_holds_nul(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple):
        return any(_holds_nul(part) for part in value)
    return False


def _explained(exc: msgspec.ValidationError, data: bytes) -> InputError:
    match = _PATH.match(str(exc))
    what, path = (match["what"], match["path"] or "") if match else (str(exc), "")
    try:
        raw: Any = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # The line is wrong in a second way, further on.
        return InputError(f"{what}, and no JSON object in UTF-8")
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if path == ".kind":
        return InputError(f"unknown kind; known are {', '.join(kinds())}", field="kind", value=kind)
    if unknown := _UNKNOWN_FIELD.search(what):
        name = unknown["name"]
        holder = _value_at(raw, path)
        value = holder.get(name) if isinstance(holder, dict) else None
        return InputError(f"{kind} has no such field", field=_joined(path, name), value=value)
    if missing := _MISSING_FIELD.search(what):
        return InputError(
            f"{kind or 'the object'} needs this field", field=_joined(path, missing["name"])
        )
    if own := _OWN_MESSAGE.match(what):
        field = own["field"]
        holder = _value_at(raw, path)
        value = holder.get(field) if isinstance(holder, dict) else None
        return InputError(own["reason"], field=_joined(path, field), value=value)
    return InputError(
        what + _allowed(kind, path), field=path.lstrip(".") or None, value=_value_at(raw, path)
    )


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}".lstrip(".")


def _value_at(raw: Any, path: str) -> Any:
    value = raw
    for name, index in _STEP.findall(path):
        try:
            value = value[int(index)] if index else value[name]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _allowed(kind: object, path: str) -> str:
    cls = kinds().get(kind) if isinstance(kind, str) else None
    if cls is None:
        return ""
    for field in msgspec.structs.fields(cls):
        if path == f".{field.encode_name}":
            for option in getattr(field.type, "__args__", (field.type,)):
                if isinstance(option, type) and issubclass(option, Enum):
                    return f"; allowed are {', '.join(str(item.value) for item in option)}"
    return ""
