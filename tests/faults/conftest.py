"""Tells how many kills hit; with BIOBANK_FAULT_KEEP=1 keeps that in benchmarks/RESULTS.md."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.report import append
from tests.faults.killing import Killer
from tests.faults.sync_lab import SyncLab
from tests.servers.neo4j import Neo4jServer
from tests.servers.rabbitmq import RabbitMQServer

_killers: list[tuple[str, Killer | SyncLab]] = []


@pytest.fixture
def killer(request: pytest.FixtureRequest) -> Killer:
    name = request.node.name.removeprefix("test_").replace("_", " ")
    made = Killer(name)
    _killers.append((request.node.nodeid, made))
    return made


@pytest.fixture
def sync_lab(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    rabbitmq: RabbitMQServer,
    neo4j: Neo4jServer,
) -> Iterator[SyncLab]:
    lab = SyncLab(tmp_path, rabbitmq, neo4j=neo4j, name=request.node.name)
    try:
        yield lab
    finally:
        lab.close()
        if lab.kills_s:
            _killers.append((request.node.nodeid, lab))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    failed = {report.nodeid for report in terminalreporter.stats.get("failed", ())}
    lines = [f"- {killer}{'; FAILED' if node in failed else ''}" for node, killer in _killers]
    for line in lines:
        terminalreporter.write_line(line)
    if lines and os.environ.get("BIOBANK_FAULT_KEEP") == "1":
        append("Killed and run again (make faults)", lines)
