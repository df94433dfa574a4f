"""A real Galaxy server for tests, the demo and developers: PostgreSQL, web process, celery worker.

For a developer: `python -m tests.servers.galaxy --folder D --keep-running`.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import tempfile
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from bioblend import ConnectionError as BioblendConnectionError
from bioblend.galaxy import GalaxyInstance

from tests.servers.galaxy_configuration import (
    GalaxyConfiguration,
    is_tool,
    listed_tools,
    server_secrets,
    write_private,
    write_tool_list,
)
from tests.servers.postgres import PostgresServer, binaries
from tests.servers.processes import (
    ManagedProcess,
    ServerError,
    child_environment,
    free_port,
)
from tests.servers.serving import Server, serve
from tests.servers.setup_galaxy import galaxy_environment

TEST_TOOLS = Path(__file__).with_name("tools")
_CELERY = Path(__file__).with_name("celery_worker.py")
# Tools in this folder are not loaded at the start: tests add them while the server runs.
LATER_TOOLS = TEST_TOOLS / "later"

ADMIN_EMAIL = "admin@biobank.example"
WARM_UP_EMAIL = "warm-up@biobank.example"

_WEB_READY_TIMEOUT_S = 600.0
_CELERY_READY_TIMEOUT_S = 300.0
_TOOLBOX_TIMEOUT_S = 300.0
_WARM_UP_TIMEOUT_S = 400.0
_REQUEST_TIMEOUT_S = 60.0
_DATABASE = "galaxy"
_ADDRESS = "server.json"  # in the server's folder, for `attach`


class GalaxyServer(Server):
    """One Galaxy with its database and worker in one folder, gone without a trace after `stop`.

    `folder`: kept after `stop` if given, else a temporary one that `stop` removes.
    `tool_files` and `tool_folders`: more tools to load beside the test tools (`test_tools`).
    `galaxy_config`: keys of galaxy.yml that win over ours.
    `warm_up`: run one upload and one job, owned by WARM_UP_EMAIL, so that the caller's first job
    does not pay for what Galaxy loads only once.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        tool_files: Sequence[Path] = (),
        tool_folders: Sequence[Path] = (),
        test_tools: bool = True,
        job_workers: int = 2,
        tool_data_tables: Path | None = None,
        galaxy_config: Mapping[str, Any] | None = None,
        warm_up: bool = True,
    ) -> None:
        self._temporary = folder is None
        self.folder = folder.absolute() if folder else Path(tempfile.mkdtemp(prefix="biobank-gx-"))
        self.url = ""
        self.admin_key = ""
        self._tools: list[Path] = []
        if test_tools:
            self._tools += sorted(TEST_TOOLS.glob("*.xml"))
        for tool_folder in tool_folders:
            self._tools += [
                path for path in sorted(tool_folder.absolute().glob("*.xml")) if is_tool(path)
            ]
        self._tools += [path.absolute() for path in tool_files]
        self._job_workers = job_workers
        self._tool_data_tables = tool_data_tables
        self._galaxy_config = dict(galaxy_config or {})
        self._warm_up = warm_up
        self._postgres: PostgresServer | None = None
        self._web: ManagedProcess | None = None
        self._celery: ManagedProcess | None = None
        self._environment_folder = Path()

    @property
    def dependencies(self) -> Path:
        """The folder where `NAME/VERSION/env.sh` makes a tool's requirement available to jobs."""
        return self.folder / "dependencies"

    @property
    def logs(self) -> Path:
        """The folder with the logs of web process and worker."""
        return self.folder / "logs"

    def install(self) -> None:
        """Make sure that all programs are there; MissingService names one that we cannot get."""
        binaries()
        self._environment_folder = galaxy_environment()

    def start(self) -> None:
        """Start everything; return when jobs can be run. A second start keeps port and data."""
        self.install()
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._temporary:
            self.folder.chmod(0o711)  # PostgreSQL's own account walks through it
        for name in ("config", "data", "home", "logs", "dependencies"):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        if self._postgres is None:
            self._postgres = PostgresServer(self.folder / "postgres")
        self._postgres.start()
        self._postgres.create_database(_DATABASE)
        if not self.url:
            self.url = f"http://127.0.0.1:{free_port()}"
        self._write_configuration()
        self._web = self._process(
            "Galaxy",
            ["uvicorn", "--factory", "galaxy.webapps.galaxy.fast_factory:factory"],
            ["--host", "127.0.0.1", "--port", self.url.rpartition(":")[2]],
            ["--timeout-graceful-shutdown", "2", "--log-level", "warning"],
            log="web.log",
        )
        self._web.start()
        self._web.wait_until(self._answers, timeout_s=_WEB_READY_TIMEOUT_S)
        # After the web process: that one creates the tables, and two would race for it.
        self._celery = self._process(
            "Galaxy's celery worker",
            [
                "python",
                "-P",
                str(_CELERY),
                "--app",
                "galaxy.celery",
                "worker",
                "--concurrency",
                "2",
            ],
            ["--pool", "threads", "--queues", "celery,galaxy.internal,galaxy.external"],
            ["--loglevel", "INFO"],
            log="celery.log",
        )
        celery_log = self.logs / "celery.log"
        log_start = celery_log.stat().st_size if celery_log.exists() else 0
        self._celery.start()
        self._set_admin_key()
        self._celery.wait_until(
            lambda: b"ready." in celery_log.read_bytes()[log_start:],
            timeout_s=_CELERY_READY_TIMEOUT_S,
        )
        if self._warm_up:
            self._run_warm_up_job()
        write_private(
            self.folder / _ADDRESS,
            json.dumps({"url": self.url, "admin_key": self.admin_key}),
        )

    @classmethod
    def attach(cls, folder: Path) -> Self:
        """Return a server that another process started in `folder`; `stop` leaves it running."""
        server = cls(folder)
        address = json.loads((server.folder / _ADDRESS).read_text())
        server.url, server.admin_key = address["url"], address["admin_key"]
        server._environment_folder = galaxy_environment()
        server._tools = listed_tools(server.folder)
        return server

    def stop(self) -> None:
        """Stop all our processes and wait until they are gone; remove a temporary folder."""
        for server in (self._web, self._celery, self._postgres):
            if server:
                server.stop()
        if self._temporary:
            if self._postgres:
                self._postgres.remove()
                self._postgres = None
            shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        """End all our processes with SIGKILL, as a power cut would; `start` works afterwards."""
        for server in (self._web, self._celery, self._postgres):
            if server:
                server.kill()

    def ensure_alive(self) -> None:
        """Raise a ServerError with a log's tail if one of our processes has ended."""
        for process in (self._web, self._celery):
            if process:
                process.ensure_alive()
        if self._web is None and not self._answers():
            raise ServerError(f"no Galaxy answers at {self.url or 'an address not yet known'}")

    def process_ids(self) -> list[int]:
        """Return the pids of all our processes that run now, those of Galaxy's jobs included."""
        servers = (self._web, self._celery, self._postgres)
        return [pid for server in servers if server for pid in server.process_ids()]

    def ports(self) -> list[int]:
        """Return the loopback ports that our processes listen on."""
        assert self._postgres is not None
        return [int(self.url.rpartition(":")[2]), self._postgres.port]

    def admin(self) -> GalaxyInstance:
        """Return a client that acts as an administrator."""
        return GalaxyInstance(self.url, key=self.admin_key)

    def create_user(self, email: str) -> str:
        """Make sure that there is a user with that e-mail address; return a working API key."""
        return _user_key(self.admin(), email)

    def reload_tools(self) -> None:
        """Have Galaxy read its tool list and tool files again; it does so some seconds later.

        `add_tool` waits for its own tool. For other changes the caller knows what to wait for.
        """
        self.admin().make_put_request(f"{self.url}/api/configuration/toolbox")

    def add_tool(self, path: Path) -> None:
        """Load one more tool, or one more version of a tool, while the server runs."""
        self.add_tools([path])

    def add_tools(self, paths: Sequence[Path]) -> None:
        """Load more tools while the server runs; of one whose version is a macro's, any will do.

        One that was loaded from another file before, in the same version, is replaced.
        """
        named = {_tool_name(path): path.absolute() for path in paths}
        kept = [path for path in self._tools if path.exists() and _tool_name(path) not in named]
        self._tools = [*kept, *named.values()]
        self._write_tool_list()
        self.reload_tools()
        for tool_id, version in named:
            self._wait_for(
                lambda tool_id=tool_id, version=version: (  # type: ignore[misc]
                    version in (known := self.tool_versions(tool_id)) or ("@" in version and known)
                ),
                what=f"the tool {tool_id} {version}",
                timeout_s=_TOOLBOX_TIMEOUT_S,
            )

    def tool_versions(self, tool_id: str) -> list[str]:
        """Return the loaded versions of a tool, sorted; none if Galaxy does not know the tool."""
        try:
            answer = self.admin().tools.show_tool(tool_id)
        except BioblendConnectionError as error:
            if error.status_code == 404:
                return []
            raise
        return sorted({answer["version"], *answer.get("versions", [])})

    def add_requirement(self, name: str, version: str, env_sh: str) -> None:
        """Make a tool's `<requirement version=...>` available: `env_sh` is sourced by its jobs."""
        folder = self.dependencies / name / version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "env.sh").write_text(env_sh)

    def _process(self, name: str, *argv: list[str], log: str) -> ManagedProcess:
        program, *arguments = [part for parts in argv for part in parts]
        bin_folder = self._environment_folder / "bin"
        environment = child_environment(bin_folder, home=self.folder / "home")
        environment["GALAXY_CONFIG_FILE"] = str(self.folder / "config" / "galaxy.yml")
        return ManagedProcess(
            name,
            [bin_folder / program, *arguments],
            log=self.logs / log,
            folder=self.folder,
            environment=environment,
        )

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"{self.url}/api/version", timeout=_REQUEST_TIMEOUT_S
            ) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _wait_for(self, is_so: Callable[[], bool], *, what: str, timeout_s: float) -> None:
        give_up_at = time.monotonic() + timeout_s
        while not is_so():
            self.ensure_alive()
            if time.monotonic() > give_up_at:
                raise ServerError(f"{what} was not there after {timeout_s:.0f} s; see {self.logs}")
            time.sleep(0.2)

    def _set_admin_key(self) -> None:
        """Get a key of a real administrator: the bootstrap key has no user and can run no job."""
        self.admin_key = server_secrets(self.folder)["bootstrap_key"]
        self.admin_key = self.create_user(ADMIN_EMAIL)

    def _run_warm_up_job(self) -> None:
        client = GalaxyInstance(self.url, key=self.create_user(WARM_UP_EMAIL))
        history_id = client.histories.create_history("warm-up")["id"]
        upload = client.tools.paste_content("warm\n", history_id, file_type="txt")
        jobs = [upload["jobs"][0]["id"]]
        if "one_to_one" in {_tool_id(path) for path in self._tools}:
            dataset_id = upload["outputs"][0]["id"]
            inputs = {"input": {"src": "hda", "id": dataset_id}}
            jobs.append(client.tools.run_tool(history_id, "one_to_one", inputs)["jobs"][0]["id"])
        for job_id in jobs:
            self._wait_for(
                lambda job_id=job_id: client.jobs.get_state(job_id) in ("ok", "error"),  # type: ignore[misc]
                what="the warm-up job's end",
                timeout_s=_WARM_UP_TIMEOUT_S,
            )
            if client.jobs.get_state(job_id) != "ok":
                raise ServerError(f"the warm-up job failed; see {self.logs}")
        client.histories.delete_history(history_id, purge=True)

    def _write_configuration(self) -> None:
        assert self._postgres is not None
        GalaxyConfiguration(
            folder=self.folder,
            url=self.url,
            admin_email=ADMIN_EMAIL,
            database_url=self._postgres.url(_DATABASE),
            dependencies=self.dependencies,
            job_workers=self._job_workers,
            tool_data_tables=self._tool_data_tables,
            overrides=self._galaxy_config,
        ).write()
        self._write_tool_list()

    def _write_tool_list(self) -> None:
        write_tool_list(self.folder, self._environment_folder, self._tools)


def _user_key(admin: GalaxyInstance, email: str) -> str:
    found = [user for user in admin.users.get_users(f_email=email) if user["email"] == email]
    if found:
        user = found[0]
    else:
        # Galaxy's public names allow lower-case letters, digits, dots, dashes, underscores.
        name = "".join(char if char.isalnum() and char.isascii() else "-" for char in email)
        user = admin.users.create_local_user(name.lower(), email, secrets.token_hex(16))
    return str(admin.users.get_or_create_user_apikey(user["id"]))


def _tool_id(path: Path) -> str:
    return _tool_name(path)[0]


def _tool_name(path: Path) -> tuple[str, str]:
    """Id and version, as the file has them."""
    root = ElementTree.parse(path).getroot()
    return root.attrib["id"], root.attrib["version"]


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="kept afterwards; default: a temporary one")
    parser.add_argument("--tool-folder", type=Path, action="append", default=[])
    parser.add_argument("--no-warm-up", action="store_true")
    parser.add_argument("--keep-running", action="store_true", help="until Ctrl-C; else stop again")
    arguments = parser.parse_args()

    tables = None
    if arguments.folder:
        from tests.servers import tool_catalogs

        (arguments.folder / "tool-data").mkdir(parents=True, exist_ok=True)
        tables = tool_catalogs.write_tables(arguments.folder.absolute() / "tool-data")
    server = GalaxyServer(
        arguments.folder,
        tool_folders=arguments.tool_folder,
        tool_data_tables=tables,
        warm_up=not arguments.no_warm_up,
    )

    def ready() -> dict[str, object]:
        return {
            "url": server.url,
            "admin_key": server.admin_key,
            "user_key": server.create_user("developer@biobank.example"),
            "folder": str(server.folder),
        }

    serve(server, ready, keep_running=arguments.keep_running)


if __name__ == "__main__":
    _main()
