"""What may be kept of old runs, and which items a run of a campaign has to see to."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biobank_core.errors import InputError
from biobank_core.galaxy.reanalysis.prepare import prepare
from biobank_core.galaxy.reanalysis.rounds import begun_anew, due_items
from biobank_core.galaxy.reanalysis.workflow import as_workflow
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import CampaignItem, ItemState
from tests.unit.test_campaign_workflow import FORMAT2, SHED, toolbox, workflow

CAREFUL = {"prefix": "v", "mode": {"kind": "careful", "depth": 3}, "flag": True}


def test_a_step_s_parameter_is_kept_under_its_own_name_or_another() -> None:
    done = prepare(
        workflow(CAREFUL),
        toolbox=toolbox(),
        keeps=["typing.mode|depth", "typing.prefix=label", "v1.5 count.n=typer.depth"],
    )
    assert [(one.target, one.index, one.path, one.old, one.tool) for one in done.kept] == [
        ("typing.mode|depth", 1, "mode|depth", "mode|depth", SHED),
        ("typing.prefix", 1, "prefix", "label", None),
        ("v1.5 count.n", 2, "n", "typer.depth", None),
    ]
    # The value is checked against what the installed tool allows.
    with pytest.raises(InputError, match="is between"):
        done.kept[0].parameter.check(10)


def test_a_parameter_of_the_workflow_itself_is_kept_and_needs_no_other_value() -> None:
    import yaml

    given_one = as_workflow(yaml.safe_load(FORMAT2), source="test")
    done = prepare(given_one, toolbox=toolbox(), keeps=["word=prefix"])
    assert [(one.target, one.path, one.old) for one in done.kept] == [("word", None, "prefix")]
    assert not done.parameters


@pytest.mark.parametrize(
    ("keep", "told"),
    [
        ("typing.prefx", "typer 10.0 has no parameter 'prefx'; it has genome, prefix"),
        ("typing.genome", "'genome' of step 'typing' comes from another step"),
        ("typing.mode|kind", "'mode|kind' decides which other parameters step 'typing' has"),
        ("typng.prefix", "write STEP.PARAM or INPUT; the workflow has 'typing', 'v1.5 count'"),
        ("genomes.x", "write STEP.PARAM or INPUT"),
    ],
)
def test_what_can_not_be_kept_is_refused_with_the_reason(keep: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        prepare(workflow(CAREFUL), toolbox=toolbox(), keeps=[keep])
    assert f"--keep {keep}: " in str(caught.value)
    assert told in str(caught.value)


def test_one_parameter_is_set_or_kept_and_kept_once() -> None:
    with pytest.raises(InputError) as caught:
        prepare(
            workflow(CAREFUL),
            toolbox=toolbox(),
            settings=["typing.prefix=x"],
            keeps=["typing.prefix", "typing.prefix=other"],
        )
    assert "it is set with --set, for all samples" in str(caught.value)
    assert "'typing.prefix' is kept twice" in str(caught.value)


def item(state: ItemState, *, round: int = 0, history: str | None = None) -> CampaignItem:
    return CampaignItem(
        vid=new_vid(),
        campaign=new_vid(),
        sample=new_vid(),
        sample_label="T1",
        reason="why",
        state=state,
        round=round,
        history_id=history,
        invocation_id=history,
        error="e" if state is ItemState.FAILED else None,
    )


def test_failed_items_are_due_once_in_a_round_and_what_is_under_way_goes_first() -> None:
    failed, done = item(ItemState.FAILED, history="h"), item(ItemState.OK)
    running, planned = item(ItemState.RUNNING, history="r"), item(ItemState.PLANNED)
    everything = [planned, failed, done, running]
    assert due_items(everything, round=0) == [running, planned]
    assert due_items(everything, round=1) == [running, planned, failed]
    again = msgspec.structs.replace(failed, round=1)
    assert due_items([again], round=1) == []
    assert due_items([again], round=2) == [again]


def test_a_failed_item_begins_anew_as_planned_and_its_try_is_kept() -> None:
    failed = item(ItemState.FAILED, round=2, history="h")
    anew = begun_anew(failed)
    assert (anew.state, anew.history_id, anew.invocation_id, anew.error, anew.new) == (
        ItemState.PLANNED, None, None, None, (),
    )  # fmt: skip
    (attempt,) = anew.attempts
    assert (attempt.round, attempt.history_id, attempt.error) == (2, "h", "e")
    assert (anew.sample, anew.planned, anew.old) == (failed.sample, failed.planned, failed.old)


@given(st.lists(st.sampled_from(ItemState), max_size=8), st.integers(0, 4))
def test_however_often_a_round_is_broken_off_nothing_fails_twice_in_it(
    states: list[ItemState], broken_off: int
) -> None:
    items = {one.vid: one for one in map(item, states)}
    tried = dict.fromkeys(items, 0)
    for time in range(broken_off + 1):
        due = due_items(items.values(), round=1)
        # Each run sees to the first and is then killed; the last one sees to all.
        for one in due if time == broken_off else due[:1]:
            begun = begun_anew(one) if one.state is ItemState.FAILED else one
            tried[one.vid] += 1
            items[one.vid] = msgspec.structs.replace(begun, state=ItemState.FAILED, round=1)
    assert set(tried.values()) <= {0, 1}
    assert due_items(items.values(), round=1) == []
