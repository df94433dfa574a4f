"""What a campaign asks of a Galaxy server: the few calls, with their answers checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from biobank_core.errors import BiobankError, NotFoundError, UnreachableError
from biobank_core.galaxy.client import GalaxyClient, GalaxyFaultError
from biobank_core.model.base import JsonObject

# Galaxy splits tags at the colon into name and value; neither needs quoting.
CAMPAIGN_TAG: Final = "biobank_campaign"
ITEM_TAG: Final = "biobank_item"

# After these an invocation makes no new jobs.
SCHEDULED: Final = frozenset({"scheduled", "completed"})
BROKEN: Final = frozenset({"failed", "cancelled", "cancelling"})
_JOB_DONE: Final = frozenset({"ok", "error", "deleted", "stopped", "skipped", "failed"})
# Waits for somebody to mend its input, which in a campaign nobody will.
_JOB_STUCK: Final = frozenset({"paused"})
_MAX_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Invocation:
    """An invocation as it stands. `jobs`: state -> how many."""

    id: str
    state: str
    jobs: Mapping[str, int]
    messages: tuple[str, ...]

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come of it."""
        going = set(self.jobs) - _JOB_DONE
        if self.state in BROKEN:
            return not (going - _JOB_STUCK)
        return self.state in SCHEDULED and not (going - _JOB_STUCK)


@dataclass(frozen=True, slots=True)
class Content:
    """A dataset of a history: its id there, the uuid of its data, its state."""

    id: str
    uuid: str
    state: str


@dataclass(frozen=True, slots=True)
class NewCollection:
    """A collection to make: `members` are (element identifier, a dataset's id or another one)."""

    name: str
    type: str
    members: tuple[tuple[str, str | NewCollection], ...]


class CampaignServer:
    """The calls, each one request unless said otherwise. Errors are the client's."""

    def __init__(self, client: GalaxyClient) -> None:
        self._client = client

    @property
    def user_id(self) -> str:
        """Whose key it is."""
        return self._client.user.id

    @property
    def url(self) -> str:
        """The server's address."""
        return self._client.url

    def fetch_tool(self, tool_id: str, version: str | None) -> Mapping[str, Any] | None:
        """An installed tool with its inputs and outputs; None when there is no such tool."""
        params = {"io_details": "true"}
        if version is not None:
            params["tool_version"] = version
        try:
            answer = self._client.get(f"tools/{tool_id}", params)
        except NotFoundError:
            return None
        return answer if isinstance(answer, dict) else None

    def workflow(self, workflow_id: str) -> JsonObject:
        """A workflow in Galaxy's own format. Raises NotFoundError and others."""
        answer: JsonObject = self._client.get(f"workflows/{workflow_id}/download")
        return answer

    def find_workflow_copy(self, campaign: str) -> str | None:
        """The id of the copy that was imported for this campaign (VID)."""
        wanted = f"{CAMPAIGN_TAG}:{campaign}"
        found = self._client.get("workflows", {"search": f'tag:"{wanted}"'})
        ids = [entry["id"] for entry in found if wanted in (entry.get("tags") or ())]
        return min(ids) if ids else None

    def import_workflow(self, document: JsonObject, *, name: str, campaign: str) -> str:
        """Import a copy, named and tagged; its id. The workflow it came from is not touched."""
        body = dict(document, name=name, tags=[f"{CAMPAIGN_TAG}:{campaign}"])
        body.pop("uuid", None)  # the copy is a workflow of its own
        answer = self._client.call(
            "import of the workflow", lambda gi: gi.workflows.import_workflow_dict(body)
        )
        return str(answer["id"])

    def find_histories(self, item: str) -> list[str]:
        """The ids of living histories made for this item (VID), by tag or by name; oldest first."""
        found: dict[str, str] = {}
        for field, value in (("tag", f"{ITEM_TAG}:{item}"), ("name-contains", item)):
            params = {"q": field, "qv": value, "view": "summary", "keys": "create_time"}
            for entry in self._client.get("histories", params):
                found[str(entry["id"])] = str(entry.get("create_time") or "")
        return sorted(found, key=lambda history: (found[history], history))

    def create_history(self, name: str) -> str:
        """Make a history; its id."""
        answer = self._post("histories", {"name": name})
        return str(answer["id"])

    def tag_history(self, history: str, *, campaign: str, item: str) -> None:
        """Tag a history by campaign and item (VIDs)."""
        tags = [f"{CAMPAIGN_TAG}:{campaign}", f"{ITEM_TAG}:{item}"]
        self._client.call(
            "tagging a history",
            lambda gi: gi.histories.update_history(history, tags=tags),
            retry=True,
        )

    def close_history(self, history: str) -> None:
        """Archive a history: from then on Galaxy refuses every invocation in it."""
        self._post(f"histories/{history}/archive", {})

    def reopen_history(self, history: str) -> None:
        """Undo `close_history`."""
        self._client.call(
            "reopening a history",
            lambda gi: gi.make_put_request(f"{gi.url}/histories/{history}/archive/restore"),
            retry=True,
        )

    def delete_history(self, history: str) -> None:
        """Mark a history deleted; its data stay."""
        self._client.call("deleting a history", lambda gi: gi.histories.delete_history(history))

    def contents(self, history: str) -> list[Content]:
        """The datasets of a history that are not deleted."""
        params = {"v": "dev", "keys": "id,uuid,state", "types": "dataset", "limit": _MAX_PAGE}
        params |= {"q": "deleted", "qv": "False"}
        return [
            Content(str(entry["id"]), str(entry.get("uuid") or ""), str(entry.get("state") or ""))
            for entry in self._client.get(f"histories/{history}/contents", params)
        ]

    def copy_dataset(self, history: str, dataset: str) -> str:
        """Copy a dataset (by id) into a history without running a job; the copy's id."""
        payload = {"source": "hda", "content": dataset, "type": "dataset"}
        return str(self._post(f"histories/{history}/contents/datasets", payload)["id"])

    def make_collection(self, history: str, collection: NewCollection) -> str:
        """Make a collection, inner ones included; its id."""
        description: JsonObject = {
            "instance_type": "history",
            "history_id": history,
            "collection_type": collection.type,
            "name": collection.name,
            "element_identifiers": _identifiers(collection),
            "copy_elements": True,
        }
        if "record" in collection.type.split(":"):
            description["fields"] = "auto"  # named and typed as the members are
        return str(self._post("dataset_collections", description)["id"])

    def invocations(self, history: str) -> list[str]:
        """The ids of the invocations of a history, oldest first."""
        params = {"history_id": history, "include_terminal": "true", "view": "element"}
        found = self._client.get("invocations", params)
        # Galaxy answers with those of other histories too where it does not know the parameter.
        mine = [entry for entry in found if entry.get("history_id") == history]
        mine.sort(key=lambda entry: (str(entry.get("create_time")), str(entry["id"])))
        return [str(entry["id"]) for entry in mine]

    def invoke(
        self,
        workflow: str,
        history: str,
        *,
        inputs: Mapping[str, Any],
        parameters: Mapping[str, Mapping[str, Any]],
        use_cache: bool,
    ) -> str:
        """Run a workflow in a history; the invocation's id.

        `inputs` are by step index, so are `parameters`: of each step path -> value.
        """
        payload: JsonObject = {
            "history_id": history,
            "inputs": dict(inputs),
            "inputs_by": "step_index",
            "use_cached_job": use_cache,
            # A tool that went away since the plan must stop us, not be replaced by another.
            "require_exact_tool_versions": True,
            # A parameter that a newer version added gets its default; all else `prepare` checked.
            "allow_tool_state_corrections": True,
        }
        if parameters:
            payload["parameters"] = {step: dict(values) for step, values in parameters.items()}
        return str(self._post(f"workflows/{workflow}/invocations", payload)["id"])

    def invocation(self, invocation: str) -> Invocation:
        """How an invocation stands. Two requests."""
        answer = self._client.get(f"invocations/{invocation}")
        summary = self._client.get(f"invocations/{invocation}/jobs_summary")
        messages = tuple(_message(entry) for entry in answer.get("messages") or ())
        return Invocation(
            id=invocation,
            state=str(answer["state"]),
            jobs={str(state): int(n) for state, n in (summary.get("states") or {}).items()},
            messages=messages,
        )

    def jobs(self, invocation: str) -> list[tuple[str, str]]:
        """(job id, state) of the jobs of an invocation, those of mapped-over steps included."""
        found: dict[str, str] = {}
        while True:
            params = {"invocation_id": invocation, "limit": _MAX_PAGE, "offset": len(found)}
            page = {str(job["id"]): str(job["state"]) for job in self._client.get("jobs", params)}
            new = page.keys() - found.keys()
            found |= page
            if len(page) < _MAX_PAGE or not new:
                return list(found.items())

    def job(self, job: str) -> JsonObject:
        """All that Galaxy tells of a job."""
        answer: JsonObject = self._client.get(f"jobs/{job}", {"full": "true"})
        return answer

    def dataset(self, dataset: str) -> JsonObject:
        """All that Galaxy tells of a dataset."""
        answer: JsonObject = self._client.get(f"datasets/{dataset}")
        return answer

    def read(self, dataset: str, *, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """The content of a dataset, streamed. Raises NotFoundError when it is gone."""
        what = f"GET /api/datasets/{dataset}/display"
        response = self._client.call(
            what,
            lambda gi: gi.make_get_request(
                f"{gi.url}/datasets/{dataset}/display", params={"raw": "true"}, stream=True
            ),
            retry=True,
        )
        with response:
            if response.status_code != 200:
                raise NotFoundError(f"{what}: HTTP {response.status_code}")
            yield from response.iter_content(chunk_bytes)

    def _post(self, path: str, payload: JsonObject) -> JsonObject:
        answer: JsonObject = self._client.call(
            f"POST /api/{path}",
            lambda gi: gi.make_post_request(f"{gi.url}/{path}", payload=payload),
        )
        return answer


def is_lost(error: BiobankError) -> bool:
    """Whether it is unknown if Galaxy did what it was asked to."""
    return isinstance(error, UnreachableError) and not isinstance(error, GalaxyFaultError)


def _identifiers(collection: NewCollection) -> list[JsonObject]:
    found: list[JsonObject] = []
    for name, member in collection.members:
        if isinstance(member, str):
            found.append({"name": name, "src": "hda", "id": member})
        else:
            inner = {"collection_type": member.type, "element_identifiers": _identifiers(member)}
            found.append({"name": name, "src": "new_collection", **inner})
    return found


def _message(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return str(entry)
    parts = [str(entry.get("reason") or "failed")]
    parts += [
        f"{name} {entry[name]}"
        for name in ("workflow_step_id", "output_name", "details")
        if entry.get(name) is not None
    ]
    return ", ".join(parts)
