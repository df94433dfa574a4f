"""The graph as rows, from the catalog and from an index: what `lineage.verify` compares.

A row stands by itself: a node, an action that made it, an edge, a use. Both sides give equal rows
(with equal hashes) for equal graphs, in any order, without ever holding the graph in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import attrgetter
from typing import Final, TypeAlias

import msgspec

from biobank_core.catalog.port import Catalog
from biobank_core.lineage.events import (
    ActionEvent,
    DeviceEvent,
    IndexEvent,
    NodeEvent,
    SupersessionEvent,
)
from biobank_core.lineage.follow import BATCH, objects_of_graph
from biobank_core.lineage.links import Link, part_of
from biobank_core.lineage.port import (
    IMPLICIT_COLLECTION,
    Edge,
    LineageIndex,
    Maker,
    Node,
    Relation,
    Use,
)
from biobank_core.lineage.projection import project


class Made(msgspec.Struct, frozen=True, gc=False):
    """A node and an action that made it."""

    node: str
    maker: Maker


class Ahead(msgspec.Struct, frozen=True, gc=False):
    """The index holds a later version than the catalog: it would not take in the next ones."""

    vid: str
    kind: str
    held: int
    version: int


Row: TypeAlias = Node | Made | Edge | Use | Ahead
Key: TypeAlias = tuple[str, ...]
# A row with the VID and kind of the object that gives it.
Given: TypeAlias = tuple[Row, str, str]
Advance: TypeAlias = Callable[[int], None]


# Rows of the catalog


def expected(catalog: Catalog, index: LineageIndex, advance: Advance) -> Iterator[Given]:
    """The rows that the catalog's objects give, each once; `advance` as of `verify.verify`."""
    log = only_log(catalog)
    groups = frozenset((log,)) if log is not None else frozenset()
    devices = {
        item.object.vid: event
        for item in catalog.find("Device")
        if isinstance(event := project(item.object, version=item.version, log=""), DeviceEvent)
    }
    # Two supersessions of one pair are one edge. They are few: results that were made again.
    pairs: set[tuple[str, str]] = set()
    objects = objects_of_graph(catalog, advance)
    while some := list(islice(objects, BATCH)):
        events = [
            event
            for item in some
            if (event := project(item.object, version=item.version, log=log or "")) is not None
        ]
        for event in events:
            if isinstance(event, NodeEvent):
                yield _node(event, groups), event.vid, event.kind
                if not event.members:
                    continue
            elif isinstance(event, SupersessionEvent) and not event.deleted:
                pair = (event.new, event.old)
                if pair not in pairs:
                    pairs.add(pair)
                    yield Edge(*pair, Relation.SUPERSEDES), event.vid, "Supersession"
            yield from _parts(event, devices, groups)
        if log is not None:
            yield from _ahead(index, events)
        advance(len(some))


def _node(event: NodeEvent, groups: frozenset[str]) -> Node:
    return Node(
        vid=event.vid,
        kind=event.kind,
        label=event.label,
        study=event.study,
        groups=groups,
        deleted=event.deleted,
    )


def _parts(
    event: IndexEvent, devices: dict[str, DeviceEvent], groups: frozenset[str]
) -> Iterator[Given]:
    part = part_of(event)
    maker = _maker(event, devices) if isinstance(event, ActionEvent) else None
    kind = event.kind if isinstance(event, NodeEvent) else "Action"
    for link in part.links:
        for edge in _edges(link, maker):
            yield edge, event.vid, kind
    if maker is None:
        return
    for node in part.made:
        yield Made(node, maker), event.vid, kind
    for node, roles in part.uses:
        for role in roles:
            yield Use(event.vid, node, role, maker), event.vid, kind
    if (middle := part.implicit) is not None:
        node_row = Node(middle.vid, middle.kind, middle.label, middle.study, groups, False)
        yield node_row, event.vid, kind


def _maker(event: ActionEvent, devices: dict[str, DeviceEvent]) -> Maker:
    device = None if event.device is None else devices.get(event.device)
    return Maker(
        action=event.vid,
        category=event.category,
        device=event.device,
        tool=device.label if device else None,
        release=device.release if device else None,
        setup=event.setup,
        status=event.status,
        end=event.end,
    )


def _edges(link: Link, maker: Maker | None) -> Iterator[Edge]:
    made = link.relation is Relation.PRODUCED and maker is not None
    action, maker = (link.vid, maker) if made else (None, None)
    for source, source_roles in link.inputs:
        for target, target_roles in link.outputs:
            yield Edge(source, target, link.relation, action, maker, source_roles, target_roles)


def _ahead(index: LineageIndex, events: Iterable[IndexEvent]) -> Iterator[Given]:
    known = {event.vid: event for event in events}
    for vid, held in index.versions(known).items():
        event = known[vid]
        if held > event.version:
            kind = event.kind if isinstance(event, NodeEvent) else _KINDS[type(event)]
            yield Ahead(vid, kind, held, event.version), vid, kind


_KINDS: Final[dict[type[IndexEvent], str]] = {
    ActionEvent: "Action",
    DeviceEvent: "Device",
    SupersessionEvent: "Supersession",
}


# Rows of the index


def held(catalog: Catalog, index: LineageIndex) -> Iterator[Row]:
    """The rows that the index holds."""
    several = only_log(catalog) is None
    nobody: frozenset[str] = frozenset()
    for item in index.content():
        if not isinstance(item, Node):
            yield item
            continue
        for maker in item.makers:
            yield Made(item.vid, maker)
        if item.makers or several:
            groups = nobody if several else item.groups
            yield Node(item.vid, item.kind, item.label, item.study, groups, item.deleted)
        else:
            yield item


def only_log(catalog: Catalog) -> str | None:
    """The catalog's log when it has one; objects do not say which of several hold them."""
    logs = list(catalog.head())
    return logs[0] if len(logs) == 1 else None


# What a row is


# A VID by which equal rows, and rows of one key, come together.
bucket_key: Final[dict[type[Row], Callable[[Row], str]]] = {
    Node: attrgetter("vid"),
    Made: attrgetter("node"),
    Edge: attrgetter("source"),
    Use: attrgetter("node"),
    Ahead: attrgetter("vid"),
}


def key(row: Row) -> Key:
    """What makes a row this row; the rest is its content."""
    match row:
        case Node():
            return "node", row.vid
        case Made():
            return "made", row.node, row.maker.action
        case Edge():
            return "edge", row.source, row.target, row.relation.value, row.action or ""
        case Use():
            return "use", row.action, row.node, row.role
    return "ahead", row.vid


def giver(row: Row) -> tuple[str, str]:
    """The object that gave a row which the catalog knows nothing of; "" where it is not known."""
    match row:
        case Node():
            return row.vid, row.kind
        case Made():
            return row.maker.action, "Action"
        case Edge() if row.action is not None:
            return row.action, "Action"
        case Edge() if row.relation is Relation.COLLECTED_IN:
            return row.target, "Collection"
        case Use():
            return row.action, "Action"
    return "", "Supersession"


def ends(row: Row) -> tuple[str, ...]:
    """The nodes of an edge; nothing for other rows."""
    return (row.source, row.target) if isinstance(row, Edge) else ()


def named(row: Row) -> set[str]:
    """The nodes that must be known for the row to show, and the device whose label it shows."""
    found = set(ends(row))
    if isinstance(row, Made | Use):
        found.add(row.node)
    maker = getattr(row, "maker", None)
    if isinstance(maker, Maker) and maker.device is not None:
        found.add(maker.device)
    return found


def described(row: Row) -> str:
    """The row in words; who gives it is said elsewhere."""
    match row:
        case Node():
            if row.kind == IMPLICIT_COLLECTION:
                return f"node {row.vid}"
            return "node, deleted" if row.deleted else f"node {row.label!r}"
        case Made():
            return f"made {row.node}"
        case Edge():
            return f"edge {row.relation.value} {row.source} -> {row.target}"
        case Use():
            return f"use of {row.node} as {row.role!r}"
    return ""


def difference(held: Row, right: Row) -> str:
    """The fields in which two rows of one key differ, as `field held instead of right`."""
    differences: list[str] = []
    pairs = [("", held, right)]
    for prefix, mine, theirs in pairs:
        for field in mine.__struct_fields__:
            here, there = getattr(mine, field), getattr(theirs, field)
            if here == there:
                continue
            if isinstance(here, Maker) and isinstance(there, Maker):
                pairs.append((f"{prefix}{field}.", here, there))  # type: ignore[arg-type]
            else:
                differences.append(f"{prefix}{field} {_shown(here)} instead of {_shown(there)}")
    return f"{described(right)}: {', '.join(differences)}"


def _shown(value: object) -> str:
    if isinstance(value, frozenset | tuple):
        return repr(sorted(map(str, value)))
    return repr(value) if isinstance(value, str | bool | None) else str(value)
