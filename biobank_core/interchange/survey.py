"""What is known of each line after the first reading, held compactly.

A million lines with five references each take some 300 MB here: every VID once as 16 bytes, all
else in arrays of numbers. Objects are read again from the file when they are saved.
"""

from __future__ import annotations

from array import array
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from enum import IntEnum
from itertools import chain
from typing import Final

from biobank_core.catalog.one import fits, kind_of, misfit
from biobank_core.catalog.port import Catalog
from biobank_core.errors import CycleError, InputError
from biobank_core.interchange.lines import Line, LineFile
from biobank_core.model.base import Object, OnCascade
from biobank_core.model.kinds import Tombstone
from biobank_core.model.registry import ReferenceField, is_a, references

_PAGE: Final = 1000

# Objects of a lower rank never refer to those of a higher one.
_RANKS: Final = (
    (0, ("Study", "Individual", "Device", "ActionSetup", "Tombstone")),
    (1, ("Enrollment", "Vessel", "DataSample", "Campaign")),
    (2, ("Consent", "DataObject")),
    (3, ("Collection",)),
    (4, ("Action",)),
    (5, ("Supersession", "CampaignItem")),
)
_ACTIONS: Final = 4
_INTO: Final = frozenset({"inputs", "items"})
_OUT_OF: Final = frozenset({"outputs"})


class Fate(IntEnum):
    """What is to be done with a line."""

    MENTIONED = 0  # no line at all: only named by others
    NEW = 1
    UNCHANGED = 2
    UPDATED = 3
    DELETED = 4


class Survey:
    """Every VID of a file by a small number: its line, its kind, whom it refers to."""

    def __init__(self, file: LineFile) -> None:
        self._file = file
        self._numbers: dict[bytes, int] = {}
        self._vids: list[bytes] = []
        self.fate = bytearray()
        self.line = array("I")
        self.offset = array("Q")
        self.version = array("I")
        self._kind = array("H")
        self._kinds: list[str] = [""]
        self._deleted = bytearray()
        self._links: list[tuple[str, ReferenceField]] = []
        self._link_numbers: dict[tuple[str, str], int] = {}
        self._source = array("I")
        self._target = array("I")
        self._link = array("H")

    def number(self, vid: str) -> int:
        """The number of this VID, given when it is first asked for."""
        key = bytes.fromhex(vid[2:])
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._vids)
            self._vids.append(key)
            self.fate.append(Fate.MENTIONED)
            self.line.append(0)
            self.offset.append(0)
            self.version.append(0)
            self._kind.append(0)
            self._deleted.append(0)
        return number

    def vid(self, number: int) -> str:
        """The VID of this number."""
        return f"V0{self._vids[number].hex().upper()}"

    def add(self, line: Line, obj: Object) -> int:
        """Take a line in. Raises InputError when its VID has a line already."""
        number = self.number(obj.vid)
        if self.fate[number] != Fate.MENTIONED:
            raise InputError(
                f"this VID stands in line {self.line[number]} already",
                file=self._file.name,
                line=line.number,
                field="vid",
                value=obj.vid,
            )
        self.fate[number] = Fate.NEW
        self.line[number] = line.number
        self.offset[number] = line.offset
        self._know(number, kind_of(obj), deleted=isinstance(obj, Tombstone))
        for field, target in references(obj):
            self._source.append(number)
            self._target.append(self.number(target))
            self._link.append(self._link_number(obj.kind, field))
        return number

    def refuse_dangling(self, catalog: Catalog) -> None:
        """Raises InputError for a reference to what is nowhere, deleted, or of a wrong kind."""
        outside = [n for n, fate in enumerate(self.fate) if fate == Fate.MENTIONED]
        for start in range(0, len(outside), _PAGE):
            page = [self.vid(number) for number in outside[start : start + _PAGE]]
            for vid, known in catalog.get(page).items():
                deleted = isinstance(known.object, Tombstone)
                self._know(self.number(vid), kind_of(known.object), deleted=deleted)
        good: set[tuple[int, int, int]] = set()
        for source, target, link in zip(self._source, self._target, self._link, strict=True):
            seen = (link, self._kind[target], self._deleted[target])
            if seen not in good:
                self._refuse_reference(source, target, link)
                good.add(seen)

    def order(self) -> Iterable[int]:
        """The lines that are to be saved, each after all that it refers to.

        Actions also come after those that made what they use: then no walk is needed to see that
        they close no cycle. Raises InputError naming a cycle inside the file.
        """
        ranks = {number: _rank(kind) for number, kind in enumerate(self._kinds) if kind}
        # A tombstone that is made anew refers to nothing.
        rank = bytearray(
            0 if self._deleted[n] else ranks.get(kind, 0) for n, kind in enumerate(self._kind)
        )
        lineage = self._levels(self._lineage_edges())
        inner = self._levels(
            (target, source)
            for source, target in zip(self._source, self._target, strict=True)
            if rank[target] >= rank[source]
        )
        # The numbers that the dictionary holds already: new ones would be 30 MB a million.
        order = [n for n in self._numbers.values() if self.fate[n] in (Fate.NEW, Fate.UPDATED)]
        # By VID inside a step: an index over VIDs then grows along its leaves, not all over.
        order.sort(key=self._vids.__getitem__)
        steps: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for number in order:
            levels = lineage if rank[number] == _ACTIONS else inner
            steps[rank[number], levels[number] if levels else 0].append(number)
        return chain.from_iterable(steps[step] for step in sorted(steps))

    def count(self, fate: Fate) -> int:
        """How many lines have this fate."""
        return self.fate.count(fate)

    def of_fate(self, fate: Fate) -> list[int]:
        """The numbers of the lines with this fate."""
        return [number for number, each in enumerate(self.fate) if each == fate]

    def _know(self, number: int, kind: str, *, deleted: bool) -> None:
        if kind not in self._kinds:
            self._kinds.append(kind)
        self._kind[number] = self._kinds.index(kind)
        self._deleted[number] = deleted

    def _link_number(self, kind: str, field: ReferenceField) -> int:
        number = self._link_numbers.get((kind, field.name))
        if number is None:
            number = self._link_numbers[kind, field.name] = len(self._links)
            self._links.append((kind, field))
        return number

    def _refuse_reference(self, source: int, target: int, link: int) -> None:
        kind, field = self._links[link]
        target_kind = self._kinds[self._kind[target]]
        reason = None
        if not target_kind:
            reason = "names an object that is neither in the file nor in the catalog"
        elif self._deleted[target] and field.reference.on_cascade is not OnCascade.KEEP:
            reason = "names a deleted object"
        elif not fits(field.reference, target_kind):
            reason = misfit(field.reference, target_kind)
        if reason is not None:
            raise InputError(
                f"{kind} {self.vid(source)}: {reason}",
                file=self._file.name,
                line=self.line[source],
                field=field.name,
                value=self.vid(target),
            )

    def _lineage_edges(self) -> Iterator[tuple[int, int]]:
        into = {n for n, (_, field) in enumerate(self._links) if field.name in _INTO}
        out_of = {n for n, (_, field) in enumerate(self._links) if field.name in _OUT_OF}
        for source, target, link in zip(self._source, self._target, self._link, strict=True):
            if link in into:
                yield target, source
            elif link in out_of:
                yield source, target

    def _levels(self, edges: Iterable[tuple[int, int]]) -> array[int]:
        """How many edges the longest way to each number has; empty where there are no edges."""
        before, after = array("I"), array("I")
        for first, second in edges:
            before.append(first)
            after.append(second)
        if not before:
            return array("I")
        size = len(self._vids)
        successors, starts = _grouped(before, after, size)
        waiting = array("I", bytes(4 * size))
        for number in after:
            waiting[number] += 1
        levels = array("I", bytes(4 * size))
        ready = deque(number for number, count in enumerate(waiting) if not count)
        done = 0
        while ready:
            number = ready.popleft()
            done += 1
            level = levels[number] + 1
            for position in range(starts[number], starts[number + 1]):
                successor = successors[position]
                levels[successor] = max(levels[successor], level)
                waiting[successor] -= 1
                if not waiting[successor]:
                    ready.append(successor)
        if done < size:
            self._refuse_cycle(before, after, waiting)
        return levels

    def _refuse_cycle(self, before: array[int], after: array[int], waiting: array[int]) -> None:
        # Each number that still waits has a predecessor that still waits: going back along them
        # must come round.
        predecessor = {
            b: a for a, b in zip(before, after, strict=True) if waiting[a] and waiting[b]
        }
        number = next(iter(predecessor))
        seen: dict[int, None] = {}
        while number not in seen:
            seen[number] = None
            number = predecessor[number]
        way = list(seen)
        cycle = [*way[way.index(number) :], number]
        cycle.reverse()
        error = CycleError.of([self.vid(each) for each in cycle])
        lines = [self.line[each] for each in cycle if self.line[each]]
        raise error.at(file=self._file.name, line=min(lines, default=None))


def _grouped(before: array[int], after: array[int], size: int) -> tuple[array[int], array[int]]:
    """The successors of number n are `successors[starts[n]:starts[n + 1]]`."""
    starts = array("I", bytes(4 * (size + 1)))
    for number in before:
        starts[number + 1] += 1
    for number in range(size):
        starts[number + 1] += starts[number]
    free = starts[:]
    successors = array("I", bytes(4 * len(before)))
    for first, second in zip(before, after, strict=True):
        successors[free[first]] = second
        free[first] += 1
    return successors, starts


def _rank(kind: str) -> int:
    for rank, bases in _RANKS:
        if any(is_a(kind, base) for base in bases):
            return rank
    return 0
