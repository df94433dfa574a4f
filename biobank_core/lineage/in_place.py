"""A rebuild in place: for an index that readers and the sync service use while it is made anew.

What the rebuild saw gets its number; what has none in the end is looked up in the catalog once more
and, where nobody knows it, swept away. How far it is stands in the index, written together with
what was done: after a kill the next rebuild goes on there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, NamedTuple, Protocol, runtime_checkable

from biobank_core.catalog.port import Catalog, Position, Versioned
from biobank_core.lineage.events import IndexEvent
from biobank_core.lineage.projection import in_graph, project, project_all
from biobank_core.model.registry import is_a

# Objects of one transaction.
BATCH: Final = 5_000

# In this order no edge comes before its nodes, but for those of nested collections.
_STAGES: Final = ("nodes", "collections", "actions")
_SWEEP: Final = "sweep"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild is: `stage`, and in it all objects up to the VID `after`.

    `head` is where the feed stood at its begin. `fresh`: nothing was in the index then, so nothing
    of it can be stale.
    """

    number: int
    head: Position
    fresh: bool
    stage: str = _STAGES[0]
    after: str = ""


class Held(NamedTuple):
    """The version of an object that an index holds, as this log told it."""

    log: str
    vid: str
    version: int


@runtime_checkable
class RebuiltInPlace(Protocol):
    """An index that can be made anew while it is used."""

    def rebuild_in_progress(self) -> Progress | None:
        """The rebuild that was begun and has not ended, or None."""
        ...

    def begin_rebuild(self, head: Position) -> Progress:
        """Begin one, with the next number."""
        ...

    def take_in_anew(self, batch: Sequence[IndexEvent], *, progress: Progress) -> list[Held]:
        """Write these states, whatever is there, and remember `progress`, in one transaction.

        A later version of the same log stays, unseen, and what is held of logs that the batch says
        nothing of goes; such are given back. What this rebuild saw before is treated as `apply`
        does.
        """
        ...

    def doubt(self, vids: Iterable[str]) -> None:
        """Let any version told of these objects from now on count as later than what is held."""
        ...

    def unseen(self, progress: Progress, *, after: str, most: int) -> list[str]:
        """VIDs, in order, of what no batch of this rebuild wrote."""
        ...

    def end_rebuild(self, progress: Progress) -> None:
        """Take out edges and placeholders that nothing gives, and forget the progress."""
        ...

    def forget(self, vids: Iterable[str]) -> None:
        """See `LineageIndex.forget`."""
        ...


def rebuild_in_place(
    catalog: Catalog, index: RebuiltInPlace, *, advance: Callable[[int], None]
) -> tuple[int, Position]:
    """Make the index anew, or go on with a rebuild that was killed.

    How many events that were, and where the feed stood at its begin: what came after that is for
    who feeds the index.
    """
    head = dict(catalog.head())
    progress = index.rebuild_in_progress()
    if progress is None or not _same_feed(progress.head, head):
        progress = index.begin_rebuild(head)
    taken = 0
    # While the index writes a batch the next one is read from the catalog.
    with ThreadPoolExecutor(max_workers=1) as writer:
        written: Future[list[Held]] | None = None
        for batch, reached, done in _work(catalog, progress):
            if written is not None:
                _settle(catalog, index, written.result(), progress)
            written = writer.submit(index.take_in_anew, batch, progress=reached)
            taken += len(batch)
            advance(done)
            progress = reached
        if written is not None:
            _settle(catalog, index, written.result(), progress)
    progress = replace(progress, stage=_SWEEP, after="")
    if not progress.fresh:
        _sweep(catalog, index, progress)
    index.end_rebuild(progress)
    return taken, progress.head


def _work(catalog: Catalog, progress: Progress) -> Iterator[tuple[list[IndexEvent], Progress, int]]:
    """Batches of events, how far each gets, and how many objects were read for it."""
    if len(progress.head) > 1:
        # Objects do not say which of several logs hold them; the feed does. Not in order of VIDs,
        # so it begins anew after a kill; what was written already costs little.
        yield from _from_feed(catalog, progress)
        return
    log = next(iter(progress.head), "")
    counts = catalog.count()
    yield [], progress, sum(number for kind, number in counts.items() if not in_graph(kind))
    for stage in _STAGES:
        if progress.stage == _SWEEP or _STAGES.index(stage) < _STAGES.index(progress.stage):
            continue
        after = progress.after if stage == progress.stage else ""
        objects = catalog.iterate({kind for kind in counts if _stage(kind) == stage})
        for some in _batches(objects, BATCH):
            done = len(some)
            events = [
                event
                for item in some
                if item.object.vid > after
                and (event := project(item.object, version=item.version, log=log)) is not None
            ]
            reached = replace(progress, stage=stage, after=some[-1].object.vid)
            if reached.after > after:
                yield events, reached, done


def _stage(kind: str) -> str | None:
    if not in_graph(kind):
        return None
    if kind != "Tombstone" and is_a(kind, "Collection"):
        return "collections"
    if kind != "Tombstone" and (is_a(kind, "Action") or is_a(kind, "Supersession")):
        return "actions"
    return "nodes"


def _from_feed(
    catalog: Catalog, progress: Progress
) -> Iterator[tuple[list[IndexEvent], Progress, int]]:
    wanted: dict[tuple[str, str], None] = {}
    for unit in catalog.changes({}):
        wanted.update(dict.fromkeys((unit.log, change.vid) for change in unit.changes))
        if len(wanted) >= BATCH:
            yield list(project_all(catalog, wanted)), progress, len(wanted)
            wanted.clear()
    yield list(project_all(catalog, wanted)), progress, len(wanted)


def _same_feed(before: Position, now: Position) -> bool:
    """Whether a feed that stood at `before` may stand at `now`; not so if it was put back."""
    return set(before) == set(now) and all(now[log] >= number for log, number in before.items())


def _settle(
    catalog: Catalog, index: RebuiltInPlace, ahead: Sequence[Held], progress: Progress
) -> None:
    """End a batch of which the index held more than was just read: later versions, other logs.

    That was fed meanwhile, or comes from a catalog that was put back in time since: then it is
    doubted first. A kill at any point leaves later versions unseen, so the sweep comes to them.
    """
    while ahead := [held for held in ahead if held.log in progress.head]:
        vids = dict.fromkeys(held.vid for held in ahead)
        wanted = [(log, vid) for log in progress.head for vid in vids]
        known = {(event.log, event.vid): event.version for event in project_all(catalog, wanted)}
        index.doubt(held.vid for held in ahead if known.get((held.log, held.vid), 0) < held.version)
        # Read again: what was fed before the doubt counted for nothing.
        ahead = index.take_in_anew(list(project_all(catalog, wanted)), progress=progress)


def _sweep(catalog: Catalog, index: RebuiltInPlace, progress: Progress) -> None:
    after = ""
    while some := index.unseen(progress, after=after, most=BATCH):
        after = some[-1]
        logs = {**progress.head, **catalog.head()}
        events = list(project_all(catalog, [(log, vid) for log in logs for vid in some]))
        # Committed and fed since its stage began; all others are of no object that is known.
        _settle(catalog, index, index.take_in_anew(events, progress=progress), progress)
        known = {event.vid for event in events}
        index.forget([vid for vid in some if vid not in known])


def _batches(objects: Iterator[Versioned], size: int) -> Iterator[list[Versioned]]:
    while some := list(islice(objects, size)):
        yield some
