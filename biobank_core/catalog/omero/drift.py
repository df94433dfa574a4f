"""What other programs did to our annotations: found by comparing them with the log.

OMERO lets anybody with the rights edit, delete and move annotations, and logs no change of pairs
alone. So our log notes a checksum of each object's content, and the two are compared here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from biobank_core.catalog.omero.held import Held, fine, held_as, held_by_id, listed
from biobank_core.catalog.omero.log import Log
from biobank_core.catalog.omero.mending import CantMend, Mender, WriterOf, Wrong
from biobank_core.catalog.omero.names import OBJECT, PAGE
from biobank_core.catalog.omero.places import Key, Places
from biobank_core.catalog.omero.rows import ALL_GROUPS, Scope
from biobank_core.catalog.omero.session import pages
from biobank_core.catalog.port import Drift

# What others save between a look at the log and one at the annotations is looked at again; what is
# saved all the time is right, or wrong at the next reconcile still.
_LOOKS: Final = 4


class Reconciler:
    """Compares the annotations of these logs' groups with the logs."""

    def __init__(self, scope: Scope, logs: Sequence[Log], writer_of: WriterOf) -> None:
        self._scope = scope
        self._logs = logs
        self._writer_of = writer_of

    def run(self, *, repair: bool) -> Iterator[Drift]:
        """Each object that is not as the log says; with `repair` mended."""
        places = Places(self._logs)
        places.read()
        missing = set(places.known)
        others: set[Key] = set()
        for page in pages([number for number, _ in listed(self._scope)], PAGE):
            for held in held_by_id(self._scope, page):
                key = (held.full.name, held.group)
                if held.agrees(places.known.get(key)) and key in missing:
                    missing.remove(key)
                else:  # also what stands there a second time
                    others.add(key)
        # An object that was moved is wrong in two groups: both are looked at together.
        for vids in pages(sorted({vid for vid, _ in missing | others}), PAGE):
            yield from self.check(vids, places, repair=repair)

    def check(
        self, vids: Collection[str], places: Places, *, repair: bool = False
    ) -> Iterator[Drift]:
        """The same for these objects; `places` has to know them."""
        wrong: dict[Key, Wrong] = {}
        left = set(vids)
        for _ in range(_LOOKS):
            places.read()
            known = places.of(left)
            held: dict[Key, list[Held]] = {}
            for there in held_as(self._scope, left):
                held.setdefault((there.full.name, there.group), []).append(there)
            found = {
                key: Wrong(key, known.get(key), held.get(key, []), _elsewhere(key, held), [])
                for key in {*known, *held}
                if not fine(known.get(key), held.get(key, []))
            }
            places.read()
            now = places.of(left)
            left = {key[0] for key in now if now[key] != known.get(key)}
            wrong.update((key, one) for key, one in found.items() if key[0] not in left)
            if not left:
                break
        gone = [vid for (vid, _), one in wrong.items() if not one.found and not one.elsewhere]
        for key, groups in self._unread(gone).items():
            wrong.update(
                {k: one._replace(unread=groups) for k, one in wrong.items() if k[0] == key}
            )
        mender = Mender(self._scope, self._logs, places, self._writer_of)
        # What came into a group is saved there before it leaves the one where it was.
        for one in sorted(wrong.values(), key=lambda one: (one.place is not None, one.key)):
            yield self._told(one, mender, repair=repair)

    def _told(self, one: Wrong, mender: Mender, *, repair: bool) -> Drift:
        vid = one.key[0]
        what = self._what(one, mender)
        if not repair:
            return Drift(vid, one.kind, what)
        try:
            if one.unread:
                # It can't be written there from here, and two of it would be worse.
                raise CantMend(f"name group {one.unread[0]} too")
            return Drift(vid, one.kind, f"{what}; {mender.mend(one)}")
        except CantMend as exc:
            return Drift(vid, one.kind, f"{what}; not mended: {exc}", left=True)

    def _what(self, one: Wrong, mender: Mender) -> str:
        group = one.key[1]
        if not one.found:
            where = one.moved_to or one.unread
            if where:
                return f"it was moved from group {group} of OMERO to group {where[0]}"
            return "its annotation was deleted in OMERO by another program"
        if len(one.found) > 1:
            ids = ", ".join(str(held.full.id) for held in one.found)
            return f"it stands in OMERO more than once (annotations {ids})"
        number = one.found[0].full.id
        if mender.came_from_elsewhere(one):
            return f"annotation {number} was moved into group {group} of OMERO"
        if one.place is None or one.found[0].version > one.place.change.version:
            return f"the commit that wrote annotation {number} is gone from the log"
        return f"annotation {number} was changed in OMERO by another program"

    def _unread(self, vids: Sequence[str]) -> dict[str, list[int]]:
        """Groups that this catalog does not read, and that hold these objects all the same."""
        found: dict[str, list[int]] = {}
        for page in pages(vids, PAGE):
            rows = self._scope.session.projection(
                "select a.name, a.details.group.id from MapAnnotation a"
                " where a.name in (:vids) and a.ns like :ours",
                {"vids": list(page), "ours": f"{OBJECT}%"},
                group=ALL_GROUPS,
            )
            for vid, group in rows:
                if group not in self._scope.groups:
                    found.setdefault(vid, []).append(group)
        return found


def _elsewhere(key: Key, held: Mapping[Key, list[Held]]) -> list[Held]:
    vid, group = key
    return [
        one
        for (other, place), found in held.items()
        if other == vid and place != group
        for one in found
        if not one.state.deleted
    ]
