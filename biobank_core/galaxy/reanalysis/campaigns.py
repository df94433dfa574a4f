"""Campaigns in the catalog: their VIDs, what their free fields hold, finding them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from biobank_core.addressing import resolve
from biobank_core.catalog.port import Catalog, Versioned
from biobank_core.errors import StorageError
from biobank_core.galaxy.reanalysis.arrange import Given
from biobank_core.galaxy.reanalysis.carry import Carried
from biobank_core.galaxy.reanalysis.outputs import NewOutput
from biobank_core.model.base import JsonObject
from biobank_core.model.ids import derived_vid
from biobank_core.model.kinds import Campaign, CampaignItem, ItemState

FINAL_STATES: Final = frozenset({ItemState.OK, ItemState.UNCHANGED, ItemState.FAILED})


class ToolChange(msgspec.Struct, frozen=True, kw_only=True):
    """A step of the workflow: the tool's version it names, and the one the copy runs."""

    step: str
    tool: str
    old: str | None
    new: str


class SampleInput(msgspec.Struct, frozen=True, kw_only=True):
    """The workflow input that takes the sample's data: one data set, or a collection's type."""

    index: int
    label: str
    collection_type: str | None


class FixedInput(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow input that is the same for all samples, and what it is given."""

    index: int
    label: str
    given: Given


class Replacement(msgspec.Struct, frozen=True, kw_only=True):
    """Which output will take the place of an old result (a VID)."""

    old: str
    by: NewOutput


class PlannedItem(msgspec.Struct, frozen=True, kw_only=True):
    """`CampaignItem.planned`.

    `given` is what the workflow is given, `replacements` what is to replace the old results (those
    that nothing replaces are not in), `parameters` what differs from sample to sample.
    """

    given: Given
    replacements: tuple[Replacement, ...] = ()
    parameters: tuple[Carried, ...] = ()

    @property
    def expected(self) -> dict[str, NewOutput]:
        """The replacements, by the VID of the old result."""
        return {one.old: one.by for one in self.replacements}


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of the workflow as a whole and its value."""

    index: int
    label: str
    value: Any


class Runner(msgspec.Struct, frozen=True, kw_only=True):
    """Which run has the campaign in hand. A later one takes it over by writing its own token."""

    token: str
    host: str
    pid: int


class PlannedWorkflow(msgspec.Struct, frozen=True, kw_only=True):
    """`Campaign.workflow`. `document` is the upgraded copy in Galaxy's own format.

    `copy_id` and `galaxy_user` are known once it was imported: by whom, and under which id. `round`
    counts how often the failed samples were tried again.
    """

    name: str
    source: str
    document: JsonObject
    tools: tuple[ToolChange, ...]
    sample_input: SampleInput
    fixed_inputs: tuple[FixedInput, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    settings: tuple[str, ...] = ()
    galaxy_url: str = ""
    copy_id: str | None = None
    galaxy_user: str | None = None
    runner: Runner | None = None
    round: int = 0


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A sample that the plan leaves out, and why."""

    sample: str | None
    label: str
    code: str
    reason: str


class PlannedCriteria(msgspec.Struct, frozen=True, kw_only=True):
    """`Campaign.criteria`: what was asked of the selection, and what it left out."""

    asked: JsonObject
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadedCampaign:
    """A campaign with its parts decoded, its version, and its items by label, then VID."""

    campaign: Campaign
    version: int
    workflow: PlannedWorkflow
    criteria: PlannedCriteria
    items: tuple[Versioned, ...]


def campaign_vid(study: str, name: str) -> str:
    """Derived, so that planning a name twice in a study is a conflict whoever is first."""
    return derived_vid("Campaign", study, name)


def item_vid(campaign: str, sample: str) -> str:
    """Derived: a sample is once in a campaign."""
    return derived_vid("CampaignItem", campaign, sample)


def as_json(part: msgspec.Struct) -> JsonObject:
    """A part of a campaign as the catalog keeps it."""
    made: JsonObject = msgspec.json.decode(msgspec.json.encode(part))
    return made


def load_campaign(catalog: Catalog, address: str) -> LoadedCampaign:
    """The campaign of a VID, a `study:label` or a label, with its items.

    Raises what `addressing.resolve` raises; StorageError when its parts are not understood.
    """
    found = resolve(catalog, address, kinds=("Campaign",))
    campaign = found.object
    assert isinstance(campaign, Campaign)
    try:
        workflow = msgspec.convert(campaign.workflow, PlannedWorkflow)
        criteria = msgspec.convert(campaign.criteria, PlannedCriteria)
    except msgspec.ValidationError as exc:
        raise StorageError(
            f"campaign {campaign.label!r} was not made by `biobank reanalyse plan`: {exc}"
        ) from exc
    items = list(catalog.find("CampaignItem", {"campaign": campaign.vid}))
    items.sort(key=lambda entry: (item_of(entry).sample_label, entry.object.vid))
    return LoadedCampaign(campaign, found.version, workflow, criteria, tuple(items))


def planned_of(item: CampaignItem) -> PlannedItem:
    """What the plan says of an item. Raises StorageError when it is not understood."""
    try:
        return msgspec.convert(item.planned, PlannedItem)
    except msgspec.ValidationError as exc:
        raise StorageError(
            f"the sample {item.sample_label!r} of its campaign was not planned by this release of "
            f"biobank: {exc}; plan the campaign again under another name"
        ) from exc


def item_of(entry: Versioned) -> CampaignItem:
    """The item of a loaded entry."""
    assert isinstance(entry.object, CampaignItem)
    return entry.object


def counts(items: Sequence[CampaignItem]) -> dict[ItemState, int]:
    """How many items stand where, in the order of ItemState; states without items left out."""
    found = {state: sum(item.state is state for item in items) for state in ItemState}
    return {state: count for state, count in found.items() if count}
