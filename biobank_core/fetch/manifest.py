"""What was fetched, a JSON object a line: the lineage of the files, for who uses them next."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from biobank_core.errors import InputError
from biobank_core.model.base import Sha256
from biobank_core.model.ids import Vid

# A line holds a path of identifiers; a million lines are some 500 MB. More is no manifest.
MAX_MANIFEST_BYTES: Final = 1 << 30
MANIFEST_NAME: Final = "manifest.jsonl"

# How sure we are of the content: the hash, only the size, or nothing was known beforehand.
Verified = Literal["sha256", "size", "no"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One file. `vid` is the data's, `object` the DataObject's that was read.

    `identifiers`: those of the collections around it, outermost first, and its own. `element`:
    what it is called in the Galaxy collection that was made of it, null where none was.
    """

    vid: Vid
    object: Vid
    identifiers: tuple[str, ...]
    path: str
    sha256: Sha256
    size_bytes: Annotated[int, msgspec.Meta(ge=0)]
    extension: str | None
    verified: Verified
    element: str | None = None


_DECODER: Final = msgspec.json.Decoder(Entry)


def text(entries: Iterable[Entry]) -> bytes:
    """The entries, one a line."""
    return b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)


def append(path: Path, entry: Entry) -> None:
    """Add an entry to a manifest, which is made if it is missing."""
    with path.open("ab") as stream:
        stream.write(text([entry]))


def parse(data: bytes, *, name: str) -> list[Entry]:
    """The entries of a manifest. Raises InputError that names the line."""
    entries = []
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entries.append(_DECODER.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise InputError(f"is no line of a manifest: {exc}", file=name, line=number) from exc
    return entries


def standing(path: Path) -> list[Entry]:
    """The entries of a manifest that a former run left; a half-written line is cut off."""
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise InputError("is too large for a manifest", file=str(path))
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        # Else the next entry would be written to its end.
        os.truncate(path, len(whole))
    return parse(whole, name=str(path))
