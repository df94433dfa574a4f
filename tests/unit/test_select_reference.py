"""The selection equals a slow one that is written down rule by rule, over random catalogs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biobank_core.consent import ConsentState, standing
from biobank_core.model.base import Object
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionSetup,
    ActionStatus,
    Collection,
    Consent,
    ConsentStatus,
    DataSample,
    Device,
    Enrollment,
    Individual,
    Supersession,
    Vessel,
    VesselsCollection,
)
from biobank_core.selection import select as select_module
from biobank_core.selection.criteria import Criteria
from biobank_core.selection.loading import load_graph
from biobank_core.selection.releases import matches as in_range
from biobank_core.selection.tools import matches as is_tool
from tests.unit.selection_world import TODAY, TOOL, World


@dataclass
class Slow:
    """Every question is answered by walking all paths anew; nothing is remembered."""

    objects: dict[str, Object]
    criteria: Criteria
    today: date

    def select(self) -> tuple[dict[str, tuple[set[str], set[str]]], dict[str, set[str]]]:
        """By selected sample its results and sources; by left out sample the codes that fit."""
        selected: dict[str, tuple[set[str], set[str]]] = {}
        left_out: dict[str, set[str]] = {}
        matching = [a for a in self.all(Action) if self.matches(a) and self.concerns(a)]
        for action in matching:
            if not self.samples(action):
                result, *_ = self.standing_results(action, None) or self.results(action, None)
                left_out[result] = {self.fate(action, None)}
        for sample in {sample for action in matching for sample in self.samples(action)}:
            mine = [action for action in matching if sample in self.samples(action)]
            live = [a for a in mine if self.fate(a, sample) == "unlinked"]
            refusals = self.refusals(sample, mine)
            if not live:
                left_out[sample] = {self.fate(action, sample) for action in mine}
                if "superseded" in left_out[sample]:
                    left_out[sample] = {"superseded"}
            elif self.is_done(sample, mine, live):
                left_out[sample] = {"already-done"}
            elif refusals:
                left_out[sample] = refusals
            else:
                selected[sample] = (
                    {vid for action in live for vid in self.standing_results(action, sample)},
                    {
                        data
                        for action in live
                        for port in action.inputs
                        for found, data in self.taken(port.object)
                        if found == sample
                    },
                )
        return selected, left_out

    def all(self, kind: type) -> Iterator:
        return (obj for obj in self.objects.values() if isinstance(obj, kind))

    def device(self, action: Action) -> Device | None:
        return self.objects.get(action.device or "")

    def when(self, action: Action):
        return action.end or action.begin

    def matches(self, action: Action) -> bool:
        device, asked = self.device(action), self.criteria
        if asked.tool is not None and not is_tool(device and device.label, asked.tool):
            return False
        if asked.tool is None and (
            device is None
            or action.category in (ActionCategory.IMPORT, ActionCategory.OBJECT_CLONING)
        ):
            return False
        if asked.release is not None and not in_range(device and device.release, asked.release):
            return False
        if asked.since is not None and self.when(action) < asked.since:
            return False
        if asked.until is not None and self.when(action) > asked.until:
            return False
        if self.was_given(action) is False or self.was_set(action) is not True:
            return False
        return action.status is ActionStatus.OK and bool(action.outputs)

    def was_given(self, action: Action) -> bool:
        """Whether it had the reference among its inputs."""
        wanted = self.criteria.reference
        return wanted is None or any(wanted in self.held(port.object) for port in action.inputs)

    def held(self, vid: str) -> set[str]:
        return {vid} | {one for member in self.members(vid) for one in self.held(member)}

    def was_set(self, action: Action) -> bool | None:
        """Whether it had the parameters; None where nothing is known of them."""
        if not self.criteria.params:
            return True
        setup = self.objects.get(action.setup or "")
        if not isinstance(setup, ActionSetup):
            return None
        flat = {}
        for name, value in setup.parameters.items():
            inner = value if isinstance(value, dict) else {"": value}
            flat |= {f"{name}.{key}".rstrip("."): str(one) for key, one in inner.items()}
        return all(flat.get(name) == value for name, value in self.criteria.params)

    def is_other(self, action: Action) -> bool:
        """Whether it is known to be what was not asked for."""
        device = self.device(action)
        assert device is not None
        is_outside = (
            device.release is not None
            and self.criteria.release is not None
            and not in_range(device.release, self.criteria.release)
        )
        return is_outside or not self.was_given(action) or self.was_set(action) is False

    def concerns(self, action: Action) -> bool:
        if action.study == self.criteria.study:
            return True
        made = {port.object for port in action.outputs}
        return any(
            made & self.upstream(port.object)
            for other in self.all(Action)
            if other.study == self.criteria.study
            for port in (*other.inputs, *other.outputs)
        )

    def makers(self, vid: str) -> list[Action]:
        return [a for a in self.all(Action) if vid in {port.object for port in a.outputs}]

    def members(self, vid: str) -> list[str]:
        return [item.object for item in getattr(self.objects[vid], "items", ())]

    def before(self, vid: str) -> list[str]:
        made_of = [port.object for maker in self.makers(vid) for port in maker.inputs]
        return [*self.members(vid), *made_of]

    def upstream(self, vid: str) -> set[str]:
        """The node itself and everything upstream."""
        found = {vid}
        for node in self.before(vid):
            found |= self.upstream(node)
        return found

    def is_data(self, vid: str) -> bool:
        return not isinstance(self.objects[vid], Vessel | Individual | VesselsCollection)

    def material(self, vid: str) -> set[str]:
        if isinstance(self.objects[vid], Vessel | Individual):
            return {vid}
        if isinstance(self.objects[vid], VesselsCollection):
            return {one for member in self.members(vid) for one in self.material(member)}
        return set()

    def taken(self, vid: str) -> set[tuple[str, str]]:
        found = set()
        if self.is_data(vid):
            for maker in self.makers(vid):
                for port in maker.inputs:
                    found |= {(sample, vid) for sample in self.material(port.object)}
            for node in self.before(vid):
                if self.is_data(node):
                    found |= self.taken(node)
        return found

    def samples(self, action: Action) -> set[str]:
        found = set()
        for port in action.inputs:
            found |= self.material(port.object)
        for port in (*action.inputs, *action.outputs):
            found |= {sample for sample, _data in self.taken(port.object)}
        vessels = {vid for vid in found if isinstance(self.objects[vid], Vessel)}
        return vessels or found

    def results(self, action: Action, sample: str | None) -> list[str]:
        found = []
        for port in action.outputs:
            owners = {owner for owner, _data in self.taken(port.object)}
            if sample is None or not owners or sample in owners:
                found.append(port.object)
        return found

    def standing_results(self, action: Action, sample: str | None) -> list[str]:
        old = {one.old for one in self.all(Supersession)}
        return [vid for vid in self.results(action, sample) if vid not in old]

    def fate(self, action: Action, sample: str | None) -> str:
        if self.standing_results(action, sample):
            return "unlinked"
        return "superseded" if self.results(action, sample) else "deleted"

    def is_done(self, sample: str, matching: list[Action], live: list[Action]) -> bool:
        old = {one.old for one in self.all(Supersession)}
        for action in self.all(Action):
            device = self.device(action)
            if (
                action.status is ActionStatus.OK
                and device is not None
                and self.is_other(action)
                and self.is_same_tool(device, live)
                and sample in self.samples(action)
                and self.is_near(action)
                and self.when(action) >= min(map(self.when, matching))
                and not (action.outputs and {port.object for port in action.outputs} <= old)
            ):
                return True
        return False

    def is_same_tool(self, device: Device, live: list[Action]) -> bool:
        if self.criteria.tool is not None:
            return is_tool(device.label, self.criteria.tool)
        return device.label in {(self.device(action) or device).label for action in live}

    def is_near(self, action: Action) -> bool:
        return self.concerns(action)

    def refusals(self, sample: str, mine: list[Action]) -> set[str]:
        nodes = self.upstream(sample)
        for action in mine:
            for port in (*action.inputs, *action.outputs):
                for found, data in self.taken(port.object):
                    if found == sample:
                        nodes |= self.upstream(data)
        codes = set()
        people = {vid for vid in nodes if isinstance(self.objects[vid], Individual)}
        for vid in nodes:
            above = self.upstream(vid) - {vid}
            if isinstance(self.objects[vid], Vessel) and not any(
                isinstance(self.objects[one], Vessel | Individual) for one in above
            ):
                codes.add("no-individual")
        if not people:
            codes.add("no-individual")
        study = getattr(self.objects[sample], "study", None) or self.criteria.study
        for person in people:
            codes |= self.refused(person, study)
        return codes

    def refused(self, person: str, study: str) -> set[str]:
        known = [one for one in self.all(Enrollment) if one.individual == person]
        near = [one for one in known if one.study in (self.criteria.study, study)]
        states = {self.state(one) for one in near or known} or {"consent-missing"}
        if near:
            return states - {"given"}
        barring = states & {"consent-withdrawn", "consent-expired"}
        return barring or (set() if "given" in states else states)

    def state(self, enrollment: Enrollment) -> str:
        consents = [one for one in self.all(Consent) if one.enrollment == enrollment.vid]
        state = standing(consents, scope=self.criteria.scope, on=self.today)
        if state is ConsentState.MISSING and consents:
            return "consent-other-scope"
        return "given" if state is ConsentState.GIVEN else f"consent-{_WORDS[state]}"


_WORDS = {
    ConsentState.WITHDRAWN: "withdrawn",
    ConsentState.EXPIRED: "expired",
    ConsentState.NOT_YET: "not-yet",
    ConsentState.MISSING: "missing",
}
_DEVICES = [(TOOL, "2.2.0"), (TOOL, "2.3"), (TOOL, "3.2.4"), (TOOL, None), ("x", "1"), (None, None)]

_PARAMETERS = [None, {}, {"k": 21}, {"k": 31}, {"k": 21, "mode": {"name": "fast"}}]
_WANTED = [(), (("k", "21"),), (("mode.name", "fast"),), (("k", "21"), ("mode.name", "fast"))]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Up to twenty nodes, each made of earlier ones, so that there is no cycle."""
    folder = tempfile.TemporaryDirectory()
    world = World(Path(folder.name))
    world.folder = folder
    studies = [world.main, world.study("OTHER")]
    study = st.sampled_from([*studies, world.main])
    people: list[str] = []
    for number in range(draw(st.integers(1, 3))):
        consent = draw(st.sampled_from([*ConsentStatus, ConsentStatus.GIVEN, None]))
        person = world.donor(
            f"KP-{number}",
            consent,
            study=draw(study),
            since=draw(st.sampled_from([None, TODAY - timedelta(9), TODAY + timedelta(9)])),
            until=draw(st.sampled_from([None, None, TODAY + timedelta(10)])),
            scope=draw(st.sampled_from(["research", "research", "research", "teaching"])),
        )
        if draw(st.booleans()):
            other = next(one for one in studies if not _enrolled(world, person, one))
            world.enroll(person, f"X-{number}", draw(st.sampled_from(ConsentStatus)), study=other)
        people.append(person)
    material = list(people)
    for number in range(draw(st.integers(1, 4))):
        parents = draw(st.lists(st.sampled_from(material), max_size=2, unique=True))
        material.append(world.tube(f"T{number}", *parents, study=draw(study)))
    nodes = list(material)
    data: list[str] = []
    for number in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["action", "action", "action", "action", "list", "box"]))
        if kind == "list" and data:
            members = draw(st.lists(st.sampled_from(data), min_size=1, max_size=3, unique=True))
            made = [world.collection(f"list {number}", *members)]
            data += made
        elif kind == "box" and len(material) > len(people):
            tubes = material[len(people) :]
            members = draw(st.lists(st.sampled_from(tubes), min_size=1, max_size=2, unique=True))
            made = [world.vessels(f"box {number}", *members)]
        else:
            made = [
                world.data(f"data {number} {n}", study=draw(study))
                for n in range(draw(st.integers(1, 2)))
            ]
            _act(draw, world, nodes, made, study)
            data += made
            if draw(st.booleans()):  # a link, or a second maker
                _act(draw, world, nodes, made[:1], study)
        nodes += made
    index = st.integers(0, len(data) - 1)
    for old, new in draw(st.sets(st.tuples(index, index), max_size=3)) if data else ():
        if old != new:
            world.supersede(data[old], data[new])
    return world


def _act(draw: st.DrawFn, world: World, nodes: list[str], made: list[str], study) -> None:
    tool, release = draw(st.sampled_from(_DEVICES))
    world.act(
        draw(st.lists(st.sampled_from(nodes), max_size=2, unique=True)),
        made if draw(st.integers(0, 9)) else [],
        tool=tool,
        release=release,
        status=draw(st.sampled_from([ActionStatus.OK] * 4 + [ActionStatus.ERROR])),
        category=draw(st.sampled_from([ActionCategory.PROCESSING, ActionCategory.IMPORT])),
        study=draw(study),
        day=draw(st.integers(1, 5)),
        parameters=draw(st.sampled_from(_PARAMETERS)),
    )


def _enrolled(world: World, person: str, study: str) -> bool:
    return any(
        isinstance(obj, Enrollment) and (obj.individual, obj.study) == (person, study)
        for obj in world.objects.values()
    )


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
@given(
    worlds(),
    st.sampled_from(["kleborate_typing", TOOL, None]),
    st.sampled_from(["<3", "==2.2.0", ">=3", "!=2.3", None]),
    st.integers(0, 2),
    st.sampled_from([*[()] * 3, *_WANTED]),
    st.data(),
)
def test_the_selection_is_that_of_the_slow_one(
    world: World,
    tool: str | None,
    release: str | None,
    foreign_per_own: int,
    params: tuple[tuple[str, str], ...],
    data: st.DataObject,
) -> None:
    world.save()
    nodes = [vid for vid, obj in world.objects.items() if isinstance(obj, DataSample | Collection)]
    reference = data.draw(st.sampled_from([None, None, *nodes]))
    criteria = world.criteria(tool=tool, release=release, params=params, reference=reference)
    graph = load_graph(world.catalog, world.main, foreign_per_own=foreign_per_own)
    fast = select_module._Selecting(world.catalog, criteria, graph, TODAY).run()
    world.catalog.close()
    selected, left_out = Slow(world.objects, criteria, TODAY).select()
    assert {
        row.sample: ({old.vid for old in row.results}, set(row.sources)) for row in fast.rows
    } == selected
    assert {row.sample or row.results[0].vid for row in fast.excluded} == left_out.keys()
    for row in fast.excluded:
        assert row.code.value in left_out[row.sample or row.results[0].vid]
    assert not any(isinstance(world.objects[row.sample], DataSample) for row in fast.rows)
