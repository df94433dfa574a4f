"""Looking things up in the tables, in bulk, all on one snapshot."""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from itertools import chain, islice
from operator import attrgetter, itemgetter
from typing import Any, Final, TypeAlias

from biobank_core.lineage import filters
from biobank_core.lineage.port import (
    Direction,
    Edge,
    Maker,
    Node,
    Question,
    Relation,
    Use,
    use_order,
)
from biobank_core.lineage.sqlite.met import LINK, VID, Met
from biobank_core.lineage.sqlite.schema import roles_of_text, to_blob, to_vid
from biobank_core.model.ids import is_vid

# Keys of one statement: JSON text of this many integers is some 100 kB.
_KEYS: Final = 10_000
# So few are given one by one: half the time of a JSON array. A statement for each number is kept.
_FEW: Final = 8
# Nodes of one page of a stream.
_PAGE: Final = 2_000

# VIDs of what few there are of: studies, setups.
_vid: Final = functools.lru_cache(maxsize=10_000)(to_vid)

_LINKS: Final = {
    True: "SELECT link FROM lineage_input WHERE node {}",
    False: "SELECT link FROM lineage_output WHERE node {}",
}
_FAR_ENDS: Final = {
    True: "SELECT node FROM lineage_output WHERE link {}",
    False: "SELECT node FROM lineage_input WHERE link {}",
}
_THESE: Final = "WITH met (number) AS (SELECT value FROM json_each(?))"
# All that can be reached: nodes as they are, the links on the way as negative numbers. SQLite takes
# each node and each link once; how far they are from the start it does not tell.
_REACHED: Final = """
WITH RECURSIVE met (number) AS (
    SELECT value FROM json_each(?)
    UNION SELECT -n.link FROM met CROSS JOIN {near} n ON n.node = met.number WHERE met.number > 0
    UNION SELECT f.node FROM met CROSS JOIN {far} f ON f.link = -met.number WHERE met.number < 0
)
"""
# For `Met.add`. `'V0' || hex(vid)` is what `to_vid` does, in C.
_NODES: Final = """
SELECT m.number, o.link, o.roles, 'V0' || hex(n.vid), n.kind, n.label, n.study, n.groups, n.deleted
FROM met m LEFT JOIN lineage_output o ON o.node = m.number
LEFT JOIN lineage_node n ON n.id = m.number
WHERE m.number > 0
"""
_THESE_NODES: Final = _THESE + _NODES
_NODES_REACHED: Final = {
    True: _REACHED.format(near="lineage_input", far="lineage_output") + _NODES,
    False: _REACHED.format(near="lineage_output", far="lineage_input") + _NODES,
}
_INPUTS: Final = "SELECT node, link, roles FROM lineage_input WHERE node {}"
_INPUTS_OF: Final = "SELECT node, link, roles FROM lineage_input WHERE link {}"
_OUTPUTS_OF: Final = """
SELECT o.node, o.link, o.roles, 'V0' || hex(n.vid)
FROM lineage_output o CROSS JOIN lineage_node n ON n.id = o.node WHERE o.link {}
"""
_MAKERS: Final = """
SELECT id, 'V0' || hex(vid), category, device, setup, status, ended
FROM lineage_action WHERE id {}
"""
_DEVICES: Final = """
SELECT v.id, 'V0' || hex(v.vid), d.label, d.release
FROM lineage_vid v LEFT JOIN lineage_device d ON d.id = v.id WHERE v.id {}
"""
_TOOLS: Final = """
SELECT a.id, d.label FROM lineage_action a CROSS JOIN lineage_device d ON d.id = a.device
WHERE a.id {}
"""
_NEWER: Final = """
SELECT s.new, s.old, n.groups, n.deleted
FROM lineage_supersession s LEFT JOIN lineage_node n ON n.id = s.new WHERE s.old {}
"""
_OLDER: Final = """
SELECT DISTINCT s.new, 'V0' || hex(n.vid)
FROM lineage_supersession s CROSS JOIN lineage_node n ON n.id = s.old WHERE s.new {}
"""
_USES: Final = "SELECT node, action, roles FROM lineage_use WHERE node {}"

_Device: TypeAlias = tuple[str | None, str | None, str | None]


class Reader:
    """A snapshot of the graph: bulk look-ups by integer, and `walk.Steps`."""

    def __init__(self, connection: sqlite3.Connection, question: Question | None = None) -> None:
        self._connection = connection
        self._question = question
        self._met: Met | None = None
        self._makers: dict[int, Maker] = {}
        self._devices: dict[int | None, _Device] = {None: (None, None, None)}
        self._groups: dict[int, frozenset[str]] = {}

    # walk.Steps

    def links(self, nodes: Collection[int], *, downstream: bool) -> Iterable[int]:
        """See `walk.Steps`."""
        if self._met is not None:
            return self._met.links(nodes, downstream=downstream)
        return map(_first, self._many(_LINKS[downstream], nodes))

    def far_ends(self, links: Collection[int], *, downstream: bool) -> Iterable[int]:
        """See `walk.Steps`."""
        if self._met is not None:
            return self._met.far_ends(links, downstream=downstream)
        return map(_first, self._many(_FAR_ENDS[downstream], links))

    def asked_for(self, links: Collection[int]) -> Iterable[int]:
        """See `walk.Steps`."""
        question = self._question
        if question is None:
            return
        for link, tool in self._many(_TOOLS, links):
            if filters.made_by_tool(tool, question):
                yield link

    def meet_all(self, starts: Collection[int], direction: Direction) -> Met:
        """All that a walk from here to the very ends meets; the walk itself then asks no more.

        A few statements, however many layers the graph has, in place of two a layer.
        """
        met = Met()
        for downstream in (False, True):
            if direction is not (Direction.UPSTREAM if downstream else Direction.DOWNSTREAM):
                query = _NODES_REACHED[downstream]
                met.add(self._connection.execute(query, (str(list(starts)),)))
        self._add_inputs(met, direction)
        self._met = met
        return met

    def meet(self, nodes: Collection[int], direction: Direction) -> Met:
        """These nodes and their links."""
        met = Met()
        for some in _chunks(nodes):
            met.add(self._connection.execute(_THESE_NODES, (str(some),)))
        self._add_inputs(met, direction)
        return met

    def _add_inputs(self, met: Met, direction: Direction) -> None:
        # From the side where the walk has been: a reference genome is an input of everything, and
        # a collection has very many members that the walk never met.
        if direction is Direction.DOWNSTREAM:
            met.add_inputs(self._many(_INPUTS, met.nodes))
        else:
            met.add_inputs(self._many(_INPUTS_OF, met.outputs))

    # Look-ups

    def ids(self, vids: Iterable[str]) -> dict[str, int]:
        """The integers of known nodes; others are left out."""
        found: dict[str, int] = {}
        for vid in dict.fromkeys(vids):
            if is_vid(vid):
                row = self._connection.execute(
                    "SELECT n.id FROM lineage_vid v JOIN lineage_node n ON n.id = v.id "
                    "WHERE v.vid = ?",
                    (to_blob(vid),),
                ).fetchone()
                if row is not None:
                    found[vid] = row[0]
        return found

    def readable(self, nodes: Collection[int], question: Question) -> list[int]:
        """Those of these known nodes that the user may read."""
        rows = self._many("SELECT id, groups FROM lineage_node WHERE id {}", nodes)
        groups = {number: self._group(group) for number, group in rows}
        return [node for node in nodes if filters.visible(groups[node], question)]

    def nodes(self, met: Met, depths: dict[int, int] | None = None) -> dict[int, Node]:
        """The known ones of what was met, with their makers; those with a depth, or all at 0."""
        makers = self.makers(met.outputs)
        none: tuple[Maker, ...] = ()
        nodes: dict[int, Node] = {}
        for number, row in met.known.items():
            if depths is not None and number not in depths:
                continue
            _, link, _, vid, kind, label, study, groups, deleted = row
            made: tuple[Maker, ...] = none
            if link is not None:
                found = [makers[each] for each in met.made_by[number] if each in makers]
                if len(found) > 1:
                    found.sort(key=_by_action)
                made = tuple(found)
            nodes[number] = Node(
                vid,
                kind,
                label,
                None if study is None else _vid(study),
                self._group(groups),
                bool(deleted),
                0 if depths is None else depths[number],
                made,
            )
        return nodes

    def makers(self, actions: Collection[int]) -> dict[int, Maker]:
        """What the index knows of these actions; collections among them are left out."""
        rows = list(self._many(_MAKERS, [one for one in actions if one not in self._makers]))
        devices = self._devices_of({row[3] for row in rows})
        for number, vid, category, device, setup, status, ended in rows:
            self._makers[number] = Maker(
                vid,
                category,
                *devices.get(device, devices[None]),
                None if setup is None else _vid(setup),
                status,
                None if ended is None else datetime.fromisoformat(ended),
            )
        return self._makers

    def _devices_of(self, numbers: Iterable[int | None]) -> dict[int | None, _Device]:
        """VID, label and release of devices: few, and asked for again and again."""
        unknown = [each for each in numbers if each is not None and each not in self._devices]
        for number, vid, label, release in self._many(_DEVICES, unknown):
            self._devices[number] = vid, label, release
        return self._devices

    def edges(self, met: Met, nodes: dict[int, str]) -> list[Edge]:
        """All edges of what was met between these nodes (integer -> VID)."""
        makers = self.makers(met.outputs)
        edges: list[Edge] = []
        for link, sources in met.inputs.items():
            targets = [
                (nodes[port[0]], roles_of_text(port[2]))
                for port in met.outputs.get(link, ())
                if port[0] in nodes
            ]
            maker = makers.get(link)
            relation = Relation.COLLECTED_IN if maker is None else Relation.PRODUCED
            action = None if maker is None else maker.action
            for number, _, roles in sources:
                source = nodes.get(number)
                if source is not None:
                    source_roles = roles_of_text(roles)
                    edges += [
                        Edge(source, target, relation, action, maker, source_roles, target_roles)
                        for target, target_roles in targets
                    ]
        return edges

    def supersessions(
        self, nodes: dict[int, str], question: Question
    ) -> tuple[set[Edge], frozenset[str]]:
        """The edges SUPERSEDES between these nodes; which of them a living node takes the place of.

        One that the user may read, whether it is returned or not.
        """
        edges: set[Edge] = set()
        superseded: set[str] = set()
        for new, old, groups, deleted in self._many(_NEWER, nodes):
            if new in nodes:
                edges.add(Edge(nodes[new], nodes[old], Relation.SUPERSEDES))
            living = groups is not None and not deleted
            if living and filters.visible(self._group(groups), question):
                superseded.add(nodes[old])
        return edges, frozenset(superseded)

    def uses(self, nodes: dict[int, str]) -> list[Use]:
        """The uses of these nodes, by action, node and role."""
        rows = list(self._many(_USES, nodes))
        makers = self.makers({action for _, action, _ in rows})
        uses = [
            Use(makers[action].action, nodes[node], role, makers[action])
            for node, action, roles in rows
            if action in makers  # else the tables contradict each other: `verify` finds it
            for role in roles_of_text(roles)
        ]
        uses.sort(key=use_order)
        return uses

    # Streams

    def pages(self) -> Iterator[dict[int, str]]:
        """All known nodes (integer -> VID) by VID, in pages."""
        after = b""
        while rows := self._connection.execute(
            "SELECT v.id, v.vid FROM lineage_vid v CROSS JOIN lineage_node n ON n.id = v.id "
            "WHERE v.vid > ? ORDER BY v.vid LIMIT ?",
            (after, _PAGE),
        ).fetchall():
            after = rows[-1][1]
            yield {number: to_vid(vid) for number, vid in rows}

    def pages_as_they_lie(self) -> Iterator[dict[int, str]]:
        """The same by integer: neighbours in the tables, read several times as fast."""
        after = 0
        while rows := self._connection.execute(
            "SELECT id, 'V0' || hex(vid) FROM lineage_node WHERE id > ? ORDER BY id LIMIT ?",
            (after, _PAGE),
        ).fetchall():
            after = rows[-1][0]
            yield dict(rows)

    def nodes_of(self, page: dict[int, str]) -> Iterator[Node]:
        """The nodes of a page, with their makers."""
        met = Met()
        met.add(self._connection.execute(_THESE_NODES, (str(list(page)),)))
        nodes = self.nodes(met)
        return (nodes[number] for number in page)

    def edges_from(self, sources: dict[int, str]) -> list[Edge]:
        """All edges from these nodes to known ones, in any order."""
        met = Met()
        met.add_inputs(self._many(_INPUTS, sources))
        nodes = dict(sources)
        for port in self._many(_OUTPUTS_OF, met.inputs):
            met.outputs[port[LINK]].append(port)
            nodes[port[0]] = port[VID]
        edges = self.edges(met, nodes)
        edges += [
            Edge(sources[new], old, Relation.SUPERSEDES) for new, old in self._many(_OLDER, sources)
        ]
        return edges

    def forget(self) -> None:
        """Let go of what was remembered between look-ups, so that a stream stays small."""
        self._makers.clear()

    # Helpers

    def _group(self, number: int) -> frozenset[str]:
        if number not in self._groups:
            (names,) = self._connection.execute(
                "SELECT names FROM lineage_groups WHERE id = ?", (number,)
            ).fetchone()
            self._groups[number] = frozenset(json.loads(names))
        return self._groups[number]

    def _many(self, query: str, keys: Collection[int]) -> Iterator[tuple[Any, ...]]:
        """Rows of `query`, its `{}` being "is one of these keys"; chunk by chunk."""
        execute = self._connection.execute
        if len(keys) <= _FEW:
            return execute(_few(query, len(keys)), tuple(keys)) if keys else iter(())
        if len(keys) <= _KEYS:
            return execute(_several(query), (str(list(keys)),))
        # Chained in C: a Python generator would cost as much a row as SQLite does.
        return chain.from_iterable(execute(_several(query), (str(some),)) for some in _chunks(keys))


_first: Final = itemgetter(0)


_by_action: Final = attrgetter("action")


def _chunks(keys: Iterable[int]) -> Iterator[list[int]]:
    rest = iter(keys)
    while some := list(islice(rest, _KEYS)):
        yield some


@functools.cache
def _few(query: str, count: int) -> str:
    return query.replace("{}", f"IN ({','.join('?' * count)})")


@functools.cache
def _several(query: str) -> str:
    return query.replace("{}", "IN (SELECT value FROM json_each(?))")
