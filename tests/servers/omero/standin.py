"""Start and stop the stand-in for OMERO, and tell it what shall go wrong."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers.omero.faults import Fault
from tests.servers.postgres import PostgresServer
from tests.servers.processes import (
    ManagedProcess,
    MissingService,
    child_environment,
    free_port,
    port_is_listening,
)

_ROOT = Path(__file__).parents[3]
_SETTINGS = "OMERO_STAND_IN"
_READY_TIMEOUT_S = 60.0
_DATABASE = "omero"


class OmeroStandIn:
    """A stand-in for OMERO on loopback ports, its PostgreSQL beside it, all below one folder.

    `stop`, `kill` and `start` keep ports, data and root's password. It is no OMERO: README says
    what it is good for.
    """

    host = "127.0.0.1"
    root_user = "root"

    def __init__(self, folder: Path, *, login_delay_s: float = 3.0) -> None:
        try:
            import omero  # noqa: F401
            import psycopg  # noqa: F401
        except ImportError as exc:
            raise MissingService(
                f"the stand-in for OMERO needs {exc.name}: pip install '.[omero,omero-test]'"
            ) from exc
        self.folder = folder
        self.root_password = secrets.token_urlsafe(12)
        self.port = free_port()
        self.insecure_port = free_port()
        self._control_port = free_port()
        self._token = secrets.token_hex(16)
        self._login_delay_s = login_delay_s
        self._postgres = PostgresServer(folder / "postgres")
        self._process: ManagedProcess | None = None

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.folder / "omero.log"

    @property
    def queries(self) -> Path:
        """Each distinct HQL that it was asked, one a line."""
        return self.folder / "queries.hql"

    def start(self) -> None:
        """Start PostgreSQL unless it runs, then the server; return when it can be logged into."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._postgres.process_ids():
            self._postgres.start()
            self._postgres.create_database(_DATABASE)
        settings = {
            "folder": str(self.folder),
            "database": self._postgres.url(_DATABASE),
            "root_password": self.root_password,
            "host": self.host,
            "port": self.port,
            "insecure_port": self.insecure_port,
            "control_port": self._control_port,
            "token": self._token,
            "login_delay_s": self._login_delay_s,
        }
        environment = child_environment(home=self.folder)
        process = ManagedProcess(
            "the stand-in for OMERO",
            [sys.executable, "-m", "tests.servers.omero.server"],
            log=self.log,
            folder=_ROOT,
            environment={**environment, _SETTINGS: json.dumps(settings)},
        )
        process.start()
        self._process = process
        process.wait_until(lambda: port_is_listening(self.port), timeout_s=_READY_TIMEOUT_S)

    def stop(self) -> None:
        """Stop the server and its PostgreSQL; the data stay."""
        self.stop_server()
        self._postgres.stop()

    def remove(self) -> None:
        """Delete its data; it must be stopped."""
        self._postgres.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop_server(self) -> None:
        """Stop the server only."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """End the server with SIGKILL, in the middle of whatever it does."""
        if self._process is not None:
            self._process.kill()

    def database_url(self) -> str:
        """Return the URL of its database; it holds the password."""
        return self._postgres.url(_DATABASE)

    @contextmanager
    def faults(self, *faults: Fault) -> Iterator[None]:
        """Switch faults on, and off at the end; one that never struck is an AssertionError."""
        for fault in faults:
            self._order("fault", fault=dataclasses.asdict(fault))
        try:
            yield
        finally:
            struck = self._order("clear")["struck"]
        idle = [kind for kind, count in struck if count == 0]
        assert not idle, f"these faults never struck: {idle}"

    def wait_until_struck(self, *, timeout_s: float = 30.0) -> None:
        """Wait until a fault that is on has struck."""
        give_up_at = time.monotonic() + timeout_s
        while self._order("struck")["struck"] == 0:
            assert time.monotonic() < give_up_at, "no fault struck in time"
            time.sleep(0.02)

    def sessions(self) -> dict[str, str]:
        """Return the open sessions: UUID to user name."""
        return dict(self._order("sessions")["sessions"])

    def end_session(self, session_uuid: str) -> bool:
        """End a session, as an administrator or a time-out would."""
        return bool(self._order("end-session", uuid=session_uuid)["ended"])

    def _order(self, what: str, **details: Any) -> dict[str, Any]:
        order = {"token": self._token, "do": what, **details}
        with socket.create_connection((self.host, self._control_port), timeout=30) as connection:
            connection.sendall(json.dumps(order).encode() + b"\n")
            answer: dict[str, Any] = json.loads(connection.makefile().readline())
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer


def environment_of(server: OmeroStandIn) -> dict[str, str]:
    """Return the variables with which our own programs and suites find the server."""
    return {
        "OMERO_TEST_URL": f"omero://{server.host}:{server.port}/",
        "OMERO_TEST_USER": server.root_user,
        "OMERO_TEST_PASSWORD": server.root_password,
        "PATH": os.environ.get("PATH", os.defpath),
    }
