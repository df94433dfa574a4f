"""The part of the catalog that a selection looks at, loaded in bulk and kept compact.

It is the actions of one study and everything upstream of them, in whatever study.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from itertools import chain, islice
from typing import Final, TypeAlias

import msgspec

from biobank_core.catalog.port import Catalog
from biobank_core.errors import InputError
from biobank_core.model.base import Object
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionStatus,
    DataCollection,
    Device,
    Port,
    Tombstone,
    VesselsCollection,
)
from biobank_core.model.registry import is_a, with_subkinds
from biobank_core.selection import shapes

# VIDs asked for at once. Bounds memory; a driver splits further where it must.
CHUNK: Final = 10_000

# Up to this many actions of other studies per own one it is quicker to read them all than to ask
# for the makers of each node.
_FOREIGN_PER_OWN: Final = 3


# From this share (one in so many) of all objects on, reading through the whole catalog is quicker.
_SCAN_FROM: Final = 4

_NO_ANALYSIS: Final = (ActionCategory.IMPORT, ActionCategory.OBJECT_CLONING)


class NodeKind(Enum):
    """What a node is to a selection."""

    MATERIAL = "material"  # a vessel
    PERSON = "person"
    VESSELS = "vessels"  # a collection of vessels
    DATA = "data"  # data samples, collections of them, and kinds that nothing is known of


class NodeInfo(msgspec.Struct, gc=False):
    """What is kept of an object; `members` are a collection's."""

    kind: NodeKind
    name: str
    label: str
    study: str | None
    deleted: bool
    members: tuple[str, ...] = ()


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
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Graph:
    """`makers` holds, by output VID, the positions in `actions` of those that made it."""

    actions: list[ActionInfo] = field(default_factory=list)
    makers: dict[str, list[int]] = field(default_factory=dict)
    nodes: dict[str, NodeInfo] = field(default_factory=dict)
    devices: dict[str, Device] = field(default_factory=dict)

    def inputs_of(self, vid: str) -> Iterator[str]:
        """The inputs of all actions that made this node."""
        for position in self.makers.get(vid, ()):
            yield from self.actions[position].inputs


def load_graph(catalog: Catalog, study: str, *, foreign_per_own: int = _FOREIGN_PER_OWN) -> Graph:
    """The actions of the study (VID) and all that is upstream of their inputs and outputs.

    `foreign_per_own` only decides how the actions of other studies are found, not which.
    """
    graph = Graph()
    for item in catalog.find("Device"):
        if isinstance(item.object, Device):  # not one whose plug-in is missing
            graph.devices[item.object.vid] = item.object
    counts = catalog.count()
    own = _own(catalog, study, counts)
    foreign = sum(counts.get(kind, 0) for kind in with_subkinds("Action")) - len(own)
    makers_of: _MakersOf
    if foreign <= 0:
        makers_of = _no_makers
    elif foreign <= foreign_per_own * len(own):
        makers_of = _read_all(catalog)
    else:
        makers_of = _ask(catalog)
    _add(graph, own)
    ends = _ends(own)
    _load_many(graph, catalog, study, counts, ends)
    _walk_up(graph, catalog, own, ends, makers_of)
    return graph


def _own(catalog: Catalog, study: str, counts: Mapping[str, int]) -> list[ActionInfo]:
    if counts.get("Study", 0) != 1:
        return list(map(_action, shapes.read(catalog, shapes.ACTION, "Action", {"study": study})))
    # All of them, unless a driver shows actions of a study that it does not show.
    kinds = {kind for kind in with_subkinds("Action") if kind != "Tombstone"}
    lines = shapes.read_kinds(catalog, dict.fromkeys(kinds, shapes.ACTION))
    return [_action(line) for line in lines if line.study == study]


def chunks(vids: Iterable[str]) -> Iterator[list[str]]:
    """The VIDs in lists of at most CHUNK."""
    iterator = iter(vids)
    while part := list(islice(iterator, CHUNK)):
        yield part


def _action(line: Action | shapes.ActionLine) -> ActionInfo:
    return ActionInfo(
        vid=line.vid,
        device=line.device,
        setup=line.setup,
        status=line.status,
        analyses=line.category not in _NO_ANALYSIS,
        time=line.end or line.begin,
        inputs=_ports(line.inputs),
        outputs=tuple([(port.object, port.role) for port in line.outputs]),
    )


def _ports(ports: Sequence[Port | shapes.InputLine]) -> tuple[str, ...]:
    if len(ports) == 1:  # as most have
        return (ports[0].object,)
    return tuple([port.object for port in ports])


def _add(graph: Graph, actions: Iterable[ActionInfo]) -> None:
    makers = graph.makers
    for position, action in enumerate(actions, len(graph.actions)):
        graph.actions.append(action)
        for vid, _role in action.outputs:
            known = makers.get(vid)
            if known is None:
                makers[vid] = [position]
            elif known[-1] != position:  # one action may put out a node twice, in two roles
                known.append(position)


def _ends(actions: Iterable[ActionInfo]) -> dict[str, None]:
    ends: dict[str, None] = {}
    for action in actions:
        for vid in action.inputs:
            ends[vid] = None
        for vid, _role in action.outputs:
            ends[vid] = None
    return ends


# From nodes to the actions that made them; may give more of what is upstream, and known ones.
_MakersOf: TypeAlias = Callable[[Iterable[str]], Iterable[ActionInfo]]


def _no_makers(_vids: Iterable[str]) -> Iterable[ActionInfo]:
    return ()


def _ask(catalog: Catalog) -> _MakersOf:
    def makers_of(vids: Iterable[str]) -> Iterator[ActionInfo]:
        for part in chunks(vids):
            found = {
                referrer.vid: None
                for referrer in catalog.referring(part, ["Action"])
                if referrer.field.startswith("outputs")
            }
            for wanted in chunks(found):
                for item in catalog.get(wanted).values():
                    if isinstance(item.object, Action):
                        yield _action(item.object)

    return makers_of


def _read_all(catalog: Catalog) -> _MakersOf:
    makers: dict[str, list[ActionInfo]] = {}
    for action in map(_action, shapes.read(catalog, shapes.ACTION, "Action")):
        for vid, _role in action.outputs:
            makers.setdefault(vid, []).append(action)

    def makers_of(vids: Iterable[str]) -> Iterator[ActionInfo]:
        stack = list(vids)
        seen = set(stack)
        while stack:
            for action in makers.get(stack.pop(), ()):
                yield action
                new = [vid for vid in action.inputs if vid not in seen]
                seen.update(new)
                stack.extend(new)

    return makers_of


def _walk_up(
    graph: Graph,
    catalog: Catalog,
    own: Sequence[ActionInfo],
    frontier: dict[str, None],
    makers_of: _MakersOf,
) -> None:
    if makers_of is _no_makers:
        _load_nodes(graph, catalog, frontier)
        return
    added = {action.vid for action in own}
    walked: set[str] = set()
    while frontier:
        _load_nodes(graph, catalog, frontier)
        nodes = _with_members(graph, frontier, walked)
        frontier = {}
        for action in makers_of(nodes):
            if action.vid not in added:
                added.add(action.vid)
                _add(graph, [action])
                frontier.update((vid, None) for vid in action.inputs if vid not in walked)
    _load_nodes(graph, catalog, _ends(graph.actions))


def _with_members(graph: Graph, vids: Iterable[str], walked: set[str]) -> list[str]:
    stack = list(vids)
    nodes: list[str] = []
    while stack:
        vid = stack.pop()
        if vid not in walked:
            walked.add(vid)
            nodes.append(vid)
            stack.extend(graph.nodes[vid].members)
    return nodes


def _load_many(
    graph: Graph,
    catalog: Catalog,
    study: str,
    counts: Mapping[str, int],
    wanted: Collection[str],
) -> None:
    """Reads the nodes of the study, and individuals, as a whole where most of them are needed."""
    of_study = {"study": study}
    if len(wanted) < CHUNK:
        return
    bases = ["Vessel", "DataSample", "Collection"]
    if counts.get("Individual", 0) <= len(wanted):
        bases.append("Individual")
    kinds = {kind for base in bases for kind in with_subkinds(base)} - {"Tombstone"}
    lines: Iterable[shapes.NodeLine]
    if len(wanted) * _SCAN_FROM >= sum(counts.values()):
        lines = shapes.read_kinds(catalog, dict.fromkeys(kinds, shapes.NODE))
    else:
        lines = chain.from_iterable(
            shapes.read(catalog, shapes.NODE, base, None if base == "Individual" else of_study)
            for base in bases
        )
    nodes = graph.nodes
    node_kinds = {kind: _kind(kind) for kind in kinds}
    for line in lines:
        vid = line.vid
        if vid in wanted:
            name = line.kind
            members = tuple([item.object for item in line.items]) if line.items else ()
            nodes[vid] = NodeInfo(
                node_kinds.get(name) or _kind(name), name, line.label, line.study, False, members
            )
    _load_nodes(graph, catalog, [vid for info in graph.nodes.values() for vid in info.members])


def _load_nodes(graph: Graph, catalog: Catalog, vids: Iterable[str]) -> None:
    """Loads these nodes and, of collections among them, the members."""
    wanted = [vid for vid in vids if vid not in graph.nodes]
    while wanted:
        members: dict[str, None] = {}
        for part in chunks(wanted):
            found = catalog.get(part)
            for vid in part:
                item = found.get(vid)
                info = graph.nodes[vid] = _node(item.object) if item else _UNREADABLE
                for member in info.members:
                    members[member] = None
        wanted = [vid for vid in members if vid not in graph.nodes]


# What may not be read, or dangles (OMERO can't prevent that across groups), passes the walk on.
_UNREADABLE: Final = NodeInfo(NodeKind.DATA, "", "", None, deleted=True)

_BASES: Final = (
    ("DataSample", NodeKind.DATA),
    ("Vessel", NodeKind.MATERIAL),
    ("Individual", NodeKind.PERSON),
    ("VesselsCollection", NodeKind.VESSELS),
)


def _node(obj: Object) -> NodeInfo:
    if isinstance(obj, Tombstone):
        return NodeInfo(_kind(obj.of), obj.of, "", None, deleted=True)
    name = obj.kind
    members: tuple[str, ...] = ()
    if isinstance(obj, DataCollection | VesselsCollection):
        members = tuple([item.object for item in obj.items])
    return NodeInfo(
        _kind(name),
        name,
        getattr(obj, "label", ""),
        getattr(obj, "study", None),
        deleted=False,
        members=members,
    )


def _kind(name: str) -> NodeKind:
    try:
        for base, kind in _BASES:
            if is_a(name, base):
                return kind
    except InputError:  # the tombstone of a kind whose plug-in is gone
        pass
    return NodeKind.DATA
