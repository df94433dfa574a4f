"""A real Neo4j Community server for tests, benchmarks and developers, from Maven Central.

For a developer: `python -m tests.servers.neo4j --folder D --keep-running`.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from tests.servers.cache import cache_folder, exclusive
from tests.servers.galaxy_configuration import write_private
from tests.servers.processes import (
    ManagedProcess,
    MissingService,
    ServerError,
    child_environment,
    free_port,
    port_is_listening,
)
from tests.servers.serving import Server, serve

# The long-term release; raise it here to test with a newer one.
VERSION: Final = "5.26.28"
USER: Final = "neo4j"

_READY_TIMEOUT_S: Final = 180.0
_INSTALL_TIMEOUT_S: Final = 900.0
_ADDRESS: Final = "server.json"  # in the server's folder, for `attach`
_FIRST_PASSWORD: Final = "neo4j"  # every new server's, to be changed at the first login
_DONE: Final = ".biobank-complete"

_POM: Final = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>org.biobank.dev</groupId>
  <artifactId>neo4j-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.neo4j.app</groupId><artifactId>neo4j-server</artifactId>
      <version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.neo4j</groupId><artifactId>neo4j</artifactId>
      <version>{VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


def jars() -> Path:
    """Return the folder of the server's jars, fetched by Maven if it is not in the cache.

    Raises MissingService that says what to install.
    """
    folder = cache_folder() / f"neo4j-{VERSION}"
    if (folder / _DONE).exists():
        return folder
    for program, package in (("mvn", "maven"), ("java", "openjdk-17-jre-headless")):
        if shutil.which(program) is None:
            raise MissingService(f"{program} is not installed: apt-get install {package}")
    with exclusive(folder.with_name(f"{folder.name}.lock")):
        if (folder / _DONE).exists():
            return folder
        print(f"Fetching Neo4j {VERSION} into {folder}", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left
        folder.mkdir(parents=True)
        (folder / "pom.xml").write_text(_POM)
        try:
            subprocess.run(
                [
                    *("mvn", "--batch-mode", "--quiet", "dependency:copy-dependencies"),
                    f"-DoutputDirectory={folder}",
                ],
                cwd=folder,
                check=True,
                stdout=sys.stderr,
                timeout=_INSTALL_TIMEOUT_S,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise MissingService(f"Neo4j {VERSION} can't be fetched by Maven: {error}") from error
        (folder / _DONE).touch()
    return folder


class Neo4jServer(Server):
    """One Neo4j with authentication on, in one folder, gone without a trace after `stop`.

    `folder`: kept after `stop` if given, else a temporary one that `stop` removes. `settings`: keys
    of neo4j.conf that win over ours; change them between `stop` (or `kill`) and `start` to have a
    server that is read-only, short of memory and so on.
    """

    user: Final = USER

    def __init__(
        self,
        folder: Path | None = None,
        *,
        heap_mb: int = 512,
        page_cache_mb: int = 128,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._temporary = folder is None
        self.folder = folder.absolute() if folder else Path(tempfile.mkdtemp(prefix="biobank-n4j-"))
        self.port = 0
        self.password = secrets.token_urlsafe(16)
        self.settings = dict(settings or {})
        self._heap_mb = heap_mb
        self._page_cache_mb = page_cache_mb
        self._process: ManagedProcess | None = None

    @property
    def url(self) -> str:
        """The address for `--index`; user and password are given apart."""
        return f"bolt://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs in its environment to use this server."""
        return {"NEO4J_USER": self.user, "NEO4J_PASSWORD": self.password}

    @property
    def pid(self) -> int:
        """The pid of the server's own process; 0 before it was started."""
        return self._process.pid if self._process else 0

    def install(self) -> None:
        """Make sure that all programs are there; MissingService names one that we cannot get."""
        jars()

    def start(self) -> None:
        """Start it; return when it takes queries. A second start keeps port, data and password."""
        library = jars()
        for name in ("", "conf", "data", "logs", "home"):
            (self.folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        if (self.folder / _ADDRESS).exists():
            self._read_address()
        self.port = self.port or free_port()
        self._write_configuration()
        self._process = ManagedProcess(
            "Neo4j",
            [
                *("java", *self._options(library), "org.neo4j.server.CommunityEntryPoint"),
                *(f"--home-dir={self.folder}", f"--config-dir={self.folder / 'conf'}"),
            ],
            log=self.folder / "logs" / "console.log",
            folder=self.folder,
            environment=child_environment(home=self.folder / "home"),
            grace_s=60.0,
        )
        self._process.start()
        self._process.wait_until(self._answers, timeout_s=_READY_TIMEOUT_S)
        write_private(
            self.folder / _ADDRESS, json.dumps({"port": self.port, "password": self.password})
        )

    @classmethod
    def attach(cls, folder: Path) -> Self:
        """Return a server that another process started in `folder`; `stop` leaves it running."""
        server = cls(folder)
        server._read_address()
        return server

    def stop(self) -> None:
        """Stop our process and wait until it is gone; remove a temporary folder."""
        if self._process:
            self._process.stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def pause(self) -> None:
        """Stop our process in good order; the data stay, `start` works afterwards."""
        if self._process:
            self._process.stop()

    def kill(self) -> None:
        """End our process with SIGKILL, as a power cut would; `start` works afterwards."""
        if self._process:
            self._process.kill()

    def ensure_alive(self) -> None:
        """Raise a ServerError with the log's tail if our process has ended."""
        if self._process:
            self._process.ensure_alive()
        elif not port_is_listening(self.port):
            raise ServerError(f"no Neo4j answers at {self.url}")

    def process_ids(self) -> list[int]:
        """Return the pids of all our processes that run now."""
        return self._process.process_ids() if self._process else []

    def _read_address(self) -> None:
        address = json.loads((self.folder / _ADDRESS).read_text())
        self.port, self.password = address["port"], address["password"]

    def _options(self, library: Path) -> list[str]:
        return [
            *("-cp", f"{library}/*"),
            *(f"-Xms{min(128, self._heap_mb)}m", f"-Xmx{self._heap_mb}m"),
            *("--add-opens", "java.base/java.nio=ALL-UNNAMED"),
            *("--add-opens", "java.base/sun.nio.ch=ALL-UNNAMED"),
            "-XX:+ExitOnOutOfMemoryError",
        ]

    def _write_configuration(self) -> None:
        settings = {
            "server.bolt.listen_address": f"127.0.0.1:{self.port}",
            "server.bolt.advertised_address": f"127.0.0.1:{self.port}",
            "server.http.enabled": "false",
            "server.https.enabled": "false",
            "dbms.security.auth_enabled": "true",
            # A test that tries wrong passwords must not lock the account for those after it.
            "dbms.security.auth_max_failed_attempts": "0",
            "dbms.usage_report.enabled": "false",
            "server.memory.pagecache.size": f"{self._page_cache_mb}m",
            "db.tx_log.rotation.retention_policy": "100M size",
            **self.settings,
        }
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        (self.folder / "conf" / "neo4j.conf").write_text(text)

    def _answers(self) -> bool:
        if not port_is_listening(self.port):
            return False
        # The driver is an extra, and heavy: who only starts a Galaxy does without.
        from neo4j import GraphDatabase
        from neo4j.exceptions import AuthError, DriverError, Neo4jError

        try:
            with GraphDatabase.driver(self.url, auth=(USER, self.password)) as driver:
                driver.execute_query("RETURN 1", database_="neo4j")
            return True
        except AuthError:
            return self._set_password()
        except (DriverError, Neo4jError):
            return False

    def _set_password(self) -> bool:
        from neo4j import GraphDatabase
        from neo4j.exceptions import DriverError, Neo4jError

        try:
            with GraphDatabase.driver(self.url, auth=(USER, _FIRST_PASSWORD)) as driver:
                driver.execute_query(
                    "ALTER CURRENT USER SET PASSWORD FROM $old TO $new",
                    {"old": _FIRST_PASSWORD, "new": self.password},
                    database_="system",
                )
        except (DriverError, Neo4jError):
            return False
        return False  # the next look logs in with the new one


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="kept afterwards; default: a temporary one")
    parser.add_argument("--heap-mb", type=int, default=512)
    parser.add_argument("--page-cache-mb", type=int, default=128)
    parser.add_argument("--keep-running", action="store_true", help="until Ctrl-C; else stop again")
    arguments = parser.parse_args()

    server = Neo4jServer(
        arguments.folder, heap_mb=arguments.heap_mb, page_cache_mb=arguments.page_cache_mb
    )

    def ready() -> dict[str, object]:
        return {
            "url": server.url,
            "user": server.user,
            "password": server.password,
            "folder": str(server.folder),
        }

    serve(server, ready, keep_running=arguments.keep_running)


if __name__ == "__main__":
    _main()
