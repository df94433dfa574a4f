"""What all suites share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, settings

from tests.servers.missing import service_is_missing
from tests.servers.processes import MissingService
from tests.servers.rabbitmq import RabbitMQServer

if TYPE_CHECKING:
    from tests.servers.neo4j import Neo4jServer
    from tests.servers.omero.lab import OmeroLab
    from tests.servers.omero.standin import OmeroStandIn


# How long an example takes says how busy the machine is: 0.2 s would be too long for one.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

# The mark of what needs a server, by the fixture that starts or knows the server.
_MARKS: Final = {
    "galaxy": "galaxy",
    "private_galaxy": "galaxy",
    "empty_galaxy": "galaxy",
    "neo4j": "neo4j",
    "rabbitmq": "rabbitmq",
    "omero_lab": "omero",
    "omero_stand_in": "omero",
}
# The first test that asks for a server also waits for its start: some minutes on a busy machine.
_WITH_SERVER_TIMEOUT_S: Final = 1800


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server, so that `-m "not neo4j"` leaves it out, and give it time."""
    for item in items:
        marks = {_MARKS[name] for name in getattr(item, "fixturenames", ()) if name in _MARKS}
        for mark in sorted(marks):
            item.add_marker(mark)
        if marks and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_WITH_SERVER_TIMEOUT_S))


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitMQServer]:
    """One RabbitMQ for all tests; who stops or kills it starts it again."""
    try:
        server = RabbitMQServer()
    except MissingService as error:
        service_is_missing(str(error))
    with server:
        yield server


@pytest.fixture(scope="session")
def neo4j() -> Iterator[Neo4jServer]:
    """One Neo4j for all tests; who stops or kills it starts it again."""
    from tests.servers.neo4j import Neo4jServer

    # For a developer: the folder of a server that `python -m tests.servers.neo4j` keeps running.
    running = os.environ.get("BIOBANK_TEST_NEO4J_FOLDER")
    if running:
        yield Neo4jServer.attach(Path(running))
        return
    server = Neo4jServer()
    try:
        server.install()
    except MissingService as error:
        service_is_missing(str(error))
    with server:
        yield server


@pytest.fixture(scope="session")
def omero_stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OmeroStandIn]:
    """One stand-in for OMERO for all tests; who stops or kills it starts it again."""
    from tests.servers.omero.standin import OmeroStandIn

    folder: Path = tmp_path_factory.mktemp("omero")
    try:
        server = OmeroStandIn(folder)
        server.start()
    except MissingService as error:
        service_is_missing(str(error))
    try:
        yield server
    finally:
        server.stop()
        queries = server.queries.read_text().splitlines() if server.queries.exists() else []
        server.remove()
    _ask_the_oracle(queries)


def _ask_the_oracle(queries: list[str]) -> None:
    """Let Hibernate itself judge every query that the stand-in answered; fail on a refusal."""
    from tests.servers.omero.oracle import refusals

    try:
        refused = refusals(queries)
    except MissingService as error:
        service_is_missing(str(error))
    if refused:
        listed = "\n".join(f"{query}\n    {reason}" for query, reason in refused.items())
        pytest.fail(f"a genuine OMERO would refuse these queries:\n{listed}", pytrace=False)


@pytest.fixture(scope="session")
def omero_lab(request: pytest.FixtureRequest) -> OmeroLab:
    """Groups and users of our own: on the genuine server OMERO_TEST_URL names, else a stand-in."""
    try:
        from tests.servers.omero.lab import Address, OmeroLab, genuine_address
    except ImportError as error:
        service_is_missing(f"{error.name} is not installed: pip install '.[omero,omero-test]'")
    genuine = genuine_address()
    if genuine is not None:
        return OmeroLab(genuine)
    server: OmeroStandIn = request.getfixturevalue("omero_stand_in")
    return OmeroLab(Address(server.host, server.port, server.root_user, server.root_password))


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C through: a shell's background job starts with it ignored, for good.

    So would every program that a test starts and then interrupts.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
