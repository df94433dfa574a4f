"""Which samples consent withholds, whatever else is said of them.

A selection asks this once; what runs later (a campaign) asks again before each use, because a
consent may have been withdrawn meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date

from biobank_core.catalog.port import Catalog
from biobank_core.consent import today as this_day
from biobank_core.selection import reasons
from biobank_core.selection.criteria import ReasonCode
from biobank_core.selection.graph import NodeInfo, NodeKind
from biobank_core.selection.loading import load_graph
from biobank_core.selection.permission import Permissions
from biobank_core.selection.upstream import Upstream


def withheld(
    catalog: Catalog,
    samples: Mapping[str, Iterable[str]],
    *,
    study: str,
    scope: str,
    today: date | None = None,
) -> dict[str, tuple[ReasonCode, str]]:
    """Of these samples (VID -> the data taken from it) those that may not be used, and why.

    `study` is the VID of the study that asks, as in Criteria. A sample or data unknown to that
    study's work is withheld too: nothing says that it may be used.
    """
    graph = load_graph(catalog, study)
    upstream = Upstream(graph)
    permissions = Permissions(study=study, scope=scope, on=today or this_day())
    behind: dict[str, frozenset[NodeInfo]] = {}
    nodes = graph.nodes
    for sample, data in samples.items():
        behind[sample] = frozenset()
        taken = tuple(data)
        if nodes.keys() >= {sample, *taken}:
            behind[sample] = upstream.people_behind(nodes[sample], [nodes[vid] for vid in taken])
    permissions.load(catalog, persons(node for people in behind.values() for node in people))
    found: dict[str, tuple[ReasonCode, str]] = {}
    for sample, people in behind.items():
        own = nodes[sample].study if sample in nodes else None
        refused = why_not(people, own, permissions=permissions)
        if refused is not None:
            found[sample] = refused
    return found


def persons(people: Iterable[NodeInfo]) -> set[str]:
    """The VIDs of individuals among these, without the vessels that stand for unknown ones."""
    return {node.vid for node in people if node.kind is NodeKind.PERSON}


def why_not(
    people: frozenset[NodeInfo], sample_study: str | None, *, permissions: Permissions
) -> tuple[ReasonCode, str] | None:
    """Why material of these people (`Upstream.people_behind`) may not be used; None: it may.

    `permissions` must have been loaded with them. Of several reasons always the same, by name.
    """
    if not people:
        return ReasonCode.NO_INDIVIDUAL, reasons.no_individual_text(None)
    pooled = len(people) > 1
    refusals: list[tuple[str, str, ReasonCode]] = []
    for node in people:
        if node.kind is NodeKind.PERSON:
            refusal = permissions.refusal(node.vid, sample_study or permissions.study)
            if refusal is not None:
                text = reasons.refusal_text(refusal, pooled=pooled)
                refusals.append((refusal.name, text, refusal.code))
        else:
            name = node.label or node.vid
            text = reasons.no_individual_text(name if pooled else None)
            refusals.append((name, text, ReasonCode.NO_INDIVIDUAL))
    if not refusals:
        return None
    _name, text, code = min(refusals, key=lambda refusal: refusal[:2])
    return code, text
