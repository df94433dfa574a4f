"""Annotations that look like objects of ours, and whether they are what the log says."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from biobank_core.catalog.checks import State
from biobank_core.catalog.omero import mapping
from biobank_core.catalog.omero.names import (
    OBJECT,
    PAGE,
    TOMBSTONE,
    parse_description,
    version_name,
)
from biobank_core.catalog.omero.places import Place
from biobank_core.catalog.omero.rows import Full, Scope
from biobank_core.catalog.omero.session import pages
from biobank_core.model.ids import is_vid


class Held(NamedTuple):
    """An annotation that looks like an object of ours. `group` and `owner` are ids."""

    full: Full
    group: int
    owner: int
    checksum: str

    @property
    def state(self) -> State:
        """What its namespace and description say."""
        ns = self.full.ns
        deleted = ns.startswith(TOMBSTONE)
        return State(ns[len(TOMBSTONE if deleted else OBJECT) :], self.version, deleted)

    @property
    def version(self) -> int:
        """The version that its description names; 0 where somebody changed that."""
        return version_in(self.full) or 0

    def written_as(self, place: Place) -> bool:
        """Whether its description is what that commit wrote."""
        return parse_description(self.full.description) == (place.change.version, place.unit)

    def intact(self, place: Place) -> bool:
        """Whether its namespace and description are those of the log, whatever its pairs."""
        prefix = TOMBSTONE if place.change.deleted else OBJECT
        return self.full.ns == f"{prefix}{place.change.kind}" and self.written_as(place)

    def agrees(self, place: Place | None) -> bool:
        """Whether it is what the log says of its object."""
        return place is not None and self.intact(place) and self.checksum == place.change.checksum


def fine(place: Place | None, found: Sequence[Held]) -> bool:
    """Whether an object is in its group what the log says, once; or not there, and unknown."""
    if place is None:
        return not found
    return len(found) == 1 and found[0].agrees(place)


def version_in(full: Full) -> int | None:
    """The version that an annotation's description names."""
    parsed = parse_description(full.description)
    return parsed[0] if parsed else None


def listed(scope: Scope) -> list[tuple[int, str]]:
    """(id, VID) of all annotations of objects and tombstones."""
    rows = scope.rows(
        "select a.id, a.name from MapAnnotation a",
        "(a.ns like :ours or a.ns like :gone)",
        ours=f"{OBJECT}%",
        gone=f"{TOMBSTONE}%",
    )
    return [(number, name) for number, name in rows]


def held_as(scope: Scope, vids: Collection[str]) -> Iterator[Held]:
    """The annotations of these objects, in all groups of the scope."""
    for page in pages(list(vids), PAGE):
        rows = scope.rows(
            "select a.id from MapAnnotation a", "a.name in (:names)", names=list(page)
        )
        yield from held_by_id(scope, [number for (number,) in rows])


def held_by_id(scope: Scope, ids: Sequence[int]) -> Iterator[Held]:
    """Those of these ids that look like objects of ours; at most a page of them."""
    if not ids:
        return
    fulls = scope.full_by_id(ids)
    owners = {
        row[0]: (row[1], row[2])
        for row in scope.rows(
            "select a.id, a.details.group.id, a.details.owner.id from MapAnnotation a",
            "a.id in (:ids)",
            ids=list(ids),
        )
    }
    named = {
        one.id: version_name(one.name, version)
        for one in fulls.values()
        if mapping.long_names(one.pairs) and (version := version_in(one)) is not None
    }
    texts = scope.texts(named.values()) if named else {}
    for number, one in fulls.items():
        if number in owners and one.ns.startswith((OBJECT, TOMBSTONE)) and is_vid(one.name):
            long: Mapping[str, Any] = texts.get(named.get(number, ""), {})
            yield Held(one, *owners[number], mapping.checksum(one.pairs, long))
