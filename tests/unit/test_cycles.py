"""The check for cycles against an obviously right one: walk all edges that the unit leaves."""

from __future__ import annotations

import graphlib
from collections.abc import Collection, Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biobank_core.catalog.checks import State, prepare
from biobank_core.catalog.cycles import lineage_edges, refuse_cycle, refuse_cycles
from biobank_core.catalog.port import Referrer, Save
from biobank_core.errors import CycleError
from biobank_core.model.ids import derived_vid
from biobank_core.model.kinds import Action, ActionCategory, ActionStatus, Port

DATA = 6


def vid(*parts: object) -> str:
    return derived_vid("Test", *map(str, parts))


def action(number: int, inputs: Collection[int], outputs: Collection[int]) -> Action:
    return Action(
        vid=vid("action", number),
        category=ActionCategory.PROCESSING,
        study=vid("study"),
        status=ActionStatus.OK,
        begin=datetime(2026, 1, 1, tzinfo=UTC),
        inputs=tuple(Port(role="in", object=vid("data", n)) for n in inputs),
        outputs=tuple(Port(role="out", object=vid("data", n)) for n in set(outputs) - set(inputs)),
    )


class Standing:
    """A catalog of these actions, and the questions that the check asks of it."""

    def __init__(self, actions: Collection[Action]) -> None:
        self.references = [
            Referrer(each.vid, "Action", field, port.object)
            for each in actions
            for field in ("inputs", "outputs")
            for port in getattr(each, field)
        ]

    def states(self, vids: Collection[str]) -> dict[str, State]:
        raise NotImplementedError

    def owners(self, keys: Collection[str]) -> dict[str, str]:
        raise NotImplementedError

    def referrers(self, vids: Collection[str], fields: Collection[str] = ()) -> Iterator[Referrer]:
        return (r for r in self.references if r.target in vids and r.field in fields)

    def targets(self, vids: Collection[str], fields: Collection[str]) -> Iterator[Referrer]:
        return (r for r in self.references if r.vid in vids and r.field in fields)


def cyclic(actions: Collection[Action]) -> bool:
    graph: dict[str, set[str]] = {}
    for each in actions:
        for source, target in lineage_edges(each):
            graph.setdefault(target, set()).add(source)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError:
        return True
    return False


numbers = st.sets(st.integers(0, DATA - 1), max_size=2)
actions = st.builds(action, st.integers(0, 5), numbers, numbers)


@settings(max_examples=1_000, deadline=None)
@given(st.lists(actions, max_size=6), st.lists(actions, min_size=1, max_size=4), st.booleans())
def test_a_unit_is_refused_just_when_it_closes_a_cycle(drawn, unit, data_is_new):
    standing: dict[str, Action] = {}
    for each in drawn:
        if not cyclic([*(standing | {each.vid: each}).values()]):
            standing[each.vid] = each
    saved = {each.vid: each for each in unit}
    # New data is named by nothing that stands.
    used = {port.object for each in standing.values() for port in (*each.inputs, *each.outputs)}
    known = used if data_is_new else {vid("data", n) for n in range(DATA)}
    before = {name: State("DataSample", 1, False) for name in known}
    before |= {name: State("Action", 1, False) for name in standing}
    prepared = prepare([Save(object=each, based_on=0) for each in saved.values()])
    wrong = cyclic([*(standing | saved).values()])
    try:
        refuse_cycles(prepared, before, Standing(standing.values()))
    except CycleError:
        assert wrong
    else:
        assert not wrong


def test_the_cycle_is_named_and_a_ladder_without_one_is_not_refused():
    ladder = {(f"{n}", f"{n + step}") for n in range(50) for step in (1, 2)}
    refuse_cycle(ladder)
    with pytest.raises(CycleError, match="3"):
        refuse_cycle({*ladder, ("7", "3")})
    with pytest.raises(CycleError):
        refuse_cycle({("a", "a")})
