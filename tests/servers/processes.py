"""Child processes that never outlive their owner, free ports, and waiting until one is ready."""

from __future__ import annotations

import atexit
import fcntl
import functools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tests.servers.cache import cache_folder
from tests.servers.supervisor import descendants

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
# Below the range from which Linux gives ports to outgoing connections: a port that we looked up
# cannot be lent to somebody's client between the look-up and the server's bind.
_PORTS = range(15000, 32000)
_LOG_TAIL_BYTES = 6000

_ports_given: set[int] = set()
_running: list[ManagedProcess] = []


class ServerError(RuntimeError):
    """A server did not start, ended by itself or did not answer."""


class MissingService(ServerError):
    """Something that has to be installed first is not there; the message names it."""


def free_port() -> int:
    """Return a loopback TCP port that is free now and that no process of ours was given before.

    It stays given until this process ends, whether its server listens already, pauses or has ended.
    """
    for _ in range(1000):
        port = random.choice(_PORTS)
        if port in _ports_given or port_is_listening(port) or not _can_bind(port):
            continue
        if _claimed(port):
            _ports_given.add(port)
            return port
    raise ServerError("no free TCP port on the loopback interface")


def _claimed(port: int) -> bool:
    """Lock the port's byte of a file that all processes of this account share."""
    try:
        fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@functools.cache
def _claims() -> BinaryIO:
    """The file, kept open: the kernel drops its locks when the process closes it or ends."""
    path = cache_folder() / "ports.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def port_is_listening(port: int) -> bool:
    """Tell whether something accepts connections on that loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def pid_is_alive(pid: int) -> bool:
    """Tell whether there is a process with that pid; a zombie is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def log_tail(log: Path) -> str:
    """Return the end of a log file, for an error message."""
    try:
        with log.open("rb") as handle:
            handle.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
            return handle.read().decode(errors="replace")
    except OSError as error:
        return f"(no log: {error})"


class ManagedProcess:
    """One server process below a supervisor of its own that ends it when we end, however we do.

    `environment` is the child's whole environment. With `user` (and as root) it runs as that
    account. Secrets belong into the environment or files: argv is visible to every local user.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path,
        folder: Path,
        environment: Mapping[str, str],
        user: str | None = None,
        group: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace_s: float = 10.0,
    ) -> None:
        self.name = name
        self.log = log
        self._order = {
            "argv": [str(part) for part in argv],
            "log": str(log),
            "folder": str(folder),
            "environment": dict(environment),
            "user": user,
            "group": group,
            "stop_signal": int(stop_signal),
            "grace_s": grace_s,
        }
        self._supervisor: subprocess.Popen[bytes] | None = None
        self.pid = 0

    def start(self) -> None:
        """Start the process; `pid` is its own pid, not the supervisor's."""
        if self.is_alive():
            raise ServerError(f"{self.name} runs already")
        supervisor = subprocess.Popen(
            [sys.executable, "-I", str(_SUPERVISOR)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        supervisor.stdin.write(json.dumps(self._order).encode() + b"\n")
        supervisor.stdin.flush()
        answer = supervisor.stdout.readline()
        self._supervisor = supervisor
        _running.append(self)
        report: dict[str, Any] = json.loads(answer) if answer else {"error": "the supervisor ended"}
        if "error" in report:
            self._end("kill")
            raise ServerError(f"cannot start {self.name}: {report['error']}")
        self.pid = report["pid"]

    def is_alive(self) -> bool:
        """Tell whether the process is still running."""
        return self._supervisor is not None and self._supervisor.poll() is None

    def process_ids(self) -> list[int]:
        """Return the pids of the supervisor and of all that runs below it now."""
        if self._supervisor is None or self._supervisor.poll() is not None:
            return []
        return [self._supervisor.pid, *descendants(self._supervisor.pid)]

    def wait_until(self, is_ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Ask `is_ready` until it says yes; a dead process or a lack of time is a ServerError."""
        give_up_at = time.monotonic() + timeout_s
        while not is_ready():
            if not self.is_alive():
                raise ServerError(f"{self.name} ended before it was ready{self._log_excerpt()}")
            if time.monotonic() > give_up_at:
                raise ServerError(
                    f"{self.name} was not ready after {timeout_s:.0f} s{self._log_excerpt()}"
                )
            time.sleep(0.2)

    def ensure_alive(self) -> None:
        """Raise a ServerError with the log's tail if the process has ended."""
        if not self.is_alive():
            raise ServerError(f"{self.name} is not running{self._log_excerpt()}")

    def stop(self) -> None:
        """Ask the process to end, kill after the grace time, and wait until all of it is gone."""
        self._end("stop")

    def kill(self) -> None:
        """End the process and all below it with SIGKILL, as a crash would."""
        self._end("kill")

    def _end(self, word: str) -> None:
        supervisor = self._supervisor
        if supervisor is None:
            return
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        try:
            supervisor.stdin.write(word.encode())
            supervisor.stdin.close()
        except BrokenPipeError:
            pass
        supervisor.wait()
        supervisor.stdout.close()
        self._supervisor = None
        if self in _running:
            _running.remove(self)

    def _log_excerpt(self) -> str:
        return f"\n--- end of {self.log} ---\n{log_tail(self.log)}"


def child_environment(*bin_folders: Path, home: Path) -> dict[str, str]:
    """Return this process's environment without what is private to it or to its Python.

    Keys and passwords of the caller must not reach a server, its jobs or its logs.
    """
    private = ("GALAXY_", "BIOBANK_", "PYTHON", "PIP_", "PG", "VIRTUAL_ENV", "COV_", "PYTEST_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(private)}
    path = os.pathsep.join([*map(str, bin_folders), kept.get("PATH", os.defpath)])
    return {**kept, "PATH": path, "HOME": str(home), "PYTHONUNBUFFERED": "1"}


@atexit.register
def _stop_all() -> None:
    """Stop what a caller forgot, the last started first; the lifelines cover every other end."""
    for process in reversed(list(_running)):
        process.stop()
