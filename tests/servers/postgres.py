"""A PostgreSQL cluster of our own, in a folder of its own, for as long as a test run lasts."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path

from tests.servers.processes import (
    ManagedProcess,
    MissingService,
    ServerError,
    child_environment,
    free_port,
)

_INSTALLATIONS = Path("/usr/lib/postgresql")
_ACCOUNT = "postgres"  # the server refuses to run as root; Debian's package made this account
_READY_TIMEOUT_S = 300.0


def binaries() -> Path:
    """Return the folder of the newest installed PostgreSQL server's programs."""
    found = sorted(
        _INSTALLATIONS.glob("*/bin/initdb"), key=lambda path: float(path.parent.parent.name)
    )
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path is None:
        raise MissingService("PostgreSQL is not installed: apt-get install postgresql")
    return Path(on_path).resolve().parent


class PostgresServer:
    """A throw-away cluster on a loopback port with one superuser and its password.

    `stop` and `start` keep the data. fsync is off: fast, and worthless after a power cut.
    """

    user = "galaxy"

    def __init__(self, folder: Path) -> None:
        self.port = 0
        self.password = secrets.token_hex(16)
        self._bin = binaries()
        self._as_root = os.geteuid() == 0
        self._made_folder = self._as_root and not _others_can_reach(folder)
        self.folder = _reachable_temporary_folder() if self._made_folder else folder
        self._data = self.folder / "data"
        self._log = self.folder / "postgres.log"
        self._process: ManagedProcess | None = None

    def start(self) -> None:
        """Make the cluster unless it is there, start it, return when it accepts connections."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._as_root:
            self.folder.chmod(0o700)
            shutil.chown(self.folder, _ACCOUNT, _ACCOUNT)
        password_file = self.folder / "password"
        if self._data.exists():
            self.password = password_file.read_text().strip()
        else:
            self._make_cluster(password_file)
        self.port = self.port or free_port()
        process = ManagedProcess(
            "PostgreSQL",
            [
                self._bin / "postgres",
                *("-D", self._data, "-p", str(self.port), "-h", "127.0.0.1"),
                *("-c", "unix_socket_directories=", "-c", "max_connections=200"),
                # Not synchronous_commit=off: what was committed must survive our own `kill`.
                *("-c", "fsync=off", "-c", "full_page_writes=off"),
            ],
            log=self._log,
            folder=self.folder,
            environment=self._environment(),
            user=_ACCOUNT if self._as_root else None,
            group=_ACCOUNT if self._as_root else None,
            stop_signal=signal.SIGINT,  # "fast": open connections are closed
        )
        process.start()
        self._process = process
        process.wait_until(self._accepts_connections, timeout_s=_READY_TIMEOUT_S)

    def create_database(self, name: str) -> None:
        """Create a database unless it is there."""
        done = self._run("createdb", *self._address(), name)
        if done.returncode and "already exists" not in done.stderr:
            raise ServerError(f"createdb {name}: {done.stderr.strip()}")

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database; it holds the password."""
        return f"postgresql://{self.user}:{self.password}@127.0.0.1:{self.port}/{database}"

    def process_ids(self) -> list[int]:
        """Return the pids of all our processes that run now."""
        return self._process.process_ids() if self._process else []

    def stop(self) -> None:
        """Stop the server; the data stay."""
        if self._process:
            self._process.stop()

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would."""
        if self._process:
            self._process.kill()

    def remove(self) -> None:
        """Delete the cluster's folder; the server must be stopped."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_cluster(self, password_file: Path) -> None:
        # initdb reads the file as the dropped-to account, so that account has to own it.
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        if self._as_root:
            shutil.chown(password_file, _ACCOUNT, _ACCOUNT)
        done = self._run(
            "initdb",
            *("-D", str(self._data), "-U", self.user, "--pwfile", str(password_file)),
            *("-A", "scram-sha-256", "-E", "UTF8", "--locale", "C.UTF-8", "--no-sync"),
        )
        if done.returncode:
            raise ServerError(f"initdb failed: {done.stderr.strip()}")

    def _accepts_connections(self) -> bool:
        return self._run("pg_isready", *self._address()).returncode == 0

    def _address(self) -> tuple[str, ...]:
        return ("-h", "127.0.0.1", "-p", str(self.port), "-U", self.user)

    def _environment(self) -> dict[str, str]:
        return child_environment(home=self.folder)

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._bin / program, *arguments],
            cwd=self.folder,
            env={**self._environment(), "PGPASSWORD": self.password},
            user=_ACCOUNT if self._as_root else None,
            group=_ACCOUNT if self._as_root else None,
            extra_groups=[] if self._as_root else None,
            capture_output=True,
            text=True,
            check=False,
        )


def _others_can_reach(folder: Path) -> bool:
    """Tell whether another account may walk down to `folder`, by the "x for others" bits."""
    existing = [parent for parent in folder.absolute().parents if parent.exists()]
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in existing)


def _reachable_temporary_folder() -> Path:
    account = pwd.getpwnam(_ACCOUNT)
    for parent in (tempfile.gettempdir(), "/var/tmp", "/tmp"):
        if _others_can_reach(Path(parent) / "x"):
            folder = Path(tempfile.mkdtemp(prefix="biobank-postgres-", dir=parent))
            os.chown(folder, account.pw_uid, account.pw_gid)
            return folder
    raise ServerError(f"no temporary folder that the account {_ACCOUNT} can reach")
