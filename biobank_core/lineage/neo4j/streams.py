"""Everything that the graph holds, page by page in order of VIDs; writers may come between."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import neo4j

from biobank_core.lineage.neo4j.connection import Connection, run
from biobank_core.lineage.neo4j.read import (
    CHUNKS,
    COLUMNS,
    EDGE,
    MADE_BY,
    RELATIONS,
    Met,
    Row,
    chunked,
)
from biobank_core.lineage.port import Edge, Node, Relation, Use, edge_order

# Nodes of one page.
PAGE: Final = 5_000

_PAGE_OF_NODES: Final = """
MATCH (n:Object) WHERE n.vid > $after AND n.kind IS NOT NULL
WITH n, 0 AS depth ORDER BY n.vid LIMIT $page
"""
_NODES: Final = f"""
{_PAGE_OF_NODES}
OPTIONAL MATCH (n)<-[e:PRODUCED|MADE]-()
WITH n, depth, [] AS outs,
  collect(DISTINCT CASE WHEN e IS NULL THEN null ELSE {MADE_BY} END) AS ins
WITH n.vid AS vid, [{COLUMNS}] AS row ORDER BY vid
{CHUNKS}
"""
_EDGES: Final = f"""
MATCH (n:Object) WHERE n.vid > $after AND n.kind IS NOT NULL
WITH n ORDER BY n.vid LIMIT $page
OPTIONAL MATCH (n)-[e:PRODUCED|COLLECTED_IN|SUPERSEDES]->(m) WHERE m.kind IS NOT NULL
WITH n, collect(CASE WHEN e IS NULL THEN null ELSE
  [type(e), m.vid, e.action, e.category, e.device, e.tool, e.release, e.setup, e.status, e.end,
   e.source_roles, e.target_roles] END) AS outs
WITH n.vid AS vid, [n.vid, outs] AS row ORDER BY vid
{CHUNKS}
"""
_USES: Final = f"""
MATCH (m:Action)-[e:USED]->(n:Object) WHERE n.kind IS NOT NULL
WITH n.vid AS node, [n.vid, {EDGE}] AS row ORDER BY node
{CHUNKS}
"""
_CONTENT: Final = f"""
{_PAGE_OF_NODES}
OPTIONAL MATCH (n)<-[e:PRODUCED|COLLECTED_IN|MADE|USED|SUPERSEDES]-(m)
WITH n, depth, [] AS outs, collect(CASE type(e)
  WHEN 'SUPERSEDES' THEN [type(e), m.vid, m.kind IS NOT NULL] ELSE {EDGE} END) AS ins
WITH n.vid AS vid, [{COLUMNS}] AS row ORDER BY vid
{CHUNKS}
"""


def nodes(connection: Connection) -> Iterator[Node]:
    """See `LineageIndex.nodes`; pages follow one another, writers may come between them."""
    for rows in _pages(connection, _NODES):
        met = Met()
        for row in rows:
            row[7] = [met.slim(link) for link in row[7]]
            met.add(row)
        yield from met.nodes.values()


def edges(connection: Connection) -> Iterator[Edge]:
    """See `LineageIndex.edges`."""
    for rows in _pages(connection, _EDGES):
        met = Met()
        found: dict[tuple[str, str, str, str | None], Edge] = {}
        for source, outs in rows:
            for link in outs:
                relation, target, action = link[:3]
                produced = relation == "PRODUCED"
                if produced:
                    met.add_maker(*link[2:10])
                edge = Edge(
                    source,
                    target,
                    RELATIONS[relation],
                    action if produced else None,
                    met.makers[action] if produced else None,
                    tuple(link[10] or ()),
                    tuple(link[11] or ()),
                )
                # Two supersessions of one pair are one edge.
                found[source, target, relation, action] = edge
        yield from sorted(found.values(), key=edge_order)


def uses(connection: Connection) -> Iterator[Use]:
    """See `LineageIndex.uses`; they are few beside nodes and edges, so one query gives them."""
    met = Met()
    for node, link in chunked(connection, _USES, {}):
        met.add([node, None, "", None, [], False, 0, [met.slim(link)], []])
    yield from met.uses


def content(connection: Connection) -> Iterator[Node | Edge | Use]:
    """See `LineageIndex.content`: everything in one pass."""
    for rows in _pages(connection, _CONTENT):
        met = Met()
        # Sources that are placeholders have no place in what is shown.
        hidden: set[str] = set()
        for row in rows:
            hidden.update(link[1] for link in row[7] if not link[-1])
            row[7] = [link if link[0] == "SUPERSEDES" else met.slim(link) for link in row[7]]
            met.add(row)
        yield from met.nodes.values()
        for edge in met.edges():
            if edge.source not in hidden:
                yield edge
        for new, old in met.newer:
            if new not in hidden:
                yield Edge(new, old, Relation.SUPERSEDES)
        yield from met.uses


def _pages(connection: Connection, text: str) -> Iterator[list[Row]]:
    """Pages of a stream; while one is used the server works at the next."""

    def page(after: str) -> list[Row]:
        return chunked(connection, text, {"after": after, "page": PAGE})

    with ThreadPoolExecutor(max_workers=1) as ahead:
        rows = page("")
        while len(rows) == PAGE:
            following = ahead.submit(page, rows[-1][0])
            yield rows
            rows = following.result()
        if rows:
            yield rows


# Answered from counters that the server keeps; what placeholders have is few and taken off.
COUNTS: Final = {
    "nodes": "MATCH (n:Object) RETURN count(n)",
    "PRODUCED": "MATCH ()-[e:PRODUCED]->() RETURN count(e)",
    "COLLECTED_IN": "MATCH ()-[e:COLLECTED_IN]->() RETURN count(e)",
}
HIDDEN: Final = {
    "nodes": "MATCH (n:Placeholder) RETURN count(n)",
    "PRODUCED": (
        "MATCH (p:Placeholder)-[e:PRODUCED]-() USING SCAN p:Placeholder RETURN count(DISTINCT e)"
    ),
    "COLLECTED_IN": (
        "MATCH (p:Placeholder)-[e:COLLECTED_IN]-() USING SCAN p:Placeholder "
        "RETURN count(DISTINCT e)"
    ),
}
# Two supersessions of one pair are one edge.
_SUPERSEDES: Final = """
MATCH (s)-[:SUPERSEDES]->(t) WHERE s.kind IS NOT NULL AND t.kind IS NOT NULL
WITH DISTINCT s, t
RETURN count(*)
"""


def count(connection: Connection) -> dict[str, int]:
    """See `LineageIndex.count`."""

    def ask(tx: neo4j.ManagedTransaction) -> dict[str, int]:
        def number(text: str) -> int:
            return int(run(tx, text).single(strict=True)[0])

        counts = {name: number(text) - number(HIDDEN[name]) for name, text in COUNTS.items()}
        return {**counts, "SUPERSEDES": number(_SUPERSEDES)}

    counts = connection.read(ask)
    return {name: number for name, number in counts.items() if number or name == "nodes"}
