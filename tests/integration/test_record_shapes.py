"""What goes into jobs and comes out, recorded from a real Galaxy and asked back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from biobank_core.model.kinds import ActionCategory, ActionStatus
from tests.integration.galaxy_cases import Lab, lab_of, ports
from tests.integration.omero_settings import NewCatalog
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_user import GalaxyUser, hda, hdca, mapped_over

pytestmark = pytest.mark.galaxy


@pytest.fixture
def lab(
    galaxy: GalaxyServer, galaxy_user: GalaxyUser, new_catalog: NewCatalog, tmp_path: Path
) -> Iterator[Lab]:
    with lab_of(galaxy_user, galaxy.url, new_catalog, tmp_path) as opened:
        yield opened


def test_a_job_keeps_all_its_inputs_and_outputs_with_their_roles(lab: Lab) -> None:
    first = lab.user.upload(lab.history, "one\n", name="first")
    second = lab.user.upload(lab.history, "two\n", name="second")
    run = lab.user.run(lab.history, "two_to_two", {"first": hda(first), "second": hda(second)})
    digest = lab.user.wait_for_hash(run.outputs["joined"])
    summary = lab.record()
    assert (summary.seen, summary.recorded, summary.failed) == (3, 3, {})
    action = lab.action(run.job_ids[0])
    assert ports(action, "inputs") == [("first", lab.vid(first)), ("second", lab.vid(second))]
    assert ports(action, "outputs") == [
        ("joined", lab.vid(run.outputs["joined"])),
        ("reversed", lab.vid(run.outputs["reversed"])),
    ]
    assert action.category is ActionCategory.PROCESSING
    assert action.status is ActionStatus.OK
    assert lab.device(action).label == "two_to_two"
    assert lab.device(action).release == "1.0.0"
    assert action.operator == lab.user.email
    assert action.galaxy
    assert action.galaxy.history_id == lab.history
    joined = lab.sample(run.outputs["joined"])
    assert (joined.label, joined.galaxy and joined.galaxy.extension) == ("joined", "txt")
    assert lab.file(run.outputs["joined"]).size_bytes == len("one\ntwo\n")
    assert lab.file(run.outputs["joined"]).sha256 == digest


def test_uploads_are_imports_without_inputs(lab: Lab) -> None:
    data = lab.user.upload(lab.history, "one\n")
    lab.user.upload_collection(lab.history, {"a": "1\n", "b": "2\n"})
    lab.record()
    uploads = lab.actions()
    assert {action.category for action in uploads} == {ActionCategory.IMPORT}
    assert all(not action.inputs for action in uploads)
    assert lab.upstream(lab.vid(data)) == set()


def test_a_list_given_to_one_job_is_one_input(lab: Lab) -> None:
    lists = lab.user.upload_collection(lab.history, {"a": "x\n", "b": "y\n"})
    run = lab.user.run(lab.history, "list_to_list", {"input": hdca(lists)})
    lab.record()
    action = lab.action(run.job_ids[0])
    given = lab.collection(lists)
    assert ports(action, "inputs") == [("input", given.vid)]
    assert [item.role for item in given.items] == ["a", "b"]
    made = lab.collection(run.collections["output"])
    assert {port.object for port in action.outputs} == {item.object for item in made.items}
    assert given.vid in lab.upstream(made.vid)


def test_a_reduction_of_a_list_has_the_list_as_its_one_input(lab: Lab) -> None:
    lists = lab.user.upload_collection(lab.history, {"a": "x\n", "b": "y\n", "c": "z\n"})
    run = lab.user.run(lab.history, "reduce_many", {"inputs": hdca(lists)})
    lab.record()
    given = lab.collection(lists)
    assert ports(lab.action(run.job_ids[0]), "inputs") == [("inputs", given.vid)]
    made = lab.vid(run.outputs["output"])
    assert {item.object for item in given.items} | {given.vid} == lab.upstream(made)


def test_a_reduction_of_single_datasets_has_each_as_an_input_once(lab: Lab) -> None:
    parts = [lab.user.upload(lab.history, f"{n}\n") for n in range(3)]
    values = {"values": [hda(part) for part in parts]}
    run = lab.user.run(lab.history, "reduce_many", {"inputs": values})
    lab.record()
    assert ports(lab.action(run.job_ids[0]), "inputs") == sorted(
        ("inputs", lab.vid(part)) for part in parts
    )


def test_paired_and_nested_collections_keep_their_structure(lab: Lab) -> None:
    nested = lab.user.upload_collection(
        lab.history,
        {s: {"forward": f"{s} f\n", "reverse": f"{s} r\n"} for s in ("s1", "s2")},
        collection_type="list:paired",
    )
    whole = lab.user.run(lab.history, "nested_input", {"pairs": hdca(nested)})
    over = {"batch": True, "values": [{**hdca(nested), "map_over_type": "paired"}]}
    each = lab.user.run(lab.history, "paired_input", {"pair": over})
    lab.record()
    outer = lab.collection(nested)
    assert outer.galaxy
    assert outer.galaxy.collection_type == "list:paired"
    assert [item.role for item in outer.items] == ["s1", "s2"]
    pairs = [item.object for item in outer.items]
    inner = lab.stores.catalog.get(pairs)[pairs[0]].object
    assert [item.role for item in inner.items] == ["forward", "reverse"]  # type: ignore[attr-defined]
    assert ports(lab.action(whole.job_ids[0]), "inputs") == [("pairs", outer.vid)]
    # Mapped over the pairs: each job's input is its own pair.
    given = [ports(lab.action(job), "inputs") for job in each.job_ids]
    assert sorted(given) == sorted([("pair", pair)] for pair in pairs)


def test_siblings_of_a_mapped_over_job_are_not_each_others_descendants(lab: Lab) -> None:
    lists = lab.user.upload_collection(lab.history, {"a": "x\n", "b": "y\n"})
    run = lab.user.run(lab.history, "one_to_one", {"input": mapped_over(lists)})
    after = lab.user.run(
        lab.history, "one_to_one", {"input": mapped_over(run.collections["output"])}
    )
    lab.record()
    sources = lab.user.elements(lists)
    first = lab.user.elements(run.collections["output"])
    last = lab.user.elements(after.collections["output"])
    for name, other in (("a", "b"), ("b", "a")):
        chain = {lab.vid(sources[name]), lab.vid(first[name])}
        assert lab.upstream(lab.vid(last[name])) == chain
        below = lab.downstream(lab.vid(sources[name]))
        assert lab.vid(last[other]) not in below
        assert lab.vid(first[other]) not in below
    made = lab.collection(run.collections["output"])
    assert {item.object for item in made.items} == {lab.vid(hda_id) for hda_id in first.values()}
    assert made.vid not in {port.object for action in lab.actions() for port in action.outputs}


def test_a_mapped_over_tool_with_pairs_as_output_gives_a_nested_collection(lab: Lab) -> None:
    lists = lab.user.upload_collection(lab.history, {"a": "1\n2\n", "b": "3\n4\n"})
    run = lab.user.run(lab.history, "make_pair", {"input": mapped_over(lists)})
    lab.record()
    outer = lab.collection(run.collections["pair"])
    assert outer.galaxy
    assert outer.galaxy.collection_type == "list:paired"
    sources = lab.user.elements(lists)
    made = lab.user.elements(run.collections["pair"])
    assert lab.upstream(lab.vid(made["a"]["forward"])) == {lab.vid(sources["a"])}


def test_outputs_found_at_run_time_are_outputs(lab: Lab) -> None:
    data = lab.user.upload(lab.history, "one\ntwo\n")
    run = lab.user.run(lab.history, "discover_datasets", {"input": hda(data)})
    found = lab.user.run(lab.history, "discover_list", {"input": hda(data)})
    lab.record()
    roles = [role for role, _ in ports(lab.action(run.job_ids[0]), "outputs")]
    assert roles == ["report", "report|line_1", "report|line_2"]
    lines = lab.collection(found.collections["lines"])
    assert [item.role for item in lines.items] == ["line_1", "line_2"]
    assert lab.upstream(lines.vid) == {item.object for item in lines.items} | {lab.vid(data)}


def test_an_empty_collection_is_itself_the_output(lab: Lab) -> None:
    lists = lab.user.upload_collection(lab.history, {"nothing": ""})
    empty = lab.user.elements(lists)["nothing"]
    run = lab.user.run(lab.history, "discover_list", {"input": hda(empty)})
    lab.record()
    [(role, vid)] = ports(lab.action(run.job_ids[0]), "outputs")
    assert role == "lines"
    found = lab.stores.catalog.get([vid])[vid].object
    assert found.items == ()  # type: ignore[attr-defined]
    assert lab.vid(empty) in lab.upstream(vid)


def test_an_optional_input_that_is_not_given_is_no_input(lab: Lab) -> None:
    # Galaxy answers 500 to /inputs of such a job.
    run = lab.user.run(lab.history, "optional_input", {})
    summary = lab.record()
    assert summary.failed == {}
    assert lab.action(run.job_ids[0]).inputs == ()
