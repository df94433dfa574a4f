"""A unit as annotations: what the checks decided, former versions, texts, and its commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from omero.model import MapAnnotationI, NamedValue, XmlAnnotationI
from omero.rtypes import rstring

from biobank_core.catalog.checks import Write
from biobank_core.catalog.omero import mapping
from biobank_core.catalog.omero.names import (
    HISTORY,
    KIND,
    MAX_UNIT,
    OBJECT,
    PAGE,
    TEXT,
    TOMBSTONE,
    describe,
    kind_line,
    parse_description,
    version_name,
)
from biobank_core.catalog.omero.routing import Copy
from biobank_core.catalog.omero.rows import Found, Full, Scope
from biobank_core.catalog.omero.session import pages
from biobank_core.errors import InputError

# Kinds whose former content nobody will ask for; a recorder saves its cursor with every unit.
_WITHOUT_FORMER_CONTENT: Final = frozenset({"Cursor"})


class Former(NamedTuple):
    """What a unit replaces: annotations of objects with their pairs, and what a delete empties."""

    objects: Mapping[str, Full]
    versions: Mapping[str, Full]
    texts: Mapping[str, int]


def read_former(scope: Scope, writes: Sequence[Write], found: Mapping[str, Found]) -> Former:
    """What the unit replaces; nothing is asked for where all is new."""
    old = [found[write.object.vid] for write in writes if write.object.vid in found]
    by_id = scope.full_by_id([one.id for one in old])
    objects = {one.vid: by_id[one.id] for one in old if one.id in by_id}
    gone = [write for write in writes if write.deleted]
    if not gone:
        return Former(objects, {}, {})
    names = [
        version_name(write.object.vid, version)
        for write in gone
        for version in range(1, write.version)
    ]
    versions: dict[str, Full] = {}
    if any(write.version > 2 for write in gone):
        versions = scope.full(names)
    texts: dict[str, int] = {}
    for page in pages(names, PAGE):
        rows = scope.rows(
            "select a.name, a.id from XmlAnnotation a",
            "a.ns = :ns and a.name in (:names)",
            ns=TEXT,
            names=list(page),
        )
        texts.update((name, number) for name, number in rows)
    return Former(objects, versions, texts)


def as_annotations(
    writes: Sequence[tuple[Write, mapping.Mapped]],
    former: Former,
    copies: Iterable[Copy],
    *,
    unit: str,
    new_kinds: Iterable[str],
) -> list[Any]:
    """The annotations of a unit, its commit left out. Raises InputError when they are too many."""
    items: list[Any] = []
    for write, mapped in writes:
        items.extend(_of_write(write, mapped, former, unit))
    for copy in copies:
        items.extend(_of_copy(copy, unit))
    items.extend(_kind(kind) for kind in new_kinds)
    if len(items) >= MAX_UNIT:
        raise InputError(
            f"one unit would be {len(items) + 1} annotations in OMERO; at most {MAX_UNIT} are "
            "saved at once: save it in parts"
        )
    return items


def _of_write(write: Write, mapped: mapping.Mapped, former: Former, unit: str) -> Iterable[Any]:
    vid = write.object.vid
    before = former.objects.get(vid)
    yield _map(
        before.id if before else None,
        ns=f"{TOMBSTONE if write.deleted else OBJECT}{write.kind}",
        name=vid,
        description=describe(write.version, unit),
        pairs=mapped.pairs,
    )
    if mapped.long:
        yield _text(None, version_name(vid, write.version), mapped.long)
    if before is not None and write.kind not in _WITHOUT_FORMER_CONTENT:
        yield _map(
            None,
            ns=HISTORY,
            name=version_name(vid, _version(before, write)),
            description=before.description,
            pairs=_emptied(before) if write.deleted else before.pairs,
        )
    if write.deleted:
        # What is deleted leaves nothing personal behind, in no version.
        for version in range(1, write.version):
            name = version_name(vid, version)
            older = former.versions.get(name)
            if older is not None:
                yield _map(
                    older.id,
                    ns=HISTORY,
                    name=name,
                    description=older.description,
                    pairs=_emptied(older),
                )
            if name in former.texts:
                yield _text(former.texts[name], name, {})


def _of_copy(copy: Copy, unit: str) -> Iterable[Any]:
    yield _map(
        copy.id,
        ns=copy.full.ns,
        name=copy.found.vid,
        description=describe(copy.found.version, unit),
        pairs=copy.full.pairs,
    )
    if copy.long:
        yield _text(None, version_name(copy.found.vid, copy.found.version), copy.long)


def _version(before: Full, write: Write) -> int:
    """The version that is replaced: of a copy that lay idle an older one than the newest."""
    parsed = parse_description(before.description)
    return parsed[0] if parsed else write.version - 1


def _emptied(full: Full) -> list[mapping.Pair]:
    kept = [pair for pair in full.pairs if pair[0] == mapping.KIND]
    if kept == [(mapping.KIND, "Tombstone")]:
        return full.pairs
    return [*kept, (mapping.DELETED, "true")]


def _map(
    number: int | None, *, ns: str, name: str, description: str, pairs: Iterable[mapping.Pair]
) -> Any:
    # Saved with its id and without details: OMERO takes it as it is, and keeps owner and group.
    item = MapAnnotationI() if number is None else MapAnnotationI(number, True)
    item.ns = rstring(ns)
    item.name = rstring(name)
    item.description = rstring(description)
    item.mapValue = [NamedValue(key, value) for key, value in pairs]
    return item


def _text(number: int | None, name: str, long: Mapping[str, Any]) -> Any:
    item = XmlAnnotationI() if number is None else XmlAnnotationI(number, True)
    item.ns = rstring(TEXT)
    item.name = rstring(name)
    item.description = rstring("" if long else "emptied")
    item.textValue = rstring(msgspec.json.encode(long).decode())
    return item


def _kind(kind: str) -> Any:
    return _map(None, ns=KIND, name=kind, description=kind_line(kind), pairs=[])
