"""An object as the pairs of a MapAnnotation, and back; nothing here knows OMERO itself.

One pair a field, named as in JSON Lines. Text stands as it is. Fields of `galaxy` are named with a
dot. Members with a role are one pair each: name `inputs:ROLE`, value the VID, in their order. Names
with an @ say how to read the rest: `@json` lists the pairs whose value is JSON (numbers, lists),
`@long` those whose text stands in a companion; `@key` is what must be unique, hashed.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from biobank_core.catalog.omero.names import MAX_PAIR_BYTES
from biobank_core.catalog.one import UniqueKey
from biobank_core.errors import UnreadableError
from biobank_core.model import codec
from biobank_core.model.base import Object
from biobank_core.model.registry import kinds

Pair = tuple[str, str]

KIND: Final = "kind"
JSON: Final = "@json"
LONG: Final = "@long"
KEY: Final = "@key"
# Stands in a former version whose content was emptied, and in that of a deletion.
DELETED: Final = "@deleted"

_MEMBER: Final = {"role", "object"}
# What is shown of a long text in its pair.
_PREVIEW_CHARS: Final = 200


class Mapped(NamedTuple):
    """The pairs of an object, in order, and its long texts by the name of their pair."""

    pairs: list[Pair]
    long: dict[str, Any]

    @property
    def checksum(self) -> str:
        """What a commit notes of the content, so that a change by another program is seen."""
        return checksum(self.pairs, self.long)


def checksum(pairs: Iterable[Pair], long: Mapping[str, Any]) -> str:
    """16 hex digits over the pairs, in their order, and the long texts."""
    content = msgspec.json.encode([[list(pair) for pair in pairs], sorted(long.items())])
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def key_of(key: str) -> str:
    """A unique key as it stands in a pair: short whatever was unique."""
    return hashlib.blake2b(key.encode(), digest_size=20).hexdigest()


def to_pairs(body: bytes, keys: Iterable[UniqueKey] = ()) -> Mapped:
    """The pairs of the object that this line of JSON is."""
    raw: dict[str, Any] = msgspec.json.decode(body)
    kind = raw.pop("kind")
    del raw["vid"]
    writer = _Writer()
    for name, value in raw.items():
        writer.field(name, value, _optional(kind).get(name))
    pairs = [(KIND, kind), *writer.pairs]
    if writer.json:
        pairs.append((JSON, " ".join(writer.json)))
    if writer.long:
        pairs.append((LONG, " ".join(writer.long)))
    pairs.extend((KEY, key_of(key.key)) for key in keys)
    return Mapped(pairs, writer.long)


class _Writer:
    def __init__(self) -> None:
        self.pairs: list[Pair] = []
        self.json: list[str] = []
        self.long: dict[str, Any] = {}

    def field(self, name: str, value: Any, optional: _Optional | None) -> None:
        if optional is not None and value in (None, []):
            return
        if isinstance(value, dict) and optional is not None and optional.inner is not None:
            inner = {
                f"{name}.{sub}": part
                for sub, part in value.items()
                if part is not None or sub not in optional.inner
            }
            if inner:
                for sub, part in inner.items():
                    self._scalar(sub, part)
                return
        if _are_members(value):
            self._members(name, value)
        else:
            self._scalar(name, value)

    def _scalar(self, name: str, value: Any) -> None:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        if _too_long(text):
            self.long[name] = value
            self.pairs.append((name, text[:_PREVIEW_CHARS]))
            return
        if not isinstance(value, str):
            self.json.append(name)
        self.pairs.append((name, text))

    def _members(self, name: str, members: list[dict[str, str]]) -> None:
        if any(_too_long(f"{name}:{member['role']}") for member in members):
            # Without roles, so that who refers to whom is found all the same.
            self.long[name] = members
            self.pairs.extend((f"{name}:", member["object"]) for member in members)
            return
        self.pairs.extend((f"{name}:{member['role']}", member["object"]) for member in members)


def from_pairs(
    vid: str, pairs: Sequence[Pair], long: Mapping[str, Any] | None = None
) -> tuple[str, bytes]:
    """The kind of the object and its line of JSON.

    `long` holds the texts of its companion. Raises UnreadableError for pairs that nobody of ours
    wrote.
    """
    plain = [pair for pair in pairs if not pair[0].startswith("@")]
    headers = {name: value for name, value in pairs if name.startswith("@")}
    as_json = set(headers.get(JSON, "").split())
    as_long = set(headers.get(LONG, "").split())
    if not plain or plain[0][0] != KIND:
        raise UnreadableError(f"{vid}: its pairs do not begin with the kind; somebody changed them")
    raw: dict[str, Any] = {"kind": plain[0][1], "vid": vid}
    try:
        for name, value in plain[1:]:
            base, colon, role = name.partition(":")
            if (base if colon else name) in as_long:
                continue
            if colon:
                raw.setdefault(base, []).append({"role": role, "object": value})
            else:
                _set(raw, name, _value(vid, name, value) if name in as_json else value)
        for name in as_long:
            if long is None or name not in long:
                raise UnreadableError(f"{vid}: the long text of {name} is missing")
            _set(raw, name, long[name])
    except (TypeError, AttributeError) as exc:  # a field that is a text and has parts as well
        raise UnreadableError(f"{vid}: its pairs contradict each other") from exc
    return raw["kind"], msgspec.json.encode(raw)


def decoded(vid: str, pairs: Sequence[Pair], long: Mapping[str, Any] | None = None) -> Object:
    """The object that these pairs are. Raises UnreadableError for what is none."""
    _, line = from_pairs(vid, pairs, long)
    try:
        return codec.decode_stored(line)
    except msgspec.MsgspecError as exc:
        raise UnreadableError(f"{vid} can't be read back from OMERO: {exc}") from exc


def field_of(name: str) -> str:
    """The field whose value, or one of whose members, a pair of this name holds."""
    return name.partition(":")[0].partition(".")[0]


def long_names(pairs: Iterable[Pair]) -> Collection[str]:
    """The fields whose text stands in the companion."""
    return next((value.split() for name, value in pairs if name == LONG), ())


def _value(vid: str, name: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as exc:
        raise UnreadableError(f"{vid}: {name} is no JSON; somebody changed it") from exc


def _set(raw: dict[str, Any], name: str, value: Any) -> None:
    base, dot, inner = name.partition(".")
    if dot:
        raw.setdefault(base, {})[inner] = value
    else:
        raw[name] = value


def _are_members(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(member, dict)
            and member.keys() == _MEMBER
            and all(isinstance(part, str) for part in member.values())
            for member in value
        )
    )


def _too_long(text: str) -> bool:
    return len(text) > MAX_PAIR_BYTES or len(text.encode()) > MAX_PAIR_BYTES


class _Optional(NamedTuple):
    """A field that is None or empty where nothing is said; of a part, its fields that are None."""

    inner: frozenset[str] | None


@functools.cache
def _optional(kind: str) -> Mapping[str, _Optional]:
    """The fields of a kind that need no pair when they are None or an empty list."""
    cls = kinds().get(kind)
    if cls is None:
        return {}
    found = {}
    for field in msgspec.structs.fields(cls):
        if field.default in (None, ()):
            found[field.encode_name] = _Optional(_inner(field.type))
    return found


def _inner(hint: Any) -> frozenset[str] | None:
    for option in getattr(hint, "__args__", (hint,)):
        if isinstance(option, type) and issubclass(option, msgspec.Struct):
            return frozenset(
                field.encode_name
                for field in msgspec.structs.fields(option)
                if field.default is None
            )
    return None
