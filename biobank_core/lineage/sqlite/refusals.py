"""What could not be taken in, as the index remembers it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from biobank_core.lineage.events import IndexEvent
from biobank_core.lineage.port import Refusal, checked_refusals

_COLUMNS: Final = "vid, log, version, reason, time, discarded"
# What `discarded` holds of a refusal whose dead letter was sent again; else 0 or 1.
_SENT_AGAIN: Final = 2


def add(connection: sqlite3.Connection, refusals: Sequence[Refusal]) -> None:
    """See `LineageIndex.refuse`."""
    connection.executemany(
        "INSERT INTO lineage_refusal VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "version = excluded.version, reason = excluded.reason, time = excluded.time, "
        "discarded = excluded.discarded WHERE excluded.version >= version",
        [
            (
                *(item.vid, item.log, item.version, item.reason, item.time.isoformat()),
                _SENT_AGAIN if item.sent_again else int(item.discarded),
            )
            for item in checked_refusals(refusals)
        ],
    )


def standing(
    connection: sqlite3.Connection, vids: Iterable[str] | None
) -> dict[tuple[str, str], Refusal]:
    """See `LineageIndex.refused`."""
    query = f"SELECT {_COLUMNS} FROM lineage_refusal"  # noqa: S608  # our own names
    parameters: tuple[str, ...] = ()
    if vids is not None:
        query += " WHERE vid IN (SELECT value FROM json_each(?))"
        parameters = (json.dumps(list(vids)),)
    return {
        (log, vid): Refusal(
            log=log,
            vid=vid,
            version=version,
            reason=reason,
            time=datetime.fromisoformat(time),
            discarded=discarded == 1,
            sent_again=discarded == _SENT_AGAIN,
        )
        for vid, log, version, reason, time, discarded in connection.execute(query, parameters)
    }


def end(connection: sqlite3.Connection, ended: Iterable[Refusal | IndexEvent]) -> None:
    """End the refusals of these (log, VID), up to the version given."""
    if connection.execute("SELECT 1 FROM lineage_refusal LIMIT 1").fetchone() is None:
        return
    connection.executemany(
        "DELETE FROM lineage_refusal WHERE vid = ? AND log = ? AND version <= ?",
        [(item.vid, item.log, item.version) for item in ended],
    )
