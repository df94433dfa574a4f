"""A lineage answer as GraphML: well-formed, inert, and equal to the answer."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from biobank_core.export.graphml import graphml
from biobank_core.lineage.port import Answer, Edge, Maker, Node, Relation
from biobank_core.lineage.service import Names
from biobank_core.model.ids import derived_vid

NS = "{http://graphml.graphdrawing.org/xmlns}"
NO_NAMES = Names({}, {})


def vid(name: object) -> str:
    return derived_vid("Test", str(name))


def node(name: str, depth: int = 0, **more) -> Node:
    fields = {"kind": "DataSample", "label": name, "study": None, "deleted": False}
    return Node(vid=vid(name), depth=depth, groups=frozenset({"log"}), **{**fields, **more})


JOB = Maker(vid("job"), "PROCESSING", None, "kleborate_typing", "2.2.0", None, "error", None)
ANSWER = Answer(
    starts=(vid("T1"),),
    nodes=(
        node("T1", kind="Tube", study=vid("study")),
        node("", kind="Individual"),
        node("old", 1, makers=(JOB,)),
        node("new", 1, deleted=True),
    ),
    edges=(
        Edge(vid("T1"), vid("old"), Relation.PRODUCED, JOB.action, JOB),
        Edge(vid("new"), vid("old"), Relation.SUPERSEDES),
    ),
    superseded=frozenset({vid("old")}),
)
NAMES = Names({vid(""): ("KPN:KP-01",)}, {vid("study"): "KPN"})


def parsed(answer: Answer, names: Names = NO_NAMES) -> ET.Element:
    return ET.fromstring("".join(graphml(answer, names)).encode())


def data(root: ET.Element, group: str) -> list[dict[str, str]]:
    """What each node or edge says, by the declared names of its keys."""
    names = {
        key.get("id"): key.get("attr.name")
        for key in root.iter(f"{NS}key")
        if key.get("for") == group
    }
    return [
        {names[part.get("key")]: part.text or "" for part in element.iter(f"{NS}data")}
        for element in root.iter(f"{NS}{group}")
    ]


def test_nodes_and_edges_equal_the_answer():
    root = parsed(ANSWER, NAMES)
    common = {"deleted": "false", "superseded": "false"}
    old = {"kind": "DataSample", "depth": "1", **common}
    assert data(root, "node") == [
        {
            "vid": vid("T1"),
            "kind": "Tube",
            "label": "T1",
            "depth": "0",
            "study": "KPN",
            **common,
        },
        {"vid": vid(""), "kind": "Individual", "label": "KPN:KP-01", "depth": "0", **common},
        {"vid": vid("old"), "label": "old", **old, "superseded": "true"},
        {"vid": vid("new"), "label": "new", **old, "deleted": "true"},
    ]
    assert data(root, "edge") == [
        {
            "relation": "PRODUCED",
            "action": JOB.action,
            "tool": "kleborate_typing",
            "release": "2.2.0",
            "status": "error",
        },
        {"relation": "SUPERSEDES"},
    ]
    ends = [(edge.get("source"), edge.get("target")) for edge in root.iter(f"{NS}edge")]
    assert ends == [(edge.source, edge.target) for edge in ANSWER.edges]


def test_every_end_of_an_edge_is_a_declared_node_of_one_directed_graph():
    root = parsed(ANSWER)
    (graph,) = root.iter(f"{NS}graph")
    assert graph.get("edgedefault") == "directed"
    ids = {element.get("id") for element in graph.iter(f"{NS}node")}
    assert ids == {each.vid for each in ANSWER.nodes}
    for edge in graph.iter(f"{NS}edge"):
        assert {edge.get("source"), edge.get("target")} <= ids


@given(st.text(alphabet=st.characters(), max_size=30))
def test_any_label_comes_back_as_it_is_or_without_what_xml_cannot_hold(label):
    (told,) = data(parsed(Answer(starts=(), nodes=(node("n", label=label),))), "node")
    assert len(told["label"]) == len(label)
    for there, here in zip(told["label"], label, strict=True):
        assert there == here or there == "\ufffd"
    if label.isprintable() and not any("\ud800" <= c <= "\udfff" for c in label):
        assert told["label"] == label


def test_markup_in_a_label_stays_text():
    evil = ']]></data><script>alert(1)</script><!ENTITY x SYSTEM "file:///etc/passwd">&x;'
    root = parsed(Answer(starts=(), nodes=(node(evil),)))
    assert data(root, "node")[0]["label"] == evil
    assert {element.tag for element in root.iter()} <= {
        f"{NS}{name}" for name in ("graphml", "key", "graph", "node", "data")
    }
