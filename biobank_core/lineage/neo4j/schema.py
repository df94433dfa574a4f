"""Constraints, indexes, and the version of the graph's storage.

    (:Object:Tube {vid, kind, label, study, groups, deleted, version})    an object
    (:Object:Placeholder {vid})                                           only edges name it yet
    (:Object)-[:PRODUCED {key, action, category, device, tool, release,
                          setup, status, end, source_roles, target_roles}]->(:Object)
    (:Object)-[:COLLECTED_IN {key, source_roles}]->(:Object)
    (:Object)-[:SUPERSEDES {supersession}]->(:Object)
    (:Record:Action {vid, category, ...})-[:MADE]->(:Object)              made from nothing known
    (:Record:Action)-[:USED {roles}]->(:Object)                           what left the house
    (:Record:Device), (:Record:Supersession)                              the ledger, as Action

`version`, `groups` (logs), `state` and, where several logs know an object, `logs`, `versions` and
`states` are the ledger. `seen` is the number of the rebuild that saw it last.
"""

from __future__ import annotations

from typing import Final

import neo4j

from biobank_core.errors import StorageError
from biobank_core.lineage.neo4j.connection import Connection, run

VERSION: Final = 2

_STEP_1: Final = (
    "CREATE CONSTRAINT biobank_index IF NOT EXISTS FOR (i:BiobankIndex) REQUIRE i.name IS UNIQUE",
    "CREATE CONSTRAINT biobank_object IF NOT EXISTS FOR (o:Object) REQUIRE o.vid IS UNIQUE",
    "CREATE CONSTRAINT biobank_record IF NOT EXISTS FOR (r:Record) REQUIRE r.vid IS UNIQUE",
    "CREATE CONSTRAINT biobank_produced IF NOT EXISTS "
    "FOR ()-[e:PRODUCED]-() REQUIRE e.key IS UNIQUE",
    "CREATE CONSTRAINT biobank_collected IF NOT EXISTS "
    "FOR ()-[e:COLLECTED_IN]-() REQUIRE e.key IS UNIQUE",
    "CREATE CONSTRAINT biobank_supersedes IF NOT EXISTS "
    "FOR ()-[e:SUPERSEDES]-() REQUIRE e.supersession IS UNIQUE",
    "CREATE CONSTRAINT biobank_refusal IF NOT EXISTS "
    "FOR (f:Refusal) REQUIRE (f.vid, f.log) IS UNIQUE",
    "CREATE CONSTRAINT biobank_checked IF NOT EXISTS FOR (c:Checked) REQUIRE c.log IS UNIQUE",
    "CREATE INDEX biobank_action IF NOT EXISTS FOR ()-[e:PRODUCED]-() ON (e.action)",
    "CREATE INDEX biobank_device IF NOT EXISTS FOR (a:Action) ON (a.device)",
    "CALL db.awaitIndexes(600)",
)
# So that nodes and edges are counted without looking at each.
_STEP_2: Final = (
    "MATCH (o:Object) WHERE o.kind IS NULL "
    "CALL (o) { SET o:Placeholder } IN TRANSACTIONS OF 5000 ROWS",
)
_STEPS: Final = (_STEP_1, _STEP_2)


def version(tx: neo4j.ManagedTransaction) -> int:
    """The version that the database has; 0 where nothing was made yet."""
    row = run(tx, "MATCH (i:BiobankIndex {name: 'lineage'}) RETURN i.schema").single()
    return int(row[0]) if row else 0


def migrate(connection: Connection) -> None:
    """Bring the database to the newest schema. Idempotent; several may do it at once."""
    known = connection.read(version)
    if known > VERSION:
        raise StorageError(
            f"{connection.address.shown} was written by a newer release of biobank (schema "
            f"{known}, this one knows {VERSION}); use that one, or another database"
        )
    for number, step in enumerate(_STEPS[known:], start=known + 1):
        for statement in step:
            connection.write_alone(statement, {})
        connection.write_alone(
            "MERGE (i:BiobankIndex {name: 'lineage'}) SET i.schema = $number", {"number": number}
        )
