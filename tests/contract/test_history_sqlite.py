"""Any history of a catalog gives the SQLite index the graph of a rebuild."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

from biobank_core.lineage.sqlite import open_index
from biobank_core.sqlite_file import url_of_path
from tests.contract.history_machine import HistoryMachine


class SqliteHistory(HistoryMachine):
    def open_index(self):
        folder = tempfile.TemporaryDirectory()
        index = open_index(url_of_path(Path(folder.name) / "index.db"), create=True)
        index._folder = folder  # lives as long as the index does
        return index


TestHistory = SqliteHistory.TestCase
# Each commit is durable: a second goes by with some tens of them.
TestHistory.settings = settings(
    max_examples=20,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
