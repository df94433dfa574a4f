"""Answering questions from the tables, all on one snapshot."""

from __future__ import annotations

import functools
import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from itertools import chain, islice
from operator import attrgetter, itemgetter
from typing import Any, Final

from biobank_core.lineage import filters
from biobank_core.lineage.port import (
    Answer,
    Direction,
    Edge,
    Maker,
    Node,
    Question,
    Relation,
    Use,
    edge_order,
    use_order,
)
from biobank_core.lineage.sqlite.schema import roles_of_text, to_blob, to_vid
from biobank_core.lineage.walk import walk
from biobank_core.model.ids import is_vid

# Keys of one statement: JSON text of this many integers is some 100 kB.
_KEYS: Final = 10_000
# So few are given one by one: half the time of a JSON array. A statement for each number is kept.
_FEW: Final = 8
# Nodes of one page of a stream.
_PAGE: Final = 2_000

# VIDs of what few there are of: studies, devices, setups.
_vid: Final = functools.lru_cache(maxsize=10_000)(to_vid)

# `'V0' || hex(vid)` is what `to_vid` does, in C.
_LINKS: Final = {
    True: "SELECT link FROM lineage_input WHERE node {}",
    False: "SELECT link FROM lineage_output WHERE node {}",
}
_FAR_ENDS: Final = {
    True: "SELECT node FROM lineage_output WHERE link {}",
    False: "SELECT node FROM lineage_input WHERE link {}",
}
_NODES: Final = """
SELECT n.id, 'V0' || hex(v.vid), n.kind, n.label, n.study, n.groups, n.deleted
FROM lineage_node n CROSS JOIN lineage_vid v ON v.id = n.id WHERE n.id {}
"""
_MAKERS: Final = """
SELECT a.id, 'V0' || hex(v.vid), a.category, dv.vid, d.label, d.release, a.setup, a.status, a.ended
FROM lineage_action a CROSS JOIN lineage_vid v ON v.id = a.id
LEFT JOIN lineage_vid dv ON dv.id = a.device LEFT JOIN lineage_device d ON d.id = a.device
WHERE a.id {}
"""
_TOOLS: Final = """
SELECT a.id, d.label FROM lineage_action a CROSS JOIN lineage_device d ON d.id = a.device
WHERE a.id {}
"""


class Reader:
    """A snapshot of the graph: bulk look-ups by integer, and `walk.Steps`."""

    def __init__(self, connection: sqlite3.Connection, question: Question | None = None) -> None:
        self._connection = connection
        self._question = question
        self._makers: dict[int, Maker] = {}
        self._groups: dict[int, frozenset[str]] = {}

    # walk.Steps

    def links(self, nodes: Collection[int], *, downstream: bool) -> Iterable[int]:
        """See `walk.Steps`."""
        return map(_first, self._many(_LINKS[downstream], nodes))

    def far_ends(self, links: Collection[int], *, downstream: bool) -> Iterable[int]:
        """See `walk.Steps`."""
        return map(_first, self._many(_FAR_ENDS[downstream], links))

    def asked_for(self, links: Collection[int]) -> Iterable[int]:
        """See `walk.Steps`."""
        question = self._question
        if question is None:
            return
        for link, tool in self._many(_TOOLS, links):
            if filters.made_by_tool(tool, question):
                yield link

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

    def nodes(self, depths: dict[int, int]) -> dict[int, Node]:
        """The known ones of these nodes, with their makers."""
        makers = self.makers_of(depths)
        none: tuple[Maker, ...] = ()
        return {
            number: Node(
                vid=vid,
                kind=kind,
                label=label,
                study=None if study is None else _vid(study),
                groups=self._group(groups),
                deleted=bool(deleted),
                depth=depths[number],
                makers=makers.get(number, none),
            )
            for number, vid, kind, label, study, groups, deleted in self._many(_NODES, depths)
        }

    def makers_of(self, nodes: Collection[int]) -> dict[int, tuple[Maker, ...]]:
        """The actions that made each node, by VID."""
        made = [
            (node, link)
            for node, link in self._many(
                "SELECT node, link FROM lineage_output WHERE node {}", nodes
            )
        ]
        makers = self.makers({link for _, link in made})
        found: dict[int, list[Maker]] = defaultdict(list)
        for node, link in made:
            if link in makers:
                found[node].append(makers[link])
        return {
            node: tuple(several if len(several) == 1 else sorted(several, key=_by_action))
            for node, several in found.items()
        }

    def makers(self, actions: Collection[int]) -> dict[int, Maker]:
        """What the index knows of these actions; collections among them are left out."""
        for number, vid, category, device, tool, release, setup, status, ended in self._many(
            _MAKERS, [action for action in actions if action not in self._makers]
        ):
            self._makers[number] = Maker(
                action=vid,
                category=category,
                device=None if device is None else _vid(device),
                tool=tool,
                release=release,
                setup=None if setup is None else _vid(setup),
                status=status,
                end=None if ended is None else datetime.fromisoformat(ended),
            )
        return self._makers

    def edges(self, nodes: dict[int, str], *, by_inputs: bool) -> list[Edge]:
        """All edges between these nodes (integer -> VID), sorted.

        The links to look at are found from the inputs or from the outputs: take the side where the
        walk has been, because a reference genome is an input of everything.
        """
        outputs = self._ports("SELECT link, node, roles FROM lineage_output WHERE node {}", nodes)
        if by_inputs:
            query, keys = "SELECT link, node, roles FROM lineage_input WHERE node {}", set(nodes)
        else:
            query, keys = "SELECT link, node, roles FROM lineage_input WHERE link {}", set(outputs)
        inputs = self._ports(query, keys, only=nodes)
        makers = self.makers(outputs)
        edges = [
            Edge(
                nodes[source],
                nodes[target],
                Relation.COLLECTED_IN if maker is None else Relation.PRODUCED,
                None if maker is None else maker.action,
                maker,
                source_roles,
                target_roles,
            )
            for link, sources in inputs.items()
            if link in outputs
            for maker in (makers.get(link),)
            for source, source_roles in sources
            for target, target_roles in outputs[link]
        ]
        edges.extend(self._superseding(nodes))
        edges.sort(key=edge_order)
        return edges

    def _superseding(self, nodes: dict[int, str]) -> list[Edge]:
        pairs = {
            (new, old)
            for new, old in self._many(
                "SELECT new, old FROM lineage_supersession WHERE old {}", nodes
            )
            if new in nodes
        }
        return [Edge(nodes[new], nodes[old], Relation.SUPERSEDES) for new, old in pairs]

    def superseded(self, nodes: dict[int, str], question: Question) -> frozenset[str]:
        """Those of these nodes that a living node which the user may read takes the place of."""
        pairs = list(
            self._many(
                "SELECT s.old, n.groups FROM lineage_supersession s JOIN lineage_node n "
                "ON n.id = s.new WHERE NOT n.deleted AND s.old {}",
                nodes,
            )
        )
        return frozenset(
            nodes[old] for old, groups in pairs if filters.visible(self._group(groups), question)
        )

    def uses(self, nodes: dict[int, str]) -> list[Use]:
        """The uses of these nodes, by action, node and role."""
        rows = list(self._many("SELECT node, action, roles FROM lineage_use WHERE node {}", nodes))
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

    def edges_from(self, sources: dict[int, str]) -> list[Edge]:
        """All edges from these nodes to known ones, sorted."""
        inputs = self._ports("SELECT link, node, roles FROM lineage_input WHERE node {}", sources)
        outputs = self._ports(
            "SELECT link, node, roles FROM lineage_output WHERE link {}", set(inputs)
        )
        new_old = list(
            self._many("SELECT new, old FROM lineage_supersession WHERE new {}", sources)
        )
        targets = {node for several in outputs.values() for node, _ in several}
        targets.update(old for _, old in new_old)
        vids: dict[int, str] = dict(
            self._many(
                "SELECT n.id, 'V0' || hex(v.vid) FROM lineage_node n "
                "JOIN lineage_vid v ON v.id = n.id WHERE n.id {}",
                targets,
            )
        )
        makers = self.makers(set(inputs))
        edges = [
            Edge(
                source=sources[source],
                target=vids[target],
                relation=Relation.COLLECTED_IN if maker is None else Relation.PRODUCED,
                action=None if maker is None else maker.action,
                maker=maker,
                source_roles=source_roles,
                target_roles=target_roles,
            )
            for link, several in inputs.items()
            for maker in (makers.get(link),)
            for source, source_roles in several
            for target, target_roles in outputs.get(link, ())
            if target in vids
        ]
        edges.extend(
            Edge(sources[new], vids[old], Relation.SUPERSEDES)
            for new, old in set(new_old)
            if old in vids
        )
        edges.sort(key=edge_order)
        return edges

    def forget(self) -> None:
        """Let go of what was remembered between look-ups, so that a stream stays small."""
        self._makers.clear()

    # Helpers

    def _ports(
        self, query: str, keys: Collection[int], only: Collection[int] | None = None
    ) -> dict[int, list[tuple[int, tuple[str, ...]]]]:
        found: dict[int, list[tuple[int, tuple[str, ...]]]] = defaultdict(list)
        for link, node, roles in self._many(query, keys):
            if only is None or node in only:
                found[link].append((node, roles_of_text(roles)))
        return found

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


def _chunks(keys: Iterable[int]) -> Iterator[list[int]]:
    rest = iter(keys)
    while some := list(islice(rest, _KEYS)):
        yield some


def connected(connection: sqlite3.Connection, question: Question) -> Answer:
    """See `LineageIndex.connected`."""
    filters.check(question)
    reader = Reader(connection, question)
    numbers = reader.ids(question.starts)
    starts = reader.nodes(dict.fromkeys(numbers.values(), 0))
    readable = {
        number: node for number, node in starts.items() if filters.visible(node.groups, question)
    }
    depths = walk(
        reader,
        readable,
        direction=question.direction,
        depth=question.depth,
        via=question.via_tool is not None,
    )
    met = reader.nodes(depths)
    kept = filters.returned(met.values(), question)
    vids = {node.vid for node in kept}
    nodes = {number: node.vid for number, node in met.items() if node.vid in vids}
    # Of a large answer a hundred megabytes, in the way of its edges.
    del met, depths, vids
    return Answer(
        starts=tuple(vid for vid, number in numbers.items() if number in readable),
        nodes=tuple(kept),
        edges=tuple(reader.edges(nodes, by_inputs=question.direction is Direction.DOWNSTREAM)),
        uses=tuple(reader.uses(nodes)),
        superseded=reader.superseded(nodes, question),
    )


_first: Final = itemgetter(0)


_by_action: Final = attrgetter("action")


@functools.cache
def _few(query: str, count: int) -> str:
    return query.replace("{}", f"IN ({','.join('?' * count)})")


@functools.cache
def _several(query: str) -> str:
    return query.replace("{}", "IN (SELECT value FROM json_each(?))")
