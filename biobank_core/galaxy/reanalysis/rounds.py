"""Trying failed samples again: rounds, so that each is run once more and not twice.

A round begins with one save of the campaign, which counts it up. A failed item of an earlier round
is due from then on; being begun, it is saved as of this round. So a retry that is broken off
anywhere goes on where it was, and what failed in it waits for the next one.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from biobank_core.galaxy.reanalysis.campaigns import FINAL_STATES, LoadedCampaign, item_of
from biobank_core.model.kinds import Attempt, CampaignItem, CampaignState, ItemState


def round_of(loaded: LoadedCampaign, *, retry: bool) -> int:
    """The round that a run is in; with `retry` a new one, unless one was broken off."""
    current = loaded.workflow.round
    broken_off = loaded.campaign.state is CampaignState.RUNNING and current > 0
    failed = any(item_of(entry).state is ItemState.FAILED for entry in loaded.items)
    return current + 1 if retry and failed and not broken_off else current


def due_items(items: Iterable[CampaignItem], *, round: int) -> list[CampaignItem]:
    """The items that a run of this round has to see to, those that are under way first."""
    return sorted(
        (item for item in items if _is_due(item, round)),
        key=lambda item: item.state in FINAL_STATES or item.history_id is None,
    )


def begun_anew(item: CampaignItem) -> CampaignItem:
    """A failed item as it was planned, with what became of it kept as an earlier attempt."""
    attempt = Attempt(
        round=item.round,
        history_id=item.history_id,
        invocation_id=item.invocation_id,
        error=item.error,
    )
    return msgspec.structs.replace(
        item,
        state=ItemState.PLANNED,
        history_id=None,
        invocation_id=None,
        error=None,
        new=(),
        attempts=(*item.attempts, attempt),
    )


def _is_due(item: CampaignItem, round: int) -> bool:
    if item.state is ItemState.FAILED:
        return item.round < round
    return item.state not in FINAL_STATES
