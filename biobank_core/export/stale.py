"""Which nodes of an answer are stale: made, at whatever distance, from something superseded.

A typing is superseded when a newer one takes its place; the table that was made from the old typing
is stale, for it was not made again. What supersedes something is not stale for having been made
from that very thing (a corrected file), nor is what was made from it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from biobank_core.lineage.port import Answer, Direction, Question, Relation
from biobank_core.lineage.service import Freshness, Lineage


def stale_nodes(lineage: Lineage, answer: Answer, *, freshness: Freshness) -> frozenset[str]:
    """The VIDs of the answer's nodes that are stale; one more question to the index.

    What is superseded itself, or deleted, is not called stale too.
    """
    asked = {node.vid for node in answer.nodes}
    upstream = lineage.ask(
        Question(starts=tuple(sorted(asked)), direction=Direction.UPSTREAM), freshness=freshness
    )
    deleted = {node.vid for node in answer.nodes if node.deleted}
    return frozenset(found_stale(upstream) & asked) - answer.superseded - deleted


def found_stale(answer: Answer) -> frozenset[str]:
    """All nodes of an answer that were made from a superseded one in it."""
    sources: dict[str, list[str]] = defaultdict(list)
    newer: dict[str, list[str]] = defaultdict(list)
    for edge in answer.edges:
        if edge.relation is Relation.SUPERSEDES:
            newer[edge.source].append(edge.target)
        else:
            sources[edge.target].append(edge.source)
    # A bit for each superseded node: which of them a node was made from, and which of those it,
    # or something on the way to it, has put right.
    bits = {vid: 1 << place for place, vid in enumerate(sorted(answer.superseded))}
    made_from: dict[str, int] = {}
    put_right: dict[str, int] = {}
    for vid in _sources_first(sources, [node.vid for node in answer.nodes]):
        old, right = 0, 0
        for source in sources.get(vid, ()):
            old |= made_from.get(source, 0) | bits.get(source, 0)
            right |= put_right.get(source, 0)
        for replaced in newer.get(vid, ()):
            right |= bits.get(replaced, 0)
        made_from[vid], put_right[vid] = old, right
    return frozenset(vid for vid, old in made_from.items() if old & ~put_right[vid])


def _sources_first(sources: Mapping[str, list[str]], vids: list[str]) -> list[str]:
    """The nodes, each after all that it was made from; without recursion, for chains are long."""
    order: list[str] = []
    done: set[str] = set()
    for start in vids:
        stack = [(start, False)]
        while stack:
            vid, leaving = stack.pop()
            if leaving:
                order.append(vid)
            elif vid not in done:
                done.add(vid)
                stack.append((vid, True))
                stack.extend((source, False) for source in sources.get(vid, ()))
    return order
