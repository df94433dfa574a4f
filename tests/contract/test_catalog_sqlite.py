from pathlib import Path

import pytest
from catalog_contract import CatalogContract

from biobank_core.sqlite_file import url_of_path


class TestSqliteCatalog(CatalogContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return url_of_path(tmp_path / "catalog.db")
