"""What other programs did to our annotations: found by comparing them with the log, and mended.

OMERO lets anybody with the rights edit and delete annotations, and logs no change of pairs alone.
So the log notes a checksum of each object's content, and the two are compared here, all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from biobank_core.catalog.checks import State, Write, prepare
from biobank_core.catalog.omero import mapping
from biobank_core.catalog.omero.commit import Writer
from biobank_core.catalog.omero.log import Change, Log
from biobank_core.catalog.omero.names import (
    OBJECT,
    PAGE,
    TOMBSTONE,
    parse_description,
    version_name,
)
from biobank_core.catalog.omero.rows import Found, Full, Rows, Scope
from biobank_core.catalog.omero.session import pages
from biobank_core.catalog.one import unique_keys
from biobank_core.catalog.port import Drift, Save
from biobank_core.errors import BiobankError, StorageError
from biobank_core.model import codec
from biobank_core.model.base import Object
from biobank_core.model.ids import is_vid
from biobank_core.model.kinds import Tombstone

# Others may save between a look at the log and one at the annotations; then it is looked again.
_LOOKS: Final = 4

WriterOf = Callable[[Log], Writer]
# A VID and the id of a group.
Key = tuple[str, int]


class Place(NamedTuple):
    """The last that a log says of an object."""

    log: Log
    change: Change
    unit: str


class Held(NamedTuple):
    """An annotation that looks like an object of ours."""

    full: Full
    group: int
    owner: int
    checksum: str


class Reconciler:
    """Compares the annotations of these logs' groups with the logs.

    An object has a place of its own in each group that holds it.
    """

    def __init__(self, scope: Scope, logs: Sequence[Log], writer_of: WriterOf) -> None:
        self._scope = scope
        self._logs = logs
        self._writer_of = writer_of

    def run(self, *, repair: bool) -> Iterator[Drift]:
        """Each object that is not as the log says, sorted by VID; with `repair` mended."""
        places = self._places()
        suspects = set(places)
        for page in pages(self._listed(), PAGE):
            for held in self._held(page):
                key = (held.full.name, held.group)
                if _agrees(places.get(key), held):
                    suspects.discard(key)
                else:
                    suspects.add(key)
        for keys in pages(sorted(suspects), PAGE):
            yield from self._confirmed(keys, repair=repair)

    def _confirmed(self, keys: Sequence[Key], *, repair: bool) -> Iterator[Drift]:
        wrong: dict[Key, tuple[Place | None, list[Held]]] = {}
        for _ in range(_LOOKS):
            before = self._heads()
            places = self._places()
            held: dict[Key, list[Held]] = {}
            for one in self._held(self._ids_of([vid for vid, _ in keys])):
                held.setdefault((one.full.name, one.group), []).append(one)
            wrong = {
                key: (places.get(key), held.get(key, []))
                for key in keys
                if not _fine(places.get(key), held.get(key, []))
            }
            if self._heads() == before:
                break
        for (vid, _), (place, found) in wrong.items():
            yield self._told(vid, place, found, repair=repair)

    def _told(self, vid: str, place: Place | None, found: list[Held], *, repair: bool) -> Drift:
        kind = place.change.kind if place else _state(found[0]).kind
        what = _what(place, found)
        if not found and any(held.full.name == vid for held in self._held(self._ids_of([vid]))):
            # Two versions of it side by side would be worse than a finding that stays.
            return Drift(vid, kind, "it was moved to another group of OMERO; move it back there")
        if not repair:
            return Drift(vid, kind, what)
        return Drift(vid, kind, f"{what}; {self._mended(vid, place, found)}")

    def _mended(self, vid: str, place: Place | None, found: list[Held]) -> str:
        log = place.log if place else self._log_of(found[0])
        if len(found) > 1:
            self._remove_copies(place, found)
            found = [one for one in found if _agrees(place, one)] or found[:1]
            if _fine(place, found):
                return "the copies were removed"
        version = max([place.change.version if place else 0, *(_version(one) for one in found)])
        if found:
            one = found[0]
            taken = self._object(one)
            deleted = place is not None and place.change.deleted
            if taken is not None and not deleted and self._take(log, place, one, taken, version):
                return "taken over as a new version"
        older = self._former(vid, version)
        current = found[0] if found else None
        if older is not None and not (place and place.change.deleted):
            self._force(log, older, version, current)
            return "its former version was put back"
        kind = place.change.kind if place else _state(found[0]).kind
        stone = Tombstone(vid=vid, of=kind, time=datetime.now(UTC))
        self._force(log, stone, version, current)
        return "a tombstone stands for it"

    def _take(self, log: Log, place: Place | None, held: Held, obj: Object, version: int) -> bool:
        """Save what somebody made of it as a new version, if the catalog can take it."""
        kind = place.change.kind if place else obj.kind
        if obj.kind != kind:
            return False
        try:
            unit = prepare([Save(object=obj, based_on=version)])
            if place is not None and _intact(held, place):
                self._writer_of(log).commit(unit)
            else:
                self._force(log, obj, version, held)
        except BiobankError:
            return False
        return True

    def _force(self, log: Log, obj: Object, version: int, held: Held | None) -> None:
        def plan(rows: Rows) -> list[Write]:
            state = None
            if held is not None:
                full = held.full
                state = State(_state(held).kind, version, isinstance(obj, Tombstone))
                rows.put(Found(full.id, obj.vid, full.ns, version, "", held.group, held.owner))
            keys = () if isinstance(obj, Tombstone) else unique_keys(obj)
            return [Write(obj, version + 1, codec.encode(obj), (), keys, state)]

        self._writer_of(log).force(plan)

    def _former(self, vid: str, version: int) -> Object | None:
        """The newest older version whose content is still there."""
        names = [version_name(vid, number) for number in range(version, 0, -1)]
        fulls = self._scope.full(names)
        texts = self._scope.texts(
            name for name, one in fulls.items() if mapping.long_names(one.pairs)
        )
        for name in names:
            one = fulls.get(name)
            if one is None or any(pair[0] == mapping.DELETED for pair in one.pairs):
                continue
            try:
                found = mapping.decoded(vid, one.pairs, texts.get(name))
            except StorageError:
                continue
            if not isinstance(found, Tombstone):
                return found
        return None

    def _object(self, held: Held) -> Object | None:
        """The object that an annotation holds now; None when it holds none any more."""
        name = held.full.name
        try:
            long = {}
            if mapping.long_names(held.full.pairs):
                text = version_name(name, _version(held))
                long = self._scope.texts([text]).get(text, {})
            found = mapping.decoded(name, held.full.pairs, long)
        except StorageError:
            return None
        return None if isinstance(found, Tombstone) else found

    def _remove_copies(self, place: Place | None, found: list[Held]) -> None:
        right = next((one for one in found if _agrees(place, one)), found[0])
        ids = [one.full.id for one in found if one is not right]
        self._scope.session.delete({"Annotation": ids}, group=right.group)

    def _log_of(self, held: Held) -> Log:
        same = [log for log in self._logs if log.group == held.group]
        return next((log for log in same if log.owner == held.owner), (same or self._logs)[0])

    def _heads(self) -> list[int]:
        return [log.head().number for log in self._logs]

    def _places(self) -> dict[Key, Place]:
        known: dict[Key, Place] = {}
        for log in self._logs:
            for part in (*log.older, log):
                for commit in part.following(0):
                    for change in commit.unit.changes:
                        known[change.vid, log.group] = Place(log, change, commit.name)
        return known

    def _listed(self) -> list[int]:
        rows = self._scope.rows(
            "select a.id from MapAnnotation a",
            "(a.ns like :ours or a.ns like :gone)",
            ours=f"{OBJECT}%",
            gone=f"{TOMBSTONE}%",
        )
        return [number for (number,) in rows]

    def _ids_of(self, vids: Collection[str]) -> list[int]:
        rows = self._scope.rows(
            "select a.id from MapAnnotation a", "a.name in (:names)", names=list(vids)
        )
        return [number for (number,) in rows]

    def _held(self, ids: Sequence[int]) -> Iterator[Held]:
        if not ids:
            return
        fulls = self._scope.full_by_id(ids)
        owners = {
            row[0]: (row[1], row[2])
            for row in self._scope.rows(
                "select a.id, a.details.group.id, a.details.owner.id from MapAnnotation a",
                "a.id in (:ids)",
                ids=list(ids),
            )
        }
        named = {
            one.id: version_name(one.name, version)
            for one in fulls.values()
            if mapping.long_names(one.pairs) and (version := _version_in(one)) is not None
        }
        texts = self._scope.texts(named.values()) if named else {}
        for number, one in fulls.items():
            if number in owners and one.ns.startswith((OBJECT, TOMBSTONE)) and is_vid(one.name):
                long: Mapping[str, Any] = texts.get(named.get(number, ""), {})
                yield Held(one, *owners[number], mapping.checksum(one.pairs, long))


def _agrees(place: Place | None, held: Held) -> bool:
    """Whether an annotation is what the log says of its object."""
    if place is None:
        return False
    return _intact(held, place) and held.checksum == place.change.checksum


def _intact(held: Held, place: Place) -> bool:
    """Whether its namespace and description are those of the log, whatever its pairs."""
    prefix = TOMBSTONE if place.change.deleted else OBJECT
    return held.full.ns == f"{prefix}{place.change.kind}" and parse_description(
        held.full.description
    ) == (place.change.version, place.unit)


def _fine(place: Place | None, found: Sequence[Held]) -> bool:
    if place is None:
        return not found
    return len(found) == 1 and _agrees(place, found[0])


def _what(place: Place | None, found: Sequence[Held]) -> str:
    if not found:
        return "its annotation was deleted in OMERO by another program"
    if len(found) > 1:
        ids = ", ".join(str(one.full.id) for one in found)
        return f"it stands in OMERO more than once (annotations {ids})"
    number = found[0].full.id
    if place is None or _version(found[0]) > place.change.version:
        return f"the commit that wrote annotation {number} is gone from the log"
    return f"annotation {number} was changed in OMERO by another program"


def _state(held: Held) -> State:
    ns = held.full.ns
    deleted = ns.startswith(TOMBSTONE)
    return State(ns[len(TOMBSTONE if deleted else OBJECT) :], _version(held), deleted)


def _version(held: Held) -> int:
    return _version_in(held.full) or 0


def _version_in(full: Full) -> int | None:
    parsed = parse_description(full.description)
    return parsed[0] if parsed else None
