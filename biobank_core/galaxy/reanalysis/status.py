"""Where a campaign stands, from the catalog alone: Galaxy is not asked."""

from __future__ import annotations

from collections.abc import Iterator

from biobank_core.galaxy.reanalysis.campaigns import LoadedCampaign, counts, item_of
from biobank_core.model.kinds import CampaignItem, CampaignState, ItemState

COLUMNS = ("sample", "label", "state", "history", "invocation", "old", "new", "error", "attempts")


def rows(loaded: LoadedCampaign) -> Iterator[tuple[object, ...]]:
    """A row an item, in the order of COLUMNS; `old` and `new` are numbers of results.

    `attempts` counts how often it was tried.
    """
    for entry in loaded.items:
        item = item_of(entry)
        yield (
            item.sample,
            item.sample_label,
            item.state,
            item.history_id,
            item.invocation_id,
            len(item.old),
            len(item.new),
            item.error,
            len(item.attempts) + (item.state is not ItemState.PLANNED),
        )


def summary(loaded: LoadedCampaign) -> str:
    """One line: the campaign, its state, how many items stand where."""
    items = [item_of(entry) for entry in loaded.items]
    out = len(loaded.criteria.left_out)
    told = [f"{counted(items)}"]
    if out:
        told.append(f"{out} left out by the plan")
    failed = any(item.state is ItemState.FAILED for item in items)
    if failed and loaded.campaign.state is CampaignState.FINISHED:
        told.append("`biobank reanalyse run --retry` runs the failed ones again")
    return f"campaign {loaded.campaign.label!r}: {loaded.campaign.state.value}; {'; '.join(told)}"


def counted(items: list[CampaignItem]) -> str:
    """`4 samples: 3 ok, 1 failed`."""
    return said(counts(items))


def said(by_state: dict[ItemState, int]) -> str:
    """The same, of counts by state."""
    total = sum(by_state.values())
    parts = ", ".join(f"{count} {state.value}" for state, count in by_state.items())
    return f"{total} {'sample' if total == 1 else 'samples'}" + (f": {parts}" if parts else "")
