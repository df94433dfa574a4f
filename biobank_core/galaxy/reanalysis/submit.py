"""Getting one item to run: exactly one invocation, whenever this process or Galaxy breaks off.

Galaxy has no idempotency key, so the order of saving and asking is what matters:

1. The item is saved as `submitting` before Galaxy is asked anything.
2. It gets a history of its own, which is saved with the item before an invocation is posted there.
   So an item without a history never had an invocation, and one with a history can only have it
   there.
3. An item found with a history and without an invocation is one whose run broke off in between.
   Its history is looked at first. If it holds none, it is closed: Galaxy refuses to invoke
   anything in an archived history, so an invocation that is still on its way is either there when
   we look again or will never be. Only then a new history is made.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, Final

import msgspec

from biobank_core.errors import (
    BiobankError,
    InputError,
    NotFoundError,
    NotPermittedError,
    UnreachableError,
)
from biobank_core.galaxy.reanalysis.arrange import Given
from biobank_core.galaxy.reanalysis.book import Book
from biobank_core.galaxy.reanalysis.campaigns import PlannedItem, planned_of
from biobank_core.galaxy.reanalysis.locate import Locator
from biobank_core.galaxy.reanalysis.server import CampaignServer, NewCollection, is_lost
from biobank_core.model.kinds import CampaignItem, ItemState

# Between closing a history and looking into it again: what Galaxy had let in just before has to
# become visible. Its own answer to an invocation took 0.1 s, to closing a history half of that:
# one that takes longer is busy, and gets as much more time. At least: see `_fence_s`.
_FENCE_S: Final = 2.0
_FENCE_BY_CLOSING: Final = 40
_LONGEST_FENCE_S: Final = 120.0
_ATTEMPTS: Final = 3
# Galaxy cuts names at 255 characters.
_MAX_NAME_CHARS: Final = 200
# A page of a log is enough to see what went wrong.
MAX_ERROR_CHARS: Final = 2000


class Submitter:
    """Brings items from `planned` or `submitting` to `running` (or `failed`)."""

    def __init__(
        self,
        book: Book,
        server: CampaignServer,
        locator: Locator,
        *,
        use_cache: bool,
    ) -> None:
        self._book = book
        self._server = server
        self._locator = locator
        self._use_cache = use_cache
        self._copy_id: str | None = None
        # As long as we waited for an answer in vain: Galaxy may be at work on the request still.
        self._fence_s = _FENCE_S

    def workflow_copy(self) -> str:
        """The id of the campaign's own copy of the workflow, imported when it is not there."""
        if self._copy_id is not None:
            return self._copy_id
        workflow, campaign = self._book.workflow, self._book.campaign
        found = self._server.find_workflow_copy(campaign.vid)
        if found is None:
            name = f"{workflow.name} (biobank {campaign.label})"[:_MAX_NAME_CHARS]
            found = self._server.import_workflow(
                workflow.document, name=name, campaign=campaign.vid
            )
        if (workflow.copy_id, workflow.galaxy_user) != (found, self._server.user_id):
            self._book.save_workflow(
                msgspec.structs.replace(workflow, copy_id=found, galaxy_user=self._server.user_id)
            )
        self._copy_id = found
        return found

    def submit(self, item: CampaignItem) -> CampaignItem:
        """The item with its invocation. Raises TakenOverError, UnreachableError."""
        planned = planned_of(item)
        self._book.check_mine()
        item = self._book.save(msgspec.structs.replace(item, state=ItemState.SUBMITTING))
        for _ in range(_ATTEMPTS):
            if item.history_id is not None:
                found = self._invocation_in(item.history_id)
                if found is not None:
                    return self._running(item, found)
            item = self._book.save(
                msgspec.structs.replace(item, history_id=self._history_for(item))
            )
            assert item.history_id is not None
            begun_s = time.monotonic()
            try:
                invocation = self._server.invoke(
                    self.workflow_copy(),
                    item.history_id,
                    inputs=self._inputs(planned, item.history_id),
                    parameters=_step_parameters(planned),
                    use_cache=self._use_cache,
                )
            except (InputError, NotFoundError, NotPermittedError, UnreachableError) as exc:
                if is_lost(exc):
                    self._fence_s = max(self._fence_s, time.monotonic() - begun_s)
                    time.sleep(self._fence_s)
                    continue
                return self._refused(item, exc)
            return self._running(item, invocation)
        raise UnreachableError(
            f"Galaxy at {self._server.url} broke off {_ATTEMPTS} times; run the campaign again "
            "when it is well: it goes on where it stopped"
        )

    def _refused(self, item: CampaignItem, exc: BiobankError) -> CampaignItem:
        # A later run that closed the history makes Galaxy refuse us: that is no failure.
        self._book.check_unchanged(item)
        assert item.history_id is not None
        there = self._server.invocations(item.history_id)
        if there:
            return self._running(item, there[0])
        failed = msgspec.structs.replace(
            item, state=ItemState.FAILED, error=str(exc)[:MAX_ERROR_CHARS]
        )
        return self._book.save(failed)

    def _running(self, item: CampaignItem, invocation: str) -> CampaignItem:
        running = msgspec.structs.replace(item, state=ItemState.RUNNING, invocation_id=invocation)
        return self._book.save(running)

    def _invocation_in(self, history: str) -> str | None:
        """The invocation of a history; None means that there is none and never will be."""
        there = self._server.invocations(history)
        if there:
            # A run that was killed may have closed it just before the invocation was there.
            with contextlib.suppress(InputError, NotPermittedError, NotFoundError):
                self._server.reopen_history(history)
            return there[0]
        # Refused: it is closed, purged or gone already, and nothing can be invoked there.
        begun_s = time.monotonic()
        with contextlib.suppress(InputError, NotPermittedError, NotFoundError):
            self._server.close_history(history)
        busy_s = _FENCE_BY_CLOSING * (time.monotonic() - begun_s)
        time.sleep(max(self._fence_s, min(busy_s, _LONGEST_FENCE_S)))
        there = self._server.invocations(history)
        if there:
            self._server.reopen_history(history)
            return there[0]
        with contextlib.suppress(InputError, NotPermittedError, NotFoundError):
            self._server.delete_history(history)  # only tidying
        return None

    def _history_for(self, item: CampaignItem) -> str:
        campaign = self._book.campaign
        used = {item.history_id, *(attempt.history_id for attempt in item.attempts)}
        # One that was made before a break: nothing was invoked there, see above.
        for history in self._server.find_histories(item.vid):
            if history not in used and not self._server.invocations(history):
                self._server.tag_history(history, campaign=campaign.vid, item=item.vid)
                return history
        title = f"biobank {campaign.label}: {item.sample_label}"[:_MAX_NAME_CHARS]
        # The name carries the item in the very call that makes the history; the tags follow.
        history = self._server.create_history(f"{title} [{item.vid}]")
        self._server.tag_history(history, campaign=campaign.vid, item=item.vid)
        return history

    def _inputs(self, planned: PlannedItem, history: str) -> dict[str, Any]:
        """What the workflow is given, by step index."""
        workflow = self._book.workflow
        inputs: dict[str, Any] = {str(one.index): one.value for one in workflow.parameters}
        inputs |= {str(one.index): one.value for one in planned.parameters if one.path is None}
        inputs[str(workflow.sample_input.index)] = self._given(history, planned.given)
        for fixed in workflow.fixed_inputs:
            inputs[str(fixed.index)] = self._given(history, fixed.given)
        return inputs

    def _given(self, history: str, given: Given) -> dict[str, str]:
        if given.data is None:
            made = self._server.make_collection(history, self._collection(given))
            return {"src": "hdca", "id": made}
        dataset = self._locator.dataset(given.data)
        for content in self._server.contents(history):
            if content.uuid == dataset.get("uuid"):
                return {"src": "hda", "id": content.id}
        return {"src": "hda", "id": self._server.copy_dataset(history, str(dataset["id"]))}

    def _collection(self, given: Given) -> NewCollection:
        members = tuple(
            (
                member.name,
                self._collection(member)
                if member.data is None
                else str(self._locator.dataset(member.data)["id"]),
            )
            for member in given.members
        )
        return NewCollection(name=given.name, type=str(given.type), members=members)


def _step_parameters(planned: PlannedItem) -> dict[str, dict[str, Any]]:
    """What differs from sample to sample, by step index and path."""
    found: dict[str, dict[str, Any]] = {}
    for one in planned.parameters:
        if one.path is not None:
            found.setdefault(str(one.index), {})[one.path] = one.value
    return found
