"""A lineage answer as JSON and as a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from biobank_core.lineage.port import Answer, Edge, Maker, Node, Use
from biobank_core.lineage.service import FreshnessReport, Names

COLUMNS: Final = (
    "depth",
    "vid",
    "kind",
    "label",
    "study",
    "tool",
    "release",
    "action",
    "category",
    "status",
    "end",
    "notes",
)


def as_json(answer: Answer, names: Names, freshness: FreshnessReport) -> dict[str, Any]:
    """What `biobank lineage --format json` prints.

    Of an edge, `action` is null unless its relation is PRODUCED.
    """
    return {
        name: list(part) if isinstance(part, Iterator) else part
        for name, part in _parts(answer, names, freshness).items()
    }


def json_text(answer: Answer, names: Names, freshness: FreshnessReport) -> Iterator[str]:
    """The text of `as_json` in pieces, a line for each node and edge.

    So an answer of half a million objects needs no memory beyond its own.
    """
    begin = "{"
    for name, part in _parts(answer, names, freshness).items():
        yield f"{begin}\n  {_text(name)}: "
        begin = ","
        if isinstance(part, Iterator):
            yield from _lines(part)
        else:
            yield _text(part)
    yield "\n}\n"


def _parts(answer: Answer, names: Names, freshness: FreshnessReport) -> dict[str, Any]:
    return {
        "start": list(answer.starts),
        "nodes": (_node(node, answer, names) for node in answer.nodes),
        "edges": map(_edge, answer.edges),
        "uses": map(_use, answer.uses),
        "freshness": {
            "freshness": freshness.freshness.value,
            "in_step": freshness.in_step,
            "behind_units": freshness.behind_units,
            "as_of": None if freshness.as_of is None else _time(freshness.as_of),
            "age_s": None if freshness.age_s is None else round(freshness.age_s, 3),
            "pending_changes": freshness.pending_changes,
            "refused_changes": freshness.refused_changes,
            "warning": freshness.warning,
        },
    }


def _lines(items: Iterable[object]) -> Iterator[str]:
    begin, end = "[", "[]"
    for item in items:
        yield f"{begin}\n    {_text(item)}"
        begin, end = ",", "\n  ]"
    yield end


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def as_rows(answer: Answer, names: Names) -> Iterator[tuple[object, ...]]:
    """Rows under `COLUMNS`, one a node and one more for each further action that made it.

    The label of an individual is its codes. Cells are raw: the writer makes them safe.
    """
    for node in answer.nodes:
        notes = []
        if node.vid in answer.superseded:
            notes.append("superseded")
        if node.deleted:
            notes.append("deleted")
        what = (
            node.depth,
            node.vid,
            node.kind,
            shown_label(node, names),
            names.studies.get(node.study, node.study) if node.study else None,
        )
        for maker in node.makers or (None,):
            how = (
                (None,) * 6
                if maker is None
                else (
                    maker.tool,
                    maker.release,
                    maker.action,
                    maker.category,
                    maker.status,
                    maker.end,
                )
            )
            yield (*what, *how, "; ".join(notes))


def shown_label(node: Node, names: Names) -> str:
    """What people know a node by: an individual by its codes, all else by its label."""
    return node.label or ", ".join(names.codes.get(node.vid, ()))


def _node(node: Node, answer: Answer, names: Names) -> dict[str, Any]:
    return {
        "vid": node.vid,
        "kind": node.kind,
        "label": node.label,
        "depth": node.depth,
        "codes": list(names.codes.get(node.vid, ())),
        "study": node.study,
        "deleted": node.deleted,
        "superseded": node.vid in answer.superseded,
        "makers": [_maker(maker) for maker in node.makers],
    }


def _edge(edge: Edge) -> dict[str, Any]:
    made = _maker(edge.maker) if edge.maker else None
    return {
        "source": edge.source,
        "target": edge.target,
        "action": edge.action,
        "relation": edge.relation.value,
        "source_roles": list(edge.source_roles),
        "target_roles": list(edge.target_roles),
        "tool": made and made["tool"],
        "release": made and made["release"],
        "status": made and made["status"],
    }


def _use(use: Use) -> dict[str, Any]:
    return {"node": use.node, "role": use.role, **_maker(use.maker)}


def _maker(maker: Maker) -> dict[str, Any]:
    return {
        "action": maker.action,
        "category": maker.category,
        "device": maker.device,
        "tool": maker.tool,
        "release": maker.release,
        "setup": maker.setup,
        "status": maker.status,
        "end": None if maker.end is None else _time(maker.end),
    }


def _time(time: Any) -> str:
    text: str = time.isoformat()
    return text.replace("+00:00", "Z")
