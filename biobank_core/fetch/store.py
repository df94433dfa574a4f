"""Files behind data, put into the catalog itself: one more replica each, verified on its way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from biobank_core.catalog.port import Catalog, ContentStore, Save, Stored
from biobank_core.errors import BiobankError, NotFoundError, StaleVersionError
from biobank_core.fetch.fetch import verified_as
from biobank_core.fetch.manifest import Verified
from biobank_core.fetch.sources import Content, Sources
from biobank_core.fetch.wanted import Wanted
from biobank_core.model.ids import derived_vid
from biobank_core.model.kinds import DataObject, Tombstone


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that the catalog keeps. `new` is false for one that it kept already."""

    identifiers: tuple[str, ...]
    file: DataObject
    verified: Verified
    new: bool


@dataclass(slots=True)
class Outcome:
    """The files that are kept now, in the order asked for; by VID of data why others are not."""

    files: list[Kept] = field(default_factory=list)
    failed: dict[str, BiobankError] = field(default_factory=dict)


def store(
    catalog: Catalog,
    content: ContentStore,
    items: Sequence[Wanted],
    *,
    sources: Sources,
    by: str,
    advance: Callable[[float], object] = lambda _bytes: None,
) -> Outcome:
    """Keep all of it; `advance` is told of bytes.

    Data of which a file is kept already are left as they are.
    What comes and is not what the catalog says (SHA-256, size) is taken back. What fails for one
    does not stop the others, unless a server is gone (UnreachableError).
    """
    outcome = Outcome()
    for item in items:
        kept = next((file for file in item.files if file.vid == _vid_of(item)), None)
        if kept is not None:
            outcome.files.append(Kept(item.identifiers, kept, _known(kept), new=False))
            continue
        try:
            outcome.files.append(
                _one(catalog, content, item, sources=sources, by=by, advance=advance)
            )
        except BiobankError as exc:
            if exc.retryable:
                raise
            outcome.failed.setdefault(item.vid, exc)
    return outcome


def _one(
    catalog: Catalog,
    content: ContentStore,
    item: Wanted,
    *,
    sources: Sources,
    by: str,
    advance: Callable[[float], object],
) -> Kept:
    if not item.files:
        raise NotFoundError(f"{item.vid}: the catalog knows no file of it")
    vid = _vid_of(item)
    error: BiobankError | None = None
    for file in item.files:
        try:
            with sources.of(file).open(file) as source:
                stored, verified = _put(content, item, file, source, vid=vid, advance=advance)
        except BiobankError as exc:
            # Another replica may be whole; the first reason is the one to tell.
            error = error or exc
            continue
        made = DataObject(
            vid=vid,
            sample=item.vid,
            uri=stored.uri,
            size_bytes=stored.size_bytes,
            mimetype=file.mimetype,
            sha256=stored.sha256,
        )
        standing = _saved(catalog, content, made, stored, by=by)
        return Kept(item.identifiers, standing, verified, new=standing is made)
    assert error is not None
    raise error


def _put(
    content: ContentStore,
    item: Wanted,
    file: DataObject,
    source: Content,
    *,
    vid: str,
    advance: Callable[[float], object],
) -> tuple[Stored, Verified]:
    stored = content.put(
        vid,
        beside=item.vid,
        name=_name(item),
        mimetype=file.mimetype,
        chunks=source.chunks,
        advance=advance,
    )
    try:
        verified = verified_as(file, source, sha256=stored.sha256, size=stored.size_bytes)
    except BiobankError:
        content.remove(stored, vid)
        raise
    return stored, verified


def _saved(
    catalog: Catalog, content: ContentStore, made: DataObject, stored: Stored, *, by: str
) -> DataObject:
    """The object as it stands: ours, or that of another program that was quicker."""
    try:
        known = catalog.get([made.vid]).get(made.vid)
        if known is None or isinstance(known.object, Tombstone):
            based_on = known.version if known else 0
            catalog.commit([Save(object=made, based_on=based_on)], by=by)
            return made
    except StaleVersionError:
        known = catalog.get([made.vid]).get(made.vid)
    except BiobankError:
        content.remove(stored, made.vid)
        raise
    content.remove(stored, made.vid)
    if known is None or not isinstance(known.object, DataObject):
        raise NotFoundError(f"{made.vid} was deleted while it was stored; try again")
    return known.object


def _name(item: Wanted) -> str:
    """What OMERO shows: the identifiers that lead to the data, and its extension."""
    name = " / ".join(item.identifiers)
    ending = f".{item.extension}" if item.extension else ""
    return name if name.endswith(ending) else f"{name}{ending}"


def _vid_of(item: Wanted) -> str:
    """Of the file that is kept: the same whoever keeps it, so that of two at once one is told."""
    return derived_vid("DataObject", "kept", item.vid)


def _known(file: DataObject) -> Verified:
    return "sha256" if file.sha256 is not None else "no"
