"""What the campaign tests share: a small laboratory in Galaxy, and the command line on it."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.omero_settings import NewCatalog
from tests.servers.galaxy_user import GalaxyUser, hdca

PROJECT = Path(__file__).parents[2]
OLD, NEW = "1.2.0", "2.0.0+galaxy1"
WITHOUT_PREFIX, WITHOUT_LOG = "3.0.0", "4.0.0"

# A campaign may take as long as a busy machine needs.
RUN_TIMEOUT_S = 900

# Galaxy tells of no more invocations at a time.
_PAGE = 100

# Two steps, as the old results were made.
WORKFLOW: dict[str, Any] = {
    "class": "GalaxyWorkflow",
    "label": "typing",
    "inputs": {"genomes": {"type": "collection", "collection_type": "list"}},
    "outputs": {
        "typed": {"outputSource": "typing/output"},
        "log": {"outputSource": "typing/log"},
        "upper": {"outputSource": "upper/output"},
    },
    "steps": {
        "typing": {
            "tool_id": "versioned_tool",
            "tool_version": OLD,
            "in": {"input": "genomes"},
            "state": {"prefix": "v", "mode": "plain"},
        },
        "upper": {"tool_id": "one_to_one", "in": {"input": "typing/output"}},
    },
}
# And one that looks at the genome first, and fails where that holds the word FAIL.
STRICT: dict[str, Any] = {
    **WORKFLOW,
    "label": "strict typing",
    "steps": {
        "check": {"tool_id": "fail_if_asked", "in": {"input": "genomes"}},
        "typing": {**WORKFLOW["steps"]["typing"], "in": {"input": "check/output"}},
        "upper": WORKFLOW["steps"]["upper"],
    },
}


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, str]]:
        """A TSV answer, by column."""
        header, *rows = (line.split("\t") for line in self.out.splitlines())
        return [dict(zip(header, row, strict=True)) for row in rows]


@dataclass
class Lab:
    """A study whose samples were typed with the old release, recorded in a catalog of its own.

    `settings`: what is in the environment besides, such as the variables that name the catalog.
    """

    user: GalaxyUser
    folder: Path
    url: str
    settings: Mapping[str, str] = field(repr=False)
    samples: dict[str, str] = field(default_factory=dict)
    workflow: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What the command line is run with."""
        return {
            **os.environ,
            "GALAXY_URL": self.url,
            "GALAXY_API_KEY": self.user.key,
            "PYTHONPATH": str(PROJECT),
            "XDG_STATE_HOME": str(self.folder / "state"),
            **self.settings,
        }

    @property
    def secrets(self) -> list[str]:
        """What no command may show."""
        names = ("GALAXY_API_KEY", "OMERO_PASSWORD")
        return [text for name in names if (text := self.environment.get(name))]

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start `biobank ARGUMENTS`; the caller waits for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "biobank_core.cli", *arguments],
            env=self.environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def biobank(self, *arguments: str, expect: int = 0, **variables: str) -> Answer:
        """Run `biobank ARGUMENTS`; fails the test for another exit code."""
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=RUN_TIMEOUT_S)
        assert process.returncode == expect, f"{arguments}: {process.returncode}\n{out}\n{err}"
        for secret in self.secrets:
            assert secret not in out + err, f"{arguments} shows a secret"
        return Answer(process.returncode, out, err)

    def type_samples(self, samples: Mapping[str, str]) -> None:
        """Register tubes, upload their genomes {tube: text}, type them, record it all."""
        self.samples = dict(samples)
        self.register(samples)
        history = self.user.new_history("typing")
        genomes = self.user.upload_collection(history, dict(samples))
        self.workflow = self.invoke(
            WORKFLOW, {"genomes": hdca(genomes)}, history=history, jobs=2 * len(samples)
        )
        self.record()

    def register(self, tubes: Iterable[str]) -> None:
        """The study KPN with these tubes, each of an individual who agreed."""
        names = list(tubes)
        tables = {
            "Study": "label\nKPN\n",
            "Individual": "code\n" + "".join(f"I-{tube}\n" for tube in names),
            "Consent": "enrollment\tstatus\n" + "".join(f"I-{tube}\tgiven\n" for tube in names),
            "Tube": "label\tsource\tcategory\n"
            + "".join(f"{tube}\tI-{tube}\tCREATION\n" for tube in names),
        }
        for kind, text in tables.items():
            path = self.folder / f"{kind}.tsv"
            path.write_text(text, encoding="utf-8")
            study = () if kind == "Study" else ("--study", "KPN")
            self.biobank("register", kind, str(path), *study)

    def invoke(
        self, document: Mapping[str, Any], inputs: Mapping[str, Any], *, history: str, jobs: int
    ) -> str:
        """Run a workflow by hand until so many jobs have ended well; its id."""
        workflow = str(self.user.client.workflows.import_workflow_dict(dict(document))["id"])
        invocation = self.user.client.workflows.invoke_workflow(
            workflow,
            inputs=dict(inputs),
            inputs_by="name",
            history_id=history,
            allow_tool_state_corrections=True,
        )["id"]

        def found() -> list[str]:
            answer = self.user.client.jobs.get_jobs(history_id=history)
            mine = [job["id"] for job in answer if job["tool_id"] != "__DATA_FETCH__"]
            return mine if len(mine) == jobs else []

        ids = self.user.wait_for(found, what="the workflow's jobs")
        self.user.wait_for_jobs(ids)
        assert self.user.client.invocations.show_invocation(invocation)["state"] != "failed"
        return workflow

    def record(self) -> None:
        """Record all that was done in Galaxy."""
        self.biobank("record", "--study", "KPN")

    def plan(self, name: str, *more: str, workflow: str | None = None, expect: int = 0) -> Answer:
        """Plan a campaign over all samples that were typed with the old release."""
        return self.biobank(
            *("reanalyse", "plan", "--study", "KPN", "--tool", "versioned_tool"),
            *("--release", "<2", "--workflow", workflow or self.workflow, "--name", name),
            *more,
            expect=expect,
        )

    def file(self, document: Mapping[str, Any]) -> str:
        """A workflow file."""
        path = self.folder / f"{document['label']}.gxwf.yml"
        path.write_text(json.dumps(document), encoding="utf-8")
        return str(path)

    def status(self, campaign: str) -> dict[str, dict[str, str]]:
        """The items of a campaign by label."""
        rows = self.biobank("reanalyse", "status", campaign).rows
        return {row["label"]: row for row in rows}

    def selected(self) -> list[str]:
        """The labels that a selection gives now."""
        asked = ("select", "--study", "KPN", "--tool", "versioned_tool", "--release", "<2")
        return sorted(row["label"] for row in self.biobank(*asked).rows)

    def invocations(self) -> Counter[str]:
        """How many invocations there are in each history, counted on the server."""
        client = self.user.client
        found: dict[str, str] = {}
        while True:
            params = {"limit": _PAGE, "offset": len(found), "include_terminal": True}
            page = client.make_get_request(f"{client.url}/invocations", params=params).json()
            found |= {entry["id"]: entry["history_id"] for entry in page}
            if len(page) < _PAGE:
                return Counter(found.values())

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """The objects of a kind as the dump has them."""
        dump = self.biobank("dump").out.splitlines()
        return [line for line in map(json.loads, dump) if line["kind"] == kind]


def new_lab(user: GalaxyUser, url: str, new_catalog: NewCatalog, folder: Path) -> Lab:
    """A lab with an empty catalog."""
    lab = Lab(user=user, folder=folder, url=url, settings=new_catalog(folder))
    if not lab.settings["BIOBANK_CATALOG"].startswith("sqlite:"):  # a file makes itself
        lab.biobank("init")
    return lab


@contextmanager
def broken_line(url: str, *, how: str) -> Iterator[str]:
    """A way to Galaxy that breaks at the first request for an invocation; its URL.

    `how`: `answer-lost` (Galaxy gets the request, we no answer), `request-lost` (Galaxy gets
    nothing), `late` (Galaxy gets it 1.5 s after we were told that the line is broken).
    """
    broken = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            first = (
                self.command == "POST"
                and self.path.rstrip("/").endswith("/invocations")
                and not broken.is_set()
            )
            if first:
                broken.set()
                if how == "late":
                    threading.Timer(1.5, self.forward, [body]).start()
                elif how == "answer-lost":
                    self.forward(body)
                self.close_connection = True
                return
            status, headers, answer = self.forward(body)
            self.send_response(status)
            for name in ("Content-Type", "Location"):
                if headers.get(name):
                    self.send_header(name, headers[name])
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def forward(self, body: bytes | None) -> tuple[int, Any, bytes]:
            wanted = {"x-api-key", "content-type", "accept"}
            headers = {name: text for name, text in self.headers.items() if name.lower() in wanted}
            asked = urllib.request.Request(
                url + self.path, data=body, headers=headers, method=self.command
            )
            try:
                with urllib.request.urlopen(asked, timeout=60) as answer:
                    return answer.status, answer.headers, answer.read()
            except urllib.error.HTTPError as error:
                return error.code, error.headers, error.read()

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
        assert broken.is_set(), "no invocation was asked for"
        time.sleep(2 if how == "late" else 0)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
