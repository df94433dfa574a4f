"""What is done when an invocation has ended: record it, link new results to old, or say why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from biobank_core.catalog.port import Catalog
from biobank_core.errors import InputError, NotFoundError, NotPermittedError
from biobank_core.galaxy.client import GalaxyFaultError
from biobank_core.galaxy.reanalysis.book import Book
from biobank_core.galaxy.reanalysis.campaigns import planned_of
from biobank_core.galaxy.reanalysis.results import (
    actions_of,
    new_results,
    old_results,
    pair_results,
    supersession,
)
from biobank_core.galaxy.reanalysis.server import BROKEN, CampaignServer, Invocation
from biobank_core.galaxy.reanalysis.submit import MAX_ERROR_CHARS
from biobank_core.model.kinds import CampaignItem, ItemState, Port

# Records the jobs of a history (its id). Raises InputError when one of them can't be recorded.
RecordHistory: TypeAlias = Callable[[str], None]

_FINE = frozenset({"ok", "skipped"})
_NOTHING_MATCHED = "it ran, but none of its results corresponds to an old one"


class Finisher:
    """Brings items from `running` to `ok`, `unchanged` or `failed`."""

    def __init__(
        self,
        book: Book,
        server: CampaignServer,
        catalog: Catalog,
        *,
        record: RecordHistory,
    ) -> None:
        self._book = book
        self._server = server
        self._catalog = catalog
        self._record = record

    def finish(self, item: CampaignItem, invocation: Invocation) -> CampaignItem:
        """Record and judge an item whose invocation has ended. Doing it twice is as once."""
        assert item.history_id is not None
        error = self._error_of(invocation)
        try:
            self._record(item.history_id)
        except InputError as exc:
            error = error or str(exc)[:MAX_ERROR_CHARS]
        actions = actions_of(self._catalog, item, server=self._book.campaign.galaxy_server)
        pairing = pair_results(
            old_results(self._catalog, item.old),
            new_results(self._catalog, actions),
            planned_of(item).expected,
        )
        new = (*(result for _, result in pairing.pairs), *pairing.new_alone)
        ports = tuple(Port(role=result.role, object=result.vid) for result in new)
        if error is not None:
            failed = msgspec.structs.replace(item, state=ItemState.FAILED, error=error, new=ports)
            return self._book.save(failed)
        links = [supersession(pair, campaign=item.campaign) for pair in pairing.pairs]
        superseding = [link for link in links if link is not None]
        note = None if pairing.pairs else _NOTHING_MATCHED
        state = ItemState.OK if superseding or note else ItemState.UNCHANGED
        done = msgspec.structs.replace(item, state=state, new=ports, error=note)
        return self._book.save(done, superseding)

    def fail(self, item: CampaignItem, error: str) -> CampaignItem:
        """Give an item up."""
        return self._book.save(
            msgspec.structs.replace(item, state=ItemState.FAILED, error=error[:MAX_ERROR_CHARS])
        )

    def _error_of(self, invocation: Invocation) -> str | None:
        bad = [
            (job, state) for job, state in self._server.jobs(invocation.id) if state not in _FINE
        ]
        if not bad and invocation.state not in BROKEN:
            return None
        # The job that failed itself says more than those that wait for it.
        bad.sort(key=lambda entry: entry[1] == "paused")
        texts = [self._job_error(*entry) for entry in bad[:1]]
        if len(bad) > 1:
            others = len(bad) - 1
            texts.append(f"({others} more {'job' if others == 1 else 'jobs'} did not run well)")
        if invocation.state in BROKEN:
            texts.append(f"Galaxy ended the workflow as {invocation.state}")
            texts += invocation.messages
        return "\n".join(texts)[:MAX_ERROR_CHARS]

    def _job_error(self, job_id: str, state: str) -> str:
        try:
            job = self._server.job(job_id)
        except (GalaxyFaultError, NotFoundError, NotPermittedError):
            return f"job {job_id} ended as {state}"
        told = [str(part) for part in (job.get("tool_stderr"), job.get("stderr")) if part][:1]
        told += [
            str(message.get("desc") or message.get("message") or "")
            for message in job.get("job_messages") or ()
            # The exit code is said by itself.
            if isinstance(message, dict) and message.get("type") != "exit_code"
        ]
        exit_code = job.get("exit_code")
        ended = f"ended as {state}" + (f", exit code {exit_code}" if exit_code else "")
        # The end of a log says what went wrong, its beginning what was going well.
        text = "\n".join(part.strip() for part in told if part.strip())[-MAX_ERROR_CHARS // 2 :]
        return f"{job.get('tool_id')} {ended}" + (f":\n{text}" if text else "")
