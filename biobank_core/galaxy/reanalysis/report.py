"""What a campaign changed, sample by sample: gathered once, written as HTML and as TSV."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from biobank_core.catalog.port import Catalog
from biobank_core.galaxy.reanalysis.campaigns import (
    LeftOut,
    LoadedCampaign,
    ToolChange,
    item_of,
    planned_of,
)
from biobank_core.galaxy.reanalysis.compare import FileChange, Verdict
from biobank_core.galaxy.reanalysis.plan_table import replacements, spelled
from biobank_core.galaxy.reanalysis.results import (
    Result,
    actions_of,
    new_results,
    old_results,
    pair_results,
)
from biobank_core.model.kinds import (
    Attempt,
    CampaignItem,
    ItemState,
    Study,
)

# What needs somebody's attention first.
_URGENCY: Final = ("failed", "open", "changed", "unchanged")

COLUMNS: Final = ("sample", "label", "result", "change", "row", "column", "old", "new")


class Compares(Protocol):
    """What tells two results apart; see `compare.Comparer`."""

    def compare(self, old: Result, new: Result) -> FileChange:
        """What changed from one result to the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReport:
    """One sample of the campaign. `alone`: results without a counterpart.

    `kept` are (parameter, value) that this sample was run with, `attempts` the tries before the
    one that the rest tells of.
    """

    vid: str
    label: str
    state: ItemState
    reason: str
    error: str | None
    files: tuple[FileChange, ...] = ()
    old_alone: tuple[Result, ...] = ()
    new_alone: tuple[Result, ...] = ()
    history_id: str | None = None
    kept: tuple[tuple[str, str], ...] = ()
    attempts: tuple[Attempt, ...] = ()

    @property
    def columns_changed(self) -> tuple[str, ...]:
        """The columns with another value in any table of this sample, each once, in order."""
        tables = [file.table for file in self.files if file.table]
        return tuple(dict.fromkeys(cell.column for table in tables for cell in table.cells))

    @property
    def cells_changed(self) -> int:
        """How many cells differ, in all tables."""
        return sum(len(file.table.cells) for file in self.files if file.table)

    @property
    def outcome(self) -> str:
        """One of `failed`, `open`, `changed`, `unchanged`."""
        if self.state is ItemState.FAILED:
            return "failed"
        if self.state not in (ItemState.OK, ItemState.UNCHANGED):
            return "open"
        same = all(file.verdict in (Verdict.SAME_DATA, Verdict.EQUAL) for file in self.files)
        return "unchanged" if same and self.files else "changed"


@dataclass(frozen=True, slots=True)
class ColumnCount:
    """In how many samples a column of a result differs."""

    result: str
    column: str
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All of it. `columns` are those with changed cells, most changed first.

    `samples` are those that need a look first: failed, open, changed, unchanged; then by label.
    `replaced`: an old result (its output's name), the output that was to replace it or None, and in
    how many samples.
    """

    name: str
    vid: str
    study: str
    created: datetime
    made: datetime
    galaxy_server: str
    workflow: str
    tools: tuple[ToolChange, ...]
    settings: tuple[str, ...]
    asked: tuple[tuple[str, str], ...]
    samples: tuple[SampleReport, ...]
    left_out: tuple[LeftOut, ...]
    columns: tuple[ColumnCount, ...] = ()
    came: tuple[ColumnCount, ...] = ()
    went: tuple[ColumnCount, ...] = ()
    outcomes: dict[str, int] = field(default_factory=dict)
    galaxy_url: str = ""
    replaced: tuple[tuple[str, str | None, int], ...] = ()

    @property
    def out_codes(self) -> tuple[tuple[str, int], ...]:
        """How many samples the plan left out for which reason (its code), most first."""
        return tuple(Counter(out.code for out in self.left_out).most_common())

    @property
    def cells_changed(self) -> int:
        """How many cells differ in all samples."""
        return sum(sample.cells_changed for sample in self.samples)


def gather(
    catalog: Catalog,
    loaded: LoadedCampaign,
    *,
    comparer: Compares,
    now: datetime,
    progress: Callable[[], None] = lambda: None,
) -> Report:
    """Compare the results of all samples. `progress` is called after each sample."""
    samples = []
    for entry in loaded.items:
        samples.append(_sample(catalog, item_of(entry), comparer, loaded.campaign.galaxy_server))
        progress()
    samples.sort(key=lambda sample: (_URGENCY.index(sample.outcome), natural(sample.label)))
    campaign = loaded.campaign
    study = catalog.get([campaign.study]).get(campaign.study)
    label = study.object.label if study and isinstance(study.object, Study) else campaign.study
    outcomes = Counter(sample.outcome for sample in samples)
    outcomes["left out"] = len(loaded.criteria.left_out)
    changed: Counter[tuple[str, str]] = Counter()
    came: Counter[tuple[str, str]] = Counter()
    went: Counter[tuple[str, str]] = Counter()
    for sample in samples:
        for file in sample.files:
            if file.table is None:
                continue
            title = file.new.role
            changed.update({(title, cell.column) for cell in file.table.cells})
            came.update({(title, column) for column in file.table.columns_new})
            went.update({(title, column) for column in file.table.columns_gone})
    asked = tuple(
        (name, label if name == "study" else str(value))
        for name, value in loaded.criteria.asked.items()
        if value not in (None, [], {}, ())
    )
    return Report(
        name=campaign.label,
        vid=campaign.vid,
        study=label,
        created=campaign.created,
        made=now,
        galaxy_server=campaign.galaxy_server,
        workflow=loaded.workflow.name,
        tools=loaded.workflow.tools,
        settings=loaded.workflow.settings,
        asked=asked,
        samples=tuple(samples),
        left_out=loaded.criteria.left_out,
        columns=_ranked(changed),
        came=_ranked(came),
        went=_ranked(went),
        outcomes=dict(outcomes),
        galaxy_url=loaded.workflow.galaxy_url,
        replaced=replacements(item_of(entry) for entry in loaded.items),
    )


def tsv_rows(report: Report) -> Iterator[tuple[object, ...]]:
    """One row a change, in the order of COLUMNS.

    `change` is `file` (old and new are hashes, column the verdict), `cell`, `column-gone`,
    `column-new`, `row-gone`, `row-new`, `no-counterpart`, `failed`, `open` or `left-out`.
    """
    for sample in report.samples:
        start = (sample.vid, sample.label)
        if sample.outcome in ("failed", "open"):
            yield (*start, None, sample.outcome, None, sample.state.value, None, sample.error)
        for file in sample.files:
            yield from _file_rows(start, file)
        for result in sample.old_alone:
            yield (*start, result.role, "no-counterpart", None, None, result.vid, None)
        for result in sample.new_alone:
            yield (*start, result.role, "no-counterpart", None, None, None, result.vid)
    for out in report.left_out:
        yield (out.sample, out.label, None, "left-out", None, out.code, None, out.reason)


def _file_rows(start: tuple[str, str], file: FileChange) -> Iterator[tuple[object, ...]]:
    here = (*start, file.new.role)
    hashes = (file.old_sha256, file.new_sha256)
    yield (*here, "file", None, file.verdict.value, *hashes)
    if file.table is None:
        return
    for cell in file.table.cells:
        yield (*here, "cell", cell.row, cell.column, cell.old, cell.new)
    for column in file.table.columns_gone:
        yield (*here, "column-gone", None, column, None, None)
    for column in file.table.columns_new:
        yield (*here, "column-new", None, column, None, None)
    for row in file.table.rows_gone:
        yield (*here, "row-gone", row, None, None, None)
    for row in file.table.rows_new:
        yield (*here, "row-new", row, None, None, None)


def _sample(catalog: Catalog, item: CampaignItem, comparer: Compares, server: str) -> SampleReport:
    files: tuple[FileChange, ...] = ()
    old_alone: tuple[Result, ...] = ()
    new_alone: tuple[Result, ...] = ()
    if item.state in (ItemState.OK, ItemState.UNCHANGED):
        pairing = pair_results(
            old_results(catalog, item.old), _new(catalog, item, server), planned_of(item).expected
        )
        files = tuple(comparer.compare(old, new) for old, new in pairing.pairs)
        old_alone, new_alone = pairing.old_alone, pairing.new_alone
    return SampleReport(
        vid=item.sample,
        label=item.sample_label,
        state=item.state,
        reason=item.reason,
        error=item.error,
        files=files,
        old_alone=old_alone,
        new_alone=new_alone,
        history_id=item.history_id,
        kept=tuple((one.target, spelled(one.value)) for one in planned_of(item).parameters),
        attempts=item.attempts,
    )


def _new(catalog: Catalog, item: CampaignItem, server: str) -> list[Result]:
    wanted = {port.object for port in item.new}
    actions = actions_of(catalog, item, server=server)
    return [result for result in new_results(catalog, actions) if result.vid in wanted]


def natural(label: str) -> list[tuple[int, str]]:
    """A sort key by which T2 comes before T10."""
    parts = re.split(r"([0-9]+)", label)
    return [(len(part.lstrip("0")) if part[:1].isdigit() else 0, part) for part in parts]


def _ranked(counter: Counter[tuple[str, str]]) -> tuple[ColumnCount, ...]:
    ranked = sorted(counter.items(), key=lambda entry: (-entry[1], entry[0]))
    return tuple(ColumnCount(result, column, count) for (result, column), count in ranked)
