"""The same nodes and edges with Neo4j's driver alone: what an index costs that checks nothing.

An object is a node, an action an edge from each input to each output, both merged by a unique key.
No versions, no records of actions, no placeholders, any order but the right one fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

import neo4j

from biobank_core.lineage.events import ActionEvent, IndexEvent, NodeEvent

BATCH: Final = 5_000

_UNIQUE: Final = "CREATE CONSTRAINT raw_vid IF NOT EXISTS FOR (r:Raw) REQUIRE r.vid IS UNIQUE"
_NODES: Final = """
UNWIND $rows AS r
MERGE (n:Raw {vid: r.vid})
SET n.kind = r.kind, n.label = r.label, n.study = r.study, n.version = r.version
"""
_EDGES: Final = """
UNWIND $rows AS r
MATCH (s:Raw {vid: r.source}) MATCH (t:Raw {vid: r.target})
MERGE (s)-[e:RAW {key: r.key}]->(t)
SET e.action = r.action, e.category = r.category, e.device = r.device, e.setup = r.setup,
    e.status = r.status, e.end = r.end, e.source_role = r.source_role, e.target_role = r.target_role
"""


class RawGraph:
    """A server's graph, apart from that of ours."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._driver = neo4j.GraphDatabase.driver(url, auth=(user, password))
        self._driver.execute_query(_UNIQUE)

    def write(self, events: Sequence[IndexEvent], *, batch: int = BATCH) -> None:
        """Nodes, then edges, so many events a transaction."""
        nodes = [event for event in events if isinstance(event, NodeEvent)]
        actions = [event for event in events if isinstance(event, ActionEvent)]
        for some in _batches(nodes, batch):
            self._driver.execute_query(_NODES, rows=[_node(event) for event in some])
        for some in _batches(actions, batch):
            rows = [row for event in some for row in _edges(event)]
            self._driver.execute_query(_EDGES, rows=rows)

    def clear(self) -> None:
        """Take all of it out again."""
        with self._driver.session() as session:
            session.run(
                "MATCH (r:Raw) CALL (r) { DETACH DELETE r } IN TRANSACTIONS OF 5000 ROWS"
            ).consume()

    def close(self) -> None:
        """Let go of the server."""
        self._driver.close()


def _node(event: NodeEvent) -> dict[str, Any]:
    return {
        "vid": event.vid,
        "kind": event.kind,
        "label": event.label,
        "study": event.study,
        "version": event.version,
    }


def _edges(event: ActionEvent) -> list[dict[str, Any]]:
    return [
        {
            "source": source.node,
            "target": target.node,
            "key": f"{event.vid}|{source.node}|{target.node}",
            "action": event.vid,
            "category": event.category,
            "device": event.device,
            "setup": event.setup,
            "status": event.status,
            "end": event.end,
            "source_role": source.role,
            "target_role": target.role,
        }
        for source in event.inputs
        for target in event.outputs
    ]


def _batches(events: Iterable[Any], size: int) -> Iterable[list[Any]]:
    rest = iter(events)
    while some := list(islice(rest, size)):
        yield some
