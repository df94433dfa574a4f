"""What another program did to an object is mended, by new units of the log.

An edit is taken over where it is a valid object; else the newest former version is put back; else a
tombstone stands. What an administrator moved is saved in the group where it is now, and leaves the
one where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from biobank_core.catalog.checks import State, Write, prepare
from biobank_core.catalog.omero import mapping
from biobank_core.catalog.omero.commit import Writer
from biobank_core.catalog.omero.held import Held, fine
from biobank_core.catalog.omero.log import Log
from biobank_core.catalog.omero.names import version_name
from biobank_core.catalog.omero.places import Key, Place, Places
from biobank_core.catalog.omero.routing import is_shared
from biobank_core.catalog.omero.rows import Found, Rows, Scope
from biobank_core.catalog.one import unique_keys
from biobank_core.catalog.port import Save
from biobank_core.errors import BiobankError, StorageError
from biobank_core.model import codec
from biobank_core.model.base import Object
from biobank_core.model.kinds import Tombstone

WriterOf = Callable[[Log], Writer]


class CantMend(Exception):
    """Why an object was left as it is."""


class Wrong(NamedTuple):
    """An object that is not in its group as the log says: the log's word, and what is there.

    `elsewhere` are its living annotations in other groups that are read, `unread` the groups that
    are not read and hold it.
    """

    key: Key
    place: Place | None
    found: list[Held]
    elsewhere: list[Held]
    unread: list[int]

    @property
    def kind(self) -> str:
        return self.place.change.kind if self.place else self.found[0].state.kind

    @property
    def deleted(self) -> bool:
        """Whether the log says that it is."""
        return self.place is not None and self.place.change.deleted

    @property
    def moved_to(self) -> list[int]:
        """The groups where an object that stands in one alone stands now, if not in this one."""
        if self.found or self.deleted or is_shared(self.kind):
            return []
        return [held.group for held in self.elsewhere]


class Mender:
    """Mends what is wrong, one object in one group at a time; `places` knows these objects."""

    def __init__(
        self, scope: Scope, logs: Sequence[Log], places: Places, writer_of: WriterOf
    ) -> None:
        self._scope = scope
        self._logs = logs
        self._places = places
        self._writer_of = writer_of

    def came_from_elsewhere(self, one: Wrong) -> bool:
        """Whether what stands here is known to the log of another group, and not to this one's."""
        return one.place is None and bool(self._places.of([one.key[0]]))

    def mend(self, one: Wrong) -> str:
        """What was done. Raises CantMend."""
        vid, group = one.key
        if group not in {log.group for log in self._logs}:
            raise CantMend("the group holds no catalog")
        log = one.place.log if one.place else self._log_of(one.found[0])
        found = one.found
        if len(found) > 1:
            self._remove_copies(one)
            found = [held for held in found if held.agrees(one.place)] or found[:1]
            if fine(one.place, found):
                return "the copies were removed"
        if found and self.came_from_elsewhere(one):
            if not is_shared(one.kind) and any(map(self._right, one.elsewhere)):
                self._scope.session.delete({"Annotation": [found[0].full.id]}, group=group)
                return "the copy was removed"
            return self._arrived(one, log, found[0])
        if one.moved_to:
            return self._left(one, log, one.moved_to[0])
        version = max(
            [one.place.change.version if one.place else 0, *(held.version for held in found)]
        )
        if one.deleted and not found:
            # As it was: where it left for another group, what lives there has to stay the newer.
            self._force(one, log, self._stone(one), version - 1, None)
            return "its tombstone was put back"
        if found:
            taken = self._object(found[0])
            if taken is not None and not one.deleted and self._take(log, one, taken, version):
                return "taken over as a new version"
        current = found[0] if found else None
        if not one.deleted:
            copy = self._object(one.elsewhere[0]) if one.elsewhere and not found else None
            if copy is not None:
                self._force(one, log, copy, max(version, one.elsewhere[0].version), None)
                return "it was copied from another group"
            older = self._former(vid, version)
            if older is not None:
                self._force(one, log, older, version, current)
                return "its former version was put back"
        self._force(one, log, self._stone(one), version, current)
        return "a tombstone stands for it"

    def _right(self, held: Held) -> bool:
        """Whether it stands where it does as that group's log says."""
        return held.agrees(self._places.known.get((held.full.name, held.group)))

    @staticmethod
    def _stone(one: Wrong) -> Tombstone:
        return Tombstone(vid=one.key[0], of=one.kind, time=datetime.now(UTC))

    def _arrived(self, one: Wrong, log: Log, held: Held) -> str:
        vid = held.full.name
        known = self._places.of([vid]).values()
        version = max([held.version, *(place.change.version for place in known)])
        obj = self._object(held)
        if obj is None or obj.kind != held.state.kind:
            raise CantMend("it is no valid object any more")
        # Two more, so that the tombstone that it leaves behind is never the newer one.
        self._force(one, log, obj, version + 1, held)
        return "it was saved there"

    def _left(self, one: Wrong, log: Log, group: int) -> str:
        vid = one.key[0]
        self._places.read()
        there = self._places.known.get((vid, group))
        assert one.place is not None  # something is missing because the log says that it was there
        version = one.place.change.version
        if there is None or there.change.version <= version + 1:
            raise CantMend("it could not be saved there")
        self._force(one, log, self._stone(one), version, None)
        return "it left this group"

    def _take(self, log: Log, one: Wrong, obj: Object, version: int) -> bool:
        """Save what somebody made of it as a new version, if the catalog can take it."""
        held = one.found[0]
        if obj.kind != one.kind:
            return False
        try:
            unit = prepare([Save(object=obj, based_on=version)])
            if one.place is not None and held.intact(one.place):
                self._writer_of(log).commit(unit)
            else:
                self._force(one, log, obj, version, held)
        except BiobankError:
            return False
        return True

    def _force(self, one: Wrong, log: Log, obj: Object, version: int, held: Held | None) -> None:
        def plan(rows: Rows) -> list[Write]:
            self._places.read()
            if self._places.known.get(one.key) != one.place:
                raise CantMend("it was saved meanwhile")
            state = None
            if held is not None:
                full = held.full
                state = State(held.state.kind, version, isinstance(obj, Tombstone))
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
                text = version_name(name, held.version)
                long = self._scope.texts([text]).get(text, {})
            found = mapping.decoded(name, held.full.pairs, long)
        except StorageError:
            return None
        return None if isinstance(found, Tombstone) else found

    def _remove_copies(self, one: Wrong) -> None:
        right = next((held for held in one.found if held.agrees(one.place)), one.found[0])
        ids = [held.full.id for held in one.found if held is not right]
        self._scope.session.delete({"Annotation": ids}, group=right.group)

    def _log_of(self, held: Held) -> Log:
        same = [log for log in self._logs if log.group == held.group]
        return next((log for log in same if log.owner == held.owner), same[0])
