"""The Neo4j index keeps the contract, on a real server."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biobank_core.lineage.sqlite import open_index as open_sqlite
from biobank_core.sqlite_file import url_of_path
from tests.contract.lineage_contract import LineageContract
from tests.contract.neo4j_lab import emptied, opened

# A round trip costs milliseconds, and each example makes some dozen.
_few = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.differing_executors,
        HealthCheck.too_slow,
    ],
)


class TestNeo4jLineage(LineageContract):
    @pytest.fixture(autouse=True)
    def _server(self, neo4j):
        self.server = neo4j

    def open_index(self):
        return emptied(self.server)

    def a_second_of(self, index):
        return opened(self.server)

    @contextmanager
    def another(self, index):
        # Community has one database. Better still: the other driver's word on the same events.
        with (
            tempfile.TemporaryDirectory() as folder,
            open_sqlite(url_of_path(Path(folder) / "index.db"), create=True) as other,
        ):
            yield other

    @_few
    @given(data=st.data())
    def test_any_order_and_repeats_give_the_graph_of_a_plain_search(self, data):
        self.any_order_gives_the_graph_of_a_plain_search(data)

    @_few
    @given(data=st.data())
    def test_any_order_and_repeats_give_the_same_digest(self, data):
        self.any_order_gives_the_same_digest(data)
