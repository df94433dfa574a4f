"""The part of the catalog that a selection looks at, kept compact: nodes, and what made them.

Nodes and actions hold each other as they are, not by VID: there are very many of them, and a look
into a large table for each step took most of the time. An action holds its nodes; a node holds but
the positions of its makers, so that nothing is held in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Final, TypeAlias

import msgspec

from biobank_core.errors import InputError
from biobank_core.model.kinds import ActionStatus, Device
from biobank_core.model.registry import is_a


class NodeKind(Enum):
    """What a node is to a selection."""

    MATERIAL = "material"  # a vessel
    PERSON = "person"
    VESSELS = "vessels"  # a collection of vessels
    DATA = "data"  # data samples, collections of them, and kinds that nothing is known of


class NodeInfo(msgspec.Struct, gc=False, eq=False):
    """What is kept of an object, and how it hangs together with others.

    `number` is its own in the graph, from 0; `members` are a collection's; `makers` are positions
    in `Graph.actions`. One that was named and not read yet, may not be read, or dangles (OMERO
    can't prevent that across groups) is data, deleted, without a name: it passes the walk on.
    """

    vid: str
    number: int
    kind: NodeKind = NodeKind.DATA
    name: str = ""
    label: str = ""
    study: str | None = None
    deleted: bool = True
    members: tuple[NodeInfo, ...] = ()
    makers: tuple[int, ...] = ()


# An output and its role.
Output: TypeAlias = tuple[NodeInfo, str]


class ActionInfo(msgspec.Struct, gc=False, eq=False):
    """What is kept of an action. `time` is its end, or its begin where the end is unknown.

    `analyses` is false where nothing new is found out: data that are brought in, or copied.
    """

    vid: str
    device: str | None
    setup: str | None
    status: ActionStatus
    analyses: bool
    time: datetime
    inputs: tuple[NodeInfo, ...]
    outputs: tuple[Output, ...]


@dataclass(slots=True)
class Graph:
    """Nodes by VID, actions in any order, devices by VID."""

    actions: list[ActionInfo] = field(default_factory=list)
    nodes: dict[str, NodeInfo] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)
    _size: int = 0
    _kinds: dict[str, NodeKind] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Beyond all numbers of nodes."""
        return max(self._size, len(self.nodes))

    def named(self, vid: str) -> NodeInfo:
        """The node of this VID, made when it is first asked for."""
        node = self.nodes.get(vid)
        if node is None:
            node = self.nodes[vid] = NodeInfo(vid, len(self.nodes))
        return node

    def keep(self, nodes: Iterable[NodeInfo]) -> None:
        """Leave out all other nodes; numbers stay, and no node may come any more."""
        self._size = len(self.nodes)
        self.nodes = {node.vid: node for node in nodes}

    def kind(self, name: str) -> NodeKind:
        """What objects of this kind are to a selection."""
        kind = self._kinds.get(name)
        if kind is None:
            kind = self._kinds[name] = _kind(name)
        return kind

    def add(self, action: ActionInfo) -> None:
        """Take an action in."""
        position = (len(self.actions),)
        self.actions.append(action)
        for node, _role in action.outputs:
            if not node.makers:
                node.makers = position
            elif node.makers[-1:] != position:  # one action may put out a node in two roles
                node.makers += position

    def inputs_of(self, node: NodeInfo) -> Iterator[NodeInfo]:
        """The inputs of all actions that made this node."""
        for position in node.makers:
            yield from self.actions[position].inputs


_BASES: Final = (
    ("DataSample", NodeKind.DATA),
    ("Vessel", NodeKind.MATERIAL),
    ("Individual", NodeKind.PERSON),
    ("VesselsCollection", NodeKind.VESSELS),
)


def _kind(name: str) -> NodeKind:
    try:
        for base, kind in _BASES:
            if is_a(name, base):
                return kind
    except InputError:  # the tombstone of a kind whose plug-in is gone
        pass
    return NodeKind.DATA
