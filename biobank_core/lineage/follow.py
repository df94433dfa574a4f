"""Keeping an index in step with a catalog from its change feed, knowing how far it is, and
making it anew.

An index that keeps its own position (SQLite) is fed by whoever asks it (`catch_up`); its positions
and what they cover go down in one transaction, so a crash costs a repeat at most, and a repeat
changes nothing. Another one (Neo4j) is fed by the sync service; of that one `pending` tells what it
lacks, from the feed beyond its `checked` mark.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final, Protocol, TypeAlias, runtime_checkable

from biobank_core.catalog.port import Catalog, CommittedUnit, Position, Versioned
from biobank_core.lineage.events import IndexEvent
from biobank_core.lineage.in_place import RebuiltInPlace, rebuild_in_place
from biobank_core.lineage.port import LineageIndex, Needed, Refusal
from biobank_core.lineage.projection import in_graph, project, project_all

# Objects of one batch, and of one transaction of a catch-up.
BATCH: Final = 5_000


@runtime_checkable
class KeepsPosition(Protocol):
    """An index that remembers how far of the feed it holds, and can do many things at once."""

    def position(self) -> Position:
        """How far the feed was taken in."""
        ...

    def set_position(self, position: Position) -> None:
        """Remember that."""
        ...

    def transaction(self) -> AbstractContextManager[object]:
        """All or nothing of what is done inside."""
        ...


# A change of the feed: the log and VID that it is of, the version it made.
Change: TypeAlias = tuple[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class Pending:
    """What an index lacks of the feed, now.

    `changes` that are neither applied nor refused, in `units` commits, the `oldest` of that time.
    One whose dead letter was sent again is among them also where the `checked` mark has passed it,
    as a commit of its own. `refused`: the standing refusals that nobody discarded or sent again
    and no later version has overtaken (whatever the `checked` mark says of them). `settled` is how
    far everything is applied or refused: what `checked` may become.
    """

    changes: int
    units: int
    oldest: datetime | None
    refused: tuple[Refusal, ...]
    settled: Position


def pending(catalog: Catalog, index: LineageIndex) -> Pending:
    """What the index lacks of what the catalog's feed holds beyond the index's `checked` mark.

    Reads only. Costs what lies between the mark and the head, in bulk: keep the mark moving
    (`advance_checked`). Changes of kinds that have no place in the graph are none.
    """
    head = dict(catalog.head())
    settled = dict(index.checked())
    changes = units = 0
    oldest: datetime | None = None
    blocked: set[str] = set()
    refusals = _standing(index, head)
    again = {(key, item.version): item for key, item in refusals.items() if item.sent_again}
    for some in unit_batches(catalog.changes(settled)):
        missed = lacking(index, some)
        for change in missed & again.keys():
            del again[change]  # counted here
        for unit in some:
            missing = sum(change in missed for change in _changes_of(unit))
            if missing:
                changes += missing
                units += 1
                oldest = unit.time if oldest is None else min(oldest, unit.time)
                blocked.add(unit.log)
            elif unit.log not in blocked:
                settled[unit.log] = max(settled.get(unit.log, 0), unit.number)
    _settle_rest(settled, head, blocked)
    for refusal in again.values():
        changes += 1
        units += 1
        oldest = refusal.time if oldest is None else min(oldest, refusal.time)
    refused = [item for item in refusals.values() if not (item.discarded or item.sent_again)]
    refused.sort(key=lambda refusal: (refusal.time, refusal.vid))
    return Pending(changes, units, oldest, tuple(refused), settled)


def _standing(index: LineageIndex, head: Position) -> dict[tuple[str, str], Refusal]:
    """The refusals in these logs, without those of versions that a later one has overtaken.

    That one may be applied first: a refused state is held for its tries, or lies in the same batch.
    The index may be fed by logs of groups that the catalog does not read.
    """
    refusals = {key: refusal for key, refusal in index.refused().items() if key[0] in head}
    by_log: dict[str, list[str]] = {}
    for (log, vid), refusal in refusals.items():
        if not refusal.discarded:
            by_log.setdefault(log, []).append(vid)
    for log, vids in by_log.items():
        for vid, version in index.versions(vids, log=log).items():
            if version >= refusals[log, vid].version:
                del refusals[log, vid]
    return refusals


def _settle_rest(settled: dict[str, int], head: Position, blocked: Collection[str]) -> None:
    """The last units may be such as the feed leaves out; they need not be looked at again."""
    settled.update(
        (log, max(number, settled.get(log, 0)))
        for log, number in head.items()
        if log not in blocked
    )


def advance_checked(catalog: Catalog, index: LineageIndex) -> Pending:
    """Move the index's `checked` mark over all that is applied or refused; what is pending then."""
    before = index.checked()
    found = pending(catalog, index)
    if moved := _moved(before, found.settled):
        index.set_checked(moved)
    return found


def advance_to_gap(catalog: Catalog, index: LineageIndex) -> bool:
    """Move the `checked` mark, looking no further than the first thousands with a pending change.

    Whether there was none. It costs what was applied since the last time, however much is still to
    come, and does not count that. Of several logs some may keep their mark.
    """
    head = dict(catalog.head())
    before = index.checked()
    settled = dict(before)
    for some in unit_batches(catalog.changes(settled)):
        missed = lacking(index, some)
        blocked: set[str] = set()
        for unit in some:
            if unit.log in blocked or not missed.isdisjoint(_changes_of(unit)):
                blocked.add(unit.log)
            else:
                settled[unit.log] = max(settled.get(unit.log, 0), unit.number)
        if missed:
            break
    else:
        missed = set()
        _settle_rest(settled, head, ())
    if moved := _moved(before, settled):
        index.set_checked(moved)
    return not missed


def wait_for_all(catalog: Catalog, index: LineageIndex, *, timeout_s: float) -> None:
    """Until the index holds all that the catalog holds now.

    Raises RefusedError as soon as something of it is known to be refused (also from long ago, until
    the dead letter is replayed or discarded), TimeoutExceededError.
    """
    give_up_at = time.monotonic() + timeout_s
    head = dict(catalog.head())
    # Asked before the refusals: what is refused from now on is beyond this mark.
    checked = index.checked()
    for refusal in index.refused().values():
        if refusal.log in head and not refusal.discarded:
            # Raises, unless it was sent again or applied meanwhile.
            index.wait_for(
                {(refusal.log, refusal.vid): refusal.version},
                timeout_s=max(0.0, give_up_at - time.monotonic()),
            )
    for some in unit_batches(catalog.changes(checked)):
        needed: dict[tuple[str | None, str], int] = {}
        for unit in some:
            if unit.number <= head.get(unit.log, 0):
                needed.update(_changes_of(unit))
        discarded = {
            key: refusal.version
            for key, refusal in index.refused({vid for _, vid in needed}).items()
            if refusal.discarded
        }
        kept: Needed = {
            key: version
            for key, version in needed.items()
            if version > discarded.get((key[0] or "", key[1]), 0)
        }
        index.wait_for(kept, timeout_s=max(0.0, give_up_at - time.monotonic()))


def _changes_of(unit: CommittedUnit) -> Iterator[Change]:
    """The changes of a unit that have a place in the graph."""
    for change in unit.changes:
        if in_graph(change.kind):
            yield (unit.log, change.vid), change.version


def lacking(index: LineageIndex, units: list[CommittedUnit]) -> set[Change]:
    """Those of the units' changes that are neither applied nor refused."""
    by_log: dict[str, list[Change]] = {}
    for unit in units:
        by_log.setdefault(unit.log, []).extend(_changes_of(unit))
    found: set[Change] = set()
    for log, changes in by_log.items():
        applied = index.versions([vid for (_, vid), _ in changes], log=log)
        found.update(item for item in changes if applied.get(item[0][1], 0) < item[1])
    if found:
        refused = index.refused({vid for (_, vid), _ in found})
        found = {
            (key, version)
            for key, version in found
            if key not in refused or refused[key].sent_again or refused[key].version < version
        }
    return found


def unit_batches(units: Iterator[CommittedUnit]) -> Iterator[list[CommittedUnit]]:
    """Units by some thousand changes, so that looking them up costs few questions."""
    some: list[CommittedUnit] = []
    size = 0
    for unit in units:
        some.append(unit)
        size += len(unit.changes)
        if size >= BATCH:
            yield some
            some, size = [], 0
    if some:
        yield some


def catch_up(catalog: Catalog, index: LineageIndex) -> int:
    """Take in what the feed holds beyond the index's position; how many changes that were.

    Does nothing for an index that keeps no position: a daemon feeds that one.
    """
    if not isinstance(index, KeepsPosition):
        return 0
    before, head = index.position(), dict(catalog.head())
    if before == head:
        return 0
    position = before
    taken = 0
    wanted: dict[tuple[str, str], None] = {}
    for unit in catalog.changes(position):
        wanted.update(dict.fromkeys((unit.log, change.vid) for change in unit.changes))
        position = {**position, **unit.position}
        if len(wanted) >= BATCH:
            taken += _take_in(catalog, index, list(wanted), _moved(before, position))
            wanted.clear()
    # The last units may be such as the feed leaves out; they need not be looked at again.
    position = {log: max(number, position.get(log, 0)) for log, number in head.items()} | {
        log: number for log, number in position.items() if log not in head
    }
    return taken + _take_in(catalog, index, list(wanted), _moved(before, position))


def rebuild(
    catalog: Catalog, index: LineageIndex, *, advance: Callable[[int], None] = lambda _count: None
) -> int:
    """Make the index anew from the catalog's objects; how many events that were.

    Streams. An index that can does all in one transaction: readers see the old graph until the new
    one is there, and a crash leaves the old one. One that can't is mended piece by piece where it
    is, in use all the while; after a crash the next call goes on. `advance` is called with the
    number of objects done since the last call.
    """
    if isinstance(index, RebuiltInPlace):
        taken, head = rebuild_in_place(catalog, index, advance=advance)
        index.set_checked(head, exactly=True)
        return taken
    keeps = index if isinstance(index, KeepsPosition) else None
    with keeps.transaction() if keeps else nullcontext():
        head = dict(catalog.head())
        index.clear()
        if len(head) > 1:
            # Objects do not say which of several logs hold them; the feed does.
            return catch_up(catalog, index)
        taken = 0
        for log in head:
            for batch in _batches(_events(catalog, log, advance)):
                index.apply(batch)
                taken += len(batch)
        if keeps:
            keeps.set_position(head)
        return taken


def objects_of_graph(catalog: Catalog, advance: Callable[[int], None]) -> Iterator[Versioned]:
    """All objects that may have a place in the graph, by VID; `advance` is told of the others.

    Files and consents, often half of a catalog, need not be read to know that they have none.
    """
    counts = catalog.count()
    wanted = {kind for kind in counts if in_graph(kind)}
    advance(sum(number for kind, number in counts.items() if kind not in wanted))
    return catalog.iterate(wanted)


def _events(catalog: Catalog, log: str, advance: Callable[[int], None]) -> Iterator[IndexEvent]:
    number = 0
    for number, found in enumerate(objects_of_graph(catalog, advance), start=1):
        event = project(found.object, version=found.version, log=log)
        if event is not None:
            yield event
        if number % BATCH == 0:
            advance(BATCH)
    advance(number % BATCH)


def _take_in(
    catalog: Catalog, index: LineageIndex, wanted: list[tuple[str, str]], moved: Position
) -> int:
    events = list(project_all(catalog, wanted))
    assert isinstance(index, KeepsPosition)  # checked by catch_up
    with index.transaction():
        index.apply(events)
        index.set_position({**index.position(), **moved})
    return len(wanted)


def _moved(before: Position, now: Position) -> Position:
    """The logs in which a position moved: a rebuild may have taken others back by now."""
    return {log: number for log, number in now.items() if number != before.get(log)}


def _batches(events: Iterable[IndexEvent]) -> Iterator[list[IndexEvent]]:
    rest = iter(events)
    while batch := list(islice(rest, BATCH)):
        yield batch
