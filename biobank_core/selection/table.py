"""A selection as a table and as JSON. Scripts and Galaxy tools read them: both are stable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from biobank_core.selection.criteria import SelectedSample, Selection

# `donor`: enrollment codes. `tool`, `release`, `results`, `sources`: several are joined by `;`, in
# the order of the results; results and sources are VIDs.
COLUMNS: Final = (
    "sample",
    "label",
    "study",
    "donor",
    "reason",
    "tool",
    "release",
    "results",
    "sources",
)
# With the samples that are left out, two more: selected or excluded, and a ReasonCode.
COLUMNS_OF_ALL: Final = (*COLUMNS, "state", "code")


def table(selection: Selection, *, include_excluded: bool) -> Iterator[list[str]]:
    """The rows, in COLUMNS or, with what is left out after the selected ones, COLUMNS_OF_ALL."""
    if not include_excluded:
        yield from map(_cells, selection.rows)
        return
    for row in (*selection.rows, *selection.excluded):
        yield [*_cells(row), _state(row), row.code.value]


def as_json(selection: Selection, *, include_excluded: bool) -> dict[str, Any]:
    """`selected` and, if asked for, `excluded` samples; `left_out` counts them by reason."""
    document: dict[str, Any] = {"selected": list(map(_json, selection.rows))}
    if include_excluded:
        document["excluded"] = list(map(_json, selection.excluded))
    document["left_out"] = {code.value: count for code, count in selection.left_out().items()}
    return document


def summary(selection: Selection) -> str:
    """One line: `3 selected, 2 left out (1 superseded, 1 consent-withdrawn)`."""
    counts = ", ".join(f"{count} {code.value}" for code, count in selection.left_out().items())
    text = f"{len(selection.rows)} selected, {len(selection.excluded)} left out"
    return f"{text} ({counts})" if counts else text


def _cells(row: SelectedSample) -> list[str]:
    return [
        row.sample or "",
        row.label,
        row.study_label,
        ";".join(row.donors),
        row.reason,
        _joined(result.tool for result in row.results),
        _joined(result.release for result in row.results),
        ";".join(dict.fromkeys(result.vid for result in row.results)),
        ";".join(row.sources),
    ]


def _joined(values: Iterator[str | None]) -> str:
    return ";".join(dict.fromkeys(value for value in values if value))


def _state(row: SelectedSample) -> str:
    return "selected" if row.is_selected else "excluded"


def _json(row: SelectedSample) -> dict[str, Any]:
    return {
        "sample": row.sample,
        "label": row.label,
        "kind": row.kind,
        "study": row.study,
        "study_label": row.study_label,
        "donors": list(row.donors),
        "state": _state(row),
        "code": row.code.value,
        "reason": row.reason,
        "results": [
            {
                "vid": result.vid,
                "label": result.label,
                "role": result.role,
                "action": result.action,
                "tool": result.tool,
                "release": result.release,
            }
            for result in row.results
        ],
        "sources": list(row.sources),
    }
