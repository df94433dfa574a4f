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
from biobank_core.selection.graph import Graph, NodeKind, load_graph
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
    behind: dict[str, frozenset[str]] = {}
    for sample, data in samples.items():
        taken = tuple(data)
        known = graph.nodes.keys() >= {sample, *taken}
        behind[sample] = upstream.people_behind(sample, taken) if known else frozenset()
    everyone = frozenset(vid for people in behind.values() for vid in people)
    permissions.load(catalog, persons(everyone, graph))
    found: dict[str, tuple[ReasonCode, str]] = {}
    for sample, people in behind.items():
        own = graph.nodes[sample].study if sample in graph.nodes else None
        refused = why_not(people, own, graph=graph, permissions=permissions)
        if refused is not None:
            found[sample] = refused
    return found


def persons(people: Iterable[str], graph: Graph) -> set[str]:
    """The individuals among these, without the vessels that stand for unknown ones."""
    return {vid for vid in people if graph.nodes[vid].kind is NodeKind.PERSON}


def why_not(
    people: frozenset[str], sample_study: str | None, *, graph: Graph, permissions: Permissions
) -> tuple[ReasonCode, str] | None:
    """Why material of these people (`Upstream.people_behind`) may not be used; None: it may.

    `permissions` must have been loaded with them. Of several reasons always the same, by name.
    """
    if not people:
        return ReasonCode.NO_INDIVIDUAL, reasons.no_individual_text(None)
    nodes = graph.nodes
    pooled = len(people) > 1
    refusals: list[tuple[str, str, ReasonCode]] = []
    for vid in people:
        if nodes[vid].kind is NodeKind.PERSON:
            refusal = permissions.refusal(vid, sample_study or permissions.study)
            if refusal is not None:
                text = reasons.refusal_text(refusal, pooled=pooled)
                refusals.append((refusal.name, text, refusal.code))
        else:
            name = nodes[vid].label or vid
            text = reasons.no_individual_text(name if pooled else None)
            refusals.append((name, text, ReasonCode.NO_INDIVIDUAL))
    if not refusals:
        return None
    _name, text, code = min(refusals, key=lambda refusal: refusal[:2])
    return code, text
