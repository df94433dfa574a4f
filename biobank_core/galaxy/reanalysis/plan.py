"""Planning a campaign: from a selection and a workflow to items. Nothing happens in Galaxy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from biobank_core.catalog.port import Catalog, Save
from biobank_core.errors import ConflictError, InputError, StaleVersionError
from biobank_core.galaxy.reanalysis.campaigns import (
    FixedInput,
    LeftOut,
    Parameter,
    PlannedCriteria,
    PlannedWorkflow,
    SampleInput,
    ToolChange,
    as_json,
    campaign_vid,
    item_vid,
)
from biobank_core.galaxy.reanalysis.prepare import Prepared
from biobank_core.galaxy.reanalysis.replaced import ReplacedResults
from biobank_core.galaxy.reanalysis.workflow import DataInput, Shape
from biobank_core.lineage.port import LineageIndex
from biobank_core.model.base import JsonObject
from biobank_core.model.kinds import (
    Campaign,
    CampaignItem,
    DataCollection,
    DataSample,
    Port,
)
from biobank_core.model.registry import is_a
from biobank_core.selection.criteria import SelectedSample, Selection

# Why the plan, not the selection, leaves a sample out. Stable, like ReasonCode.
NO_SOURCE: Final = "no-source"
SEVERAL_SOURCES: Final = "several-sources"
NOT_IN_GALAXY: Final = "not-in-galaxy"
PURGED: Final = "purged"


@dataclass(frozen=True, slots=True)
class Plan:
    """A campaign that is not saved yet."""

    campaign: Campaign
    items: tuple[CampaignItem, ...]
    left_out: tuple[LeftOut, ...]
    tools: tuple[ToolChange, ...]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Which workflow input takes the sample's data, and what the others are given."""

    sample: SampleInput
    fixed: tuple[FixedInput, ...]


def assign_inputs(
    inputs: Sequence[DataInput], given: Mapping[str, DataSample | DataCollection]
) -> Inputs:
    """Decide what each data input of a workflow gets. `given`: input's label -> object.

    Raises InputError naming the inputs that are unknown, of a shape that can't be given, or left.
    """
    by_label = {entry.label: entry for entry in inputs}
    for name in given:
        if name not in by_label:
            known = ", ".join(map(repr, by_label)) or "none"
            raise InputError(f"--input {name}: the workflow has no such data input; it has {known}")
    fixed = tuple(_fixed(by_label[name], obj) for name, obj in given.items())
    left = [entry for entry in inputs if entry.label not in given]
    needed = [entry for entry in left if not entry.optional] or left
    if not needed:
        raise InputError("no data input of the workflow is left for the samples' own data")
    if len(needed) > 1:
        names = ", ".join(repr(entry.label) for entry in needed)
        raise InputError(
            f"the workflow has several data inputs ({names}): give --input NAME=OBJECT for all "
            "but the one that takes the samples' own data"
        )
    chosen = needed[0]
    return Inputs(
        SampleInput(index=chosen.index, label=chosen.label, is_list=_is_list(chosen)), fixed
    )


def make_plan(
    selection: Selection,
    *,
    catalog: Catalog,
    index: LineageIndex,
    prepared: Prepared,
    inputs: Inputs,
    name: str,
    study: str,
    asked: JsonObject,
    settings: Sequence[str],
    server: str,
    galaxy_url: str,
    now: datetime,
) -> Plan:
    """The campaign and its items for what was selected.

    `asked` are the criteria as JSON; `server` the key of the Galaxy server that the data are on.
    Raises ConflictError when the study has a campaign of this name.
    """
    vid = campaign_vid(study, name)
    if catalog.get([vid]):
        raise ConflictError(f"there is a campaign {name!r} in this study; choose another name")
    changes = tuple(
        ToolChange(step=entry.step, tool=entry.tool, old=entry.old, new=entry.new)
        for entry in prepared.tools
    )
    left_out = [
        LeftOut(sample=row.sample, label=row.label, code=row.code.value, reason=row.reason)
        for row in selection.excluded
    ]
    replaced = ReplacedResults(catalog, index, frozenset(change.tool for change in changes))
    items: list[CampaignItem] = []
    for row in selection.rows:
        out = _unusable(row, catalog, inputs.sample, server)
        if out is not None:
            left_out.append(out)
            continue
        assert row.sample is not None
        old = replaced.of(row)
        items.append(
            CampaignItem(
                vid=item_vid(vid, row.sample),
                campaign=vid,
                sample=row.sample,
                sample_label=row.label,
                reason=row.reason,
                sources=tuple(Port(role=inputs.sample.label, object=one) for one in row.sources),
                old=tuple(Port(role=one.role, object=one.vid) for one in old),
            )
        )
    labels = {entry.index: entry.label for entry in prepared.workflow.parameter_inputs()}
    workflow = PlannedWorkflow(
        name=prepared.workflow.name,
        source=prepared.workflow.source,
        document=prepared.workflow.document,
        tools=changes,
        sample_input=inputs.sample,
        fixed_inputs=inputs.fixed,
        parameters=tuple(
            Parameter(index=place, label=labels[place], value=value)
            for place, value in prepared.parameters.items()
        ),
        settings=tuple(settings),
        galaxy_url=galaxy_url,
    )
    campaign = Campaign(
        vid=vid,
        label=name,
        study=study,
        created=now,
        criteria=as_json(PlannedCriteria(asked=asked, left_out=tuple(left_out))),
        workflow=as_json(workflow),
        galaxy_server=server,
    )
    return Plan(campaign, tuple(items), tuple(left_out), changes)


def save_plan(plan: Plan, *, catalog: Catalog, by: str) -> None:
    """Save the campaign and all items in one unit. Raises ConflictError for a name in use."""
    try:
        catalog.commit([Save(object=obj) for obj in (plan.campaign, *plan.items)], by=by)
    except StaleVersionError as exc:
        raise ConflictError(
            f"there is a campaign {plan.campaign.label!r} in this study; choose another name"
        ) from exc


def _unusable(
    row: SelectedSample, catalog: Catalog, wanted: SampleInput, server: str
) -> LeftOut | None:
    """Why a selected sample can't be run; None when it can."""

    def out(code: str, reason: str) -> LeftOut:
        return LeftOut(sample=row.sample, label=row.label, code=code, reason=reason)

    if not row.sources:
        return out(NO_SOURCE, "no data of the sample itself are known that a run could start from")
    if len(row.sources) > 1 and not wanted.is_list:
        return out(
            SEVERAL_SOURCES,
            f"{len(row.sources)} data sets fit the workflow's input {wanted.label!r}, which takes "
            "one",
        )
    for vid, found in catalog.get(row.sources).items():
        galaxy = getattr(found.object, "galaxy", None)
        if galaxy is None or galaxy.server != server:
            return out(NOT_IN_GALAXY, f"its data {vid} are not on the Galaxy server {server!r}")
        if galaxy.purged:
            return out(PURGED, f"its data {vid} were purged from Galaxy")
    return None


def _fixed(entry: DataInput, obj: DataSample | DataCollection) -> FixedInput:
    is_list = _is_list(entry)
    if is_list != is_a(obj.kind, "DataCollection"):
        wants = "a list (a DataCollection)" if is_list else "one data set (a DataSample)"
        raise InputError(f"--input {entry.label}: the workflow wants {wants}, not a {obj.kind}")
    return FixedInput(index=entry.index, label=entry.label, is_list=is_list, object=obj.vid)


def _is_list(entry: DataInput) -> bool:
    if entry.shape is None:
        raise InputError(
            f"the workflow's input {entry.label!r} wants a collection of type "
            f"{entry.collection_type!r}; only data sets and plain lists can be given"
        )
    return entry.shape is Shape.LIST
