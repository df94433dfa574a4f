"""A picture of a thousand real nodes: readable, and its failed, stale and others told apart."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from biobank_core.catalog.port import Delete, Save
from biobank_core.config import load_settings
from biobank_core.export import drawing, picture
from biobank_core.export.stale import found_stale, stale_nodes
from biobank_core.lineage.port import Answer, Direction, Edge, Node, Question, Relation
from biobank_core.lineage.service import Freshness
from biobank_core.model.base import Object
from biobank_core.model.ids import derived_vid
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionStatus,
    Assembly,
    DataCollection,
    DataMember,
    DataSample,
    Individual,
    Port,
    SequencingReads,
    SoftwareProgram,
    Study,
    Supersession,
    Tube,
    TypingResult,
)
from biobank_core.stores import Stores, open_stores

SVG = "{http://www.w3.org/2000/svg}"
THEN = datetime(2026, 1, 2, tzinfo=UTC)
TUBES = 240
FAILING, REDONE, DELETED = 13, 3, 40  # each so-manieth tube


def vid(name: str) -> str:
    return derived_vid("Test", name)


class World:
    """One isolate in TUBES tubes, each sequenced, assembled, typed; a table of all typings."""

    def __init__(self) -> None:
        self.objects: list[Object] = [
            Study(vid=vid("study"), label="KPN"),
            Individual(vid=vid("donor")),
            self._tube("isolate"),
            *(
                SoftwareProgram(vid=vid(tool), label=tool.split()[0], release=tool.split()[1])
                for tool in ("unicycler 0.5", "typer 2", "typer 3", "summary 1")
            ),
        ]
        self.stale = {vid(name) for name in ("typings", "table")}
        self.superseded: set[str] = set()
        self.failed: set[str] = set()
        self.gone: set[str] = set()
        self._action("donor", "isolate", None, ActionCategory.EXTRACTION)
        for number in range(1, TUBES + 1):
            self._one(f"T{number}", number)
        typings = tuple(
            DataMember(role=obj.label, object=obj.vid)
            for obj in self.objects
            if isinstance(obj, TypingResult) and "new" not in obj.label
        )
        study = vid("study")
        self.objects += [
            DataCollection(vid=vid("typings"), label="typings", study=study, items=typings),
            DataSample(vid=vid("table"), label="table of all", study=study),
        ]
        self._action("typings", "table", "summary 1")

    def _one(self, tube: str, number: int) -> None:
        study = vid("study")
        self.objects += [
            self._tube(tube),
            SequencingReads(vid=vid(f"{tube} reads"), label=f"{tube}.fastq", study=study),
            Assembly(vid=vid(f"{tube} fna"), label=f"{tube}.fna", study=study),
        ]
        self._action("isolate", tube, None, ActionCategory.ALIQUOTING)
        self._action(tube, f"{tube} reads", None, ActionCategory.MEASUREMENT)
        if number % FAILING == 0:
            self._action(f"{tube} reads", f"{tube} fna", "unicycler 0.5", status=ActionStatus.ERROR)
            self.failed.add(vid(f"{tube} fna"))
            return
        self._action(f"{tube} reads", f"{tube} fna", "unicycler 0.5")
        self.objects.append(TypingResult(vid=vid(f"{tube} old"), label=f"{tube} old", study=study))
        self._action(f"{tube} fna", f"{tube} old", "typer 2")
        if number % REDONE == 0:
            new = TypingResult(vid=vid(f"{tube} new"), label=f"{tube} new", study=study)
            self.objects.append(new)
            self._action(f"{tube} fna", f"{tube} new", "typer 3")
            old = vid(f"{tube} old")
            self.objects.append(Supersession(vid=vid(f"{tube} link"), new=new.vid, old=old))
            self.superseded.add(old)
        elif number % DELETED == 1:
            self.gone.add(vid(f"{tube} old"))

    def _tube(self, name: str) -> Tube:
        return Tube(vid=vid(name), label=name, study=vid("study"))

    def _action(
        self,
        source: str,
        target: str,
        tool: str | None,
        category: ActionCategory = ActionCategory.PROCESSING,
        *,
        status: ActionStatus = ActionStatus.OK,
    ) -> None:
        self.objects.append(
            Action(
                vid=vid(f"{source} to {target} by {tool}"),
                category=category,
                study=vid("study"),
                device=vid(tool) if tool else None,
                status=status,
                begin=THEN,
                inputs=(Port(role="in", object=vid(source)),),
                outputs=(Port(role="out", object=vid(target)),),
            )
        )


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def stores(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    folder = tmp_path_factory.mktemp("states")
    settings = load_settings(catalog=f"sqlite:///{folder}/c.db", environment={})
    with open_stores(settings, write=True) as opened:
        opened.catalog.commit([Save(object=obj) for obj in world.objects], by="test")
        gone = opened.catalog.get(world.gone)
        opened.catalog.commit(
            [Delete(vid=one, based_on=gone[one].version, cascade=True) for one in sorted(gone)],
            by="test",
        )
        yield opened


@pytest.fixture(scope="module")
def answer(stores: Stores) -> Answer:
    return stores.lineage.ask(Question(starts=(vid("donor"),), direction=Direction.DOWNSTREAM))


@pytest.fixture(scope="module")
def stale(stores: Stores, answer: Answer) -> frozenset[str]:
    return stale_nodes(stores.lineage, answer, freshness=Freshness.ANY)


@pytest.fixture(scope="module")
def svg(stores: Stores, answer: Answer, stale: frozenset[str]) -> ET.Element:
    if shutil.which("dot") is None:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail("Graphviz's `dot` is needed")
        pytest.skip("Graphviz's `dot` is not installed")
    return ET.fromstring(drawn(stores, answer, stale))


def drawn(stores: Stores, answer: Answer, stale: frozenset[str]) -> str:
    return picture.svg(drawing.drawing(answer, stores.lineage.names(answer), stale=stale))


def groups(svg: ET.Element, css: str) -> list[ET.Element]:
    """The drawing's own groups of a class; those of the legend have no id."""
    return [group for group in svg.iter(f"{SVG}g") if group.get("class") == css and group.get("id")]


def group_of(svg: ET.Element, node: str) -> ET.Element:
    (found,) = [
        group for group in groups(svg, "node") if node in (group.findtext(f"{SVG}title") or "")
    ]
    return found


def words(group: ET.Element) -> str:
    return " ".join("".join(text.itertext()) for text in group.iter(f"{SVG}text"))


def outline(group: ET.Element) -> tuple[str | None, str | None, bool]:
    """Width, dashes and whether filled white: what is left without colours."""
    shape = next(child for child in group.iter() if child.get("stroke"))
    return (
        shape.get("stroke-width"),
        shape.get("stroke-dasharray"),
        shape.get("fill") in ("white", "#ffffff"),
    )


def test_a_thousand_nodes_are_drawn_as_a_few(answer: Answer, svg: ET.Element) -> None:
    assert len(answer.nodes) >= 1000
    assert len(groups(svg, "node")) < 40


def test_every_node_has_its_vid_and_label_in_a_title(answer: Answer, svg: ET.Element) -> None:
    titles = "\n".join(title.text or "" for title in svg.iter(f"{SVG}title"))
    for node in answer.nodes:
        assert node.vid in titles
        if node.label:
            assert f"{node.label} {node.vid}" in titles


def test_stale_is_what_was_made_from_something_superseded(
    world: World, stale: frozenset[str]
) -> None:
    assert stale == world.stale


def test_the_states_differ_in_word_sign_and_outline(
    world: World, answer: Answer, svg: ET.Element
) -> None:
    assert answer.superseded == world.superseded
    looks = {}
    for state, sign, nodes in (
        ("error", "✗", world.failed),
        ("superseded", "⇢", world.superseded),
        ("stale", "↻", {vid("table")}),
        ("deleted", "∅", world.gone),
    ):
        group = group_of(svg, min(nodes))
        assert f"{sign} {state}" in words(group)
        looks[state] = outline(group)
    plain = group_of(svg, vid("isolate"))
    assert not set("✗⇢↻∅") & set(words(plain))
    looks["as usual"] = outline(plain)
    assert len(set(looks.values())) == len(looks), looks


def test_the_legend_explains_each_state_that_is_there(svg: ET.Element) -> None:
    (legend,) = [group for group in svg.iter(f"{SVG}g") if group.get("class") == "legend"]
    told = words(legend)
    for text in ("A newer one exists", "Made from a superseded one", "Only a trace is left"):
        assert text in told
    assert "did not succeed" in told


def test_no_two_things_overlap(svg: ET.Element) -> None:
    boxes = [box(group) for group in groups(svg, "node")]
    for one, other in itertools.combinations(boxes, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, (one, other)


def box(group: ET.Element) -> tuple[float, float, float, float]:
    xs: list[float] = []
    ys: list[float] = []
    for shape in group.iter():
        if shape.tag == f"{SVG}ellipse":
            x, y, rx, ry = (float(shape.get(name, "0")) for name in ("cx", "cy", "rx", "ry"))
            xs += [x - rx, x + rx]
            ys += [y - ry, y + ry]
        for text in (shape.get("points"), shape.get("d")):
            numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*", text or "")]
            xs += numbers[::2]
            ys += numbers[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def test_letters_are_large_enough_and_the_page_has_a_page_s_shape(svg: ET.Element) -> None:
    width, height = (float(number) for number in svg.get("viewBox", "").split()[2:])
    assert max(width / height, height / width) < 4
    sizes = [float(text.get("font-size", "0")) for text in svg.iter(f"{SVG}text")]
    assert min(size for size in sizes if size > 5) >= 9  # 5 is an empty line of a cylinder


def test_the_same_graph_is_the_same_picture(
    stores: Stores, answer: Answer, stale: frozenset[str], tmp_path: Path, world: World
) -> None:
    settings = load_settings(catalog=f"sqlite:///{tmp_path}/c.db", environment={})
    with open_stores(settings, write=True) as other:
        # Another order of saving gives other row numbers.
        first, *rest = world.objects
        other.catalog.commit([Save(object=obj) for obj in (first, *reversed(rest))], by="test")
        gone = other.catalog.get(world.gone)
        other.catalog.commit(
            [Delete(vid=one, based_on=gone[one].version, cascade=True) for one in sorted(gone)],
            by="test",
        )
        again = other.lineage.ask(Question(starts=(vid("donor"),), direction=Direction.DOWNSTREAM))
        now = stale_nodes(other.lineage, again, freshness=Freshness.ANY)
        assert drawn(other, again, now) == drawn(stores, answer, stale)


def graph(*edges: tuple[str, str], supersedes: tuple[tuple[str, str], ...] = ()) -> Answer:
    names = dict.fromkeys(name for edge in (*edges, *supersedes) for name in edge)
    nodes = tuple(
        Node(vid=name, kind="DataSample", label=name, study=None, groups=frozenset(), deleted=False)
        for name in names
    )
    return Answer(
        starts=(),
        nodes=nodes,
        edges=(
            *(Edge(source, target, Relation.PRODUCED, "a") for source, target in edges),
            *(Edge(new, old, Relation.SUPERSEDES) for new, old in supersedes),
        ),
        superseded=frozenset(old for _, old in supersedes),
    )


def test_what_corrects_a_thing_is_not_stale_for_having_been_made_from_it() -> None:
    chain = graph(
        ("raw", "fixed"), ("fixed", "result"), ("raw", "first try"), supersedes=(("fixed", "raw"),)
    )
    assert found_stale(chain) == {"first try"}


def test_stale_goes_on_however_far_and_through_diamonds() -> None:
    steps = [("old", "s0")]
    for number in range(5000):
        steps += [(f"s{number}", f"l{number}"), (f"s{number}", f"r{number}")]
        steps += [(f"l{number}", f"s{number + 1}"), (f"r{number}", f"s{number + 1}")]
    found = found_stale(graph(*steps, supersedes=(("new", "old"),)))
    assert len(found) == 3 * 5000 + 1
    assert not {"old", "new"} & found
