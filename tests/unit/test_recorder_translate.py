"""From a job's record to an action: edges, copies, collections, flags."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biobank_core.errors import InputError
from biobank_core.galaxy import identity
from biobank_core.galaxy.records import (
    CollectionEnd,
    CollectionRecord,
    DatasetEnd,
    ElementRecord,
    JobRecord,
    VersionSource,
)
from biobank_core.galaxy.rules import ToolRule
from biobank_core.galaxy.shapes import Shape, shape_of
from biobank_core.galaxy.translate import translate, without_cycle
from biobank_core.model.kinds import ActionCategory, ActionStatus, Port

SERVER = "galaxy"
STUDY = "V0" + "0" * 32
NOW = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
U = [str(uuid.UUID(int=number)) for number in range(10)]
V = [identity.data_sample_vid(text) for text in U]


def end(role: str, number: int) -> DatasetEnd:
    return DatasetEnd(role=role, uuid=U[number], id=f"hda{number}")


def job(**fields: object) -> JobRecord:
    given_fields = {
        "id": "job1",
        "tool_id": "tool",
        "state": "ok",
        "create_time": NOW,
        "update_time": NOW + timedelta(seconds=5),
        **fields,
    }
    return JobRecord(**given_fields)  # type: ignore[arg-type]


def listing(*numbers: int, names: str = "abcdefghij", kind: str = "list") -> Shape:
    record = CollectionRecord(
        collection_type=kind,
        elements=tuple(
            ElementRecord(identifier=names[index], dataset_uuid=U[number])
            for index, number in enumerate(numbers)
        ),
    )
    shape = shape_of(record, maker=None, output="")
    assert shape is not None
    return shape


def translated(record: JobRecord, **options: object):  # type: ignore[no-untyped-def]
    settings = {"inputs": {}, "outputs": {}, **options}
    return translate(record, server=SERVER, study=STUDY, **settings).action  # type: ignore[arg-type]


def test_each_input_and_output_keeps_its_role() -> None:
    action = translated(job(inputs=(end("x", 1), end("y", 2)), outputs=(end("o", 3),)))
    assert action.inputs == (Port(role="x", object=V[1]), Port(role="y", object=V[2]))
    assert action.outputs == (Port(role="o", object=V[3]),)
    assert action.flags == ()
    assert (action.begin, action.end) == (NOW, NOW + timedelta(seconds=5))
    assert action.galaxy.times_from == "job"


def test_a_collection_stands_for_its_elements() -> None:
    given_list = listing(1, 2)
    action = translated(
        job(
            inputs=(end("x", 1), end("x", 2), end("y", 1)),
            input_collections=(CollectionEnd(role="x", key="c"),),
            outputs=(end("o", 3),),
        ),
        inputs={"c": given_list},
    )
    assert action.inputs == (
        Port(role="x", object=given_list.vid),
        Port(role="y", object=V[1]),
    )


def test_a_collection_with_data_that_did_not_go_in_is_not_believed() -> None:
    action = translated(
        job(
            inputs=(end("x", 1),),
            input_collections=(CollectionEnd(role="x", key="c"),),
            outputs=(end("o", 3),),
        ),
        inputs={"c": listing(1, 2)},
    )
    assert action.inputs == (Port(role="x", object=V[1]),)


def test_an_output_that_is_an_input_makes_no_edge() -> None:
    action = translated(job(inputs=(end("x", 1), end("x", 2)), outputs=(end("o", 1),)))
    assert action.outputs == ()
    assert action.without_edge == (Port(role="o", object=V[1]),)


def test_a_collection_of_copies_only_makes_no_edge() -> None:
    filtered = listing(1)
    action = translated(
        job(
            inputs=(end("x", 1), end("x", 2)),
            input_collections=(CollectionEnd(role="x", key="in"),),
            output_collections=(CollectionEnd(role="o", key="out"),),
        ),
        inputs={"in": listing(1, 2)},
        outputs={"out": filtered},
    )
    assert action.outputs == ()
    assert action.without_edge == (Port(role="o", object=filtered.vid),)


def test_a_collection_of_new_data_hangs_on_its_elements_only() -> None:
    action = translated(
        job(
            inputs=(end("x", 1),),
            outputs=(end("o|a", 3), end("o|b", 4)),
            output_collections=(CollectionEnd(role="o", key="out"),),
        ),
        outputs={"out": listing(3, 4)},
    )
    assert {port.object for port in action.outputs} == {V[3], V[4]}
    assert action.without_edge == ()


def test_an_empty_collection_is_an_output_and_named_by_what_made_it() -> None:
    empty = CollectionRecord(collection_type="list")
    first = shape_of(empty, maker=V[0], output="o")
    other = shape_of(empty, maker=V[1], output="o")
    assert first is not None
    assert other is not None
    assert first.vid != other.vid
    assert shape_of(empty, maker=None, output="o") is None
    action = translated(
        job(inputs=(end("x", 1),), output_collections=(CollectionEnd(role="o", key="out"),)),
        outputs={"out": first},
    )
    assert action.outputs == (Port(role="o", object=first.vid),)


def test_a_cached_job_makes_no_edge() -> None:
    action = translated(job(inputs=(end("x", 1),), outputs=(end("o", 2),), cached_from="job0"))
    assert action.outputs == ()
    assert action.without_edge == (Port(role="o", object=V[2]),)
    assert action.galaxy.cached_from == "job0"


def test_an_end_without_identity_is_left_out_and_flagged() -> None:
    action = translated(job(inputs=(DatasetEnd(role="x", uuid=None),), outputs=(end("o", 2),)))
    assert action.inputs == ()
    assert action.flags == ("partial",)


def test_an_empty_collection_that_nobody_knows_is_flagged() -> None:
    action = translated(job(input_collections=(CollectionEnd(role="x", key="?"),)))
    assert action.flags == ("partial",)


def test_a_cycle_is_taken_out_and_flagged() -> None:
    action = translated(job(inputs=(end("x", 1),), outputs=(end("o", 2), end("p", 3))))
    cut = without_cycle(action, [V[2]])
    assert cut.outputs == (Port(role="p", object=V[3]),)
    assert cut.without_edge == (Port(role="o", object=V[2]),)
    assert cut.flags == ("cycle",)


def test_metrics_give_the_times_where_they_are_known() -> None:
    begin = NOW + timedelta(seconds=1)
    action = translated(job(begin=begin, end=begin))
    assert (action.begin, action.end, action.galaxy.times_from) == (begin, begin, "metrics")


@pytest.mark.parametrize("state", [status.value for status in ActionStatus])
def test_final_states_are_statuses(state: str) -> None:
    assert translated(job(state=state)).status.value == state


def test_another_state_is_refused() -> None:
    with pytest.raises(InputError, match="running"):
        translated(job(state="running"))


def test_rules_say_the_category_and_uploads_are_imports() -> None:
    assert translated(job(tool_id="upload1")).category is ActionCategory.IMPORT
    assert translated(job()).category is ActionCategory.PROCESSING
    rule = ToolRule(tool="tool", category=ActionCategory.MEASUREMENT)
    assert translated(job(), rule=rule).category is ActionCategory.MEASUREMENT


def test_the_device_is_the_tool_without_its_version() -> None:
    shed = "toolshed.g2.bx.psu.edu/repos/iuc/kleborate/kleborate/2.2.0+galaxy1"
    record = job(
        tool_id=shed, tool_version="2.2.0+galaxy1", tool_version_source=VersionSource.TOOL_SHED_ID
    )
    done = translate(record, server=SERVER, study=STUDY, inputs={}, outputs={})
    assert done.device.label == shed.rpartition("/")[0]
    assert done.device.release == "2.2.0+galaxy1"
    assert done.action.galaxy is not None
    assert done.action.galaxy.tool_version_source == "tool_shed_id"


def test_twins_are_told_apart_by_their_least_output() -> None:
    one = job(outputs=(end("o", 3), end("p", 2)))
    other = job(id="job2", outputs=(end("o", 4),))
    assert translated(one).vid == translated(other).vid
    first, second = translated(one, ambiguous=True), translated(other, ambiguous=True)
    assert first.vid != second.vid
    assert first.flags == ("ambiguous-identity",)


# Jobs over a handful of datasets, with copies among the outputs.
_numbers = st.lists(st.integers(0, 9), max_size=5)


@given(inputs=_numbers, outputs=_numbers)
def test_no_action_ever_makes_what_it_was_given(inputs: list[int], outputs: list[int]) -> None:
    record = job(
        inputs=tuple(end("x", number) for number in inputs),
        outputs=tuple(end("o", number) for number in outputs),
    )
    action = translated(record)
    assert not {p.object for p in action.inputs} & {p.object for p in action.outputs}
    everything = {p.object for p in (*action.outputs, *action.without_edge)}
    assert everything == {V[number] for number in outputs}


@given(
    st.lists(st.tuples(st.text(max_size=5), st.integers(0, 9)), min_size=1, max_size=6),
    st.text(max_size=4),
)
def test_a_copy_of_a_collection_is_the_same_and_another_order_is_not(
    elements: list[tuple[str, int]], kind: str
) -> None:
    def shape(items: list[tuple[str, int]]) -> str:
        record = CollectionRecord(
            collection_type=kind,
            elements=tuple(
                ElementRecord(identifier=name, dataset_uuid=U[number]) for name, number in items
            ),
        )
        made = shape_of(record, maker=None, output="")
        assert made is not None
        return made.vid

    assert shape(elements) == shape(list(elements))
    turned = elements[::-1]
    assert (shape(turned) == shape(elements)) == (turned == elements)


def test_collections_inside_have_their_own_shapes_innermost_first() -> None:
    pair = CollectionRecord(
        collection_type="paired",
        elements=(
            ElementRecord(identifier="forward", dataset_uuid=U[1]),
            ElementRecord(identifier="reverse", dataset_uuid=U[2]),
        ),
    )
    outer = CollectionRecord(
        collection_type="list:paired",
        elements=(ElementRecord(identifier="s1", collection=pair),),
    )
    shape = shape_of(outer, maker=None, output="")
    assert shape is not None
    assert [identifier for identifier, _ in shape.with_inner()] == ["s1", None]
    assert shape.leaves == {V[1]: ("s1", "forward"), V[2]: ("s1", "reverse")}
