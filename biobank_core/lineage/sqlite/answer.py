"""Answering a question from the tables."""

from __future__ import annotations

import sqlite3

from biobank_core.lineage import filters
from biobank_core.lineage.port import Answer, Question, edge_order
from biobank_core.lineage.sqlite.read import Reader
from biobank_core.lineage.walk import walk


def connected(connection: sqlite3.Connection, question: Question) -> Answer:
    """See `LineageIndex.connected`."""
    filters.check(question)
    reader = Reader(connection, question)
    numbers = reader.ids(question.starts)
    starts = reader.readable(numbers.values(), question)
    via = question.via_tool is not None
    met = None
    if question.depth is None or via:
        met = reader.meet_all(starts, question.direction)
    # With a depth, what a walk meets may be a small part of all: then it asks layer by layer.
    depths = walk(reader, starts, direction=question.direction, depth=question.depth, via=via)
    if met is None:
        met = reader.meet(depths, question.direction)
    found = reader.nodes(met, depths)
    kept = filters.returned(found.values(), question)
    vids = {node.vid for node in kept}
    nodes = {number: node.vid for number, node in found.items() if node.vid in vids}
    # Of a large answer a hundred megabytes, in the way of its edges.
    del found, depths, vids
    edges = reader.edges(met, nodes)
    superseding, superseded = reader.supersessions(nodes, question)
    edges.extend(superseding)
    edges.sort(key=edge_order)
    readable = set(starts)
    return Answer(
        starts=tuple(vid for vid, number in numbers.items() if number in readable),
        nodes=tuple(kept),
        edges=tuple(edges),
        uses=tuple(reader.uses(nodes)),
        superseded=superseded,
    )
