"""What the demo's person does in Galaxy itself, through bioblend: upload, run, wait, count."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from bioblend.galaxy import GalaxyInstance
from bioblend.util import attach_file

_POLL_S = 2.0
_TIMEOUT_S = 900.0
_FINAL_JOBS = frozenset({"ok", "error", "deleted", "stopped", "skipped", "paused"})


class Laboratory:
    """A Galaxy user's work. `check_alive` raises when the server has died."""

    def __init__(
        self, client: GalaxyInstance, *, check_alive: Callable[[], None], say: Callable[[str], None]
    ) -> None:
        self._client = client
        self._check_alive = check_alive
        self._say = say
        self.history = ""

    def upload_genomes(self, genomes: Mapping[str, Path]) -> str:
        """Upload the genomes as one list collection into a new history; the collection's id."""
        self.history = self._client.histories.create_history("Klebsiella genomes")["id"]
        elements = [{"name": name, "src": "files", "ext": "fasta"} for name in sorted(genomes)]
        target = {
            "destination": {"type": "hdca"},
            "collection_type": "list",
            "name": "genomes",
            "elements": elements,
        }
        files = [str(genomes[name]) for name in sorted(genomes)]
        answer = self._fetch([target], files)
        self._wait([job["id"] for job in answer["jobs"]], what="upload")
        return str(answer["output_collections"][0]["id"])

    def import_workflow(self, path: Path) -> str:
        """Import a format2 workflow; its id."""
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        return str(self._client.workflows.import_workflow_dict(document)["id"])

    def run_workflow(self, workflow: str, collection: str) -> None:
        """Run a workflow over a collection and wait for all of its jobs to end well."""
        inputs = {"genomes": {"src": "hdca", "id": collection}}
        invocation = self._client.workflows.invoke_workflow(
            workflow, inputs=inputs, inputs_by="name", history_id=self.history
        )["id"]
        self._until(
            lambda: (
                self._client.invocations.show_invocation(invocation)["state"]
                in ("scheduled", "completed")
            ),
            what="the workflow's scheduling",
        )
        jobs = self._client.jobs.get_jobs(invocation_id=invocation)
        states = self._wait([job["id"] for job in jobs], what="workflow")
        if set(states.values()) != {"ok"}:
            raise RuntimeError(f"jobs of the workflow ended as {Counter(states.values())}")

    def run_failing_job(self, collection: str) -> None:
        """Run a tool that fails, over the first genome."""
        shown = self._client.dataset_collections.show_dataset_collection(collection)
        genome = shown["elements"][0]["object"]["id"]
        answer = self._client.tools.run_tool(
            self.history, "failing_job", {"genome": {"src": "hda", "id": genome}}
        )
        states = self._wait([answer["jobs"][0]["id"]], what="job that is to fail")
        if set(states.values()) != {"error"}:
            raise RuntimeError("the job that is to fail did not")

    def invocations(self) -> Counter[str]:
        """How many invocations this user has in each history, counted on the server."""
        return Counter(
            entry["history_id"] for entry in self._client.invocations.get_invocations(limit=100)
        )

    def _fetch(self, targets: list[dict[str, Any]], files: list[str]) -> Any:
        attached = {
            f"files_{place}|file_data": attach_file(name) for place, name in enumerate(files)
        }
        try:
            payload = {"history_id": self.history, "targets": json.dumps(targets), **attached}
            return self._client.make_post_request(
                f"{self._client.url}/tools/fetch", payload=payload, files_attached=True
            )
        finally:
            for stream in attached.values():
                stream.close()

    def _wait(self, jobs: list[str], *, what: str) -> dict[str, str]:
        states: dict[str, str] = {}
        told = ""

        def ended() -> bool:
            nonlocal told
            for job in jobs:
                if states.get(job) not in _FINAL_JOBS:
                    states[job] = self._client.jobs.get_state(job)
            done = sum(state in _FINAL_JOBS for state in states.values())
            text = f"{what}: {done} of {len(jobs)} jobs have ended"
            if text != told:
                self._say(text)
                told = text
            return done == len(jobs)

        self._until(ended, what=what)
        return states

    def _until(self, ask: Callable[[], bool], *, what: str) -> None:
        give_up_at = time.monotonic() + _TIMEOUT_S
        while not ask():
            self._check_alive()
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"{what} took more than {_TIMEOUT_S:.0f} s")
            time.sleep(_POLL_S)
