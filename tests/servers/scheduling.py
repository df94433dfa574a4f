"""A pytest plug-in: who shares a server runs in one pytest-xdist worker, the rest anywhere.

Loaded by `pytest -p tests.servers.scheduling -n 4`. Not xdist's own `--dist loadgroup`: with
pytest 9.2 that silently does not group (pytest-xdist issue 1386), and each worker would start a
Galaxy of its own.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

_SHARING = "tests/integration/"
# Those that share RabbitMQ and Neo4j, wherever they are.
_SYNC = (
    "tests/faults/test_sync_",
    "tests/integration/test_sync",
    "tests/contract/test_lineage_neo4j",
)
# Those that share the stand-in for OMERO.
_OMERO = (
    "tests/conformance/",
    "tests/contract/test_catalog_omero",
    "tests/integration/test_omero_",
    "tests/faults/test_omero_",
)
# Tests that start a server for themselves alone.
_NOT_SHARING = "tests/integration/own_server/"


class SharedServerScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Hand out single tests, but all that share the integration servers as one piece."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(_SYNC):
            return "sync"
        if nodeid.startswith(_OMERO):
            return "omero"
        if nodeid.startswith(_SHARING) and not nodeid.startswith(_NOT_SHARING):
            return _SHARING
        return nodeid


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SharedServerScheduling:
    """Tell pytest-xdist to hand out the tests by our rule."""
    return SharedServerScheduling(config, log)
