"""The SQLite index keeps the contract."""

from __future__ import annotations

import tempfile
from pathlib import Path

from biobank_core.lineage.sqlite import open_index
from biobank_core.sqlite_file import url_of_path
from tests.contract.lineage_contract import LineageContract


class TestSqliteLineage(LineageContract):
    def open_index(self):
        folder = tempfile.TemporaryDirectory()
        index = open_index(url_of_path(Path(folder.name) / "index.db"), create=True)
        index._folder = folder  # lives as long as the index does
        return index

    def a_second_of(self, index):
        return open_index(index.url, create=False)
