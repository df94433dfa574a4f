"""From a node up to its samples, the data taken from them, and the people behind them.

Each node is looked at once, in a walk with a stack of its own: chains may be as deep, and diamonds
as many, as they like. Equal sets are shared, so that a chain costs one set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias, TypeVar

from biobank_core.selection.graph import ActionInfo, Graph, NodeInfo, NodeKind

T = TypeVar("T")

# (sample, the data that was made with this sample as an input).
Taken: TypeAlias = tuple[NodeInfo, NodeInfo]
# What is known of each node, by its number.
_Known: TypeAlias = list[frozenset[T] | None]

_DATA: Final = NodeKind.DATA
_PERSON: Final = NodeKind.PERSON
_SINGLE: Final = (NodeKind.MATERIAL, NodeKind.PERSON)
# From here on the general walk takes over, which also ends where (against all rules) is a cycle.
_LONG_CHAIN: Final = 100

_NOTHING: Final[frozenset[Taken]] = frozenset()
_NOBODY: Final[frozenset[NodeInfo]] = frozenset()


class Upstream:
    """Answers about the nodes of one graph, remembered."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._taken: _Known[Taken] = [None] * graph.size
        self._people: _Known[NodeInfo] = [None] * graph.size

    def taken(self, node: NodeInfo) -> frozenset[Taken]:
        """The nearest vessels upstream on each path (individuals where a path meets no vessel).

        Each with the data on that path that it was an input for. Empty for vessels and people
        themselves.
        """
        known = self._taken[node.number]
        if known is not None:
            return known
        chain: list[NodeInfo] = []
        while node.kind is _DATA:
            known = self._taken[node.number]
            only = self._only_input(node)
            if known is None and only is not None and only.kind in _SINGLE:
                known = self._taken[node.number] = frozenset(((only, node),))
            elif known is None and (only is None or len(chain) == _LONG_CHAIN):
                known = _folded(node, self._taken, self._before_sample, self._taken_here)
            if known is not None:
                for each in chain:
                    self._taken[each.number] = known
                return known
            chain.append(node)
            node = only or node
        if not chain:
            return _NOTHING
        return _folded(chain[0], self._taken, self._before_sample, self._taken_here)

    def people(self, node: NodeInfo) -> frozenset[NodeInfo]:
        """All individuals upstream; a vessel with none upstream of it stands for its unknown one.

        Of data without any it is empty.
        """
        chain: list[NodeInfo] = []
        while True:
            known = self._people[node.number]
            if known is None and node.kind is _PERSON:
                known = self._people[node.number] = frozenset((node,))
            only = self._only_input(node)
            if known is None and (only is None or len(chain) == _LONG_CHAIN):
                known = _folded(node, self._people, self._before_person, self._people_here)
            if known:
                for each in chain:
                    self._people[each.number] = known
                return known
            if known is not None:
                break
            chain.append(node)
            node = only or node
        return _folded(
            chain[0] if chain else node, self._people, self._before_person, self._people_here
        )

    def people_behind(self, sample: NodeInfo, data: Iterable[NodeInfo]) -> frozenset[NodeInfo]:
        """All `people` of a sample and of data taken from it."""
        behind = self.people(sample)
        for node in data:
            if self._only_input(node) is sample:
                continue  # nobody else can be behind it
            more = self.people(node)
            if more is not behind and not more <= behind:
                behind = behind | more
        return behind

    def material(self, node: NodeInfo) -> tuple[NodeInfo, ...]:
        """The node itself if it is a vessel or an individual; the vessels of a collection."""
        if node.kind in _SINGLE:
            return (node,)
        if node.kind is _DATA:
            return ()
        found: dict[NodeInfo, None] = {}
        stack, seen = [node], {node}
        while stack:
            node = stack.pop()
            if node.kind is NodeKind.MATERIAL:
                found[node] = None
            for member in node.members:
                if member not in seen:
                    seen.add(member)
                    stack.append(member)
        return tuple(found)

    def only_taken(self, action: ActionInfo) -> Taken | None:
        """The one pair that all inputs and outputs share, all being data; None if that is not so.

        So it is with most actions, and quicker to tell than the general answers.
        """
        inputs = action.inputs
        first: Taken | None = None
        for node in inputs:
            taken = self.taken(node)
            if len(taken) != 1:
                return None
            (pair,) = taken
            if first is not None and pair != first:
                return None
            first = pair
        if first is None:
            return None
        for node, _role in action.outputs:
            if node.kind is not _DATA:
                return None
            if len(inputs) == 1 and len(node.makers) == 1 and not node.members:
                continue  # it came from that input alone
            taken = self.taken(node)
            if len(taken) != 1 or first not in taken:
                return None
        return first

    def samples_of(self, action: ActionInfo) -> frozenset[NodeInfo]:
        """The samples that an action's inputs and outputs belong to: vessels, else individuals."""
        found: set[NodeInfo] = set()
        for node in action.inputs:
            if node.kind is _DATA:
                found.update([sample for sample, _data in self.taken(node)])
            else:
                found.update(self.material(node))
        for node, _role in action.outputs:
            if node.kind is _DATA:
                found.update([sample for sample, _data in self.taken(node)])
        vessels = [node for node in found if node.kind is NodeKind.MATERIAL]
        return frozenset(vessels or found)

    def _only_input(self, node: NodeInfo) -> NodeInfo | None:
        """The one node that this one came from, where it is that simple: a short cut."""
        makers = node.makers
        if len(makers) == 1 and not node.members:
            inputs = self._graph.actions[makers[0]].inputs
            if len(inputs) == 1:
                return inputs[0]
        return None

    def _before_sample(self, node: NodeInfo) -> Iterable[NodeInfo]:
        return [
            before
            for before in (*node.members, *self._graph.inputs_of(node))
            if before.kind is _DATA
        ]

    def _taken_here(self, node: NodeInfo, known: _Known[Taken]) -> frozenset[Taken]:
        if node.kind is not _DATA:
            return _NOTHING
        own = {
            (sample, node)
            for before in self._graph.inputs_of(node)
            if before.kind is not _DATA
            for sample in self.material(before)
        }
        return _union(
            frozenset(own), (known[n.number] or _NOTHING for n in self._before_sample(node))
        )

    def _before_person(self, node: NodeInfo) -> Iterable[NodeInfo]:
        return (*node.members, *self._graph.inputs_of(node))

    def _people_here(self, node: NodeInfo, known: _Known[NodeInfo]) -> frozenset[NodeInfo]:
        if node.kind is _PERSON:
            return frozenset((node,))
        found = _union(_NOBODY, (known[n.number] or _NOBODY for n in self._before_person(node)))
        if not found and node.kind is NodeKind.MATERIAL:
            return frozenset((node,))
        return found


def _folded(
    start: NodeInfo,
    known: _Known[T],
    before: Callable[[NodeInfo], Iterable[NodeInfo]],
    here: Callable[[NodeInfo, _Known[T]], frozenset[T]],
) -> frozenset[T]:
    """`here` of the start, after that of all nodes before it; fills `known`."""
    stack = [start]
    # A catalog holds no cycles; one that does all the same must not hang us.
    waiting: set[int] = set()
    while stack:
        node = stack[-1]
        if known[node.number] is not None:
            stack.pop()
            continue
        if node.number not in waiting:
            waiting.add(node.number)
            missing = [
                each
                for each in before(node)
                if known[each.number] is None and each.number not in waiting
            ]
            if missing:
                stack.extend(missing)
                continue
        known[node.number] = here(node, known)
        stack.pop()
    return known[start.number] or frozenset()


def _union(first: frozenset[T], others: Iterable[frozenset[T]]) -> frozenset[T]:
    found = first
    for other in others:
        if not found:
            found = other
        elif other is not found and not other <= found:
            found = found | other
    return found
