"""Whatever another client saves between two questions to OMERO, the answer is one that was true.

A catalog on OMERO asks several questions for one answer, and no transaction holds them together.
Here another client saves some units before the first of them, before the second, and so on.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import pytest

from biobank_core.catalog.port import Catalog, Delete, Save, Watchable
from biobank_core.catalog.registry import open_catalog
from biobank_core.lineage.follow import catch_up, rebuild
from biobank_core.lineage.registry import open_index
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionStatus,
    Port,
    SoftwareProgram,
    Study,
    Tube,
)
from tests.contract.catalog_world import BEGIN

if TYPE_CHECKING:
    from biobank_core.catalog.omero.catalog import OmeroCatalog
    from tests.contract.omero_groups import OwnGroup
    from tests.servers.omero.lab import OmeroLab

# Of what takes long, a part of the calls; `make faults` takes all.
_EVERY: Final = int(os.environ.get("BIOBANK_INTERLEAVED_EVERY", "12"))
# The calls of a session that reach the server.
_CALLS: Final = ("projection", "objects", "save", "save_for_ids", "delete_row", "delete")
# More bytes than fit into a pair: such a text is kept in an annotation of its own.
_LONG: Final = "".join(chr(0x4E00 + n) for n in range(950))


@dataclass
class Other:
    """Another client, and what it has saved."""

    catalog: Catalog
    studies: tuple[Study, ...]
    stable: list[Tube] = field(default_factory=list)
    changing: list[Tube] = field(default_factory=list)
    doomed: list[Tube] = field(default_factory=list)
    tool: SoftwareProgram | None = None
    versions: dict[str, int] = field(default_factory=dict)
    rounds: int = 0

    def begin(self) -> None:
        """What is there before anybody looks."""
        for study in self.studies:
            self.stable.append(self.new(study, f"stable {_LONG}"))
            self.changing.append(self.new(study, f"changing {_LONG}"))
            self.doomed.append(self.new(study, f"doomed {_LONG}"))
        self.tool = SoftwareProgram(vid=new_vid(), label="kleborate", release="1")
        self._save(self.tool)

    def act(self) -> None:
        """In each group two new units at least, an update, a deletion, an action."""
        self.rounds += 1
        for number, study in enumerate(self.studies):
            self.stable.append(self.new(study, f"new {self.rounds}"))
            label = f"changed {self.rounds} {_LONG}"
            newer = msgspec.structs.replace(self.changing[number], label=label)
            self._save(newer)
            self.changing[number] = newer
            gone = self.doomed[number]
            self.catalog.commit([Delete(vid=gone.vid, based_on=1)], by="other")
            self.doomed[number] = self.new(study, f"doomed {self.rounds} {_LONG}")
        assert self.tool is not None
        self.tool = msgspec.structs.replace(self.tool, release=str(self.rounds))
        self._save(self.tool)
        for number, study in enumerate(self.studies):
            made = Tube(vid=new_vid(), label=f"made {self.rounds}", study=study.vid)
            done = processed(study, self.tool.vid, self.changing[number], made)
            self.catalog.commit([Save(object=made), Save(object=done)], by="other")

    def new(self, study: Study, label: str) -> Tube:
        """A tube, saved."""
        tube = Tube(vid=new_vid(), label=label, study=study.vid)
        self._save(tube)
        return tube

    def _save(self, obj: Tube | SoftwareProgram) -> None:
        version = self.versions.get(obj.vid, 0)
        self.catalog.commit([Save(object=obj, based_on=version)], by="other")
        self.versions[obj.vid] = version + 1


def processed(study: Study, tool: str, source: Tube, made: Tube) -> Action:
    return Action(
        vid=new_vid(),
        category=ActionCategory.PROCESSING,
        study=study.vid,
        device=tool,
        status=ActionStatus.OK,
        begin=BEGIN,
        inputs=(Port(role="in", object=source.vid),),
        outputs=(Port(role="out", object=made.vid),),
    )


class Meanwhile:
    """Lets `act` happen once, before the call of this number that the catalog makes."""

    def __init__(self, catalog: Catalog, number: int, act: Callable[[], None]) -> None:
        self.happened = False
        self._left = number
        self._act = act
        self._session = cast("OmeroCatalog", catalog)._session
        self._before = {name: getattr(self._session, name) for name in _CALLS}

    def __enter__(self) -> Meanwhile:
        for name, call in self._before.items():
            setattr(self._session, name, self._wrapped(call))
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._before:
            delattr(self._session, name)

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            if not self.happened and not self._left:
                self.happened = True
                self._act()
            self._left -= 1
            return call(*arguments, **named)

        return called


@pytest.fixture(params=[1, 2], ids=["one group", "two groups"])
def other(
    request: pytest.FixtureRequest, omero_lab: OmeroLab, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Other]:
    from tests.contract.omero_groups import join, make_group

    groups = [make_group(omero_lab) for _ in range(request.param)]
    owner = groups[0].members[0]
    for group in groups[1:]:
        join(group, owner, owner=True)
    for name, value in owner.environment.items():
        monkeypatch.setenv(name, value)
    studies = [begun(group) for group in groups]
    url = groups[0].url + "".join(f"&group={group.name}" for group in groups[1:])
    with open_catalog(url) as catalog:
        made = Other(catalog, tuple(studies))
        made.begin()
        yield made


def begun(group: OwnGroup) -> Study:
    with open_catalog(group.url, create=True) as catalog:
        study = Study(vid=new_vid(), label=f"study of {group.name}")
        catalog.commit([Save(object=study)], by="other")
        return study


def at_each_call(
    other: Other, look: Callable[[Catalog], Callable[[], None]], *, every: int = 1
) -> None:
    """Let the other one act before each call of what `look` returns, or before each n-th."""
    with open_catalog(other.catalog.url) as catalog:
        for number in itertools.count(step=every):
            run = look(catalog)
            with Meanwhile(catalog, number, other.act) as meanwhile:
                run()
            if not meanwhile.happened:
                assert number > 0
                return


def test_the_feed_leaves_nothing_out(other: Other) -> None:
    def look(catalog: Catalog) -> Callable[[], None]:
        before = [dataclasses.replace(unit, position={}) for unit in catalog.changes({})]
        reached = catalog.head()

        def run() -> None:
            position = dict(reached)
            for unit in catalog.changes(reached):
                assert unit.number == position.get(unit.log, 0) + 1
                position[unit.log] = unit.number
            units = [dataclasses.replace(unit, position={}) for unit in catalog.changes({})]
            for log in reached:
                numbers = [unit.number for unit in units if unit.log == log]
                assert numbers == list(range(1, len(numbers) + 1))
            assert [unit for unit in units if unit in before] == before

        return run

    at_each_call(other, look)


def test_what_is_asked_for_is_there_as_it_was_or_as_it_is(other: Other) -> None:
    def look(catalog: Catalog) -> Callable[[], None]:
        stable, gone, changing = list(other.stable), list(other.doomed), list(other.changing)
        versions = {one.vid: other.versions[one.vid] for one in changing}

        def run() -> None:
            vids = [one.vid for one in (*stable, *gone, *changing)]
            found = catalog.get(vids)
            assert set(found) == set(vids)
            for one in stable:
                assert found[one.vid].object == one
            for one in changing:
                now = found[one.vid]
                if now.version == versions[one.vid]:
                    assert now.object == one
                else:
                    assert now.version == versions[one.vid] + 1
                    assert now.object in other.changing

        return run

    at_each_call(other, look)


@pytest.mark.parametrize("way", ["find", "iterate", "referring", "count"])
def test_a_list_holds_all_that_was_there_all_the_time(other: Other, way: str) -> None:
    def look(catalog: Catalog) -> Callable[[], None]:
        held = {one.vid for one in (*other.stable, *other.changing)}
        held_now = held | {one.vid for one in other.doomed}

        def run() -> None:
            studies = [study.vid for study in other.studies]
            if way == "count":
                assert len(held) <= catalog.count()["Tube"]
                return
            if way == "find":
                listed = [
                    found.object.vid
                    for study in studies
                    for found in catalog.find("Tube", {"study": study})
                ]
            elif way == "iterate":
                listed = [found.object.vid for found in catalog.iterate(["Tube"])]
            else:
                listed = [one.vid for one in catalog.referring(studies, ["Tube"])]
            assert len(set(listed)) == len(listed)
            assert held <= set(listed)
            made = {one.vid for one in (*other.stable, *other.changing, *other.doomed)}
            if way != "referring":
                assert all(vid in held_now | made or vid in listed for vid in listed)

        return run

    at_each_call(other, look)


def test_a_history_is_whole(other: Other) -> None:
    def look(catalog: Catalog) -> Callable[[], None]:
        [changing, *_] = other.changing
        [doomed, *_] = other.doomed
        version = other.versions[changing.vid]

        def run() -> None:
            entries = catalog.history(changing.vid)
            assert [entry.version for entry in entries] == list(range(1, len(entries) + 1))
            assert len(entries) in (version, version + 1)
            assert all(entry.by == "other" for entry in entries)
            assert all(isinstance(entry.object, Tube) for entry in entries)
            assert [entry.version for entry in catalog.history(doomed.vid)] in ([1], [1, 2])

        return run

    at_each_call(other, look)


@pytest.mark.parametrize("repair", [False, True], ids=["looking", "repairing"])
def test_nothing_is_found_wrong_and_nothing_mended(other: Other, *, repair: bool) -> None:
    def look(catalog: Catalog) -> Callable[[], None]:
        def run() -> None:
            assert list(catalog.drift(repair=repair)) == []
            assert list(catalog.damage()) == []

        return run

    at_each_call(other, look, every=_EVERY)
    assert {unit.by for unit in other.catalog.changes({})} == {"other"}
    assert len(other.catalog.head()) == len(other.studies)


@pytest.mark.parametrize("way", ["reconcile", "look"])
def test_a_watcher_finds_nothing(other: Other, way: str) -> None:
    def look(catalog: Catalog) -> Callable[[], None]:
        assert isinstance(catalog, Watchable)
        watch = catalog.watch()
        if way == "look":
            assert watch.reconcile() == []
            other.act()

        def run() -> None:
            assert (watch.look() if way == "look" else watch.reconcile()) == []

        def run_and_look() -> None:
            run()
            assert watch.look() == []

        return run_and_look if way == "look" else run

    at_each_call(other, look, every=_EVERY if way == "reconcile" else 1)


def test_an_index_that_follows_is_one_made_anew(other: Other, tmp_path: Path) -> None:
    with (
        open_index(f"sqlite:///{tmp_path / 'followed.db'}") as followed,
        open_index(f"sqlite:///{tmp_path / 'anew.db'}") as anew,
    ):

        def look(catalog: Catalog) -> Callable[[], None]:
            def run() -> None:
                catch_up(catalog, followed)

            return run

        at_each_call(other, look)
        catch_up(other.catalog, followed)
        rebuild(other.catalog, anew)
        assert followed.digest() == anew.digest()

        def look_at_rebuild(catalog: Catalog) -> Callable[[], None]:
            def run() -> None:
                rebuild(catalog, anew)

            return run

        at_each_call(other, look_at_rebuild)
        catch_up(other.catalog, followed)
        catch_up(other.catalog, anew)
        assert followed.digest() == anew.digest()


def test_a_unit_is_saved_though_others_save(other: Other) -> None:
    def look(catalog: Catalog) -> Callable[[], None]:
        assert other.tool is not None
        study, tool = other.studies[-1], other.tool.vid

        def run() -> None:
            tube = Tube(vid=new_vid(), label=f"{new_vid()} {_LONG}", study=study.vid)
            done = processed(study, tool, other.changing[-1], tube)
            receipt = catalog.commit([Save(object=tube), Save(object=done)], by="other")
            assert receipt.versions == {tube.vid: 1, done.vid: 1}
            newer = msgspec.structs.replace(tube, label=f"{tube.label}!")
            catalog.commit([Save(object=newer, based_on=1)], by="other")
            catalog.commit([Delete(vid=done.vid, based_on=1, cascade=True)], by="other")
            catalog.commit([Delete(vid=tube.vid, based_on=2)], by="other")
            assert [entry.version for entry in catalog.history(tube.vid)] == [1, 2, 3]

        return run

    at_each_call(other, look, every=_EVERY)
    assert list(other.catalog.drift()) == []
    assert list(other.catalog.damage()) == []


@pytest.mark.parametrize("gone", [2, 3], ids=["a middle commit", "the last commit"])
def test_two_who_repair_at_once_leave_one_catalog(
    omero_lab: OmeroLab, monkeypatch: pytest.MonkeyPatch, gone: int
) -> None:
    from tests.contract.omero_groups import make_group

    for number in itertools.count(step=_EVERY):
        group = make_group(omero_lab)
        for name, value in group.members[0].environment.items():
            monkeypatch.setenv(name, value)
        study = begun(group)
        with open_catalog(group.url) as one, open_catalog(group.url) as two:
            other = Other(two, (study,))
            tubes = [other.new(study, "T1"), other.new(study, "T2")]
            delete_commit(group, gone)
            with Meanwhile(one, number, lambda two=two: list(two.drift(repair=True))) as meanwhile:  # type: ignore[misc]
                list(one.drift(repair=True))
        with open_catalog(group.url) as catalog:
            assert list(catalog.damage()) == []
            assert list(catalog.drift()) == []
            third = Tube(vid=new_vid(), label="T3", study=study.vid)
            catalog.commit([Save(object=third)], by="other")
            told = {change.vid for unit in catalog.changes({}) for change in unit.changes}
            assert told == {one.vid for one in (study, *tubes, third)}
        if not meanwhile.happened:
            break


def delete_commit(group: OwnGroup, number: int) -> None:
    from omero.cmd import Delete2

    with group.login() as client:
        found = client.ids(
            "select a.id from MapAnnotation a where a.name like :name", name=f"%/{number:012d}"
        )
        client.submit(Delete2(targetObjects={"Annotation": found}))
