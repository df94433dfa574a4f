"""Running a campaign, or going on with one: at most so many invocations at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Final, TypeAlias

from biobank_core.catalog.port import Catalog
from biobank_core.errors import ConflictError, NotFoundError
from biobank_core.galaxy.client import GalaxyClient
from biobank_core.galaxy.reanalysis.book import Book, only_run
from biobank_core.galaxy.reanalysis.campaigns import counts, item_of, load_campaign
from biobank_core.galaxy.reanalysis.consents import ConsentCheck
from biobank_core.galaxy.reanalysis.finish import Finisher, RecordHistory
from biobank_core.galaxy.reanalysis.locate import Locator
from biobank_core.galaxy.reanalysis.rounds import begun_anew, due_items, round_of
from biobank_core.galaxy.reanalysis.server import CampaignServer
from biobank_core.galaxy.reanalysis.submit import Submitter
from biobank_core.lineage.port import LineageIndex
from biobank_core.model.kinds import CampaignItem, CampaignState, ItemState

# Invocations at a time where nothing is said: enough to keep a small server busy.
DEFAULT_JOBS: Final = 4

# Asking again: soon at first, for short workflows; a day-long one is not asked every second.
_FIRST_POLL_S: Final = 0.5
_LAST_POLL_S: Final = 15.0
_POLL_GROWTH: Final = 1.2

Progress: TypeAlias = Callable[[CampaignItem], None]


def run_campaign(
    catalog: Catalog,
    address: str,
    *,
    index: LineageIndex,
    client: GalaxyClient,
    record: RecordHistory,
    server_key: str,
    by: str,
    jobs: int = DEFAULT_JOBS,
    use_cache: bool = False,
    retry: bool = False,
    progress: Progress = lambda _item: None,
    exclusive: bool = True,
) -> dict[ItemState, int]:
    """Run what has not ended yet; how many items then stand where.

    With `retry` failed items are run again, each once (see `rounds`).
    `record` records a history's jobs; `progress` is told each change of an item. With `exclusive`
    a second run on this machine is refused before it touches anything; the versions in the
    catalog decide between machines. Raises TakenOverError, UnreachableError (run again to go on),
    ConflictError when the server or the account is not the campaign's.
    """
    loaded = load_campaign(catalog, address)
    with only_run(loaded.campaign) if exclusive else nullcontext():
        # Read again: the run before us may have ended just now.
        loaded = load_campaign(catalog, loaded.campaign.vid)
        campaign, planned_user = loaded.campaign, loaded.workflow.galaxy_user
        if campaign.galaxy_server != server_key:
            raise ConflictError(
                f"campaign {campaign.label!r} was planned for the Galaxy server "
                f"{campaign.galaxy_server!r}, this is {server_key!r}"
            )
        if planned_user is not None and planned_user != client.user.id:
            raise ConflictError(
                f"campaign {campaign.label!r} was begun with another Galaxy account, whose "
                "histories this one can't see; go on with that account's GALAXY_API_KEY"
            )
        server = CampaignServer(client)
        book = Book(catalog, loaded, by=by)
        submitter = Submitter(
            book,
            server,
            Locator(catalog, server, server_key=server_key),
            use_cache=use_cache,
        )
        finisher = Finisher(book, server, catalog, record=record)
        items = {entry.object.vid: item_of(entry) for entry in loaded.items}
        this_round = round_of(loaded, retry=retry)
        due = due_items(items.values(), round=this_round)
        if due:
            book.take_over(round=this_round)
            submitter.workflow_copy()
            consents = ConsentCheck(catalog, index, loaded)
            loop = _Loop(submitter, finisher, server, consents, jobs=jobs, progress=progress)
            items |= {item.vid: item for item in loop.run(due)}
        if book.campaign.state is not CampaignState.FINISHED:
            book.save_state(CampaignState.FINISHED)
        return counts(list(items.values()))


class _Loop:
    def __init__(
        self,
        submitter: Submitter,
        finisher: Finisher,
        server: CampaignServer,
        consents: ConsentCheck,
        *,
        jobs: int,
        progress: Progress,
    ) -> None:
        self._items: dict[str, CampaignItem] = {}
        self._submitter = submitter
        self._finisher = finisher
        self._server = server
        self._consents = consents
        self._jobs = jobs
        self._progress = progress

    def run(self, due: Iterable[CampaignItem]) -> Iterable[CampaignItem]:
        """See these items to their ends; as they are then."""
        waiting = deque(due)
        going: list[CampaignItem] = []
        poll_s = _FIRST_POLL_S
        while waiting or going:
            while waiting and len(going) < self._jobs:
                item = self._begun(waiting.popleft())
                if item.state is ItemState.RUNNING:
                    going.append(item)
            still = [item for item in going if not self._has_ended(item)]
            moved = len(still) < len(going)
            going = still
            poll_s = _FIRST_POLL_S if moved else min(poll_s * _POLL_GROWTH, _LAST_POLL_S)
            if going and not (moved and waiting):
                time.sleep(poll_s)
        return self._items.values()

    def _begun(self, item: CampaignItem) -> CampaignItem:
        if item.state is ItemState.RUNNING and item.invocation_id is not None:
            return item
        if item.state is ItemState.FAILED:
            item = begun_anew(item)
        # One that was begun may be running in Galaxy already: it is seen through.
        refusal = self._consents.refusal(item) if item.state is ItemState.PLANNED else None
        if refusal is not None:
            return self._note(self._finisher.fail(item, refusal))
        return self._note(self._submitter.submit(item))

    def _has_ended(self, item: CampaignItem) -> bool:
        assert item.invocation_id is not None
        try:
            invocation = self._server.invocation(item.invocation_id)
        except NotFoundError:
            self._note(self._finisher.fail(item, "its invocation is gone from Galaxy"))
            return True
        if not invocation.has_ended:
            return False
        self._note(self._finisher.finish(item, invocation))
        return True

    def _note(self, item: CampaignItem) -> CampaignItem:
        self._items[item.vid] = item
        self._progress(item)
        return item
