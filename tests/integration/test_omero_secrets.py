"""Passwords and keys of a recording into OMERO are found in nothing that it leaves or says."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.galaxy_over_http import served
from tests.faults.killing import environment
from tests.integration.omero_settings import settings_on_omero
from tests.unit.scripted_galaxy import chained

if TYPE_CHECKING:
    from tests.servers.omero.lab import OmeroLab
    from tests.servers.omero.standin import OmeroStandIn

KEY = "canary-galaxy-77ab"
WRONG = "canary-wrong-51c2"
JOBS = 90
# All that an annotation may hold.
TEXTS = (
    "select a.ns, a.name, a.description from Annotation a",
    "select a.textValue from TextAnnotation a",
    "select mv.name, mv.value from MapAnnotation a join a.mapValue mv",
    "select f.name, f.path from OriginalFile f",
)


class Told:
    """All that commands said, and what anybody on the machine saw of them while they ran."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self.settings = settings
        self.texts: list[str] = []

    def run(self, *arguments: str, expect: int = 0, **other: str) -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", "biobank_core.cli", "-v", *arguments],
            cwd=self.folder,
            env=environment(self.folder) | self.settings | {"BIOBANK_DEBUG": "1"} | other,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(process.pid, over))
        watcher.start()
        out, err = process.communicate(timeout=240)
        over.set()
        watcher.join()
        assert process.returncode == expect, f"{arguments}: {process.returncode}\n{err}"
        self.texts += [out, err]
        return out

    def _watch(self, pid: int, over: threading.Event) -> None:
        """Keep the command lines of the process and of whatever it starts."""
        while not over.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/stat"):
                try:
                    parent = path.read_text().rpartition(")")[2].split()[1]
                    if path.parent.name == str(pid) or parent == str(pid):
                        self.texts.append((path.parent / "cmdline").read_text())
                except OSError:
                    continue  # it is over


def annotations(lab: OmeroLab, group: str) -> str:
    """Everything that stands in the group, as text."""
    import omero.sys

    address = lab.address
    with lab.login_as(address.user, address.password, group) as client:
        context = {"omero.group": str(client.admin.lookupGroup(group).id.val)}
        rows: list[Any] = []
        for hql in TEXTS:
            rows += client.query.projection(hql, omero.sys.ParametersI(), context)
    return "\n".join(str(cell.val) for row in rows for cell in row if cell is not None)


def test_no_secret_is_in_arguments_logs_errors_dumps_or_annotations(
    omero_stand_in: OmeroStandIn, tmp_path: Path
) -> None:
    from tests.servers.omero.faults import Fault
    from tests.servers.omero.lab import Address, OmeroLab

    server = omero_stand_in
    lab = OmeroLab(
        Address(server.host, server.port, server.root_user, server.root_password), filled=False
    )
    settings = settings_on_omero(lab, tmp_path)
    password = settings.pop("OMERO_PASSWORD")
    # A file with secrets, as a service has it.
    secrets = tmp_path / "secrets"
    with os.fdopen(os.open(secrets, os.O_WRONLY | os.O_CREAT, 0o600), "w") as stream:
        stream.write(f"OMERO_PASSWORD={password}\nGALAXY_API_KEY={KEY}\n")
    with served(chained(JOBS)) as url:
        told = Told(tmp_path, {**settings, "GALAXY_URL": url, "BIOBANK_SECRETS_FILE": str(secrets)})
        told.run("init")
        with server.faults(
            Fault("remove-session", call="IUpdate.saveArray"),
            Fault("drop-after-commit", call="IUpdate.saveArray", skip=1),
        ):
            told.run("record", "--galaxy-name", "galaxy")
        assert "recorded\t0" in told.run("record", "--galaxy-name", "galaxy")
        dump = told.run("dump")
        assert dump.count('"kind":"Action"') == JOBS
        for command in ("status", "unlinked", "verify", "omero-uninstall --dry-run"):
            told.run(*command.split())
        # What goes wrong tells nothing, either.
        told.run("status", expect=4, OMERO_PASSWORD=WRONG)
        told.run("status", expect=4, OMERO_SESSION_KEY=WRONG)
        away = "omero://127.0.0.1:9/?group=lab"
        told.run("status", expect=3, BIOBANK_CATALOG=away)
        told.run("record", expect=3, GALAXY_URL="http://127.0.0.1:9")
        with server.faults(Fault("login-internal-error", call="createSession")):
            told.run("status", expect=3)
        told.run("record", "--study", "nowhere", expect=2)
    group = settings["BIOBANK_CATALOG"].partition("group=")[2]
    held = annotations(lab, group)
    assert "org.biobank/object/Action" in held
    assert len(told.texts) > 30  # command lines among them
    index = (tmp_path / "index.db").read_bytes().decode("latin-1")
    for secret in (password, KEY, WRONG, server.root_password):
        for text in (*told.texts, held, index, server.log.read_text()):
            assert secret not in text
