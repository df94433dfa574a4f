"""Units in OMERO when things go wrong: races, lost answers, ended sessions; and their round trips.

The faults are the stand-in's; everything else runs on the genuine server when one is named.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Final

import msgspec
import pytest

from biobank_core.catalog.port import Catalog, Delete, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.errors import (
    InputError,
    NotPermittedError,
    StaleVersionError,
    UnreachableError,
)
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionStatus,
    DataObject,
    DataSample,
    Port,
    Study,
    Tube,
)
from tests.contract.catalog_world import BEGIN

if TYPE_CHECKING:
    from tests.contract.omero_groups import Member, OwnGroup
    from tests.servers.omero.lab import OmeroLab
    from tests.servers.omero.standin import OmeroStandIn


# Of each of the four processes that write at once.
_UNITS: Final = int(os.environ.get("BIOBANK_OMERO_UNITS", "50"))


def log_in(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in member.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def group(omero_lab: OmeroLab, monkeypatch: pytest.MonkeyPatch) -> OwnGroup:
    from tests.contract.omero_groups import make_group

    made = make_group(omero_lab, members=2)
    log_in(made.members[0], monkeypatch)
    return made


@pytest.fixture
def faulty(omero_stand_in: OmeroStandIn, monkeypatch: pytest.MonkeyPatch) -> OwnGroup:
    """A group on the stand-in, whatever server the other tests use."""
    from tests.contract.omero_groups import make_group
    from tests.servers.omero.lab import Address, OmeroLab

    server = omero_stand_in
    lab = OmeroLab(Address(server.host, server.port, server.root_user, server.root_password))
    made = make_group(lab)
    log_in(made.members[0], monkeypatch)
    return made


@pytest.fixture
def catalog(group: OwnGroup) -> Iterator[Catalog]:
    with open_catalog(group.url, create=True) as opened:
        yield opened


def numbers(catalog: Catalog) -> list[int]:
    return [unit.number for unit in catalog.changes({})]


def save_units(url: str, account: dict[str, str], study_vid: str, units: int, size: int) -> int:
    """Save so many units of so many tubes; gives how many tubes."""
    os.environ.update(account)
    with open_catalog(url) as catalog:
        for _ in range(units):
            tubes = [Tube(vid=new_vid(), label=new_vid(), study=study_vid) for _ in range(size)]
            catalog.commit([Save(object=one) for one in tubes], by=account["OMERO_USER"])
    return units * size


@pytest.mark.timeout(900)
def test_units_of_two_users_in_four_processes_are_one_chain(
    catalog: Catalog, group: OwnGroup
) -> None:
    kpn = Study(vid=new_vid(), label="KPN")
    catalog.commit([Save(object=kpn)], by="test")
    accounts = [group.members[n % 2].environment for n in range(4)]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=spawn) as pool:
        futures = [
            pool.submit(save_units, group.url, account, kpn.vid, _UNITS, 20) for account in accounts
        ]
        saved = sum(future.result(timeout=800) for future in futures)
    assert catalog.count() == {"Study": 1, "Tube": saved}
    assert numbers(catalog) == list(range(1, 4 * _UNITS + 2))
    told = [change.vid for unit in catalog.changes({}) for change in unit.changes]
    assert len(told) == len(set(told)) == saved + 1
    assert list(catalog.drift()) == []
    assert list(catalog.damage()) == []


def test_a_member_may_not_change_what_another_wrote(
    catalog: Catalog, group: OwnGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    kpn = Study(vid=new_vid(), label="KPN")
    catalog.commit([Save(object=kpn)], by="owner")
    log_in(group.members[1], monkeypatch)
    with open_catalog(group.url) as members:
        assert set(members.get([kpn.vid])) == {kpn.vid}
        new = msgspec.structs.replace(kpn, description="mine now")
        with pytest.raises(NotPermittedError):
            members.commit([Save(object=new, based_on=1)], by="member")
        members.commit([Save(object=Tube(vid=new_vid(), label="T", study=kpn.vid))], by="member")
    assert catalog.count() == {"Study": 1, "Tube": 1}
    assert catalog.get([kpn.vid])[kpn.vid].version == 1


def test_loading_a_thousand_objects_and_saving_a_unit_take_a_few_round_trips(
    catalog: Catalog,
) -> None:
    from biobank_core.catalog.omero.catalog import OmeroCatalog

    assert isinstance(catalog, OmeroCatalog)
    kpn = Study(vid=new_vid(), label="KPN")
    tubes = [Tube(vid=new_vid(), label=f"T{n}", study=kpn.vid) for n in range(1000)]
    catalog.commit([Save(object=one) for one in (kpn, *tubes)], by="test")
    before = catalog.round_trips
    assert len(catalog.get(one.vid for one in tubes)) == 1000
    assert catalog.round_trips - before <= 5
    changes: list[Save] = []
    for source in tubes[:100]:
        made = DataSample(vid=new_vid(), label="reads", study=kpn.vid)
        held = DataObject(vid=new_vid(), sample=made.vid, uri=f"file:///{made.vid}")
        done = Action(
            vid=new_vid(),
            category=ActionCategory.MEASUREMENT,
            study=kpn.vid,
            status=ActionStatus.OK,
            begin=BEGIN,
            inputs=(Port(role="in", object=source.vid),),
            outputs=(Port(role="out", object=made.vid),),
        )
        changes.extend(Save(object=one) for one in (made, held, done))
    before = catalog.round_trips
    catalog.commit(changes, by="test")
    assert catalog.round_trips - before <= 5


def test_a_unit_that_is_too_large_is_refused_with_the_count(catalog: Catalog) -> None:
    kpn = Study(vid=new_vid(), label="KPN")
    tubes = [Tube(vid=new_vid(), label=f"T{n}", study=kpn.vid) for n in range(10_000)]
    with pytest.raises(InputError, match=r"1000\d annotations"):
        catalog.commit([Save(object=one) for one in (kpn, *tubes)], by="test")
    assert catalog.count() == {}


def test_long_texts_live_and_die_with_their_versions(catalog: Catalog, group: OwnGroup) -> None:
    long = "".join(chr(0x4E00 + n % 5000) for n in range(9000))
    kpn = Study(vid=new_vid(), label="KPN", description=long)
    catalog.commit([Save(object=kpn)], by="test")
    longer = msgspec.structs.replace(kpn, description=f"{long}!")
    catalog.commit([Save(object=longer, based_on=1)], by="test")
    assert catalog.get([kpn.vid])[kpn.vid].object == longer
    assert [entry.object for entry in catalog.history(kpn.vid)] == [kpn, longer]
    assert [found.object for found in catalog.find("Study", {"description": f"{long}!"})] == [
        longer
    ]
    catalog.commit([Delete(vid=kpn.vid, based_on=2)], by="test")
    assert [entry.object for entry in catalog.history(kpn.vid)] == [None, None, None]
    assert list(catalog.drift()) == []
    with group.login() as client:
        held = client.query.findAllByQuery("select a from XmlAnnotation a", None)
        assert all("\u4e00" not in one.textValue.val for one in held)
        pairs = client.query.projection(
            "select mv.value from MapAnnotation a join a.mapValue mv where mv.value like '%KPN%'",
            None,
        )
        assert pairs == []


def test_a_wrong_password_is_told_from_a_server_that_is_down(
    group: OwnGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMERO_PASSWORD", "canary-wrong")
    with pytest.raises(NotPermittedError) as refused:
        open_catalog(group.url)
    assert "canary" not in str(refused.value)
    with pytest.raises(UnreachableError):
        open_catalog("omero://127.0.0.1:9/?group=lab")


def test_a_session_key_of_somebody_is_used_and_left_open(
    catalog: Catalog, group: OwnGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    with group.login() as client:
        monkeypatch.delenv("OMERO_USER")
        monkeypatch.delenv("OMERO_PASSWORD")
        monkeypatch.setenv("OMERO_SESSION_KEY", client.client.getSessionId())
        with open_catalog(group.url) as joined:
            joined.commit([Save(object=Study(vid=new_vid(), label="KPN"))], by="key")
        assert client.admin.getEventContext().userName == group.members[0].name
    assert catalog.count() == {"Study": 1}


@pytest.mark.parametrize(
    "kind", ["drop-before-commit", "drop-after-commit", "drop-then-commit", "remove-session"]
)
def test_a_lost_answer_is_settled_and_nothing_is_saved_twice(
    faulty: OwnGroup, omero_stand_in: OmeroStandIn, kind: str
) -> None:
    from tests.servers.omero.faults import Fault

    with open_catalog(faulty.url, create=True) as catalog:
        kpn = Study(vid=new_vid(), label="KPN")
        catalog.commit([Save(object=kpn)], by="test")
        tubes = [Tube(vid=new_vid(), label=f"T{n}", study=kpn.vid) for n in range(20)]
        with omero_stand_in.faults(Fault(kind, call="IUpdate.saveArray", seconds=1.5)):
            receipt = catalog.commit([Save(object=one) for one in tubes], by="test")
        assert set(receipt.versions.values()) == {1}
        assert catalog.count() == {"Study": 1, "Tube": 20}
        assert numbers(catalog) == [1, 2]
        assert list(catalog.drift()) == []
        catalog.commit([Save(object=Tube(vid=new_vid(), label="next", study=kpn.vid))], by="test")
        assert numbers(catalog) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["try-again", "optimistic-lock", "namespace-race"])
def test_what_a_race_raises_is_tried_again(
    faulty: OwnGroup, omero_stand_in: OmeroStandIn, kind: str
) -> None:
    from tests.servers.omero.faults import Fault

    with open_catalog(faulty.url, create=True) as catalog:
        kpn = Study(vid=new_vid(), label="KPN")
        with omero_stand_in.faults(Fault(kind, call="IUpdate.saveArray", count=3)):
            catalog.commit([Save(object=kpn)], by="test")
        assert catalog.count() == {"Study": 1}
        assert numbers(catalog) == [1]


def test_a_session_that_ends_while_reading_is_opened_again(
    faulty: OwnGroup, omero_stand_in: OmeroStandIn
) -> None:
    with open_catalog(faulty.url, create=True) as catalog:
        kpn = Study(vid=new_vid(), label="KPN")
        catalog.commit([Save(object=kpn)], by="test")
        mine = faulty.members[0].name
        for key, name in omero_stand_in.sessions().items():
            if name == mine:
                omero_stand_in.end_session(key)
        assert set(catalog.get([kpn.vid])) == {kpn.vid}
        new = msgspec.structs.replace(kpn, description="again")
        catalog.commit([Save(object=new, based_on=1)], by="test")
        with pytest.raises(StaleVersionError):
            catalog.commit([Save(object=new, based_on=1)], by="test")
    assert mine not in omero_stand_in.sessions().values()


def test_a_server_killed_in_the_middle_is_waited_for(
    faulty: OwnGroup, omero_stand_in: OmeroStandIn
) -> None:
    with open_catalog(faulty.url, create=True) as catalog:
        kpn = Study(vid=new_vid(), label="KPN")
        catalog.commit([Save(object=kpn)], by="test")
        omero_stand_in.kill()
        omero_stand_in.start()
        catalog.commit([Save(object=Tube(vid=new_vid(), label="T", study=kpn.vid))], by="test")
        assert numbers(catalog) == [1, 2]
