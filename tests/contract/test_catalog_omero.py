"""The catalog contract on OMERO: the genuine server that OMERO_TEST_URL names, or a stand-in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from catalog_contract import CatalogContract

if TYPE_CHECKING:
    from tests.servers.omero.lab import OmeroLab


@pytest.mark.timeout(1800)
class TestOmeroCatalog(CatalogContract):
    @pytest.fixture
    def url(self, omero_lab: OmeroLab, monkeypatch: pytest.MonkeyPatch) -> str:
        from omero_groups import make_group

        group = make_group(omero_lab)
        for name, value in group.members[0].environment.items():
            monkeypatch.setenv(name, value)
        return group.url
