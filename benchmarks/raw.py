"""The same rows with nothing but sqlite3: what a store costs that checks and remembers nothing.

An object with its body, whom it names, the edges between data; each indexed both ways, in a file
set up as ours are (write-ahead log, synchronous FULL). No checks, no versions, no history.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

_SCHEMA: Final = """
CREATE TABLE object (vid TEXT PRIMARY KEY, kind TEXT, body TEXT) WITHOUT ROWID;
CREATE TABLE reference (source TEXT, target TEXT, PRIMARY KEY (source, target)) WITHOUT ROWID;
CREATE INDEX reference_by_target ON reference (target, source);
CREATE TABLE edge (source TEXT, target TEXT, PRIMARY KEY (source, target)) WITHOUT ROWID;
CREATE INDEX edge_by_target ON edge (target, source);
"""
_REFERENCES: Final = ("study", "device", "setup", "sample", "individual", "enrollment")
_PAGE: Final = 1000

Rows = tuple[list[tuple[str, str, str]], list[tuple[str, str]], list[tuple[str, str]]]


def opened(path: Path) -> sqlite3.Connection:
    """A new file with the tables."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -65536")
    connection.executescript(_SCHEMA)
    return connection


def rows_of(lines: Iterable[bytes]) -> Rows:
    """What to insert for these lines: objects, references, edges."""
    objects, references, edges = [], [], []
    for line in lines:
        obj: dict[str, Any] = json.loads(line)
        vid = obj["vid"]
        objects.append((vid, obj["kind"], line.decode()))
        inputs = [port["object"] for port in obj.get("inputs", ())]
        outputs = [port["object"] for port in obj.get("outputs", ())]
        named = [obj[name] for name in _REFERENCES if obj.get(name)]
        references += [(vid, target) for target in (*named, *inputs, *outputs)]
        edges += [(source, target) for source in inputs for target in outputs]
    return objects, references, edges


def insert(connection: sqlite3.Connection, rows: Rows) -> None:
    """Insert them; in the transaction that the caller began."""
    objects, references, edges = rows
    connection.executemany("INSERT INTO object VALUES (?, ?, ?)", objects)
    connection.executemany("INSERT OR IGNORE INTO reference VALUES (?, ?)", references)
    connection.executemany("INSERT OR IGNORE INTO edge VALUES (?, ?)", edges)


def load(connection: sqlite3.Connection, file: Path) -> None:
    """All lines of a file in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    with file.open("rb") as stream:
        for page in _pages(stream):
            insert(connection, rows_of(page))
    connection.execute("COMMIT")


def dump(connection: sqlite3.Connection, file: Path) -> None:
    """All bodies by VID."""
    with file.open("wb") as stream:
        for (body,) in connection.execute("SELECT CAST(body AS BLOB) FROM object ORDER BY vid"):
            stream.write(body + b"\n")


def rebuild(connection: sqlite3.Connection) -> None:
    """The edges anew from the bodies."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM edge")
    bodies = (body for (body,) in connection.execute("SELECT CAST(body AS BLOB) FROM object"))
    for page in _pages(bodies):
        edges = rows_of(page)[2]
        connection.executemany("INSERT OR IGNORE INTO edge VALUES (?, ?)", edges)
    connection.execute("COMMIT")


def verify(connection: sqlite3.Connection) -> int:
    """Whether the edges are those of the bodies; as one sum each, as it takes no memory."""
    total = 0
    bodies = (body for (body,) in connection.execute("SELECT CAST(body AS BLOB) FROM object"))
    for page in _pages(bodies):
        total += sum(map(hash, rows_of(page)[2]))
    for edge in connection.execute("SELECT source, target FROM edge"):
        total -= hash(edge)
    assert total == 0
    return total


def bodies(connection: sqlite3.Connection) -> int:
    """Read and decode every object."""
    rows = connection.execute("SELECT body FROM object")
    return sum(1 for (body,) in rows if json.loads(body))


_WALK: Final = """
WITH RECURSIVE
    up(vid) AS (VALUES (?1) UNION SELECT e.source FROM up JOIN edge e ON e.target = up.vid),
    down(vid) AS (VALUES (?1) UNION SELECT e.target FROM down JOIN edge e ON e.source = down.vid)
"""


def connected(connection: sqlite3.Connection, vid: str, *, objects: bool) -> int:
    """How many there are up- and downstream; with `objects` their bodies are decoded."""
    found = f"{_WALK} SELECT vid FROM up UNION SELECT vid FROM down"
    if objects:
        query = f"SELECT body FROM object WHERE vid IN ({found})"
        return len([json.loads(body) for (body,) in connection.execute(query, (vid,))])
    return len(connection.execute(found, (vid,)).fetchall())


def _pages(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    iterator = iter(lines)
    while page := list(islice(iterator, _PAGE)):
        yield page
