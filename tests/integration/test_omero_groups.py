"""Who sees and changes what: groups of each kind, several groups at once, members and owners."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

from biobank_core.catalog.port import Catalog, ChangeKind, Delete, Save, Watchable
from biobank_core.catalog.registry import open_catalog
from biobank_core.errors import InputError, NotPermittedError
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionStatus,
    SoftwareProgram,
    Study,
    Tombstone,
    Tube,
)
from tests.contract.catalog_world import BEGIN

if TYPE_CHECKING:
    from tests.contract.omero_groups import Member, OwnGroup
    from tests.servers.omero.lab import OmeroLab

PRIVATE, READ_ONLY, READ_ANNOTATE, READ_WRITE = "rw----", "rwr---", "rwra--", "rwrw--"

MakeGroup = Callable[..., "OwnGroup"]


@pytest.fixture
def group_of(omero_lab: OmeroLab) -> MakeGroup:
    from tests.contract.omero_groups import make_group

    def make(kind: str, members: int = 2) -> OwnGroup:
        return make_group(omero_lab, kind, members=members)

    return make


@contextmanager
def opened(url: str, member: Member, *, create: bool = False) -> Iterator[Catalog]:
    before = {name: os.environ.get(name) for name in member.environment}
    os.environ.update(member.environment)
    try:
        with open_catalog(url, create=create) as catalog:
            yield catalog
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def as_member(group: OwnGroup, number: int) -> AbstractContextManager[Catalog]:
    return opened(group.url, group.members[number])


def tube(study: Study, label: str = "T") -> Tube:
    return Tube(vid=new_vid(), label=label, study=study.vid)


def test_only_an_owner_opens_a_log(group_of: MakeGroup) -> None:
    group = group_of(READ_ANNOTATE)
    with pytest.raises(NotPermittedError, match="biobank init"):
        open_as(group, 1, create=True)
    with pytest.raises(InputError, match="holds no catalog"):
        open_as(group, 1)
    open_as(group, 0, create=True)
    open_as(group, 1)


def open_as(group: OwnGroup, number: int, *, create: bool = False) -> None:
    with opened(group.url, group.members[number], create=create):
        pass


def test_in_a_private_group_each_account_has_a_log_of_its_own(group_of: MakeGroup) -> None:
    group = group_of(PRIVATE, 3)
    made = []
    for number in (1, 2):
        with opened(group.url, group.members[number], create=True) as catalog:
            study = Study(vid=new_vid(), label=f"of {number}")
            catalog.commit([Save(object=study)], by="member")
            made.append(study)
    for number, own in zip((1, 2), made, strict=True):
        with as_member(group, number) as catalog:
            assert [found.object for found in catalog.find("Study")] == [own]
            assert set(catalog.get(one.vid for one in made)) == {own.vid}
            assert len(list(catalog.changes({}))) == 1
            assert list(catalog.drift()) == []
    with as_member(group, 0) as catalog:  # the group's owner reads all of them
        assert {found.object.vid for found in catalog.find("Study")} == {s.vid for s in made}
        assert len({unit.log for unit in catalog.changes({})}) == 2


@pytest.mark.parametrize("kind", [READ_ONLY, READ_ANNOTATE, READ_WRITE])
def test_members_write_their_own_and_change_others_where_the_group_lets_them(
    group_of: MakeGroup, kind: str
) -> None:
    group = group_of(kind)
    study = Study(vid=new_vid(), label="KPN")
    with opened(group.url, group.members[0], create=True) as catalog:
        catalog.commit([Save(object=study)], by="owner")
    own = tube(study)
    new = msgspec.structs.replace(study, description="changed by a member")
    with as_member(group, 1) as catalog:
        catalog.commit([Save(object=own)], by="member")
        if kind == READ_WRITE:
            catalog.commit([Save(object=new, based_on=1)], by="member")
        else:
            with pytest.raises(NotPermittedError):
                catalog.commit([Save(object=new, based_on=1)], by="member")
    with as_member(group, 0) as catalog:
        catalog.commit([Delete(vid=own.vid, based_on=1)], by="owner")
        assert catalog.count() == {"Study": 1, "Tombstone": 1}
        assert list(catalog.drift()) == []


def test_who_is_not_in_a_group_learns_nothing_of_it(group_of: MakeGroup) -> None:
    group, other = group_of(READ_ANNOTATE), group_of(READ_ANNOTATE)
    study = Study(vid=new_vid(), label="secret label")
    with opened(group.url, group.members[0], create=True) as catalog:
        catalog.commit([Save(object=study)], by="owner")
    with pytest.raises(InputError) as refused, opened(group.url, other.members[0]):
        pass
    missing = other.url.replace(other.name, "there-is-no-such-group")
    with pytest.raises(InputError) as unknown, opened(missing, other.members[0]):
        pass
    assert refused.value.reason == unknown.value.reason
    with opened(other.url, other.members[0], create=True) as catalog:
        assert catalog.get([study.vid]) == {}
        assert list(catalog.find("Study", {"label": "secret label"})) == []
        catalog.commit([Save(object=Study(vid=new_vid(), label="secret label"))], by="other")


def test_a_catalog_of_two_groups_saves_each_unit_with_its_study(group_of: MakeGroup) -> None:
    from tests.contract.omero_groups import join

    one, two = group_of(READ_ANNOTATE), group_of(READ_ANNOTATE)
    both = one.members[0]
    join(two, both, owner=True)
    studies = []
    for group in (one, two):
        with opened(group.url, both, create=True) as catalog:
            study = Study(vid=new_vid(), label=f"study of {group.name}")
            catalog.commit([Save(object=study)], by="both")
            studies.append(study)
    url = f"{one.url}&group={two.name}"
    tool = SoftwareProgram(vid=new_vid(), label="kleborate", release="1")
    with opened(url, both) as catalog:
        assert catalog.count() == {"Study": 2}
        catalog.commit([Save(object=tool)], by="both")  # in the first group
        drawn = tube(studies[1])
        catalog.commit([Save(object=drawn)], by="both")
        done = Action(
            vid=new_vid(),
            category=ActionCategory.PROCESSING,
            study=studies[1].vid,
            device=tool.vid,
            status=ActionStatus.OK,
            begin=BEGIN,
        )
        catalog.commit([Save(object=done)], by="both")
        with pytest.raises(InputError, match="several groups"):
            catalog.commit([Save(object=tube(studies[0])), Save(object=tube(studies[1]))], by="x")
        newer = msgspec.structs.replace(tool, maker="somebody")
        catalog.commit([Save(object=newer, based_on=1)], by="both")
        again = msgspec.structs.replace(done, vid=new_vid())
        catalog.commit([Save(object=again)], by="both")
        assert catalog.count() == {"Action": 2, "SoftwareProgram": 1, "Study": 2, "Tube": 1}
        assert [found.object for found in catalog.find("SoftwareProgram")] == [newer]
        assert len({unit.log for unit in catalog.changes({})}) == 2
        assert list(catalog.changes(catalog.head())) == []
        assert list(catalog.drift()) == []
    # Who is in the second group only sees what was done there, the device with it.
    with as_member(two, 1) as catalog:
        assert set(catalog.get([tool.vid, drawn.vid, studies[0].vid])) == {tool.vid, drawn.vid}
        assert catalog.get([tool.vid])[tool.vid].object == newer
    with opened(url, both) as catalog:
        known = {vid: item.version for vid, item in catalog.get([done.vid, again.vid]).items()}
        changes = [Delete(vid=vid, based_on=version) for vid, version in known.items()]
        catalog.commit(changes, by="both")
        catalog.commit([Delete(vid=tool.vid, based_on=2)], by="both")
        assert isinstance(catalog.get([tool.vid])[tool.vid].object, Tombstone)
        assert list(catalog.drift()) == []
    with as_member(two, 1) as catalog:
        assert isinstance(catalog.get([tool.vid])[tool.vid].object, Tombstone)


def moved(group: OwnGroup, member: Member, vid: str, target: int) -> None:
    """Move an object's annotation, as an administrator's client would."""
    from omero.cmd import Chgrp2

    everywhere = {"omero.group": "-1"}
    with group.lab.login_as(member.name, member.password) as client:
        hql = "select a.id from MapAnnotation a where a.name = :name and a.ns like '%/object/%'"
        numbers = [row[0].val for row in client.query.projection(hql, parameters(vid), everywhere)]
        request = Chgrp2(targetObjects={"Annotation": numbers}, groupId=target)
        client.submit(request, everywhere)


@pytest.fixture
def two_groups(group_of: MakeGroup) -> tuple[OwnGroup, OwnGroup]:
    """Two groups with a catalog each, and an account that owns both."""
    from tests.contract.omero_groups import join

    one, two = group_of(READ_ANNOTATE, 2), group_of(READ_ANNOTATE, 1)
    join(two, one.members[0], owner=True)
    for group in (one, two):
        with opened(group.url, one.members[0], create=True):
            pass
    return one, two


def test_a_moved_object_is_found_by_the_watcher_saved_there_and_leaves_where_it_was(
    two_groups: tuple[OwnGroup, OwnGroup],
) -> None:
    one, two = two_groups
    both = one.members[0]
    url = f"{one.url}&group={two.name}"
    with opened(url, both) as catalog:
        study = Study(vid=new_vid(), label="KPN", description="é" * 5000)
        catalog.commit([Save(object=study)], by="both")
        first = tube(study, "T1")
        catalog.commit([Save(object=first)], by="both")
        renamed = msgspec.structs.replace(first, label="T2")
        catalog.commit([Save(object=renamed, based_on=1)], by="both")
        assert isinstance(catalog, Watchable)
        watch = catalog.watch()
        assert watch.reconcile() == []
        old = next(iter(catalog.head()))
        moved(one, both, first.vid, two.id)
        told = [found.detail for found in watch.look()]
        assert len(told) == 2
        assert all("was moved" in detail for detail in told)
        done = [found.detail.rpartition("; ")[2] for found in catalog.drift(repair=True)]
        assert done == ["it was saved there", "it left this group"]
        assert (list(catalog.drift()), watch.look()) == ([], [])
        units = list(catalog.changes({}))
        new = next(unit.log for unit in units if unit.log != old)
        told_now = [
            (unit.log, change.version, change.change)
            for unit in units
            for change in unit.changes
            if change.vid == first.vid
        ]
        assert sorted(told_now, key=lambda change: change[1]) == [
            (old, 1, ChangeKind.SAVED),
            (old, 2, ChangeKind.SAVED),
            (old, 3, ChangeKind.DELETED),
            (new, 4, ChangeKind.SAVED),
        ]
        # It is there, once, whatever it is looked for by; each log has it as it should.
        assert catalog.get([first.vid])[first.vid].object == renamed
        assert [found.object for found in catalog.find("Tube", {"label": "T2"})] == [renamed]
        assert list(catalog.find("Tombstone")) == []
        assert catalog.count() == {"Study": 1, "Tube": 1}
        assert isinstance(catalog.get_in(old, [first.vid])[first.vid].object, Tombstone)
        assert catalog.get_in(new, [first.vid])[first.vid].object == renamed
        # A tombstone that somebody takes away is put back, and is not the newer one.
        with one.login() as client:
            from omero.cmd import Delete2

            hql = "select a.id from MapAnnotation a where a.name = :name"
            [stone] = client.ids(hql, name=first.vid)
            client.submit(Delete2(targetObjects={"Annotation": [stone]}))
        assert [found.vid for found in watch.look()] == [first.vid]
        list(catalog.drift(repair=True))
        assert (list(catalog.drift()), watch.look()) == ([], [])
        assert catalog.get([first.vid])[first.vid].object == renamed
        # And it lives on: changed and deleted where it is now.
        again = msgspec.structs.replace(renamed, label="T3")
        receipt = catalog.commit([Save(object=again, based_on=4)], by="both")
        assert (receipt.log, receipt.versions) == (new, {first.vid: 5})
        catalog.commit([Delete(vid=first.vid, based_on=5)], by="both")
        assert catalog.count() == {"Study": 1, "Tombstone": 1}
        assert list(catalog.drift()) == []
    with as_member(one, 1) as catalog:
        assert isinstance(catalog.get([first.vid])[first.vid].object, Tombstone)
        assert all(entry.object is None for entry in catalog.history(first.vid))


def test_a_copy_that_was_moved_is_made_again(two_groups: tuple[OwnGroup, OwnGroup]) -> None:
    one, two = two_groups
    both = one.members[0]
    with opened(f"{one.url}&group={two.name}", both) as catalog:
        tool = SoftwareProgram(vid=new_vid(), label="kleborate", release="1")
        catalog.commit([Save(object=tool)], by="both")
        moved(one, both, tool.vid, two.id)
        assert len(list(catalog.drift())) == 2
        list(catalog.drift(repair=True))
        assert list(catalog.drift()) == []
        assert catalog.get([tool.vid])[tool.vid].object == tool
        assert catalog.count() == {"SoftwareProgram": 1}
    with as_member(one, 1) as catalog:
        assert catalog.get([tool.vid])[tool.vid].object == tool


def test_an_account_that_joins_a_group_reads_it_in_the_session_that_is_open(
    group_of: MakeGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.contract.omero_groups import join

    monkeypatch.setattr("biobank_core.catalog.omero.catalog._NEW_LOGS_S", 0.0)
    one, two = group_of(READ_ANNOTATE, 1), group_of(READ_ANNOTATE, 1)
    both = one.members[0]
    open_as(one, 0, create=True)
    address = one.lab.address
    with opened(f"omero://{address.host}:{address.port}/", both) as catalog:
        before = catalog.head()
        assert isinstance(catalog, Watchable)
        watch = catalog.watch()
        assert watch.reconcile() == []
        with opened(two.url, two.members[0], create=True) as their:
            study = Study(vid=new_vid(), label="KPN")
            others = dict(their.commit([Save(object=study)], by="other").position)
        assert catalog.head() == before
        join(two, both)
        assert catalog.head() == before | others
        assert [unit.number for unit in catalog.changes(before)] == [1]
        assert catalog.get([study.vid])[study.vid].object == study
        # What is its own stays open to it, and the watcher looks at the new group, too.
        mine = Study(vid=new_vid(), label="mine")
        catalog.commit([Save(object=mine)], by="both")
        assert watch.look() == []
        with two.gateway() as gateway:
            known = {"name": study.vid, "ns": "org.biobank/object/Study"}
            [found] = gateway.getObjects("MapAnnotation", attributes=known)
            gateway.deleteObjects("Annotation", [found.getId()], wait=True)
        assert {found.vid for found in watch.look()} == {study.vid}


def test_an_object_moved_to_where_no_catalog_is_is_told_and_comes_back_with_it(
    group_of: MakeGroup,
) -> None:
    from tests.contract.omero_groups import join

    one, two = group_of(READ_ANNOTATE, 1), group_of(READ_ANNOTATE, 1)
    both = one.members[0]
    join(two, both, owner=True)
    with opened(one.url, both, create=True) as catalog:
        study = Study(vid=new_vid(), label="KPN")
        catalog.commit([Save(object=study)], by="both")
        first = tube(study)
        catalog.commit([Save(object=first)], by="both")
    moved(one, both, first.vid, two.id)
    for url in (one.url, f"{one.url}&group={two.name}"):
        with opened(url, both) as catalog:
            told = list(catalog.drift(repair=True))
            assert told
            assert all("was moved" in one.detail and one.left for one in told)
    moved(one, both, first.vid, one.id)
    with opened(one.url, both) as catalog:
        assert list(catalog.drift()) == []
        assert catalog.get([first.vid])[first.vid].object == first


def parameters(name: str) -> object:
    from omero.rtypes import rstring
    from omero.sys import ParametersI

    given = ParametersI()
    given.map["name"] = rstring(name)
    return given
