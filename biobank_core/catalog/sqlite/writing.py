"""Writing what the checks decided, inside the transaction of the unit."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from biobank_core.catalog.checks import Write
from biobank_core.catalog.sqlite.schema import handle_of, label_of
from biobank_core.model.registry import NOT_IN_FEED

# Kinds whose former content nobody will ask for; a recorder saves its cursor with every unit.
_WITHOUT_FORMER_CONTENT: Final = frozenset({"Cursor"})


def write_unit(
    connection: sqlite3.Connection,
    writes: Sequence[Write],
    *,
    ids: dict[str, int],
    links: Mapping[tuple[str, str], int],
    time: datetime,
    by: str,
) -> int | None:
    """Write one unit; gives its number, None when the feed leaves it out.

    `ids` holds the row ids of all that the unit mentions and that was there before.
    """
    in_feed = any(write.kind not in NOT_IN_FEED for write in writes)
    (unit,) = connection.execute(
        "INSERT INTO unit (time, by, in_feed) VALUES (?, ?, ?) RETURNING number",
        (time.isoformat(), by, in_feed),
    ).fetchone()
    _write_objects(connection, writes, ids, unit)
    _write_references(connection, writes, ids, links)
    _write_keys(connection, writes, ids)
    return unit if in_feed else None


def _write_objects(
    connection: sqlite3.Connection, writes: Sequence[Write], ids: dict[str, int], unit: int
) -> None:
    new = [write for write in writes if write.before is None]
    if new:
        (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM object").fetchone()
        ids.update((write.object.vid, number) for number, write in enumerate(new, start=last + 1))
        connection.executemany(
            "INSERT INTO object (id, vid, kind, version, deleted, unit, label, handle, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT))",
            [
                (
                    ids[write.object.vid],
                    write.object.vid,
                    write.kind,
                    write.version,
                    write.deleted,
                    unit,
                    label_of(write.object),
                    handle_of(write.object),
                    write.body,
                )
                for write in new
            ],
        )
    old = [write for write in writes if write.before is not None]
    if not old:
        return
    connection.executemany(
        "INSERT INTO history (object, version, deleted, unit, body)"
        " SELECT id, version, deleted, unit, iif(?, body, NULL) FROM object WHERE id = ?",
        [
            (
                not write.deleted and write.kind not in _WITHOUT_FORMER_CONTENT,
                ids[write.object.vid],
            )
            for write in old
        ],
    )
    connection.executemany(
        "UPDATE object SET version = ?, deleted = ?, unit = ?, label = ?, handle = ?,"
        " body = CAST(? AS TEXT) WHERE id = ?",
        [
            (
                write.version,
                write.deleted,
                unit,
                label_of(write.object),
                handle_of(write.object),
                write.body,
                ids[write.object.vid],
            )
            for write in old
        ],
    )
    # What is deleted leaves nothing personal behind, in no version.
    connection.executemany(
        "UPDATE history SET body = NULL WHERE object = ? AND body IS NOT NULL",
        [(ids[write.object.vid],) for write in old if write.deleted],
    )


def _write_references(
    connection: sqlite3.Connection,
    writes: Sequence[Write],
    ids: Mapping[str, int],
    links: Mapping[tuple[str, str], int],
) -> None:
    old = [(ids[write.object.vid],) for write in writes if write.before is not None]
    if old:
        connection.executemany("DELETE FROM reference WHERE source = ?", old)
    rows = [
        (ids[write.object.vid], links[write.kind, field.name], ids[target])
        for write in writes
        for field, target in write.references
    ]
    # One object may be named twice in one field (a multiple input under two roles).
    connection.executemany("INSERT OR IGNORE INTO reference VALUES (?, ?, ?)", rows)


def _write_keys(
    connection: sqlite3.Connection, writes: Sequence[Write], ids: Mapping[str, int]
) -> None:
    old = [(ids[write.object.vid],) for write in writes if write.before is not None]
    if old:
        connection.executemany("DELETE FROM unique_key WHERE object = ?", old)
    rows = [(key.key, ids[write.object.vid]) for write in writes for key in write.keys]
    if rows:
        connection.executemany("INSERT INTO unique_key VALUES (?, ?)", rows)
