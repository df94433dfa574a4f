"""A real RabbitMQ in a folder of its own: `python -m tests.servers.rabbitmq --keep-running`.

Debian's broker in the foreground, with its own node name, ports, folders, cookie and password, and
an epmd of its own. A broker that runs on this machine already is neither used nor touched.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.servers.processes import (
    ManagedProcess,
    MissingService,
    ServerError,
    child_environment,
    free_port,
    port_is_listening,
)
from tests.servers.serving import Server, serve

_PROGRAMS = Path("/usr/lib/rabbitmq/bin")  # Debian; those on the PATH insist on a system account
_READY_TIMEOUT_S = 120.0
_PROGRAM_TIMEOUT_S = 90.0
_GREETING = b"AMQP\x00\x00\x09\x01"  # AMQP 0-9-1, section 4.2.2
_DISK_FREE_LIMIT = "50MB"
# More than any disk has.
_NO_DISK_IS_ENOUGH = "8000000GB"


def programs() -> Path:
    """Return the folder of RabbitMQ's own scripts."""
    if not (_PROGRAMS / "rabbitmq-server").exists() or shutil.which("epmd") is None:
        raise MissingService("RabbitMQ is not installed: apt-get install rabbitmq-server")
    return _PROGRAMS


class RabbitMQServer(Server):
    """A broker on loopback ports with one user and its password; `kill` and `start` keep the data.

    `folder` is kept afterwards; without one a temporary folder is made and removed by `stop`.
    """

    user = "biobank"

    def __init__(self, folder: Path | None = None) -> None:
        self._programs = programs()
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="biobank-rabbitmq-"))
        self.port = free_port()
        self.password = secrets.token_hex(16)
        self._distribution_port = free_port()
        self._epmd_port = free_port()
        self._node = f"biobank{self.port}@localhost"
        self._log = self.folder / "rabbitmq.log"
        self._process: ManagedProcess | None = None
        self._epmd: ManagedProcess | None = None

    @property
    def url(self) -> str:
        """The address, without user and password."""
        return f"amqp://127.0.0.1:{self.port}/"

    @property
    def environment(self) -> dict[str, str]:
        """What a program of ours needs to use it."""
        return {
            "BIOBANK_BROKER": self.url,
            "RABBITMQ_USER": self.user,
            "RABBITMQ_PASSWORD": self.password,
        }

    def start(self) -> None:
        """Start it on what its folder holds; return when it speaks AMQP."""
        self._write_configuration()
        if self._epmd is None or not self._epmd.is_alive():
            self._epmd = self._managed(
                "epmd",
                [shutil.which("epmd") or "epmd", "-address", "127.0.0.1", "-relaxed_command_check"],
            )
            self._epmd.start()
            self._epmd.wait_until(lambda: port_is_listening(self._epmd_port), timeout_s=20)
        self._process = self._managed("RabbitMQ", [self._programs / "rabbitmq-server"])
        self._process.start()
        self._process.wait_until(self._speaks_amqp, timeout_s=_READY_TIMEOUT_S)

    def kill(self) -> None:
        """End the broker with SIGKILL, as a crash would."""
        if self._process:
            self._process.kill()

    def stop(self) -> None:
        """Stop it, and delete its folder if it was a temporary one."""
        for process in (self._process, self._epmd):
            if process:
                process.stop()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def ensure_alive(self) -> None:
        """Raise a ServerError with the log's tail if the broker has ended."""
        if self._process is None:
            raise ServerError("RabbitMQ was not started")
        self._process.ensure_alive()

    def process_ids(self) -> list[int]:
        """Return the pids of the broker's processes that run now."""
        return self._process.process_ids() if self._process else []

    def raise_disk_alarm(self) -> None:
        """Let it find its disk too full to take messages: publishers are blocked."""
        self.control("set_disk_free_limit", _NO_DISK_IS_ENOUGH)

    def clear_disk_alarm(self) -> None:
        """Let it find room on its disk again."""
        self.control("set_disk_free_limit", _DISK_FREE_LIMIT)

    def write_tables(self) -> None:
        """Let it write now which queues it has; by itself it does so half a second later.

        A broker that is killed before that does not find a queue again that was deleted and made
        again: it stays down (3.10.8).
        """
        self.control("eval", "[ok = dets:sync(Table) || Table <- dets:all()].")

    def control(self, *arguments: str) -> str:
        """Run `rabbitmqctl ARGUMENTS` and return what it prints; takes some seconds."""
        done = subprocess.run(
            [self._programs / "rabbitmqctl", "--quiet", *arguments],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=_PROGRAM_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise ServerError(f"rabbitmqctl {arguments[0]}: {done.stderr or done.stdout}")
        return done.stdout

    def _managed(self, name: str, argv: list[str | Path]) -> ManagedProcess:
        return ManagedProcess(
            name, argv, log=self._log, folder=self.folder, environment=self._environment()
        )

    def _speaks_amqp(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(_GREETING)
                return connection.recv(1) == b"\x01"  # a method frame: Connection.Start
        except OSError:
            return False

    def _write_configuration(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        password = self.folder / "password"
        if password.exists():
            self.password = password.read_text().strip()
        lines = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "default_user": self.user,
            "default_pass": self.password,
            "default_permissions.configure": ".*",
            "default_permissions.read": ".*",
            "default_permissions.write": ".*",
            "disk_free_limit.absolute": _DISK_FREE_LIMIT,
            "log.console": "true",
            "log.console.level": "info",
            "log.file": "false",
        }
        for name, text in {
            "password": self.password,
            "rabbitmq.conf": "".join(f"{key} = {value}\n" for key, value in lines.items()),
            "rabbitmq-env.conf": "",
            "enabled_plugins": "[].\n",
        }.items():
            path = self.folder / name
            path.touch(mode=0o600)
            path.write_text(text)

    def _environment(self) -> dict[str, str]:
        inherited = child_environment(Path("/usr/sbin"), home=self.folder)
        kept = {
            name: value
            for name, value in inherited.items()
            if not name.startswith(("RABBITMQ_", "ERL_"))
        }
        return kept | {
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_CONFIG_FILES": str(self.folder / "conf.d"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.folder / "generated"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2",
            "LANG": "C.UTF-8",
        }


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="kept afterwards; default: a temporary one")
    parser.add_argument("--keep-running", action="store_true", help="until Ctrl-C; else stop again")
    arguments = parser.parse_args()

    os.umask(0o077)
    server = RabbitMQServer(arguments.folder)
    serve(
        server,
        lambda: {**server.environment, "folder": str(server.folder)},
        keep_running=arguments.keep_running,
    )


if __name__ == "__main__":
    _main()
