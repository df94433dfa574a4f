"""The campaign's own entries in the catalog, saved step by step as one of possibly two runs."""

from __future__ import annotations

import fcntl
import os
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Self

import msgspec
import platformdirs

from biobank_core.catalog.port import Catalog, Save, Versioned
from biobank_core.errors import ConflictError, StaleVersionError
from biobank_core.galaxy.reanalysis.campaigns import (
    LoadedCampaign,
    PlannedWorkflow,
    Runner,
    as_json,
)
from biobank_core.model.base import Object
from biobank_core.model.kinds import Campaign, CampaignItem, CampaignState

# Byte positions in the lock file; two campaigns on one byte would only wait for each other.
_LOCK_POSITIONS: Final = 2**62


class TakenOverError(ConflictError):
    """Another run has the campaign in hand; this one stops."""

    @classmethod
    def of(cls, name: str) -> Self:
        """The error for the campaign of this name."""
        return cls(
            f"another run of the campaign {name!r} is at work; this one stops and leaves it to "
            "that one (see `biobank reanalyse status`)"
        )


class Book:
    """The campaign and its items with the versions that we know. Each save is a unit.

    A save over an entry that somebody else changed raises TakenOverError: whoever saved first
    goes on.
    """

    def __init__(self, catalog: Catalog, loaded: LoadedCampaign, *, by: str) -> None:
        self._catalog = catalog
        self._by = by
        self._versions = {entry.object.vid: entry.version for entry in loaded.items}
        self._versions[loaded.campaign.vid] = loaded.version
        self.campaign: Campaign = loaded.campaign
        self.workflow: PlannedWorkflow = loaded.workflow

    def take_over(self, *, round: int) -> None:
        """Write down, in one unit, that the campaign is in our hands now, and in which round."""
        runner = Runner(token=uuid.uuid4().hex, host=socket.gethostname(), pid=os.getpid())
        self.save_workflow(msgspec.structs.replace(self.workflow, runner=runner, round=round))

    def check_mine(self) -> None:
        """Raises TakenOverError when a later run has taken the campaign over."""
        found = self._catalog.get([self.campaign.vid]).get(self.campaign.vid)
        if found is None or found.version != self._versions[self.campaign.vid]:
            raise TakenOverError.of(self.campaign.label)

    def save_workflow(self, workflow: PlannedWorkflow) -> None:
        """Save what is new about the workflow; the campaign runs from now on."""
        campaign = msgspec.structs.replace(
            self.campaign, workflow=as_json(workflow), state=CampaignState.RUNNING
        )
        self._commit([campaign])
        self.campaign, self.workflow = campaign, workflow

    def save_state(self, state: CampaignState) -> None:
        """Save where the campaign stands."""
        campaign = msgspec.structs.replace(self.campaign, state=state)
        self._commit([campaign])
        self.campaign = campaign

    def save(self, item: CampaignItem, more: Sequence[Object] = ()) -> CampaignItem:
        """Save an item as of this round, and with it objects that are new.

        Those that exist are left as they are.
        """
        item = msgspec.structs.replace(item, round=self.workflow.round)
        known = self._catalog.get(obj.vid for obj in more) if more else {}
        self._commit([item, *(obj for obj in more if obj.vid not in known)])
        return item

    def check_unchanged(self, item: CampaignItem) -> None:
        """Raises TakenOverError when somebody else changed the item."""
        found: Versioned | None = self._catalog.get([item.vid]).get(item.vid)
        if found is None or found.version != self._versions[item.vid]:
            raise TakenOverError.of(self.campaign.label)

    def _commit(self, objects: Sequence[Object]) -> None:
        changes = [Save(object=obj, based_on=self._versions.get(obj.vid, 0)) for obj in objects]
        try:
            receipt = self._catalog.commit(changes, by=self._by)
        except StaleVersionError as exc:
            raise TakenOverError.of(self.campaign.label) from exc
        own = {obj.vid for obj in objects if isinstance(obj, Campaign | CampaignItem)}
        self._versions |= {vid: version for vid, version in receipt.versions.items() if vid in own}


@contextmanager
def only_run(campaign: Campaign) -> Iterator[None]:
    """Held while a run works: a second one of this account on this machine raises at once.

    The kernel lets go when the process ends, however it ends. Where no file can be locked, the
    versions in the catalog alone decide.
    """
    folder = platformdirs.user_state_path("biobank", appauthor=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "campaigns.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        yield
        return
    try:
        position = int(campaign.vid[2:], 16) % _LOCK_POSITIONS
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, position)
        except BlockingIOError as exc:
            raise TakenOverError.of(campaign.label) from exc
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(lock)
