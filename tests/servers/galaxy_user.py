"""What a test does as a user of a Galaxy server: upload, run tools, wait for their jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

from bioblend.galaxy import GalaxyInstance

if TYPE_CHECKING:
    from tests.servers.galaxy import GalaxyServer

T = TypeVar("T")

FINAL_STATES = frozenset({"ok", "error", "deleted", "stopped", "skipped", "paused"})
_POLL_S = 0.2
# Of one job, on a machine that is busy with four pytest workers and the start of another Galaxy.
_TIMEOUT_S = 400.0


class JobFailed(AssertionError):
    """A job ended in another state than the test expects."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One request to run a tool: its jobs and what they put out, by output name."""

    job_ids: list[str]
    outputs: dict[str, str]
    collections: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class GalaxyUser:
    """A user with a client of their own; `ensure_alive` ends a wait when the server is dead.

    `patience_s`: how long to wait at most for anything that is not told a limit of its own.
    """

    email: str
    key: str
    client: GalaxyInstance
    ensure_alive: Callable[[], None]
    patience_s: float = _TIMEOUT_S

    @classmethod
    def on(cls, server: GalaxyServer, email: str, *, patience_s: float = _TIMEOUT_S) -> Self:
        """The user of a server with this address; made there if missing."""
        key = server.create_user(email)
        return cls(
            email=email,
            key=key,
            client=GalaxyInstance(server.url, key=key),
            ensure_alive=server.ensure_alive,
            patience_s=patience_s,
        )

    def new_history(self, name: str = "test") -> str:
        """Create a history; return its id."""
        return str(self.client.histories.create_history(name)["id"])

    def upload(self, history_id: str, text: str, *, name: str = "data", ext: str = "txt") -> str:
        """Upload one text and wait for it; return the dataset's id."""
        target = {"destination": {"type": "hdas"}, "elements": _elements({name: text}, ext)}
        return str(self._fetch(history_id, target)["outputs"][0]["id"])

    def upload_collection(
        self,
        history_id: str,
        elements: Mapping[str, str | Mapping[str, str]],
        *,
        name: str = "list",
        collection_type: str = "list",
        ext: str = "txt",
    ) -> str:
        """Upload {identifier: text} in one job; a nested mapping makes a nested collection."""
        target = {
            "destination": {"type": "hdca"},
            "collection_type": collection_type,
            "name": name,
            "elements": _elements(elements, ext),
        }
        return str(self._fetch(history_id, target)["output_collections"][0]["id"])

    def run(
        self,
        history_id: str,
        tool_id: str,
        inputs: Mapping[str, Any],
        *,
        version: str | None = None,
        expect: str | None = "ok",
    ) -> Run:
        """Run a tool. `expect`: the state all its jobs have to end in; None does not wait."""
        payload = {
            "history_id": history_id,
            "tool_id": tool_id,
            "tool_version": version,
            "inputs": dict(inputs),
        }
        answer = self.client.make_post_request(f"{self.client.url}/tools", payload=payload)
        collections = [*answer["output_collections"], *answer["implicit_collections"]]
        run = Run(
            job_ids=[job["id"] for job in answer["jobs"]],
            outputs={output["output_name"]: output["id"] for output in answer["outputs"]},
            collections={output["output_name"]: output["id"] for output in collections},
        )
        if expect is not None:
            self.wait_for_jobs(run.job_ids, expect=expect)
        return run

    def wait_for_jobs(self, job_ids: Iterable[str], *, expect: str = "ok") -> None:
        """Wait until all these jobs have ended, in the state `expect`."""
        for job_id in job_ids:
            state = self.wait_for(
                lambda job_id=job_id: self._final_state(job_id),  # type: ignore[misc]
                what=f"the end of job {job_id}",
            )
            if state != expect:
                job = self.client.jobs.show_job(job_id, full_details=True)
                raise JobFailed(f"{job['tool_id']} ended as {state}: {job.get('stderr')}")

    def wait_for(self, ask: Callable[[], T], *, what: str, timeout_s: float | None = None) -> T:
        """Ask until the answer is true; return it."""
        timeout_s = self.patience_s if timeout_s is None else timeout_s
        give_up_at = time.monotonic() + timeout_s
        while not (answer := ask()):
            self.ensure_alive()
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"{what} did not come within {timeout_s:.0f} s")
            time.sleep(_POLL_S)
        return answer

    def wait_for_hash(self, dataset_id: str) -> str:
        """Wait until Galaxy has computed a dataset's SHA-256 after its job; return it."""

        def sha256() -> str:
            hashes = self.client.datasets.show_dataset(dataset_id)["hashes"]
            found = [row["hash_value"] for row in hashes if row["hash_function"] == "SHA-256"]
            return found[0] if found else ""

        return self.wait_for(sha256, what=f"the hash of dataset {dataset_id}")

    def content(self, dataset_id: str) -> str:
        """Return a dataset's content as text."""
        raw: bytes = self.client.datasets.download_dataset(dataset_id, require_ok_state=False)
        return raw.decode()

    def elements(self, collection_id: str) -> dict[str, Any]:
        """Return a collection's elements: {identifier: dataset id}, nested ones as mappings."""
        collection = self.client.dataset_collections.show_dataset_collection(collection_id)
        return _by_identifier(collection["elements"])

    def _fetch(self, history_id: str, target: dict[str, Any]) -> dict[str, Any]:
        # Not the tool upload1: its job imports half of Galaxy, which costs seconds of CPU.
        payload = {"history_id": history_id, "targets": [target]}
        answer = self.client.make_post_request(f"{self.client.url}/tools/fetch", payload=payload)
        self.wait_for_jobs([job["id"] for job in answer["jobs"]])
        return dict(answer)

    def _final_state(self, job_id: str) -> str:
        state = str(self.client.jobs.get_state(job_id))
        return state if state in FINAL_STATES else ""


def hda(dataset_id: str) -> dict[str, str]:
    """Return a dataset as a tool's input."""
    return {"src": "hda", "id": dataset_id}


def hdca(collection_id: str) -> dict[str, str]:
    """Return a whole collection as a tool's input."""
    return {"src": "hdca", "id": collection_id}


def mapped_over(collection_id: str) -> dict[str, Any]:
    """Return a collection as an input for which Galaxy runs one job an element."""
    return {"batch": True, "values": [hdca(collection_id)]}


def _elements(elements: Mapping[str, str | Mapping[str, str]], ext: str) -> list[dict[str, Any]]:
    return [
        {"name": identifier, "src": "pasted", "paste_content": content, "ext": ext}
        if isinstance(content, str)
        else {"name": identifier, "elements": _elements(content, ext)}
        for identifier, content in elements.items()
    ]


def _by_identifier(elements: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        element["element_identifier"]: (
            _by_identifier(element["object"]["elements"])
            if element["element_type"] == "dataset_collection"
            else element["object"]["id"]
        )
        for element in elements
    }
