"""From a lineage answer to what is drawn: items, steps between them, and how they are collapsed.

A step is an action (or, collapsed, several alike); it stands between its inputs and its outputs, so
that n x m edges are n + m lines. Beyond `READABLE_NODES` nodes, those alike (same kind, same tools,
same distance, same marks) are drawn as one that says how many, then long chains as one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from biobank_core.export.lineage import shown_label
from biobank_core.lineage.port import (
    IMPLICIT_COLLECTION,
    Answer,
    Edge,
    Maker,
    Node,
    Relation,
)
from biobank_core.lineage.service import Names
from biobank_core.model.registry import is_a
from biobank_core.selection.tools import last_part

# More than this on one page is a carpet.
READABLE_NODES: Final = 60
# Two alike are better seen than counted.
_BUNDLE: Final = 3
# A chain of fewer plain nodes is drawn in full.
_CHAIN: Final = 4
# Titles (tooltips) of a bundle name this many of its members: a search in the SVG finds each VID.
_NAMED: Final = 1_000
# Of actions the first are enough.
_NAMED_ACTIONS: Final = 20


# Marks, as they are written on a node.
SUPERSEDED: Final = "superseded"
STALE: Final = "stale"
DELETED: Final = "deleted"


class Family(Enum):
    """What a node is, as its shape and colour say it."""

    INDIVIDUAL = "individual"
    VESSEL = "vessel"
    DATA = "data"
    COLLECTION = "collection"


@dataclass(frozen=True, slots=True)
class Item:
    """A drawn node. `count` > 1: so many alike or, with a label, so many "in a row".

    `marks` are words such as `superseded`; `made` says by what it was made where no line of the
    drawing does.
    """

    key: str
    family: Family
    label: str
    kind: str
    title: str
    count: int = 1
    marks: tuple[str, ...] = ()
    start: bool = False
    made: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A drawn action, from items to items (keys). `failed` is its status when that is not ok."""

    key: str
    label: str
    title: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    count: int = 1
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A line without an action: COLLECTED_IN or SUPERSEDES, between items (keys)."""

    source: str
    target: str
    relation: Relation
    title: str = ""


@dataclass(frozen=True, slots=True)
class Drawing:
    """Everything that is drawn. `nodes` is how many nodes the answer has."""

    title: str
    nodes: int
    items: tuple[Item, ...]
    steps: tuple[Step, ...]
    lines: tuple[Line, ...]


def drawing(
    answer: Answer,
    names: Names,
    *,
    stale: Collection[str] = (),
    readable: int = READABLE_NODES,
) -> Drawing:
    """What to draw of an answer, collapsed where it has more than `readable` nodes.

    `stale` are the VIDs of nodes that `stale.stale_nodes` found.
    """
    starts = [node for node in answer.nodes if node.vid in answer.starts]
    title = "Lineage of " + (
        ", ".join(shown_label(node, names) or node.vid for node in starts[:3]) or "nothing"
    )
    if len(starts) > 3:
        title += f" and {len(starts) - 3} more"
    groups: dict[str, tuple[Node, ...]] = {node.vid: (node,) for node in answer.nodes}
    noted = {node.vid: marks(node, answer, stale) for node in answer.nodes}
    if len(answer.nodes) > readable:
        groups = _bundled(answer, noted)
        # Steps that repeat one tool are alike too; any others only where it is still a carpet.
        groups = _chained(answer, groups, noted, alike=True)
        if len({members[0].vid for members in groups.values()}) > readable:
            groups = _chained(answer, groups, noted, alike=False)
    return _drawn(title, answer, names, groups, noted)


def _drawn(
    title: str,
    answer: Answer,
    names: Names,
    groups: dict[str, tuple[Node, ...]],
    noted: Mapping[str, tuple[str, ...]],
) -> Drawing:
    # A group is known by its first member's VID; inside the picture keys are n0, n1, ... The
    # layout starts from their order, so T2 comes before T10.
    shown = {node.vid: shown_label(node, names) for node in answer.nodes}
    firsts = sorted(_firsts(groups), key=lambda vid: (_natural(shown[vid]), vid))
    numbers = {vid: f"n{index}" for index, vid in enumerate(firsts)}
    key_of = {vid: numbers[members[0].vid] for vid, members in groups.items()}
    steps = _steps(answer, key_of, collapsed=len(numbers) < len(groups))
    made = {key for step in steps for key in step.outputs}
    items = tuple(
        replace(
            _item(numbers[first], groups[first], answer, names, made=numbers[first] in made),
            marks=noted[first],
        )
        for first in numbers
    )
    return Drawing(title, len(answer.nodes), items, steps, _lines(answer.edges, key_of))


def _natural(text: str) -> list[tuple[int, str]]:
    """A sort key that takes digits as numbers, however many they are."""
    parts = re.split(r"([0-9]+)", text)
    return [(len(part.lstrip("0")) if part[:1].isdigit() else 0, part) for part in parts]


def _firsts(groups: dict[str, tuple[Node, ...]]) -> list[str]:
    return list(dict.fromkeys(members[0].vid for members in groups.values()))


def _item(key: str, members: tuple[Node, ...], answer: Answer, names: Names, *, made: bool) -> Item:
    first = members[0]
    titles = [f"{shown_label(node, names) or node.kind} {node.vid}" for node in members[:_NAMED]]
    if len(members) > _NAMED:
        titles.append(f"and {len(members) - _NAMED} more")
    kinds = sorted({node.kind for node in members})
    label = shown_label(first, names) if len(members) == 1 else ""
    if len({node.depth for node in members}) > 1:
        label = "in a row"
    if first.kind == IMPLICIT_COLLECTION and len(members) == 1:
        label = "inputs"
    return Item(
        key=key,
        family=family(first.kind),
        label=label or (_short(first.vid) if len(members) == 1 else ""),
        kind=_spaced(kinds[0]) if len(kinds) == 1 else "of several kinds",
        title="\n".join(titles),
        count=len(members),
        start=first.vid in answer.starts,
        made="" if made else _made_by(members),
    )


def marks(node: Node, answer: Answer, stale: Collection[str] = ()) -> tuple[str, ...]:
    """What is not as usual with a node, in words: how it failed, SUPERSEDED, STALE, DELETED."""
    found = []
    if node.makers and all(maker.status != "ok" for maker in node.makers):
        found.append(node.makers[0].status)
    if node.vid in answer.superseded:
        found.append(SUPERSEDED)
    elif node.vid in stale:
        found.append(STALE)
    if node.deleted:
        found.append(DELETED)
    return tuple(found)


def family(kind: str) -> Family:
    """The family of a kind of node."""
    if kind == IMPLICIT_COLLECTION or is_a(kind, "Collection"):
        return Family.COLLECTION
    if is_a(kind, "Individual"):
        return Family.INDIVIDUAL
    return Family.VESSEL if is_a(kind, "Vessel") else Family.DATA


def step_label(maker: Maker) -> str:
    """An action in a few words: tool and release, else what was done."""
    if maker.tool is None:
        return maker.category.lower().replace("_", " ")
    return f"{last_part(maker.tool)} {maker.release or ''}".rstrip()


def _short(vid: str) -> str:
    """Enough of a VID to tell it from its neighbours; the title has the whole."""
    return f"{vid[:6]}…{vid[-4:]}"


def _made_by(members: Iterable[Node]) -> str:
    labels = {step_label(maker) for node in members for maker in node.makers}
    return f"by {min(labels)}" if len(labels) == 1 else ""


def _spaced(kind: str) -> str:
    if kind == IMPLICIT_COLLECTION:
        return "of one action"
    words = "".join(f" {char.lower()}" if char.isupper() else char for char in kind)
    return words.strip()


def _steps(answer: Answer, key_of: dict[str, str], *, collapsed: bool) -> tuple[Step, ...]:
    ports: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    makers: dict[str, Maker] = {}
    for edge in answer.edges:
        if edge.maker is not None:
            inputs, outputs = ports.setdefault(edge.maker.action, ({}, {}))
            makers[edge.maker.action] = edge.maker
            inputs[key_of[edge.source]] = None
            outputs[key_of[edge.target]] = None
    for use in answer.uses:
        makers[use.action] = use.maker
        ports.setdefault(use.action, ({}, {}))[0][key_of[use.node]] = None
    alike: dict[tuple[Hashable, tuple[str, ...], tuple[str, ...]], list[Maker]] = defaultdict(list)
    for action, (inputs, outputs) in ports.items():
        if inputs.keys() == outputs.keys():
            continue  # inside one collapsed chain
        maker = makers[action]
        same = (step_label(maker), maker.status) if collapsed else action
        alike[same, tuple(inputs), tuple(outputs)].append(maker)
    steps = []
    for index, ((_, into, out_of), several) in enumerate(alike.items()):
        first = several[0]
        titles = [_step_title(maker) for maker in several[:_NAMED_ACTIONS]]
        if len(several) > _NAMED_ACTIONS:
            titles.append(f"and {len(several) - _NAMED_ACTIONS} more")
        steps.append(
            Step(
                key=f"s{index}",
                label=step_label(first),
                title="\n".join(titles),
                inputs=into,
                outputs=out_of,
                count=len(several),
                failed="" if first.status == "ok" else first.status,
            )
        )
    return tuple(steps)


def _step_title(maker: Maker) -> str:
    tool = maker.tool or "unknown tool"
    return f"{maker.category} {tool} {maker.release or ''} ({maker.status}) {maker.action}"


def _lines(edges: Iterable[Edge], key_of: dict[str, str]) -> tuple[Line, ...]:
    lines: dict[tuple[str, str, Relation], Line] = {}
    for edge in edges:
        source, target = key_of[edge.source], key_of[edge.target]
        if edge.relation is not Relation.PRODUCED and source != target:
            roles = ", ".join(edge.source_roles)
            line = Line(source, target, edge.relation, roles)
            known = lines.setdefault((source, target, edge.relation), line)
            if known is not line:
                lines[source, target, edge.relation] = replace(known, title="")
    return tuple(lines.values())


# Collapsing


def _bundled(answer: Answer, noted: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[Node, ...]]:
    """Nodes that are alike, as one group; starts stay alone."""
    upstream = _upstream(answer)
    alike: dict[Hashable, list[Node]] = defaultdict(list)
    for node in answer.nodes:
        if node.vid in answer.starts:
            alike[node.vid].append(node)
            continue
        alike[_look(node), node.depth, node.vid in upstream, noted[node.vid]].append(node)
    groups: dict[str, tuple[Node, ...]] = {}
    for members in alike.values():
        if len(members) >= _BUNDLE:
            groups.update((node.vid, tuple(members)) for node in members)
        else:
            groups.update((node.vid, (node,)) for node in members)
    return groups


def _upstream(answer: Answer) -> set[str]:
    """The nodes from which a start can be reached."""
    sources = defaultdict(list)
    for edge in answer.edges:
        if edge.relation is not Relation.SUPERSEDES:
            sources[edge.target].append(edge.source)
    found: set[str] = set()
    todo = list(answer.starts)
    while todo:
        for source in sources[todo.pop()]:
            if source not in found:
                found.add(source)
                todo.append(source)
    return found


def _chained(
    answer: Answer,
    groups: dict[str, tuple[Node, ...]],
    noted: Mapping[str, tuple[str, ...]],
    *,
    alike: bool,
) -> dict[str, tuple[Node, ...]]:
    """Groups, with runs of single nodes (one way in, one way out, the same marks) made one.

    With `alike` only runs of one kind that one tool made.
    """
    first = {vid: members[0].vid for vid, members in groups.items()}
    before: dict[str, set[str]] = defaultdict(set)
    after: dict[str, set[str]] = defaultdict(set)
    for edge in answer.edges:
        source, target = first[edge.source], first[edge.target]
        if source != target:
            before[target].add(source)
            after[source].add(target)
    plain = {
        node.vid
        for node in answer.nodes
        if len(groups[node.vid]) == 1
        and node.vid not in answer.starts
        and len(before[node.vid]) == 1
        and len(after[node.vid]) == 1
    }
    by_vid = {node.vid: node for node in answer.nodes}
    looks: dict[str, Hashable] = {
        vid: (noted[vid], _look(by_vid[vid]) if alike else None) for vid in plain
    }
    merged = dict(groups)
    for head in sorted(plain, key=lambda vid: (by_vid[vid].depth, vid)):
        (previous,) = before[head]
        if looks.get(previous, head) == looks[head] or len(merged[head]) > 1:
            continue
        chain = _run_from(head, looks, after)
        if len(chain) >= _CHAIN:
            members = tuple(by_vid[vid] for vid in chain)
            merged.update((vid, members) for vid in chain)
    return merged


def _look(node: Node) -> Hashable:
    return node.kind, frozenset((step_label(maker), maker.status) for maker in node.makers)


def _run_from(head: str, looks: Mapping[str, Hashable], after: Mapping[str, set[str]]) -> list[str]:
    chain = [head]
    while True:
        (following,) = after[chain[-1]]
        if looks.get(following, following) != looks[head] or following in chain:
            return chain
        chain.append(following)
