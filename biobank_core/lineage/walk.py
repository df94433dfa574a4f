"""The walk: breadth-first, each node and each link once, never along paths.

A graph gives, for many nodes at once, the links on one side of them, and for many links the nodes
on their other side. So an action of n inputs and m outputs costs n + m, not n x m, and a ladder of
diamonds costs its rungs, not its 2^rungs paths. Nodes and links are whatever the graph uses for
them (integers in SQLite, VIDs in a catalog).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from biobank_core.lineage.port import Direction

K = TypeVar("K", bound=Hashable)


class Steps(Protocol[K]):
    """One step through a graph, in bulk. Doubles in the answers do no harm."""

    def links(self, nodes: Collection[K], *, downstream: bool) -> Iterable[K]:
        """The links that these nodes are inputs of (downstream), or outputs of (upstream)."""
        ...

    def far_ends(self, links: Collection[K], *, downstream: bool) -> Iterable[K]:
        """The outputs (downstream) or inputs (upstream) of these links."""
        ...

    def asked_for(self, links: Collection[K]) -> Iterable[K]:
        """Those of the links that `via_tool` asks for."""
        ...


@dataclass(slots=True)
class Walked(Generic[K]):
    """What was met: the least number of edges from a start to each node, and the links passed."""

    depths: dict[K, int]
    links: set[K] = field(default_factory=set)


def walk(
    graph: Steps[K],
    starts: Iterable[K],
    *,
    direction: Direction,
    depth: int | None,
    via: bool,
) -> dict[K, int]:
    """The depth of every node met. BOTH is upstream plus downstream of the starts, no siblings.

    With `via` only nodes that have an asked-for link on some path from a start (and the starts).
    """
    begin = list(dict.fromkeys(starts))
    found: dict[K, int] = {}
    ways = {
        Direction.UPSTREAM: (False,),
        Direction.DOWNSTREAM: (True,),
        Direction.BOTH: (False, True),
    }
    for downstream in ways[direction]:
        # A path through the asked-for tool may be longer than the shortest one, so with `via` the
        # depth is no reason to stop early.
        walked = _one_way(graph, begin, downstream=downstream, depth=None if via else depth)
        kept: Iterable[K] = walked.depths
        if via:
            matching = set(graph.asked_for(walked.links))
            ends = list(dict.fromkeys(graph.far_ends(matching, downstream=downstream)))
            kept = _one_way(graph, ends, downstream=downstream, depth=None).depths
        for node in kept:
            steps = walked.depths[node]
            if (depth is None or steps <= depth) and steps < found.get(node, steps + 1):
                found[node] = steps
    found.update(dict.fromkeys(begin, 0))
    return found


def _one_way(
    graph: Steps[K], starts: Collection[K], *, downstream: bool, depth: int | None
) -> Walked[K]:
    walked = Walked(dict.fromkeys(starts, 0))
    depths, seen = walked.depths, walked.links
    frontier: list[K] = list(depths)
    steps = 0
    while frontier and (depth is None or steps < depth):
        steps += 1
        passed = set(graph.links(frontier, downstream=downstream))
        passed -= seen
        if not passed:
            break
        seen |= passed
        frontier = []
        for node in graph.far_ends(passed, downstream=downstream):
            if node not in depths:
                depths[node] = steps
                frontier.append(node)
    return walked
