"""From what is asked for to single pieces of data, each with the identifiers that lead to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from biobank_core import addressing
from biobank_core.catalog.port import Catalog
from biobank_core.errors import InputError, NotFoundError
from biobank_core.fetch.names import is_extension
from biobank_core.model.base import Object
from biobank_core.model.kinds import DataCollection, DataObject, DataSample, Tombstone

# Galaxy nests two or three deep; a catalog from a file could hold anything.
MAX_DEPTH: Final = 50
_KINDS: Final = ("DataSample", "DataCollection", "DataObject")


@dataclass(frozen=True, slots=True)
class Request:
    """One address, and what to call it (None: by its label)."""

    address: str
    identifiers: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A piece of data: its VID, the identifiers that lead to it, the files that hold it.

    `identifiers` are those of the collections around it, outermost first, and its own.
    """

    vid: str
    identifiers: tuple[str, ...]
    extension: str | None
    files: tuple[DataObject, ...]


def wanted(catalog: Catalog, requests: Sequence[Request]) -> list[Wanted]:
    """The pieces of data of all requests, in order; what is asked for twice comes once.

    A DataObject stands for its data, in that one file; a collection for its members, nested ones
    too. Raises NotFoundError, AmbiguousError, InputError (no data).
    """
    leaves: dict[tuple[tuple[str, ...], str], str | None] = {}
    for request in requests:
        found = addressing.resolve(catalog, request.address, kinds=_KINDS).object
        for names, vid, file in _leaves(catalog, found, request.identifiers):
            leaves.setdefault((names, vid), file)
    samples = catalog.get({vid for _, vid in leaves})
    files: dict[str, list[str]] = defaultdict(list)
    for referrer in catalog.referring(samples, kinds=("DataObject",)):
        files[referrer.target].append(referrer.vid)
    held = catalog.get({vid for vids in files.values() for vid in vids})
    result = []
    for (names, vid), only in leaves.items():
        known = samples.get(vid)
        sample = known.object if known else None
        if not isinstance(sample, DataSample):
            gone = isinstance(sample, Tombstone)
            why = "has been deleted" if gone else "is unknown or may not be read"
            raise NotFoundError(f"{vid} {why}")
        objects = [held[file].object for file in sorted(files[vid]) if only is None or file == only]
        copies = tuple(obj for obj in objects if isinstance(obj, DataObject))
        result.append(
            Wanted(
                vid=vid,
                identifiers=names or (sample.label,),
                extension=_extension(sample, copies),
                # Those that can be verified come first.
                files=tuple(sorted(copies, key=lambda copy: (copy.sha256 is None, copy.vid))),
            )
        )
    return result


def _leaves(
    catalog: Catalog, obj: Object, names: tuple[str, ...] | None
) -> Iterator[tuple[tuple[str, ...], str, str | None]]:
    """(identifiers, VID of the data, VID of the file if only that one is wanted)."""
    match obj:
        case DataObject():
            yield names or (), obj.sample, obj.vid
        case DataCollection():
            for path, vid in _members(catalog, obj, names or (obj.label,)):
                yield path, vid, None
        case _:
            yield names or (), obj.vid, None


def _members(
    catalog: Catalog, collection: DataCollection, names: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str]]:
    if len(names) > MAX_DEPTH:
        raise InputError(f"{collection.vid} holds collections more than {MAX_DEPTH} deep")
    members = catalog.get(item.object for item in collection.items)
    for item in collection.items:
        member = members.get(item.object)
        inside = (*names, item.role)
        if member is not None and isinstance(member.object, DataCollection):
            yield from _members(catalog, member.object, inside)
        else:
            yield inside, item.object


def _extension(sample: DataSample, files: Iterable[DataObject]) -> str | None:
    """Galaxy's own word for the datatype, else what the file is called where it lies."""
    if sample.galaxy is not None and sample.galaxy.extension:
        return sample.galaxy.extension
    for file in files:
        name = PurePosixPath(unquote(urlsplit(file.uri).path)).name
        stem, dot, extension = name.partition(".")
        for text in (extension, extension.rpartition(".")[2]):
            if stem and dot and is_extension(text):
                return text
    return None
