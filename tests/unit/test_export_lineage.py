"""A lineage answer as table, JSON and picture: complete, readable, and inert."""

from __future__ import annotations

import io
import json
import os
import shutil
import xml.etree.ElementTree as ET

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biobank_core.cli import cli
from biobank_core.cli.common import tsv_writer
from biobank_core.errors import ConfigurationError, InputError
from biobank_core.export import drawing, picture
from biobank_core.export.drawing import Drawing, Family, Item
from biobank_core.export.lineage import COLUMNS, as_json, as_rows
from biobank_core.lineage.port import Answer, Edge, Maker, Node, Relation, Use
from biobank_core.lineage.service import Freshness, FreshnessReport, Names
from biobank_core.model.ids import derived_vid

SVG = "{http://www.w3.org/2000/svg}"
NO_NAMES = Names({}, {})
FRESH = FreshnessReport(Freshness.ANY, in_step=True, behind_units=0)
TOOL = "toolshed.g2.bx.psu.edu/repos/iuc/kleborate/kleborate_typing"


@pytest.fixture(scope="module")
def _dot():
    if shutil.which("dot") is None:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail("Graphviz's `dot` is needed")
        pytest.skip("Graphviz's `dot` is not installed")


def vid(name: object) -> str:
    return derived_vid("Test", str(name))


def node(name: object, depth: int = 0, kind: str = "DataSample", **more) -> Node:
    fields = {"label": str(name), "study": None, "groups": frozenset({"log"}), "deleted": False}
    return Node(vid=vid(name), kind=kind, depth=depth, **{**fields, **more})


def maker(name: object, *, tool: str | None = TOOL, release: str = "2.2.0", status="ok") -> Maker:
    return Maker(vid(name), "PROCESSING", None, tool, release, None, status, None)


def made(source: object, target: object, by: Maker) -> Edge:
    return Edge(vid(source), vid(target), Relation.PRODUCED, by.action, by)


def svg_of(answer: Answer, names: Names = NO_NAMES) -> ET.Element:
    return ET.fromstring(picture.svg(drawing.drawing(answer, names)))


def titles(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}title")]


def texts(root: ET.Element) -> str:
    return "\n".join(element.text or "" for element in root.iter(f"{SVG}text"))


@pytest.fixture
def answer() -> Answer:
    """Tube -> assembly -> an old, superseded result, a failed one, and a deleted one."""
    old, failed = maker("job 2"), maker("job 3", release="3.2.4", status="error")
    return Answer(
        starts=(vid("T1"),),
        nodes=(
            node("T1", kind="Tube"),
            node("assembly", 1, "Assembly", makers=(maker("job 1", tool=None),)),
            node("old", 2, makers=(old,)),
            node("failed", 2, makers=(failed,)),
            node("gone", 2, deleted=True, label=""),
        ),
        edges=(
            made("T1", "assembly", maker("job 1", tool=None)),
            made("assembly", "old", old),
            made("assembly", "failed", failed),
            Edge(vid("old"), vid("gone"), Relation.SUPERSEDES),
        ),
        uses=(Use(vid("job 4"), vid("old"), "in", maker("job 4", tool="send")),),
        superseded=frozenset({vid("old")}),
    )


# Table and JSON


def test_json_has_the_agreed_keys_first_and_more_after(answer):
    told = as_json(answer, NO_NAMES, FRESH)
    assert list(told) == ["start", "nodes", "edges", "uses", "freshness"]
    assert told["start"] == [vid("T1")]
    assert list(told["nodes"][0])[:4] == ["vid", "kind", "label", "depth"]
    assert list(told["edges"][0])[:4] == ["source", "target", "action", "relation"]
    assert told["edges"][1]["release"] == "2.2.0"
    assert told["edges"][3]["action"] is None
    assert told["uses"][0]["node"] == vid("old")
    assert told["nodes"][2]["superseded"]
    assert told["freshness"]["in_step"] is True
    json.dumps(told)


def test_a_table_has_a_row_for_each_node_and_one_more_for_each_further_maker():
    several = Answer(
        starts=(vid("a"),), nodes=(node("a", makers=(maker("1"), maker("2"))), node("b", 1))
    )
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in as_rows(several, NO_NAMES)]
    assert [(row["vid"], row["action"]) for row in rows] == [
        (vid("a"), vid("1")),
        (vid("a"), vid("2")),
        (vid("b"), None),
    ]


def test_cells_of_the_table_start_no_formula():
    evil = Answer(starts=(), nodes=(node("=cmd()|' /C calc'!A0"), node("@SUM(1)\t2\n3")))
    stream = io.StringIO()
    writer = tsv_writer(stream, COLUMNS)
    for row in as_rows(evil, NO_NAMES):
        writer.row(row)
    lines = stream.getvalue().split("\n")
    assert len(lines) == 4
    for line in lines[1:-1]:
        assert line.split("\t")[3].startswith("'")


def test_an_individual_is_shown_by_its_codes(answer):
    person = Answer(starts=(), nodes=(node("p", kind="Individual", label=""),))
    names = Names({vid("p"): ("KPN:KP-01", "X:7")}, {})
    assert next(as_rows(person, names))[3] == "KPN:KP-01, X:7"
    assert as_json(person, names, FRESH)["nodes"][0]["codes"] == ["KPN:KP-01", "X:7"]


# Pictures


@pytest.mark.usefixtures("_dot")
def test_each_node_has_its_vid_and_label_as_title(answer):
    found = "\n".join(titles(svg_of(answer)))
    for each in answer.nodes:
        assert each.vid in found
        assert f"{each.label or each.kind} {each.vid}" in found
    for edge in answer.edges:
        assert edge.action is None or edge.action in found


@pytest.mark.usefixtures("_dot")
def test_failed_superseded_and_deleted_are_told_in_words(answer):
    shown = texts(svg_of(answer))
    for words in ("✗ error", "superseded", "deleted", "START", "kleborate_typing 3.2.4", "Vessel"):
        assert words in shown


hostile = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=60
) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        "]]> --> <!-- <![CDATA[",
        '" onload="alert(1)',
        "\\N \\G \\E \\l \\",
        "&lt;&#60;&unknown;",
        "{a|<f0>b}",
        "</text><image href='http://x/'/>",
        "\u202egnp.exe",
        "\uf8fe",
        "x" * 900,
        " ",
        "<>",
    ]
)


@pytest.mark.usefixtures("_dot")
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(label=hostile, tool=hostile, release=hostile)
def test_any_text_gives_a_well_formed_picture_in_which_nothing_can_happen(label, tool, release):
    by = maker("job", tool=tool, release=release)
    evil = Answer(
        starts=(vid("a"),),
        nodes=(node("a", label=label), node("b", 1, makers=(by,), label=label)),
        edges=(made("a", "b", by),),
    )
    text = picture.svg(drawing.drawing(evil, NO_NAMES))
    root = ET.fromstring(text)
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert tags <= {"svg", "g", "title", "text", "polygon", "polyline", "path", "ellipse"}
    for element in root.iter():
        assert not [name for name in element.attrib if "href" in name or name.startswith("on")]
        assert not [text for text in element.attrib.values() if "url(" in text or "http" in text]
    assert "<!DOCTYPE" not in text


@pytest.mark.usefixtures("_dot")
def test_what_graphviz_would_replace_is_shown_as_it_is():
    shown = texts(svg_of(Answer(starts=(), nodes=(node("\\N and \\G"),))))
    assert "\\N and \\G" in shown


@pytest.mark.usefixtures("_dot")
def test_a_long_label_is_shortened_so_that_one_sees_it():
    root = svg_of(Answer(starts=(), nodes=(node("begin " + "x" * 500 + " end"),)))
    (shown,) = [text for text in texts(root).split("\n") if text.startswith("begin")]
    assert "…" in shown
    assert len(shown) < 50
    assert any("x" * 500 in title for title in titles(root))


def test_without_dot_the_message_names_the_package(monkeypatch, answer):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigurationError, match="Debian package `graphviz`"):
        picture.svg(drawing.drawing(answer, NO_NAMES))


def test_more_than_can_be_drawn_is_refused_with_advice():
    items = tuple(Item(f"n{i}", Family.DATA, "x", "data", "") for i in range(2001))
    with pytest.raises(InputError, match="--depth"):
        picture.svg(Drawing("many", 2001, items, (), ()))


# Collapsing


def wide(count: int) -> Answer:
    """One tube, `count` assemblies of it, a result each, all collected; one result failed."""
    nodes = [node("T", kind="Tube")]
    edges = []
    for number in range(count):
        shovill = maker(f"asm {number}", tool="shovill")
        typing = maker(f"typing {number}", status="error" if number == 7 else "ok")
        nodes += [
            node(f"asm {number}", 1, "Assembly", makers=(shovill,)),
            node(f"res {number}", 2, "TypingResult", makers=(typing,)),
        ]
        edges += [
            made("T", f"asm {number}", shovill),
            made(f"asm {number}", f"res {number}", typing),
            Edge(vid(f"res {number}"), vid("all"), Relation.COLLECTED_IN),
        ]
    nodes.append(node("all", 3, "DataCollection"))
    return Answer((vid("T"),), tuple(nodes), tuple(edges))


def test_few_nodes_are_all_drawn():
    drawn = drawing.drawing(wide(20), NO_NAMES)
    assert len(drawn.items) == 42
    assert all(item.count == 1 for item in drawn.items)


def test_a_thousand_nodes_become_a_handful_that_say_how_many():
    drawn = drawing.drawing(wide(500), NO_NAMES)
    counts = sorted((item.count, item.kind) for item in drawn.items)
    assert counts == [
        (1, "data collection"),
        (1, "tube"),
        (1, "typing result"),
        (499, "typing result"),
        (500, "assembly"),
    ]
    assert sum(item.count for item in drawn.items) == drawn.nodes == 1002
    (failed,) = [item for item in drawn.items if "error" in item.marks]
    assert failed.label == "res 7"
    assert sorted(step.count for step in drawn.steps) == [1, 499, 500]
    many = next(item for item in drawn.items if item.count == 500)
    assert all(node.vid in many.title for node in wide(500).nodes if node.kind == "Assembly")
    assert "and 500 more" in next(
        item.title for item in drawing.drawing(wide(1500), NO_NAMES).items if item.count == 1500
    )


@pytest.mark.usefixtures("_dot")
def test_a_collapsed_picture_says_how_many():
    shown = texts(svg_of(wide(500)))
    assert "500 × assembly" in shown
    assert "499 × typing result" in shown


def chain(length: int) -> Answer:
    nodes = [node(0)]
    edges = []
    for number in range(1, length):
        by = maker(f"job {number}", tool=f"tool {number}")
        nodes.append(node(number, number, makers=(by,)))
        edges.append(made(number - 1, number, by))
    return Answer((vid(0),), tuple(nodes), tuple(edges))


def test_a_long_chain_is_drawn_as_one_that_says_how_many():
    drawn = drawing.drawing(chain(100), NO_NAMES)
    assert sorted(item.count for item in drawn.items) == [1, 1, 98]
    assert [item.label for item in drawn.items if item.count > 1] == ["in a row"]
    assert len(drawn.steps) == 2


def test_what_is_not_as_usual_stays_visible_in_a_chain():
    plain = chain(100)
    marked = Answer(plain.starts, plain.nodes, plain.edges, superseded=frozenset({vid(50)}))
    drawn = drawing.drawing(marked, NO_NAMES)
    assert sorted(item.count for item in drawn.items) == [1, 1, 1, 48, 49]


# The command


@pytest.fixture
def catalog(tmp_path, monkeypatch):
    """The URL of a catalog with a tube, its assembly and a result."""
    for name in list(os.environ):
        if name.startswith("BIOBANK_"):
            monkeypatch.delenv(name)
    lines = [
        {"kind": "Study", "vid": vid("s"), "label": "KPN"},
        {"kind": "Tube", "vid": vid("t"), "label": "T1", "study": vid("s")},
        {"kind": "Assembly", "vid": vid("a"), "label": "asm", "study": vid("s")},
        {"kind": "SoftwareProgram", "vid": vid("d"), "label": "shovill", "release": "1.1.0"},
        {
            "kind": "Action",
            "vid": vid("job"),
            "category": "PROCESSING",
            "study": vid("s"),
            "device": vid("d"),
            "status": "ok",
            "begin": "2026-01-01T00:00:00Z",
            "end": "2026-01-02T00:00:00Z",
            "inputs": [{"role": "in", "object": vid("t")}],
            "outputs": [{"role": "out", "object": vid("a")}],
        },
    ]
    file = tmp_path / "objects.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    url = f"sqlite:///{tmp_path}/catalog.db"
    loaded = CliRunner().invoke(cli, ["--catalog", url, "load", str(file)])
    assert loaded.exit_code == 0, loaded.output
    return url


def lineage(catalog: str, *options: str):
    return CliRunner().invoke(cli, ["--catalog", catalog, "lineage", *options])


def test_the_command_prints_the_agreed_json(catalog):
    done = lineage(catalog, "KPN:T1", "--format", "json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert told["start"] == [vid("t")]
    assert [(each["label"], each["depth"]) for each in told["nodes"]] == [("T1", 0), ("asm", 1)]
    (edge,) = told["edges"]
    assert (edge["source"], edge["target"], edge["action"], edge["relation"]) == (
        vid("t"),
        vid("a"),
        vid("job"),
        "PRODUCED",
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["KPN:T1", "--direction", "upstream"], ["T1"]),
        (["KPN:T1", "--depth", "0"], ["T1"]),
        (["KPN:T1", "--kind", "Vessel"], ["T1"]),
        (["KPN:T1", "--kind", "DataSample"], ["T1", "asm"]),
        (["KPN:T1", "--tool", "shovill", "--release", ">=2"], ["T1"]),
        (["KPN:T1", "--via-tool", "shovill"], ["T1", "asm"]),
        (["KPN:T1", "--since", "2026-01-02"], ["T1", "asm"]),
        (["KPN:T1", "--since", "2026-01-02T00:00:01Z"], ["T1"]),
        (["KPN:T1", "--category", "processing", "--study", "KPN"], ["T1", "asm"]),
        (["KPN:T1", "--freshness", "source"], ["T1", "asm"]),
        (["KPN:T1", "--freshness", "wait", "--timeout", "1"], ["T1", "asm"]),
        ([vid("job")], ["asm", "T1"]),
        (["KPN:asm", "--to", "KPN:T1"], ["asm", "T1"]),
        (["KPN:T1", "KPN:asm"], ["T1", "asm"]),
    ],
)
def test_the_command_takes_every_filter(catalog, options, expected):
    done = lineage(catalog, *options)
    assert done.exit_code == 0, done.output
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert rows[0] == list(COLUMNS)
    assert sorted(row[3] for row in rows[1:]) == sorted(expected)


@pytest.mark.parametrize(
    "options",
    [
        ["KPN:nobody"],
        [vid("nobody")],
        ["KPN:T1", "--kind", "Spaceship"],
        ["KPN:T1", "--release", "<<3"],
        ["KPN:T1", "--since", "yesterday"],
        ["KPN:T1", "--category", "COOKING"],
        ["KPN:T1", "--depth", "-1"],
        ["KPN:T1", "--study", "nobody"],
        [],
    ],
)
def test_the_command_refuses_what_is_wrong_with_exit_code_2(catalog, options, tmp_path):
    done = lineage(catalog, *options, "--output", str(tmp_path / "out"))
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("_dot")
def test_the_command_writes_a_picture_to_a_file(catalog, tmp_path):
    file = tmp_path / "t1.svg"
    done = lineage(catalog, "KPN:T1", "--format", "svg", "--output", str(file))
    assert (done.exit_code, done.stdout) == (0, "")
    assert f"T1 {vid('t')}" in titles(ET.fromstring(file.read_text(encoding="utf-8")))
    dotted = lineage(catalog, "KPN:T1", "--format", "dot")
    assert dotted.stdout.startswith("digraph lineage")
