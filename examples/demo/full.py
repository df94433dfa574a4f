"""The demonstration with servers: `python -m examples.demo.run --full` (or `make demo-full`).

The catalog is the same SQLite file; changes go over RabbitMQ into Neo4j, which answers questions
of lineage. The service in between is killed once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TextIO

from examples.demo.run import Demo
from examples.demo.terminal import end
from tests.servers.neo4j import Neo4jServer
from tests.servers.rabbitmq import RabbitMQServer


class FullDemo(Demo):
    """The same steps, with RabbitMQ and Neo4j."""

    # Asked a moment after a recording: wait until all of it has arrived.
    lineage_options = ("--freshness", "wait")

    _sync: subprocess.Popen[bytes]
    _log: TextIO

    def start_services(self) -> None:
        """Start RabbitMQ, Neo4j and biobank-sync, in folders of their own."""
        rabbitmq = self._running.enter_context(RabbitMQServer())
        self._terminal.say(f"RabbitMQ answers at {rabbitmq.url}")
        neo4j = self._running.enter_context(Neo4jServer())
        self._terminal.say(f"Neo4j answers at {neo4j.url}")
        for name, value in {
            **rabbitmq.environment,
            **neo4j.environment,
            "BIOBANK_INDEX": neo4j.url,
        }.items():
            self._terminal.set(name, value)
        self._log = self._running.enter_context(
            (self._output / "biobank-sync.log").open("w", encoding="utf-8")
        )
        self._start_sync()
        self._running.callback(lambda: end(self._sync))  # type: ignore[arg-type]  # of bytes

    def _register(self) -> None:
        super()._register()
        self._sync.kill()
        self._sync.wait()
        self._terminal.say("killed biobank-sync with SIGKILL, and started it again")
        self._start_sync()

    def check_services(self) -> None:
        """Check that Neo4j holds what the catalog holds."""
        self._terminal.biobank("lineage", "KPN:KP-01", *self.lineage_options)
        self._terminal.biobank("verify")  # fails when it finds something
        self._expect(True, "Neo4j holds what the catalog holds: nothing missing, stale or extra")
        done = subprocess.run(
            [*self._program(), "status", "--format", "json"],
            env=self._terminal.environment,
            stdout=subprocess.PIPE,
            check=True,
        )
        status = json.loads(done.stdout)
        self._expect(status["pending_changes"] == 0, "no change is under way")
        self._expect(status["dead_letters"] == 0, "there are no dead letters")

    def _start_sync(self) -> None:
        state = self._output / "relay.json"
        self._terminal.say(f"$ biobank-sync run --state {state.name}")
        self._sync = subprocess.Popen(
            [*self._program(), "run", "--state", str(state)],
            env=self._terminal.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
        )

    @staticmethod
    def _program() -> list[str]:
        beside = Path(sys.executable).with_name("biobank-sync")
        return [str(beside)] if beside.exists() else [sys.executable, "-m", "sync_service"]
