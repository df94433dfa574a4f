"""Planning a campaign: from a selection and a workflow to items. Nothing happens in Galaxy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from biobank_core.catalog.port import Catalog, Save
from biobank_core.errors import ConflictError, InputError, StaleVersionError
from biobank_core.galaxy.reanalysis.arrange import Arranger, Given, check_type
from biobank_core.galaxy.reanalysis.campaigns import (
    FixedInput,
    LeftOut,
    Parameter,
    PlannedCriteria,
    PlannedItem,
    PlannedWorkflow,
    Replacement,
    SampleInput,
    ToolChange,
    as_json,
    campaign_vid,
    item_vid,
)
from biobank_core.galaxy.reanalysis.carry import Carrier, NotCarriedError
from biobank_core.galaxy.reanalysis.outputs import Replacing, parse_replaces
from biobank_core.galaxy.reanalysis.prepare import Prepared
from biobank_core.galaxy.reanalysis.replaced import ReplacedResults
from biobank_core.galaxy.reanalysis.results import old_results
from biobank_core.galaxy.reanalysis.workflow import DataInput
from biobank_core.lineage.port import LineageIndex
from biobank_core.model.base import JsonObject
from biobank_core.model.kinds import (
    Campaign,
    CampaignItem,
    DataCollection,
    DataSample,
    Port,
)
from biobank_core.selection.criteria import OldResult, SelectedSample, Selection

# Why the plan, not the selection, leaves a sample out. Stable, like ReasonCode.
NO_SOURCE: Final = "no-source"
SEVERAL_SOURCES: Final = "several-sources"
NOT_IN_GALAXY: Final = "not-in-galaxy"
PURGED: Final = "purged"
WRONG_SHAPE: Final = "wrong-shape"
_UNFIT: Final = frozenset({SEVERAL_SOURCES, WRONG_SHAPE})
_SHOWN: Final = 5


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
    inputs: Sequence[DataInput],
    given: Mapping[str, DataSample | DataCollection],
    *,
    arranger: Arranger,
) -> Inputs:
    """Decide what each data input of a workflow gets. `given`: input's label -> object.

    Raises InputError naming the inputs that are unknown, of a type that can't be given, or left.
    """
    by_label = {entry.label: entry for entry in inputs}
    for name in given:
        if name not in by_label:
            known = ", ".join(map(repr, by_label)) or "none"
            raise InputError(f"--input {name}: the workflow has no such data input; it has {known}")
    fixed = []
    for name, obj in given.items():
        entry = by_label[name]
        check_type(entry.collection_type, label=name)
        whole = arranger.fixed(obj, entry.collection_type, label=name)
        fixed.append(FixedInput(index=entry.index, label=name, given=whole))
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
    (chosen,) = needed
    check_type(chosen.collection_type, label=chosen.label)
    sample = SampleInput(
        index=chosen.index, label=chosen.label, collection_type=chosen.collection_type
    )
    return Inputs(sample, tuple(fixed))


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
    replaces: Sequence[str],
    server: str,
    galaxy_url: str,
    now: datetime,
) -> Plan:
    """The campaign and its items for what was selected.

    `asked` are the criteria as JSON; `settings` what was asked to be set or kept, `replaces` texts
    `NEW=OLD` as `outputs.parse_replaces` takes them; `server` the key of the Galaxy server that the
    data are on. Raises ConflictError when the study has a campaign of this name, InputError for
    what is ambiguous and when the data of no sample fit the workflow.
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
    making = _Items(catalog, index, prepared, wanted=inputs.sample, server=server, campaign=vid)
    items, more_out = making.of(selection.rows, replaces)
    left_out += more_out
    if selection.rows and not items and all(out.code in _UNFIT for out in more_out):
        reasons = "\n".join(f"  - {out.label}: {out.reason}" for out in more_out[:_SHOWN])
        raise InputError(
            f"the workflow's input {inputs.sample.label!r} fits the data of no sample:\n{reasons}"
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


class _Items:
    """Makes the items of a campaign: what each sample gives, replaces, and keeps."""

    def __init__(
        self,
        catalog: Catalog,
        index: LineageIndex,
        prepared: Prepared,
        *,
        wanted: SampleInput,
        server: str,
        campaign: str,
    ) -> None:
        self._catalog = catalog
        self._arranger = Arranger(catalog)
        self._prepared = prepared
        self._wanted = wanted
        self._server = server
        self._campaign = campaign
        self._replaced = ReplacedResults(
            catalog, index, frozenset(change.tool for change in prepared.tools)
        )
        self._carrier = Carrier(catalog, prepared.kept)

    def of(
        self, rows: Sequence[SelectedSample], replaces: Sequence[str]
    ) -> tuple[list[CampaignItem], list[LeftOut]]:
        """The items, and what can't be one. Raises InputError for what is ambiguous."""
        replacing = Replacing(
            self._prepared.outputs, parse_replaces(replaces, self._prepared.outputs)
        )
        old = {row.sample: self._replaced.of(row) for row in rows if row.sample is not None}
        self._carrier.learn(
            {sample: [one.action for one in found] for sample, found in old.items()}
        )
        items: list[CampaignItem] = []
        out: list[LeftOut] = []
        for row in rows:
            assert row.sample is not None
            try:
                item = self._item(row, row.sample, old[row.sample], replacing)
            except (_UnusableError, NotCarriedError) as exc:
                left = LeftOut(sample=row.sample, label=row.label, code=exc.code, reason=exc.reason)
                out.append(left)
            else:
                items.append(item)
        replacing.check()
        return items, out

    def _item(
        self, row: SelectedSample, sample: str, old: Sequence[OldResult], replacing: Replacing
    ) -> CampaignItem:
        given = self._given(row)
        ports = tuple(Port(role=one.role, object=one.vid) for one in old)
        expected = replacing.of(row.label, old_results(self._catalog, ports))
        planned = PlannedItem(
            given=given,
            replacements=tuple(
                Replacement(old=port.object, by=expected[port.object])
                for port in ports
                if port.object in expected
            ),
            parameters=self._carrier.of(sample),
        )
        return CampaignItem(
            vid=item_vid(self._campaign, sample),
            campaign=self._campaign,
            sample=sample,
            sample_label=row.label,
            reason=row.reason,
            sources=tuple(Port(role=self._wanted.label, object=one) for one in row.sources),
            old=ports,
            planned=as_json(planned),
        )

    def _given(self, row: SelectedSample) -> Given:
        """What the sample gives to the workflow. Raises _UnusableError."""
        if not row.sources:
            raise _UnusableError(
                NO_SOURCE, "no data of the sample itself are known that a run could start from"
            )
        wanted = self._wanted
        try:
            given = self._arranger.sample(row.label, row.sources, wanted.collection_type)
        except InputError as exc:
            several = wanted.collection_type is None and len(row.sources) > 1
            raise _UnusableError(
                SEVERAL_SOURCES if several else WRONG_SHAPE,
                f"its data do not fit the workflow's input {wanted.label!r}: {exc.reason}",
            ) from exc
        for vid, found in self._catalog.get(given.leaves()).items():
            galaxy = getattr(found.object, "galaxy", None)
            if galaxy is None or galaxy.server != self._server:
                raise _UnusableError(
                    NOT_IN_GALAXY, f"its data {vid} are not on the Galaxy server {self._server!r}"
                )
            if galaxy.purged:
                raise _UnusableError(PURGED, f"its data {vid} were purged from Galaxy")
        return given


class _UnusableError(Exception):
    """A selected sample can't be run; `code` and `reason` go into the plan."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
