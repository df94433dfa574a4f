"""What all suites share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.servers.missing import service_is_missing
from tests.servers.processes import MissingService
from tests.servers.rabbitmq import RabbitMQServer

if TYPE_CHECKING:
    from tests.servers.neo4j import Neo4jServer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs RabbitMQ or Neo4j, so that `-m "not neo4j"` leaves it out."""
    for item in items:
        for name in {"rabbitmq", "neo4j"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(name)


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

    server = Neo4jServer()
    try:
        server.install()
    except MissingService as error:
        service_is_missing(str(error))
    with server:
        yield server


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C through: a shell's background job starts with it ignored, for good.

    So would every program that a test starts and then interrupts.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
