"""Reading what is left of a damaged file: row by row where whole pages can't be read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from biobank_core.catalog.sqlite.finding import COLUMNS
from biobank_core.catalog.sqlite.state import PAGE

Row = tuple[str, int, bytes]

# Row ids are given without gaps and never taken back, so the greatest is how many there were. The
# table and each of its indexes know it; some of them may be damaged.
_WAYS_TO_IDS: Final = (
    "SELECT max(id) FROM object NOT INDEXED",
    "SELECT max(id) FROM object INDEXED BY object_by_unit",
    "SELECT max(id) FROM object INDEXED BY object_by_kind",
)


def rows_left(connection: sqlite3.Connection) -> Iterator[Row | None]:
    """Every row of `object` as COLUMNS, in the order of ids; None for one that can't be read."""
    last = max((_last_id(connection, way) for way in _WAYS_TO_IDS), default=0)
    for first in range(1, last + 1, PAGE):
        yield from _read(connection, first, min(first + PAGE - 1, last))


def _last_id(connection: sqlite3.Connection, way: str) -> int:
    try:
        (last,) = connection.execute(way).fetchone()
    except sqlite3.DatabaseError:
        return 0
    return int(last or 0)


def _read(connection: sqlite3.Connection, first: int, last: int) -> Iterator[Row | None]:
    try:
        found = {
            number: (vid, version, body)
            for number, vid, version, body in connection.execute(
                f"SELECT o.id, {COLUMNS} FROM object o NOT INDEXED WHERE o.id BETWEEN ? AND ?",  # noqa: S608
                (first, last),
            )
        }
    except sqlite3.DatabaseError:
        if first == last:
            yield None
            return
        middle = (first + last) // 2
        yield from _read(connection, first, middle)
        yield from _read(connection, middle + 1, last)
        return
    for number in range(first, last + 1):
        yield found.get(number)
