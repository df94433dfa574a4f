"""A plan for people and programs: what would run, what maps to what, what is left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from biobank_core.galaxy.reanalysis.arrange import Given
from biobank_core.galaxy.reanalysis.campaigns import PlannedItem, planned_of
from biobank_core.galaxy.reanalysis.plan import Plan
from biobank_core.galaxy.reanalysis.results import base_role
from biobank_core.model.kinds import CampaignItem
from biobank_core.selection import tools

COLUMNS: Final = (
    "sample",
    "label",
    "state",
    "reason",
    "results",
    "sources",
    "replaced",
    "kept",
    "code",
)


def rows(plan: Plan) -> Iterator[tuple[object, ...]]:
    """A row a sample, in the order of COLUMNS; `results` and `sources` are numbers.

    `replaced` is `OLD>NEW`, with nothing after the > where no output takes its place; `kept`
    `STEP.PARAM=VALUE`; several are joined by `;`. `code` says why one is left out.
    """
    for item in plan.items:
        planned = planned_of(item)
        yield (
            item.sample,
            item.sample_label,
            "planned",
            item.reason,
            len(item.old),
            len(item.sources),
            ";".join(dict.fromkeys(">".join(pair) for pair in _pairs(item, planned))),
            ";".join(f"{one.target}={spelled(one.value)}" for one in planned.parameters),
            None,
        )
    for out in plan.left_out:
        yield (out.sample, out.label, "excluded", out.reason, None, None, None, None, out.code)


def as_json(plan: Plan) -> dict[str, Any]:
    """What `--format json` prints: campaign (null where nothing is planned), tools, items, ..."""
    return {
        "campaign": plan.campaign.vid if plan.items else None,
        "name": plan.campaign.label,
        "tools": msgspec.to_builtins(plan.tools),
        "items": [_item(item) for item in plan.items],
        "left_out": msgspec.to_builtins(plan.left_out),
    }


def replacement_lines(plan: Plan) -> Iterator[str]:
    """One line for each kind of old result: what will replace it, in how many samples."""
    for old, new, count in replacements(plan.items):
        samples = f"{count} sample{'' if count == 1 else 's'}"
        if new is None:
            yield f"old {old}: no output of the workflow replaces it ({samples}; see --replaces)"
        else:
            yield f"old {old} is replaced by {new} ({samples})"


def replacements(items: Iterable[CampaignItem]) -> tuple[tuple[str, str | None, int], ...]:
    """(old result, the output that replaces it or None, in how many samples), sorted."""
    counted: Counter[tuple[str, str]] = Counter()
    for item in items:
        counted.update(set(_pairs(item, planned_of(item))))
    return tuple((old, new or None, count) for (old, new), count in sorted(counted.items()))


def spelled(value: Any) -> str:
    """A parameter's value as people write it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _pairs(item: CampaignItem, planned: PlannedItem) -> Iterator[tuple[str, str]]:
    expected = planned.expected
    for port in item.old:
        new = expected.get(port.object)
        yield base_role(port.role), new.title if new else ""


def _item(item: CampaignItem) -> dict[str, Any]:
    planned = planned_of(item)
    expected = planned.expected
    return {
        "sample": item.sample,
        "label": item.sample_label,
        "reason": item.reason,
        "given": _given(planned.given),
        "old": [
            {
                "vid": port.object,
                "output": port.role,
                "replaced_by": _output(expected[port.object]) if port.object in expected else None,
            }
            for port in item.old
        ],
        "kept": [
            {"parameter": one.target, "value": one.value, "from": one.old}
            for one in planned.parameters
        ],
    }


def _output(new: Any) -> dict[str, Any]:
    return {
        "step": new.step,
        "tool": tools.last_part(new.tool),
        "output": new.output,
        "label": new.label,
    }


def _given(given: Given) -> dict[str, Any]:
    if given.data is not None:
        return {"name": given.name, "data": given.data}
    return {
        "name": given.name,
        "type": given.type,
        "members": [_given(member) for member in given.members],
    }
