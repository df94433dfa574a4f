"""The side of a rebuild in place that is the database's own: its number, progress and sweep."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import neo4j

from biobank_core.catalog.port import Position
from biobank_core.lineage.events import IndexEvent
from biobank_core.lineage.in_place import Held, Progress
from biobank_core.lineage.neo4j import write
from biobank_core.lineage.neo4j.connection import Connection, run

_PROGRESS: Final = """
MATCH (i:BiobankIndex {name: 'lineage'}) WHERE i.rebuild_stage IS NOT NULL
RETURN i.rebuild, i.rebuild_head, i.rebuild_fresh, i.rebuild_stage, i.rebuild_after
"""
_BEGIN: Final = """
OPTIONAL MATCH (n:Object|Record)
WITH n LIMIT 1
WITH count(n) = 0 AS fresh
MATCH (i:BiobankIndex {name: 'lineage'})
SET i.rebuild = coalesce(i.rebuild, 0) + 1, i.rebuild_head = $head, i.rebuild_fresh = fresh,
    i.rebuild_stage = $stage, i.rebuild_after = ''
RETURN i.rebuild, fresh
"""
# Only of the rebuild that is in progress: of two at once the first to end has ended both.
_REACHED: Final = """
MATCH (i:BiobankIndex {name: 'lineage'})
WHERE i.rebuild = $number AND i.rebuild_stage IS NOT NULL
SET i.rebuild_stage = $stage, i.rebuild_after = $after
"""
# Implicit collections have no record of their own: their action gives them.
_UNSEEN: Final = """
CALL () {
  MATCH (n:Record) WHERE n.vid > $after AND n.version IS NOT NULL
    AND (n.seen IS NULL OR n.seen <> $number)
  RETURN n.vid AS vid ORDER BY vid LIMIT $most
  UNION
  MATCH (n:Object) WHERE n.vid > $after AND n.kind IS NOT NULL
    AND (n.seen IS NULL OR n.seen <> $number)
    AND NOT EXISTS { MATCH (a:Record {vid: n.action}) WHERE a.version IS NOT NULL }
  RETURN n.vid AS vid ORDER BY vid LIMIT $most
}
RETURN vid ORDER BY vid LIMIT $most
"""
_IN_BATCHES: Final = " IN TRANSACTIONS OF 5000 ROWS"
# Edges whose giver is not known, or gives none of this kind; then what hangs on nothing.
_SWEEP: Final = (
    "MATCH ()-[e:PRODUCED]->() WHERE NOT EXISTS { MATCH (a:Record {vid: e.action}) "
    "WHERE a.version IS NOT NULL AND a.deleted IS NULL } "
    "CALL (e) { DELETE e }" + _IN_BATCHES,
    "MATCH ()-[e:COLLECTED_IN]->(t) WHERE t.state IS NULL AND t.states IS NULL "
    "AND t.action IS NULL CALL (e) { DELETE e }" + _IN_BATCHES,
    "MATCH ()-[e:SUPERSEDES]->() WHERE NOT EXISTS { MATCH (a:Record {vid: e.supersession}) "
    "WHERE a.version IS NOT NULL AND a.deleted IS NULL } "
    "CALL (e) { DELETE e }" + _IN_BATCHES,
    "MATCH (m)-[e:MADE|USED]->() WHERE NOT m:Record CALL (e) { DELETE e }" + _IN_BATCHES,
    # Looked at again with its lock: it may have been told of, or named, since.
    "MATCH (n:Object) WHERE n.kind IS NULL AND NOT (n)--() WITH n.vid AS vid "
    "CALL (vid) { MATCH (o:Object {vid: vid}) SET o.lock = true REMOVE o.lock "
    "WITH o WHERE o.kind IS NULL AND NOT (o)--() DELETE o }" + _IN_BATCHES,
)
_END: Final = """
MATCH (i:BiobankIndex {name: 'lineage'}) WHERE i.rebuild = $number
REMOVE i.rebuild_head, i.rebuild_fresh, i.rebuild_stage, i.rebuild_after
"""


def in_progress(connection: Connection) -> Progress | None:
    """See `RebuiltInPlace.rebuild_in_progress`."""

    def work(tx: neo4j.ManagedTransaction) -> Progress | None:
        row = run(tx, _PROGRESS).single()
        if row is None:
            return None
        number, head, fresh, stage, after = row.values()
        return Progress(number, json.loads(head), fresh, stage, after)

    return connection.read(work)


def begin(connection: Connection, head: Position) -> Progress:
    """See `RebuiltInPlace.begin_rebuild`."""
    progress = Progress(0, head, fresh=False)

    def work(tx: neo4j.ManagedTransaction) -> Progress:
        text = json.dumps(dict(head))
        row = run(tx, _BEGIN, head=text, stage=progress.stage).single(strict=True)
        return Progress(row[0], dict(head), fresh=row[1])

    return connection.write(work)


def take_in_anew(
    connection: Connection, batch: Sequence[IndexEvent], progress: Progress
) -> list[Held]:
    """See `RebuiltInPlace.take_in_anew`."""

    def work(tx: neo4j.ManagedTransaction) -> list[Held]:
        taken = write.take_in(tx, batch, rebuild=progress.number, fresh=progress.fresh)
        run(
            tx, _REACHED, number=progress.number, stage=progress.stage, after=progress.after
        ).consume()
        return taken.ahead

    return connection.write(work)


def unseen(connection: Connection, progress: Progress, *, after: str, most: int) -> list[str]:
    """See `RebuiltInPlace.unseen`."""
    return connection.read(
        lambda tx: run(tx, _UNSEEN, number=progress.number, after=after, most=most).value()
    )


def end(connection: Connection, progress: Progress) -> None:
    """See `RebuiltInPlace.end_rebuild`."""
    if not progress.fresh:
        for statement in _SWEEP:
            connection.write_alone(statement, {})
    connection.write(lambda tx: run(tx, _END, number=progress.number).consume())
