"""Keeping an index in step with a catalog from its change feed, and making it anew.

For an index that keeps its own position (SQLite). Positions and what they cover go down in one
transaction, so a crash costs a repeat at most, and a repeat changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Final, Protocol, runtime_checkable

from biobank_core.catalog.port import Catalog, Position, Versioned
from biobank_core.lineage.events import IndexEvent
from biobank_core.lineage.port import LineageIndex
from biobank_core.lineage.projection import in_graph, project

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


def catch_up(catalog: Catalog, index: LineageIndex) -> int:
    """Take in what the feed holds beyond the index's position; how many changes that were.

    Does nothing for an index that keeps no position: a daemon feeds that one.
    """
    if not isinstance(index, KeepsPosition):
        return 0
    position, head = index.position(), dict(catalog.head())
    if position == head:
        return 0
    taken = 0
    wanted: dict[tuple[str, str], None] = {}
    for unit in catalog.changes(position):
        wanted.update(dict.fromkeys((unit.log, change.vid) for change in unit.changes))
        position = {**position, **unit.position}
        if len(wanted) >= BATCH:
            taken += _take_in(catalog, index, list(wanted), position)
            wanted.clear()
    # The last units may be such as the feed leaves out; they need not be looked at again.
    position = {log: max(number, position.get(log, 0)) for log, number in head.items()} | {
        log: number for log, number in position.items() if log not in head
    }
    return taken + _take_in(catalog, index, list(wanted), position)


def rebuild(
    catalog: Catalog, index: LineageIndex, *, advance: Callable[[int], None] = lambda _count: None
) -> int:
    """Make the index anew from the catalog's objects; how many events that were.

    Streams. An index that can does all in one transaction: readers see the old graph until the new
    one is there, and a crash leaves the old one. `advance` is called with the number of objects
    done since the last call.
    """
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
    catalog: Catalog, index: LineageIndex, wanted: list[tuple[str, str]], position: Position
) -> int:
    found = catalog.get({vid for _, vid in wanted})
    events = []
    for log, vid in wanted:
        if vid in found:
            event = project(found[vid].object, version=found[vid].version, log=log)
            if event is not None:
                events.append(event)
    assert isinstance(index, KeepsPosition)  # checked by catch_up
    with index.transaction():
        index.apply(events)
        index.set_position(position)
    return len(wanted)


def _batches(events: Iterable[IndexEvent]) -> Iterator[list[IndexEvent]]:
    rest = iter(events)
    while batch := list(islice(rest, BATCH)):
        yield batch
