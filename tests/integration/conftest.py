"""Fixtures of the integration tests: real servers, each started once and only when asked for."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.omero_settings import (
    NewCatalog,
    settings_in_file,
    settings_on_omero,
)
from tests.servers import tool_catalogs
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_user import GalaxyUser
from tests.servers.missing import service_is_missing
from tests.servers.processes import MissingService

# For a developer: the folder of a server that `python -m tests.servers.galaxy` keeps running.
_RUNNING_SERVER = "BIOBANK_TEST_GALAXY_FOLDER"

# Where the catalogs of a test without a choice of its own are: "sqlite" or "omero".
_CATALOG = "BIOBANK_TEST_CATALOG"

_user_numbers = itertools.count(1)


def new_galaxy(
    *,
    warm_up: bool = True,
    test_tools: bool = True,
    tool_data_tables: Path | None = None,
    galaxy_config: Mapping[str, Any] | None = None,
) -> GalaxyServer:
    """Return a server that can be started, or skip the test at hand."""
    server = GalaxyServer(
        warm_up=warm_up,
        test_tools=test_tools,
        tool_data_tables=tool_data_tables,
        galaxy_config=galaxy_config,
    )
    try:
        server.install()
    except (MissingService, subprocess.CalledProcessError) as error:
        server.stop()
        service_is_missing(f"no Galaxy server can be had here: {error}")
    return server


@pytest.fixture(scope="session")
def galaxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GalaxyServer]:
    """One Galaxy server for all tests; each test has a user and histories of its own there."""
    running = os.environ.get(_RUNNING_SERVER)
    if running:
        yield GalaxyServer.attach(Path(running))
        return
    tables = tool_catalogs.write_tables(tmp_path_factory.mktemp("tool-data"))
    with new_galaxy(tool_data_tables=tables) as server:
        yield server


@pytest.fixture
def private_galaxy() -> Iterator[GalaxyServer]:
    """A server for one test alone, which starts, stops and kills it; without a warm-up job."""
    server = new_galaxy(warm_up=False)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def galaxy_user(galaxy: GalaxyServer) -> GalaxyUser:
    """A fresh user with a client of their own."""
    galaxy.ensure_alive()
    email = f"user{next(_user_numbers)}-{os.getpid()}@biobank.example"
    return GalaxyUser.on(galaxy, email)


@pytest.fixture(scope="module")
def new_catalog(request: pytest.FixtureRequest) -> NewCatalog:
    """Makes empty catalogs of the kind that the test or else BIOBANK_TEST_CATALOG names."""
    if getattr(request, "param", os.environ.get(_CATALOG, "sqlite")) == "omero":
        # Only who asks for it starts one.
        return functools.partial(settings_on_omero, request.getfixturevalue("omero_lab"))
    return settings_in_file
