"""Pairing new results with old ones, and a campaign's own entries in a real catalog."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biobank_core.catalog.port import Catalog, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.errors import ConflictError, StorageError
from biobank_core.galaxy.reanalysis.book import Book, TakenOverError, only_run
from biobank_core.galaxy.reanalysis.campaigns import (
    LoadedCampaign,
    PlannedCriteria,
    PlannedWorkflow,
    SampleInput,
    as_json,
    campaign_vid,
    item_of,
    item_vid,
    load_campaign,
)
from biobank_core.galaxy.reanalysis.outputs import NewOutput
from biobank_core.galaxy.reanalysis.plan import Plan, save_plan
from biobank_core.galaxy.reanalysis.results import Result, pair_results, supersession
from biobank_core.model.ids import derived_vid, new_vid
from biobank_core.model.kinds import (
    Campaign,
    CampaignItem,
    CampaignState,
    ItemState,
    Study,
    Tube,
)


def result(name: str, tool: str = "typer", role: str = "table", **more: object) -> Result:
    made = Result(vid=derived_vid("DataSample", name), label=name, tool=tool, role=role)
    for field, value in more.items():
        object.__setattr__(made, field, value)
    return made


def by(tool: str = "typer", output: str = "table", step: str | None = None) -> NewOutput:
    return NewOutput(step=step or "a step", tool=tool, output=output, step_label=step)


def names(pairs: object) -> list[tuple[str, str]]:
    return [(old.label, new.label) for old, new in pairs]  # type: ignore[attr-defined]


def test_results_pair_as_planned() -> None:
    a, b, c = result("a"), result("b", role="log"), result("c", tool="other")
    pairing = pair_results(
        [a, b, c],
        [result("z", tool="new", role="c"), result("y", role="log"), result("x"), result("w")],
        {b.vid: by(output="log"), c.vid: by(tool="new", output="c")},
    )
    assert names(pairing.pairs) == [("b", "y"), ("c", "z")]
    assert [one.label for one in pairing.old_alone] == ["a"]
    assert {one.label for one in pairing.new_alone} == {"w", "x"}


def test_a_tool_that_runs_twice_is_told_apart_by_its_step() -> None:
    a, b = result("a", step="first"), result("b", step="second")
    pairing = pair_results(
        [a, b],
        [result("y", step="two"), result("x", step="one")],
        {a.vid: by(step="one"), b.vid: by(step="two")},
    )
    assert names(pairing.pairs) == [("a", "x"), ("b", "y")]


def test_what_fits_several_is_left_alone_not_guessed() -> None:
    a, b = result("a"), result("b")
    pairing = pair_results([a, b], [result("x"), result("y")], dict.fromkeys((a.vid, b.vid), by()))
    assert not pairing.pairs
    assert len(pairing.old_alone) == len(pairing.new_alone) == 2


def test_elements_of_a_list_pair_by_identifier_then_by_label() -> None:
    old = [result(f"old {one}", role=f"table|{one}") for one in "abc"]
    new = [result(f"new {one}", role=f"sheet|{one}") for one in "cbd"]
    expected = dict.fromkeys((one.vid for one in old), by(output="sheet"))
    pairing = pair_results(old, new, expected)
    assert names(pairing.pairs) == [("old b", "new b"), ("old c", "new c")]
    assert [one.label for one in pairing.old_alone] == ["old a"]


def test_two_old_results_may_be_replaced_by_one() -> None:
    a, b = result("a"), result("b", role="log")
    pairing = pair_results([a, b], [result("x")], {a.vid: by(), b.vid: by()})
    assert names(pairing.pairs) == [("a", "x"), ("b", "x")]
    assert not pairing.new_alone


def test_the_same_data_pair_and_supersede_nothing() -> None:
    campaign = new_vid()
    (pair,) = pair_results([result("a")], [result("a"), result("x")], {}).pairs
    assert pair[0].vid == pair[1].vid
    assert supersession(pair, campaign=campaign) is None
    cached = (result("a"), result("x", cached=True))
    assert supersession(cached, campaign=campaign) is None


def test_linking_twice_is_linking_once() -> None:
    pair = (result("a"), result("x"))
    first, second = (supersession(pair, campaign=new_vid()) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.vid == second.vid


_results = st.lists(
    st.builds(
        result,
        st.text("abcd", min_size=1, max_size=3),
        st.sampled_from(["t", "u"]),
        st.sampled_from(["x", "y"]),
        step=st.sampled_from([None, "1", "2"]),
    ),
    unique_by=lambda one: one.vid,
    max_size=6,
)


@given(_results, _results)
def test_each_result_is_in_one_pair_or_alone(old: list[Result], new: list[Result]) -> None:
    # Planned as where nothing is said: the same tool, output and step.
    expected = {one.vid: by(one.tool, one.role, one.step) for one in old}
    pairing = pair_results(old, new, expected)
    assert len(pairing.pairs) + len(pairing.old_alone) == len(old)
    assert {one.vid for _, one in pairing.pairs} | {one.vid for one in pairing.new_alone} == {
        one.vid for one in new
    }
    for was, now in pairing.pairs:
        assert was.vid == now.vid or (was.tool, was.role) == (now.tool, now.role)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with open_catalog(f"sqlite:///{tmp_path}/c.db", create=True) as opened:
        yield opened


@pytest.fixture
def plan(catalog: Catalog) -> Plan:
    study, tubes = Study(vid=new_vid(), label="KPN"), []
    for number in range(3):
        tubes.append(Tube(vid=new_vid(), label=f"T{number}", study=study.vid))
    catalog.commit([Save(object=obj) for obj in (study, *tubes)], by="test")
    vid = campaign_vid(study.vid, "c")
    campaign = Campaign(
        vid=vid,
        label="c",
        study=study.vid,
        created=datetime.now(UTC),
        criteria=as_json(PlannedCriteria(asked={})),
        workflow=as_json(
            PlannedWorkflow(
                name="w",
                source="f",
                document={},
                tools=(),
                sample_input=SampleInput(index=0, label="in", collection_type=None),
            )
        ),
        galaxy_server="g",
    )
    items = tuple(
        CampaignItem(
            vid=item_vid(vid, tube.vid),
            campaign=vid,
            sample=tube.vid,
            sample_label=tube.label,
            reason="why",
        )
        for tube in tubes
    )
    return Plan(campaign, items, (), ())


def test_a_plan_is_saved_whole_and_its_name_is_taken_then(catalog: Catalog, plan: Plan) -> None:
    save_plan(plan, catalog=catalog, by="test")
    for address in ("c", "KPN:c", plan.campaign.vid):
        loaded = load_campaign(catalog, address)
        assert [item_of(entry).sample_label for entry in loaded.items] == ["T0", "T1", "T2"]
    with pytest.raises(ConflictError, match="choose another name"):
        save_plan(plan, catalog=catalog, by="test")


def loaded(catalog: Catalog, plan: Plan) -> LoadedCampaign:
    return load_campaign(catalog, plan.campaign.vid)


def test_whoever_takes_the_campaign_over_first_has_it(catalog: Catalog, plan: Plan) -> None:
    save_plan(plan, catalog=catalog, by="test")
    one, other = (Book(catalog, loaded(catalog, plan), by="test") for _ in range(2))
    one.take_over(round=0)
    with pytest.raises(TakenOverError, match="another run of the campaign 'c' is at work"):
        other.take_over(round=0)
    one.check_mine()
    later = Book(catalog, loaded(catalog, plan), by="test")
    later.take_over(round=0)
    with pytest.raises(TakenOverError):
        one.check_mine()
    assert loaded(catalog, plan).campaign.state is CampaignState.RUNNING


def test_an_item_that_another_run_saved_is_not_saved_over(catalog: Catalog, plan: Plan) -> None:
    save_plan(plan, catalog=catalog, by="test")
    one, other = (Book(catalog, loaded(catalog, plan), by="test") for _ in range(2))
    claimed = msgspec.structs.replace(plan.items[0], state=ItemState.SUBMITTING)
    one.save(claimed)
    with pytest.raises(TakenOverError):
        other.save(claimed)
    one.check_unchanged(claimed)
    one.save(msgspec.structs.replace(claimed, state=ItemState.RUNNING))


_HOLDER = """
import sys, time
from types import SimpleNamespace
from biobank_core.galaxy.reanalysis.book import only_run
with only_run(SimpleNamespace(vid=sys.argv[1], label="c")):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_on_this_machine_is_refused_until_the_first_is_gone_even_if_killed(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, plan.campaign.vid],
        stdout=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2])),
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(TakenOverError), only_run(plan.campaign):
        pass
    holder.kill()
    holder.communicate()
    with only_run(plan.campaign):
        pass


def test_a_campaign_of_unknown_making_is_refused_not_guessed(catalog: Catalog, plan: Plan) -> None:
    strange = msgspec.structs.replace(plan.campaign, workflow={"x": 1})
    catalog.commit([Save(object=strange)], by="test")
    with pytest.raises(StorageError, match="was not made by `biobank reanalyse plan`"):
        load_campaign(catalog, "c")
