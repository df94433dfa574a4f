"""From a node up to its samples, the data taken from them, and the people behind them.

Each node is looked at once, in a walk with a stack of its own: chains may be as deep, and diamonds
as many, as they like. Equal sets are shared, so that a chain costs one set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias, TypeVar

from biobank_core.selection.graph import ActionInfo, Graph, NodeKind

T = TypeVar("T")

# (sample, the data that was made with this sample as an input).
Taken: TypeAlias = tuple[str, str]

_SINGLE: Final = (NodeKind.MATERIAL, NodeKind.PERSON)
# From here on the general walk takes over, which also ends where (against all rules) is a cycle.
_LONG_CHAIN: Final = 100

_NOTHING: Final[frozenset[Taken]] = frozenset()
_NOBODY: Final[frozenset[str]] = frozenset()


class Upstream:
    """Answers about the nodes of one graph, remembered."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._taken: dict[str, frozenset[Taken]] = {}
        self._people: dict[str, frozenset[str]] = {}

    def taken(self, vid: str) -> frozenset[Taken]:
        """The nearest vessels upstream on each path (individuals where a path meets no vessel).

        Each with the data on that path that it was an input for. Empty for vessels and people
        themselves.
        """
        known = self._taken.get(vid)
        if known is not None:
            return known
        nodes = self._graph.nodes
        chain: list[str] = []
        while nodes[vid].kind is NodeKind.DATA:
            known = self._taken.get(vid)
            only = self._only_input(vid)
            if known is None and only is not None and nodes[only].kind in _SINGLE:
                known = self._taken[vid] = frozenset(((only, vid),))
            elif known is None and (only is None or len(chain) == _LONG_CHAIN):
                known = _folded(vid, self._taken, self._before_sample, self._taken_here)
            if known is not None:
                self._taken.update(dict.fromkeys(chain, known))
                return known
            chain.append(vid)
            vid = only or vid
        if not chain:
            return _NOTHING
        return _folded(chain[0], self._taken, self._before_sample, self._taken_here)

    def people(self, vid: str) -> frozenset[str]:
        """All individuals upstream; a vessel with none upstream of it stands for its unknown one.

        Of data without any it is empty.
        """
        chain: list[str] = []
        nodes = self._graph.nodes
        while True:
            known = self._people.get(vid)
            if known is None and nodes[vid].kind is NodeKind.PERSON:
                known = self._people[vid] = frozenset((vid,))
            only = self._only_input(vid)
            if known is None and (only is None or len(chain) == _LONG_CHAIN):
                known = _folded(vid, self._people, self._before_person, self._people_here)
            if known:
                self._people.update(dict.fromkeys(chain, known))
                return known
            if known is not None:
                break
            chain.append(vid)
            vid = only or vid
        return _folded(
            chain[0] if chain else vid, self._people, self._before_person, self._people_here
        )

    def people_behind(self, sample: str, data: Iterable[str]) -> frozenset[str]:
        """All `people` of a sample and of data taken from it."""
        behind = self.people(sample)
        for vid in data:
            if self._only_input(vid) == sample:
                continue  # nobody else can be behind it
            more = self.people(vid)
            if more is not behind and not more <= behind:
                behind = behind | more
        return behind

    def material(self, vid: str) -> tuple[str, ...]:
        """The node itself if it is a vessel or an individual; the vessels of a collection."""
        kind = self._graph.nodes[vid].kind
        if kind in (NodeKind.MATERIAL, NodeKind.PERSON):
            return (vid,)
        if kind is NodeKind.DATA:
            return ()
        found: dict[str, None] = {}
        stack, seen = [vid], {vid}
        while stack:
            node = stack.pop()
            if self._graph.nodes[node].kind is NodeKind.MATERIAL:
                found[node] = None
            for member in self._graph.nodes[node].members:
                if member not in seen:
                    seen.add(member)
                    stack.append(member)
        return tuple(found)

    def only_taken(self, action: ActionInfo) -> Taken | None:
        """The one pair that all inputs and outputs share, all being data; None if that is not so.

        So it is with most actions, and quicker to tell than the general answers.
        """
        nodes, makers = self._graph.nodes, self._graph.makers
        inputs = action.inputs
        first: Taken | None = None
        for vid in inputs:
            taken = self.taken(vid)
            if len(taken) != 1:
                return None
            (pair,) = taken
            if first is not None and pair != first:
                return None
            first = pair
        if first is None:
            return None
        for vid, _role in action.outputs:
            if nodes[vid].kind is not NodeKind.DATA:
                return None
            if len(inputs) == 1 and len(makers[vid]) == 1 and not nodes[vid].members:
                continue  # it came from that input alone
            taken = self.taken(vid)
            if len(taken) != 1 or first not in taken:
                return None
        return first

    def samples_of(self, action: ActionInfo) -> frozenset[str]:
        """The samples that an action's inputs and outputs belong to: vessels, else individuals."""
        nodes = self._graph.nodes
        found: set[str] = set()
        for vid in action.inputs:
            if nodes[vid].kind is NodeKind.DATA:
                found.update([sample for sample, _data in self.taken(vid)])
            else:
                found.update(self.material(vid))
        for vid, _role in action.outputs:
            if nodes[vid].kind is NodeKind.DATA:
                found.update([sample for sample, _data in self.taken(vid)])
        vessels = [vid for vid in found if nodes[vid].kind is NodeKind.MATERIAL]
        return frozenset(vessels or found)

    def _only_input(self, vid: str) -> str | None:
        """The one node that this one came from, where it is that simple: a short cut."""
        graph = self._graph
        makers = graph.makers.get(vid)
        if makers is not None and len(makers) == 1 and not graph.nodes[vid].members:
            inputs = graph.actions[makers[0]].inputs
            if len(inputs) == 1:
                return inputs[0]
        return None

    def _before_sample(self, vid: str) -> Iterable[str]:
        nodes = self._graph.nodes
        return [
            node
            for node in (*nodes[vid].members, *self._graph.inputs_of(vid))
            if nodes[node].kind is NodeKind.DATA
        ]

    def _taken_here(self, vid: str, known: dict[str, frozenset[Taken]]) -> frozenset[Taken]:
        nodes = self._graph.nodes
        if nodes[vid].kind is not NodeKind.DATA:
            return _NOTHING
        own = {
            (sample, vid)
            for node in self._graph.inputs_of(vid)
            if nodes[node].kind is not NodeKind.DATA
            for sample in self.material(node)
        }
        return _union(frozenset(own), (known.get(n, _NOTHING) for n in self._before_sample(vid)))

    def _before_person(self, vid: str) -> Iterable[str]:
        return (*self._graph.nodes[vid].members, *self._graph.inputs_of(vid))

    def _people_here(self, vid: str, known: dict[str, frozenset[str]]) -> frozenset[str]:
        kind = self._graph.nodes[vid].kind
        if kind is NodeKind.PERSON:
            return frozenset((vid,))
        found = _union(_NOBODY, (known.get(n, _NOBODY) for n in self._before_person(vid)))
        if not found and kind is NodeKind.MATERIAL:
            return frozenset((vid,))
        return found


def _folded(
    start: str,
    known: dict[str, frozenset[T]],
    before: Callable[[str], Iterable[str]],
    here: Callable[[str, dict[str, frozenset[T]]], frozenset[T]],
) -> frozenset[T]:
    """`here` of the start, after that of all nodes before it; fills `known`."""
    if start in known:
        return known[start]
    stack = [start]
    # A catalog holds no cycles; one that does all the same must not hang us.
    waiting: set[str] = set()
    while stack:
        vid = stack[-1]
        if vid in known:
            stack.pop()
            continue
        if vid not in waiting:
            waiting.add(vid)
            missing = [node for node in before(vid) if node not in known and node not in waiting]
            if missing:
                stack.extend(missing)
                continue
        known[vid] = here(vid, known)
        stack.pop()
    return known[start]


def _union(first: frozenset[T], others: Iterable[frozenset[T]]) -> frozenset[T]:
    found = first
    for other in others:
        if not found:
            found = other
        elif other is not found and not other <= found:
            found = found | other
    return found
