"""What other OMERO clients do to a catalog is found at the next look, or by comparing all."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec
import pytest

from biobank_core.catalog.port import Catalog, Delete, Drift, Save, Watch, Watchable
from biobank_core.catalog.registry import open_catalog
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import Study, Tombstone, Tube

if TYPE_CHECKING:
    from tests.contract.omero_groups import OwnGroup
    from tests.servers.omero.lab import Client, OmeroLab
    from tests.servers.omero.standin import OmeroStandIn

Foreign = Callable[["OwnGroup", "list[Tube]"], "set[str]"]


def as_owner(group: OwnGroup, monkeypatch: pytest.MonkeyPatch) -> OwnGroup:
    for name, value in group.members[0].environment.items():
        monkeypatch.setenv(name, value)
    return group


@pytest.fixture
def group(omero_lab: OmeroLab, monkeypatch: pytest.MonkeyPatch) -> OwnGroup:
    from tests.contract.omero_groups import make_group

    return as_owner(make_group(omero_lab), monkeypatch)


@pytest.fixture
def catalog(group: OwnGroup) -> Iterator[Catalog]:
    with open_catalog(group.url, create=True) as opened:
        yield opened


@pytest.fixture
def tubes(catalog: Catalog) -> list[Tube]:
    return three_tubes(catalog)


def three_tubes(catalog: Catalog) -> list[Tube]:
    """Three tubes in their second version, of one study."""
    kpn = Study(vid=new_vid(), label="KPN")
    made = [Tube(vid=new_vid(), label=f"T{n}", study=kpn.vid) for n in range(3)]
    catalog.commit([Save(object=kpn)], by="ada")
    catalog.commit([Save(object=one) for one in made], by="ada")
    newer = [msgspec.structs.replace(one, label=f"new {one.label}") for one in made]
    catalog.commit([Save(object=one, based_on=1) for one in newer], by="ada")
    return newer


@pytest.fixture
def watch(catalog: Catalog, tubes: list[Tube]) -> Iterator[Watch]:
    """A watcher of its own session that has looked at everything once."""
    with open_catalog(catalog.url) as opened:
        assert isinstance(opened, Watchable)
        made = opened.watch()
        assert made.reconcile() == []
        yield made


def annotation(client: Client, name: str) -> int:
    [number] = client.ids("select a.id from MapAnnotation a where a.name = :name", name=name)
    return number


def vids(found: list[Drift]) -> set[str]:
    return {one.vid for one in found}


def mended(catalog: Catalog) -> None:
    list(catalog.drift(repair=True))
    assert list(catalog.drift()) == []
    assert list(catalog.damage()) == []


# What another program does, and the objects that are wrong then


def deleted_with_plain_omero_py(group: OwnGroup, tubes: list[Tube]) -> set[str]:
    from omero.cmd import Delete2

    with group.login() as client:
        numbers = [annotation(client, one.vid) for one in tubes[:2]]
        client.submit(Delete2(targetObjects={"Annotation": numbers}))
    return {one.vid for one in tubes[:2]}


def deleted_with_blitz_gateway(group: OwnGroup, tubes: list[Tube]) -> set[str]:
    with group.gateway() as gateway:
        [found] = gateway.getObjects("MapAnnotation", attributes={"name": tubes[0].vid})
        gateway.deleteObjects("Annotation", [found.getId()], wait=True)
    return {tubes[0].vid}


def renamed_with_blitz_gateway(group: OwnGroup, tubes: list[Tube]) -> set[str]:
    with group.gateway() as gateway:
        [found] = gateway.getObjects("MapAnnotation", attributes={"name": tubes[0].vid})
        found.setDescription("my favourite tube")
        found.save()
    return {tubes[0].vid}


def moved_out_of_the_namespace(group: OwnGroup, tubes: list[Tube]) -> set[str]:
    from omero.rtypes import rstring

    with group.login() as client:
        found = client.query.get("MapAnnotation", annotation(client, tubes[0].vid))
        found.setNs(rstring("org.example/mine"))
        client.update.saveObject(found)
    return {tubes[0].vid}


def copied(group: OwnGroup, tubes: list[Tube]) -> set[str]:
    import omero.model
    from omero.rtypes import rstring

    with group.login() as client:
        found = client.query.get("MapAnnotation", annotation(client, tubes[0].vid))
        twin = omero.model.MapAnnotationI()
        twin.setNs(found.getNs())
        twin.setName(rstring(tubes[0].vid))
        twin.setDescription(found.getDescription())
        twin.setMapValue(found.getMapValue())
        client.update.saveObject(twin)
    return {tubes[0].vid}


@pytest.mark.parametrize(
    "foreign",
    [
        deleted_with_plain_omero_py,
        deleted_with_blitz_gateway,
        renamed_with_blitz_gateway,
        moved_out_of_the_namespace,
        copied,
    ],
)
def test_what_another_client_does_is_found_at_the_next_look_and_mended(
    group: OwnGroup, catalog: Catalog, tubes: list[Tube], watch: Watch, foreign: Foreign
) -> None:
    expected = foreign(group, tubes)
    found = watch.look()
    assert vids(found) == expected
    assert all(one.kind == "Tube" for one in found)
    assert vids(watch.look()) == expected  # until it is mended
    mended(catalog)
    assert watch.look() == []
    known = catalog.get(one.vid for one in tubes)
    assert not any(isinstance(one.object, Tombstone) for one in known.values())


def test_what_was_deleted_comes_back_from_its_history_else_a_tombstone_stands(
    group: OwnGroup, catalog: Catalog, tubes: list[Tube], watch: Watch
) -> None:
    from omero.cmd import Delete2

    fresh = Tube(vid=new_vid(), label="fresh", study=tubes[0].study)
    catalog.commit([Save(object=fresh)], by="ada")
    assert watch.look() == []
    with group.login() as client:
        numbers = [annotation(client, vid) for vid in (tubes[0].vid, fresh.vid)]
        client.submit(Delete2(targetObjects={"Annotation": numbers}))
    assert vids(watch.look()) == {tubes[0].vid, fresh.vid}
    mended(catalog)
    known = catalog.get([tubes[0].vid, fresh.vid])
    assert known[tubes[0].vid].object == msgspec.structs.replace(tubes[0], label="T0")
    assert isinstance(known[fresh.vid].object, Tombstone)
    assert watch.look() == []


def test_a_tombstone_that_was_deleted_is_put_back(
    group: OwnGroup, catalog: Catalog, tubes: list[Tube], watch: Watch
) -> None:
    from omero.cmd import Delete2

    gone = tubes[0].vid
    catalog.commit([Delete(vid=gone, based_on=2)], by="ada")
    assert watch.look() == []
    with group.login() as client:
        client.submit(Delete2(targetObjects={"Annotation": [annotation(client, gone)]}))
    assert vids(watch.look()) == {gone}
    mended(catalog)
    known = catalog.get([gone])[gone]
    assert (isinstance(known.object, Tombstone), known.version) == (True, 3)
    assert watch.look() == []


def test_an_edit_of_pairs_alone_is_found_by_comparing_all(
    group: OwnGroup, catalog: Catalog, tubes: list[Tube], watch: Watch
) -> None:
    with group.gateway() as gateway:
        [found] = gateway.getObjects("MapAnnotation", attributes={"name": tubes[0].vid})
        pairs = [list(pair) for pair in found.getValue()]
        found.setValue([[k, "edited" if k == "label" else v] for k, v in pairs])
        found.save()
    # OMERO logs nothing of it (the conformance suite holds that).
    assert watch.look() == []
    assert vids(watch.reconcile()) == {tubes[0].vid}
    assert vids(watch.look()) == {tubes[0].vid}
    mended(catalog)
    assert watch.look() == []
    assert catalog.get([tubes[0].vid])[tubes[0].vid].object.label == "edited"  # type: ignore[attr-defined]


def test_a_lost_long_text_is_found(group: OwnGroup, catalog: Catalog, watch: Watch) -> None:
    from omero.cmd import Delete2

    long = "".join(chr(0x4E00 + n % 5000) for n in range(9000))
    told = Study(vid=new_vid(), label="told", description=long)
    catalog.commit([Save(object=told)], by="ada")
    assert watch.look() == []
    with group.login() as client:
        [text] = client.ids("select a.id from XmlAnnotation a")
        client.submit(Delete2(targetObjects={"Annotation": [text]}))
    assert vids(watch.look()) == {told.vid}
    mended(catalog)
    assert watch.look() == []


def test_own_units_and_strangers_are_no_finding(
    group: OwnGroup, catalog: Catalog, tubes: list[Tube], watch: Watch
) -> None:
    import ezomero
    from omero.cmd import Delete2

    with group.gateway() as gateway:
        project = ezomero.post_project(gateway, "theirs")
        theirs = ezomero.post_map_annotation(gateway, "Project", project, {"a": "1"}, "theirs")
        assert watch.look() == []
        ezomero.put_map_annotation(gateway, theirs, {"a": "2"})
        gateway.deleteObjects("Project", [project], deleteAnns=True, wait=True)
    newer = msgspec.structs.replace(tubes[0], label="newest")
    catalog.commit([Save(object=newer, based_on=2)], by="ada")
    assert watch.look() == []
    with group.login() as client:
        client.submit(Delete2(targetObjects={"Annotation": [annotation(client, newer.vid)]}))
    assert vids(watch.look()) == {newer.vid}


@pytest.mark.parametrize("which", ["commit", "token"])
def test_a_damaged_log_is_found_at_the_next_look(
    group: OwnGroup, catalog: Catalog, tubes: list[Tube], watch: Watch, which: str
) -> None:
    from omero.cmd import Delete2

    log, head = next(iter(catalog.head().items()))
    with group.login() as client:
        if which == "commit":
            number = annotation(client, f"{log}/{2:012d}")
            client.submit(Delete2(targetObjects={"Annotation": [number]}))
        else:
            last = client.query.get("MapAnnotation", annotation(client, f"{log}/{head:012d}"))
            token = json.loads(last.getDescription().getValue())["token"]
            client.submit(Delete2(targetObjects={"ExternalInfo": [token]}))
    found = watch.look()
    assert [one.vid for one in found] == [""]
    assert "damaged" in found[0].detail
    mended(catalog)
    assert watch.look() == []


def test_what_is_logged_late_and_out_of_order_is_found(
    omero_stand_in: OmeroStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omero.rtypes import rstring

    from tests.contract.omero_groups import make_group
    from tests.servers.omero.faults import Fault
    from tests.servers.omero.lab import Address, OmeroLab

    server = omero_stand_in
    lab = OmeroLab(Address(server.host, server.port, server.root_user, server.root_password))
    group = as_owner(make_group(lab), monkeypatch)
    with open_catalog(group.url, create=True) as catalog, open_catalog(group.url) as other:
        first, second, _ = three_tubes(catalog)
        assert isinstance(other, Watchable)
        watch = other.watch()
        assert watch.reconcile() == []

        def edit(tube: Tube) -> None:
            with group.login() as client:
                found = client.query.get("MapAnnotation", annotation(client, tube.vid))
                found.setDescription(rstring("edited"))
                client.update.saveObject(found)

        with omero_stand_in.faults(Fault("late-event-log", "IUpdate.saveObject", seconds=6)):
            late = threading.Thread(target=edit, args=[first])
            late.start()
            omero_stand_in.wait_until_struck()
            # Committed while the other call holds smaller ids of the log.
            from omero.cmd import Delete2

            with group.login() as client:
                number = annotation(client, second.vid)
                client.submit(Delete2(targetObjects={"Annotation": [number]}))
            # A machine that is very slow may see both by now.
            assert second.vid in vids(watch.look())
            late.join()
        assert vids(watch.look()) == {first.vid, second.vid}
        mended(catalog)
        assert watch.look() == []
