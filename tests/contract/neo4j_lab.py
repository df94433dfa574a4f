"""What the tests of the Neo4j index share: opened indexes, and statements run past them."""

from __future__ import annotations

from typing import Any

from biobank_core.lineage.neo4j import Neo4jLineage
from biobank_core.lineage.neo4j.connection import Connection, parse
from tests.servers.neo4j import Neo4jServer


def opened(server: Neo4jServer, *, password: str | None = None, path: str = "") -> Neo4jLineage:
    """An index on this server, with what is in it."""
    auth = (server.user, password or server.password)
    return Neo4jLineage(Connection(parse(server.url + path), auth))


def emptied(server: Neo4jServer) -> Neo4jLineage:
    """An empty index on this server."""
    index = opened(server)
    index.clear()
    return index


def cypher(index: Neo4jLineage, query: str, **parameters: Any) -> list[list[Any]]:
    """Run a statement of the test's own; its rows."""
    return index._connection.write(lambda tx: tx.run(query, parameters).values())


def plan(index: Neo4jLineage, query: str, parameters: dict[str, object]) -> list[str]:
    """The operators by which the server would answer a query."""

    def explain(tx: Any) -> Any:
        return tx.run(f"EXPLAIN {query}", parameters).consume().plan

    operators: list[str] = []
    todo = [index._connection.read(explain)]
    while todo:
        step = todo.pop()
        operators.append(step["operatorType"].partition("@")[0])
        todo += step.get("children", [])
    return operators
