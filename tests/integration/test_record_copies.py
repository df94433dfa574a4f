"""Galaxy's collection tools hand back copies: no cycle, and what was left out is not upstream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.galaxy_cases import Lab, lab_of, new_user, ports
from tests.integration.omero_settings import NewCatalog
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_user import Run, hda, hdca, mapped_over

pytestmark = pytest.mark.galaxy


@dataclass
class World:
    """One list with a failing, an empty and a good element, and what each tool made of it."""

    lab: Lab
    source: str
    labels: str
    single: str
    runs: dict[str, Run]


@pytest.fixture(scope="module")
def world(
    galaxy: GalaxyServer, new_catalog: NewCatalog, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    user = new_user(galaxy, "copies")
    with lab_of(user, galaxy.url, new_catalog, tmp_path_factory.mktemp("copies")) as lab:
        run, history = lab.user.run, lab.history
        source = user.upload_collection(history, {"s1": "x\n", "s2": "FAIL\n", "s3": ""})
        other = user.upload_collection(history, {"s1": "r\n", "s2": "r\n", "s3": "r\n"})
        nested = user.upload_collection(
            history,
            {"s1": {"forward": "1\n", "reverse": "2\n"}},
            collection_type="list:paired",
        )
        labels = user.upload(history, "n1\nn2\nn3\n", name="labels")
        single = user.upload(history, "one\n", name="single")
        checked = run(history, "fail_if_asked", {"input": mapped_over(source)}, expect=None)
        for job, state in zip(checked.job_ids, ("ok", "error", "ok"), strict=True):
            user.wait_for_jobs([job], expect=state)
        filtered = user.wait_for(
            lambda: run(
                history,
                "__FILTER_FAILED_DATASETS__",
                {"input": hdca(checked.collections["output"])},
            ),
            what="filtering",
        )
        pairs = {"batch": True, "values": [{**hdca(nested), "map_over_type": "paired"}]}
        runs = {
            "checked": checked,
            "filter failed": filtered,
            "extract": run(
                history,
                "__EXTRACT_DATASET__",
                {
                    "input": hdca(source),
                    "which|which_dataset": "by_identifier",
                    "which|identifier": "s2",
                },
            ),
            "filter empty": run(history, "__FILTER_EMPTY_DATASETS__", {"input": hdca(source)}),
            "relabel": run(
                history,
                "__RELABEL_FROM_FILE__",
                {"input": hdca(source), "how|how_select": "txt", "how|labels": hda(labels)},
            ),
            "zip": run(
                history,
                "__ZIP_COLLECTION__",
                {"input_forward": mapped_over(source), "input_reverse": mapped_over(other)},
            ),
            "unzip": run(history, "__UNZIP_COLLECTION__", {"input": pairs}),
            "flatten": run(history, "__FLATTEN__", {"input": hdca(nested)}),
            "sort": run(history, "__SORTLIST__", {"input": hdca(source)}),
            "build": run(
                history,
                "__BUILD_LIST__",
                {"datasets_0|input": hda(single), "datasets_1|input": hda(labels)},
            ),
        }
        summary = lab.record()
        assert summary.failed == {}
        yield World(lab=lab, source=source, labels=labels, single=single, runs=runs)


def test_recording_again_into_the_same_catalog_changes_nothing(world: World) -> None:
    before = world.lab.index.digest()
    head = world.lab.stores.catalog.head()
    # Another scope has a cursor of its own: every job is looked at again.
    summary = world.lab.record(history_id=world.lab.history)
    assert summary.failed == {}
    assert (summary.recorded, summary.unchanged) == (0, summary.seen)
    assert world.lab.index.digest() == before
    assert world.lab.stores.catalog.head() == head


def test_recording_into_another_catalog_gives_the_same_graph(
    world: World, new_catalog: NewCatalog, tmp_path: Path
) -> None:
    with lab_of(world.lab.user, world.lab.url, new_catalog, tmp_path, history=None) as again:
        again.record()
        assert again.graph() == world.lab.graph()


def test_nothing_is_its_own_ancestor(world: World) -> None:
    for sample in world.lab.stores.catalog.find("DataSample"):
        vid = sample.object.vid
        assert vid not in world.lab.upstream(vid)
        assert not world.lab.upstream(vid) & world.lab.downstream(vid)


def test_an_extracted_dataset_is_the_element_itself_and_comes_from_no_list(world: World) -> None:
    lab, run = world.lab, world.runs["extract"]
    element = lab.vid(lab.user.elements(world.source)["s2"])
    assert lab.vid(run.outputs["output"]) == element
    action = lab.action(run.job_ids[0])
    assert ports(action, "inputs") == [("input", lab.collection(world.source).vid)]
    assert ports(action, "outputs") == []
    assert ports(action, "without_edge") == [("output", element)]
    assert lab.upstream(element) == set()


@pytest.mark.parametrize(
    ("tool", "left"), [("filter failed", ["s1", "s3"]), ("filter empty", ["s1", "s2"])]
)
def test_what_was_filtered_out_is_not_upstream(world: World, tool: str, left: list[str]) -> None:
    lab, run = world.lab, world.runs[tool]
    given = world.runs["checked"].collections["output"] if "failed" in tool else world.source
    elements = {name: lab.vid(hda_id) for name, hda_id in lab.user.elements(given).items()}
    made = lab.collection(run.collections["output"])
    assert [item.role for item in made.items] == left
    above = lab.upstream(made.vid)
    assert {elements[name] for name in left} <= above
    for name in set(elements) - set(left):
        assert elements[name] not in above
    assert lab.collection(given).vid not in above


def test_a_relabelled_list_has_new_identifiers_and_the_same_data(world: World) -> None:
    lab, run = world.lab, world.runs["relabel"]
    made = lab.collection(run.collections["output"])
    assert [item.role for item in made.items] == ["n1", "n2", "n3"]
    elements = {lab.vid(hda_id) for hda_id in lab.user.elements(world.source).values()}
    assert lab.upstream(made.vid) == elements


def test_zipped_flattened_and_built_collections_hang_on_their_elements(world: World) -> None:
    lab = world.lab
    for tool in ("zip", "flatten", "build"):
        made = lab.collection(world.runs[tool].collections["output"])
        leaves = {item.object for item in made.items}
        assert leaves <= lab.upstream(made.vid)
        assert lab.action(world.runs[tool].job_ids[0]).outputs == ()


def test_a_sorted_list_that_was_sorted_already_is_the_same_list(world: World) -> None:
    lab = world.lab
    made = lab.collection(world.runs["sort"].collections["output"])
    assert made.vid == lab.collection(world.source).vid
    action = lab.action(world.runs["sort"].job_ids[0])
    assert ports(action, "without_edge") == [("output", made.vid)]


def test_unzipping_takes_a_pair_and_makes_no_new_data(world: World) -> None:
    lab = world.lab
    action = lab.action(world.runs["unzip"].job_ids[0])
    [(role, pair)] = ports(action, "inputs")
    assert role == "input"
    assert lab.stores.catalog.get([pair])[pair].object.kind == "DataCollection"
    assert action.outputs == ()
    roles = [role for role, _ in ports(action, "without_edge") if role in ("forward", "reverse")]
    assert sorted(set(roles)) == ["forward", "reverse"]
