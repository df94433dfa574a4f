"""The JSON text of a lineage answer, written in pieces."""

from __future__ import annotations

import json

import pytest

from biobank_core.export.lineage import as_json, json_text
from biobank_core.lineage.port import Answer, Edge, Node, Relation
from biobank_core.lineage.service import Freshness, FreshnessReport, Names
from biobank_core.model.ids import derived_vid

NO_NAMES = Names({}, {})
FRESH = FreshnessReport(Freshness.ANY, in_step=True, behind_units=0)
A, B = derived_vid("Test", "a"), derived_vid("Test", "b")


def node(vid: str, label: str, depth: int) -> Node:
    return Node(vid, "DataSample", label, None, frozenset(), False, depth)


WHOLE = Answer(
    starts=(A,),
    nodes=(node(A, 'quote " line\n ü', 0), node(B, "b", 1)),
    edges=(Edge(A, B, Relation.PRODUCED), Edge(B, A, Relation.SUPERSEDES)),
    superseded=frozenset({A}),
)


@pytest.mark.parametrize("answer", [WHOLE, Answer(starts=())])
def test_the_pieces_together_are_the_whole(answer):
    text = "".join(json_text(answer, NO_NAMES, FRESH))
    assert json.loads(text) == as_json(answer, NO_NAMES, FRESH)
    assert text.endswith("}\n")


def test_a_node_is_written_as_soon_as_it_is_read():
    pieces = json_text(WHOLE, NO_NAMES, FRESH)
    seen = ""
    while A not in seen.partition('"nodes"')[2]:
        seen += next(pieces)
    assert B not in seen
