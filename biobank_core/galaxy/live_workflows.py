"""Which workflow invocation a job belongs to: a few requests a history, not one a job."""

from __future__ import annotations

from typing import Final

from biobank_core.errors import BiobankError, UnreachableError
from biobank_core.galaxy import wire
from biobank_core.galaxy.client import GalaxyClient, GalaxyFaultError
from biobank_core.galaxy.once import Once
from biobank_core.galaxy.records import InvocationRecord

_PAGE_ROWS: Final = 100


class Invocations:
    """Invocations of one server, each asked for once; safe for threads."""

    def __init__(self, client: GalaxyClient) -> None:
        self._client = client
        self._workflows: Once[wire.Workflow | None] = Once()
        self._found: Once[wire.Invocation | None] = Once()
        self._rows: Once[dict[str, str]] = Once()

    def of(self, told: object, *, job_id: str, history_id: str | None) -> InvocationRecord | None:
        """The invocation that a job was made by; `told` is its uuid as the job has it, if any.

        None for a job of no workflow; without an id where Galaxy does not show it.
        """
        uuid = wire.canonical_uuid(told if isinstance(told, str) else None)
        if uuid is None or history_id is None:
            return None
        try:
            rows = self._rows.get(history_id, self._ask_rows)
            if uuid not in rows:
                return InvocationRecord()
            found = self._found.get(rows[uuid], self._ask)
            if found is None:
                return InvocationRecord(id=rows[uuid])
            version = None
            if found.workflow_id:
                workflow = self._workflows.get(found.workflow_id, self._ask_workflow)
                version = workflow.version if workflow else None
        except GalaxyFaultError:
            return InvocationRecord()
        return InvocationRecord(
            id=found.id,
            workflow_id=found.workflow_id,
            workflow_version=version,
            step_label=_step_label(found, job_id),
        )

    def _ask_rows(self, history_id: str) -> dict[str, str]:
        rows: dict[str, str] = {}
        while True:
            answer = self._client.get(
                "invocations",
                {"history_id": history_id, "limit": _PAGE_ROWS, "offset": len(rows)},
            )
            page = wire.read(answer, list[wire.InvocationRow], f"invocations of {history_id}")
            for row in page:
                if (uuid := wire.canonical_uuid(row.uuid)) is not None:
                    rows[uuid] = row.id
            if len(page) < _PAGE_ROWS:
                return rows

    def _ask(self, invocation_id: str) -> wire.Invocation | None:
        try:
            answer = self._client.get(f"invocations/{invocation_id}", {"step_details": "true"})
        except BiobankError as exc:
            if isinstance(exc, UnreachableError):
                raise
            return None
        return wire.read(answer, wire.Invocation, f"invocation {invocation_id}")

    def _ask_workflow(self, workflow_id: str) -> wire.Workflow | None:
        try:
            answer = self._client.get(f"workflows/{workflow_id}", {"instance": "true"})
        except BiobankError as exc:
            if isinstance(exc, UnreachableError):
                raise
            return None  # deleted, or somebody else's
        return wire.read(answer, wire.Workflow, f"workflow {workflow_id}")


def _step_label(invocation: wire.Invocation, job_id: str) -> str | None:
    for step in invocation.steps:
        if step.job_id == job_id or any(job.id == job_id for job in step.jobs):
            return step.workflow_step_label
    return None
