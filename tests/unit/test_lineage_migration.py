"""An index file of an earlier schema holds the same graph when it is opened."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from biobank_core.lineage.port import Question
from biobank_core.lineage.sqlite import open_index, schema
from biobank_core.sqlite_file import url_of_path
from tests.contract.lineage_world import action, collection, device, node, supersession, vid

EVENTS = [
    node("a"),
    node("b"),
    node("c"),
    collection("list", "a", "b"),
    device("tool", "shed/repos/o/r/tool", "1.0"),
    action("job", ["list"], ["c"], device="tool"),
    supersession("newer", "c", "b"),
]


def test_an_index_of_the_second_schema_gives_the_same_graph(tmp_path: Path) -> None:
    url = url_of_path(tmp_path / "index.db")
    question = Question(starts=(vid("c"),))
    with open_index(url, create=True) as index:
        index.apply(EVENTS)
        digest, answer = index.digest(), index.connected(question)
    with closing(sqlite3.connect(tmp_path / "index.db")) as connection:
        # As release 0.1.0 kept nodes and actions: without their VID.
        connection.executescript(
            """
            CREATE TABLE n (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, label TEXT NOT NULL,
                study BLOB, groups INTEGER NOT NULL, deleted INTEGER NOT NULL);
            INSERT INTO n SELECT id, kind, label, study, groups, deleted FROM lineage_node;
            DROP TABLE lineage_node;
            ALTER TABLE n RENAME TO lineage_node;
            CREATE TABLE a (id INTEGER PRIMARY KEY, category TEXT NOT NULL, device INTEGER,
                setup BLOB, status TEXT NOT NULL, ended TEXT, middle INTEGER);
            INSERT INTO a
                SELECT id, category, device, setup, status, ended, middle FROM lineage_action;
            DROP TABLE lineage_action;
            ALTER TABLE a RENAME TO lineage_action;
            DELETE FROM biobank_migration WHERE component = 'lineage' AND version > 2;
            """
        )
    with open_index(url, create=False) as index:
        assert index.schema_version() == len(schema.STEPS)
        assert index.digest() == digest
        assert index.connected(question) == answer
