"""No object is its own ancestor, and no vessel stands in itself.

The graph walked here has actions as nodes too (input -> action -> output, member -> collection):
it has a cycle exactly when the lineage graph has one, and 1,000 inputs by 1,000 outputs are 2,000
edges, not a million. The catalog before the unit has no cycle, so a new one runs through an edge
that is new; where no new edge ends at (or none starts from) what was there before, a look at the
unit alone is enough.
"""

from __future__ import annotations

import graphlib
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from biobank_core.errors import CycleError
from biobank_core.model.base import Object
from biobank_core.model.kinds import Action, DataCollection, Vessel, VesselsCollection

if TYPE_CHECKING:
    from biobank_core.catalog.checks import Present, State, Unit

_INTO: Final = frozenset({"inputs", "items"})
_OUT_OF: Final = frozenset({"outputs"})

Edge = tuple[str, str]


def lineage_edges(obj: Object) -> Iterator[Edge]:
    """The edges that an action or a collection makes, itself being one of the ends."""
    match obj:
        case Action():
            for port in obj.inputs:
                yield port.object, obj.vid
            for port in obj.outputs:
                yield obj.vid, port.object
        case DataCollection() | VesselsCollection():
            for item in obj.items:
                yield item.object, obj.vid


def refuse_cycles(unit: Unit, before: Mapping[str, State], present: Present) -> None:
    """Raises CycleError naming a cycle of PRODUCED and COLLECTED_IN that the unit would close."""
    owners = {
        vid
        for vid, draft in unit.saves.items()
        if isinstance(draft.object, Action | DataCollection | VesselsCollection)
    }
    if not owners:
        return
    edges = {edge for vid in owners for edge in lineage_edges(unit.saves[vid].object)}
    if len(owners) > 1:
        refuse_cycle(edges)
    new_edges = edges
    updated = {vid for vid in owners if vid in before}
    if updated:
        new_edges = edges - {
            (ref.target, ref.vid) if ref.field in _INTO else (ref.vid, ref.target)
            for ref in present.targets(updated, _INTO | _OUT_OF)
        }
    entries = {target for _, target in new_edges if target in before}
    exits = {source for source, _ in new_edges if source in before}
    if not (entries and exits):
        return
    replaced = owners | unit.deletes.keys()
    # A cycle that is not the unit's alone leaves it by an edge of the catalog. Where none begins
    # at what the unit's edges end at (a load that saves makers before users), no walk is needed.
    ends = {target for _, target in edges if target in before}
    if any(True for _ in _steps(ends, replaced, present, downstream=True)):
        refuse_cycle(edges | _between(entries, exits, edges, replaced, present))


def refuse_container_loops(unit: Unit, before: Mapping[str, State], present: Present) -> None:
    """Raises CycleError when a vessel would stand in itself, through others."""
    holders: dict[str, str | None] = {
        vid: draft.object.container
        for vid, draft in unit.saves.items()
        if isinstance(draft.object, Vessel)
    }
    if not any(vid in before or holders.get(holder or "") for vid, holder in holders.items()):
        return
    missing = {holder for holder in holders.values() if holder} - holders.keys()
    while missing:
        holders.update(dict.fromkeys(missing))
        found = {ref.vid: ref.target for ref in present.targets(missing, ("container",))}
        holders.update(found)
        missing = set(found.values()) - holders.keys()
    refuse_cycle({(vid, holder) for vid, holder in holders.items() if holder})


def refuse_cycle(edges: Collection[Edge]) -> None:
    """Raises CycleError naming a cycle among these edges, if there is one."""
    if _has_no_cycle(edges):
        return
    graph: dict[str, list[str]] = {}
    for source, target in edges:
        graph.setdefault(target, []).append(source)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as exc:
        raise CycleError.of(exc.args[1]) from exc


def _has_no_cycle(edges: Collection[Edge]) -> bool:
    """A fraction of graphlib's time, which is needed only to name the cycle."""
    successors: dict[str, list[str]] = {}
    waiting: dict[str, int] = {}
    for source, target in edges:
        if source in successors:
            successors[source].append(target)
        else:
            successors[source] = [target]
        waiting[target] = waiting.get(target, 0) + 1
    ready = [node for node in successors if node not in waiting]
    done = 0
    while ready:
        for node in successors.get(ready.pop(), ()):
            waiting[node] -= 1
            if not waiting[node]:
                done += 1
                ready.append(node)
    return done == len(waiting)


def _between(
    entries: set[str],
    exits: set[str],
    edges: set[Edge],
    replaced: Collection[str],
    present: Present,
) -> set[Edge]:
    """Edges of the catalog among which any new cycle runs.

    It runs downstream of an entry and upstream of an exit; the two walks go on in turn, and the
    one that ends first has seen enough.
    """
    down = _Walk(entries, edges, replaced, present, downstream=True)
    up = _Walk(exits, edges, replaced, present, downstream=False)
    while True:
        if not down.frontier:
            return down.seen_edges
        if not up.frontier:
            return up.seen_edges
        (down if len(down.frontier) <= len(up.frontier) else up).step()


class _Walk:
    """A breadth-first walk over the catalog and the unit together, one level a step."""

    def __init__(
        self,
        starts: set[str],
        edges: set[Edge],
        replaced: Collection[str],
        present: Present,
        *,
        downstream: bool,
    ) -> None:
        self.frontier = set(starts)
        self.seen_edges: set[Edge] = set()
        self._seen = set(starts)
        self._replaced = replaced
        self._present = present
        self._downstream = downstream
        self._unit: dict[str, list[str]] = {}
        for source, target in edges:
            here, there = (source, target) if downstream else (target, source)
            self._unit.setdefault(here, []).append(there)

    def step(self) -> None:
        steps = list(
            _steps(self.frontier, self._replaced, self._present, downstream=self._downstream)
        )
        self.seen_edges.update((a, b) if self._downstream else (b, a) for a, b in steps)
        reached = {there for _, there in steps}
        for here in self.frontier:
            reached.update(self._unit.get(here, ()))
        self.frontier = reached - self._seen
        self._seen |= reached


def _steps(
    nodes: Collection[str], replaced: Collection[str], present: Present, *, downstream: bool
) -> Iterator[Edge]:
    """Edges of the catalog from these nodes (or, upstream, to them), these being the first end."""
    to_owner, from_owner = (_INTO, _OUT_OF) if downstream else (_OUT_OF, _INTO)
    for ref in present.referrers(nodes, to_owner):
        if ref.vid not in replaced:
            yield ref.target, ref.vid
    for ref in present.targets(nodes, from_owner):
        if ref.vid not in replaced:
            yield ref.vid, ref.target
