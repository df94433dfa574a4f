"""Loading the graph of a selection, in bulk.

It is the actions of one study and everything upstream of them, in whatever study.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, Final, TypeAlias

import msgspec

from biobank_core.catalog.port import Catalog
from biobank_core.model.base import Object
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    DataCollection,
    Device,
    Tombstone,
    VesselsCollection,
)
from biobank_core.model.registry import with_subkinds
from biobank_core.selection import shapes
from biobank_core.selection.graph import ActionInfo, Graph, NodeInfo

# VIDs asked for at once. Bounds memory; a driver splits further where it must.
CHUNK: Final = 10_000

# Up to this many actions of other studies per own one it is quicker to read them all than to ask
# for the makers of each node.
_FOREIGN_PER_OWN: Final = 3

# From this share (one in so many) of all objects on, reading through the whole catalog is quicker.
_SCAN_FROM: Final = 4

_NODES: Final = ("Vessel", "DataSample", "Collection", "Individual")
_NO_ANALYSIS: Final = (ActionCategory.IMPORT, ActionCategory.OBJECT_CLONING)

_Line: TypeAlias = Action | shapes.ActionLine
# From nodes to the actions that made them; may give more of what is upstream, and known ones.
_MakersOf: TypeAlias = Callable[[Iterable[NodeInfo]], Iterable[_Line]]


def load_graph(catalog: Catalog, study: str, *, foreign_per_own: int = _FOREIGN_PER_OWN) -> Graph:
    """The actions of the study (VID) and all that is upstream of their inputs and outputs.

    `foreign_per_own` only decides how the actions of other studies are found, not which.
    """
    counts = catalog.count()
    graph = _read_through(catalog, study) if _is_of_one_study(counts) else None
    if graph is None:
        graph = _read_in_parts(catalog, study, counts, foreign_per_own)
    for item in catalog.find("Device"):
        if isinstance(item.object, Device):  # not one whose plug-in is missing
            graph.devices[item.object.vid] = item.object
    return graph


def chunks(vids: Iterable[str]) -> Iterator[list[str]]:
    """The VIDs in lists of at most CHUNK."""
    iterator = iter(vids)
    while part := list(islice(iterator, CHUNK)):
        yield part


# All in one pass


def _is_of_one_study(counts: Mapping[str, int]) -> bool:
    """Whether the graph is a great part of the catalog: then one pass is quickest."""
    wanted = sum(counts.get(kind, 0) for kind in _kinds("Action", *_NODES))
    return (
        counts.get("Study", 0) == 1
        and wanted >= CHUNK
        and wanted * _SCAN_FROM >= sum(counts.values())
    )


def _read_through(catalog: Catalog, study: str) -> Graph | None:
    """The graph from one pass over the catalog; None if some actions are of other studies.

    (A driver may show actions of a study that it does not show.)
    """
    graph = Graph()
    decoders: dict[str, msgspec.json.Decoder[Any]] = dict.fromkeys(_kinds(*_NODES), shapes.NODE)
    decoders.update(dict.fromkeys(_kinds("Action"), shapes.ACTION))
    nodes = graph.nodes
    for line in shapes.read_kinds(catalog, decoders):
        if isinstance(line, shapes.NodeLine):
            node = nodes.get(line.vid)
            if node is None:
                nodes[line.vid] = _node(graph, line)
            else:  # an action that was written before it names it
                _know(graph, node, line)
        elif line.study == study:
            graph.add(_action(graph, line))
        else:
            return None
    _load_nodes(graph, catalog, list(nodes.values()))
    used = {node for action in graph.actions for node in action.inputs}
    if any(not node.makers and node not in used for node in nodes.values()):
        # What no action has met, itself or in a collection, is none of the graph.
        met = _with_members([*used, *(node for node in nodes.values() if node.makers)], set())
        graph.keep(met)
    return graph


# In parts


def _read_in_parts(
    catalog: Catalog, study: str, counts: Mapping[str, int], foreign_per_own: int
) -> Graph:
    graph = Graph()
    for line in shapes.read(catalog, shapes.ACTION, "Action", {"study": study}):
        graph.add(_action(graph, line))
    _load_many(graph, catalog, study, counts)
    own = len(graph.actions)
    foreign = sum(counts.get(kind, 0) for kind in with_subkinds("Action")) - own
    if foreign <= 0:
        _load_nodes(graph, catalog, list(graph.nodes.values()))
    else:
        few = foreign <= foreign_per_own * own
        _walk_up(graph, catalog, _read_all(catalog) if few else _ask(catalog))
    return graph


def _load_many(graph: Graph, catalog: Catalog, study: str, counts: Mapping[str, int]) -> None:
    """Reads the nodes of the study, and individuals, as a whole where most of them are needed."""
    nodes = graph.nodes
    if len(nodes) < CHUNK:
        return
    bases = [base for base in _NODES if base != "Individual"]
    if counts.get("Individual", 0) <= len(nodes):
        bases.append("Individual")
    lines: Iterable[shapes.NodeLine]
    if len(nodes) * _SCAN_FROM >= sum(counts.values()):
        lines = shapes.read_kinds(catalog, dict.fromkeys(_kinds(*bases), shapes.NODE))
    else:
        lines = chain.from_iterable(
            shapes.read(
                catalog, shapes.NODE, base, None if base == "Individual" else {"study": study}
            )
            for base in bases
        )
    for line in lines:
        node = nodes.get(line.vid)
        if node is not None:
            _know(graph, node, line)
    _load_nodes(graph, catalog, list(nodes.values()))


def _ask(catalog: Catalog) -> _MakersOf:
    def makers_of(nodes: Iterable[NodeInfo]) -> Iterator[_Line]:
        for part in chunks(node.vid for node in nodes):
            found = {
                referrer.vid: None
                for referrer in catalog.referring(part, ["Action"])
                if referrer.field.startswith("outputs")
            }
            for wanted in chunks(found):
                for item in catalog.get(wanted).values():
                    if isinstance(item.object, Action):
                        yield item.object

    return makers_of


def _read_all(catalog: Catalog) -> _MakersOf:
    makers: dict[str, list[shapes.ActionLine]] = {}
    for action in shapes.read(catalog, shapes.ACTION, "Action"):
        for port in action.outputs:
            makers.setdefault(port.object, []).append(action)

    def makers_of(nodes: Iterable[NodeInfo]) -> Iterator[_Line]:
        stack = [node.vid for node in nodes]
        seen = set(stack)
        while stack:
            for action in makers.get(stack.pop(), ()):
                yield action
                new = {port.object for port in action.inputs} - seen
                seen |= new
                stack.extend(new)

    return makers_of


def _walk_up(graph: Graph, catalog: Catalog, makers_of: _MakersOf) -> None:
    added = {action.vid for action in graph.actions}
    walked: set[NodeInfo] = set()
    frontier: Iterable[NodeInfo] = list(graph.nodes.values())
    while frontier:
        _load_nodes(graph, catalog, frontier)
        nodes = _with_members(frontier, walked)
        met: dict[NodeInfo, None] = {}
        for line in makers_of(nodes):
            if line.vid not in added:
                added.add(line.vid)
                action = _action(graph, line)
                graph.add(action)
                met |= dict.fromkeys(node for node in action.inputs if node not in walked)
        frontier = met
    _load_nodes(graph, catalog, list(graph.nodes.values()))


def _with_members(nodes: Iterable[NodeInfo], walked: set[NodeInfo]) -> list[NodeInfo]:
    """The nodes and all that they hold, each once, without those walked before."""
    stack = list(nodes)
    found: list[NodeInfo] = []
    while stack:
        node = stack.pop()
        if node not in walked:
            walked.add(node)
            found.append(node)
            stack.extend(node.members)
    return found


# Objects to nodes and actions


def _load_nodes(graph: Graph, catalog: Catalog, nodes: Iterable[NodeInfo]) -> None:
    """Loads those of these nodes that are not known yet and, of collections, the members."""
    wanted = [node for node in nodes if not node.name]
    tried: set[NodeInfo] = set()
    while wanted:
        tried.update(wanted)
        for part in chunks(node.vid for node in wanted):
            for vid, item in catalog.get(part).items():
                _know(graph, graph.nodes[vid], item.object)
        within = {member for node in wanted for member in node.members if not member.name}
        wanted = list(within - tried)


def _node(graph: Graph, line: shapes.NodeLine) -> NodeInfo:
    name, items = line.kind, line.items
    members = tuple([graph.named(item.object) for item in items]) if items else ()
    kind, number = graph.kind(name), len(graph.nodes)
    return NodeInfo(line.vid, number, kind, name, line.label, line.study, False, members)


def _know(graph: Graph, node: NodeInfo, obj: Object | shapes.NodeLine) -> None:
    if isinstance(obj, Tombstone):
        node.name, node.kind = obj.of, graph.kind(obj.of)
        return
    node.name, node.kind, node.deleted = obj.kind, graph.kind(obj.kind), False
    node.label = getattr(obj, "label", "")
    node.study = getattr(obj, "study", None)
    if isinstance(obj, DataCollection | VesselsCollection | shapes.NodeLine):
        node.members = tuple([graph.named(item.object) for item in obj.items])


def _action(graph: Graph, line: _Line) -> ActionInfo:
    known, named = graph.nodes.get, graph.named
    return ActionInfo(
        line.vid,
        line.device,
        line.setup,
        line.status,
        line.category not in _NO_ANALYSIS,
        line.end or line.begin,
        tuple([known(port.object) or named(port.object) for port in line.inputs]),
        tuple([(known(port.object) or named(port.object), port.role) for port in line.outputs]),
    )


def _kinds(*bases: str) -> set[str]:
    return {kind for base in bases for kind in with_subkinds(base)} - {"Tombstone"}
