"""What other OMERO clients do to a catalog is found, and `verify --repair` mends it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from biobank_core.catalog.port import Catalog, ChangeKind, Delete, Drift, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.errors import InputError, StorageError
from biobank_core.lineage.registry import open_index
from biobank_core.lineage.verify import verify
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import Study, Tombstone, Tube

if TYPE_CHECKING:
    from tests.contract.omero_groups import OwnGroup
    from tests.servers.omero.lab import Client, OmeroLab


@pytest.fixture
def group(omero_lab: OmeroLab, monkeypatch: pytest.MonkeyPatch) -> OwnGroup:
    from tests.contract.omero_groups import make_group

    made = make_group(omero_lab)
    for name, value in made.members[0].environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def catalog(group: OwnGroup) -> Iterator[Catalog]:
    with open_catalog(group.url, create=True) as opened:
        yield opened


@pytest.fixture
def kpn(catalog: Catalog) -> Study:
    made = Study(vid=new_vid(), label="KPN")
    catalog.commit([Save(object=made)], by="ada")
    return made


def tube(catalog: Catalog, study: Study, label: str) -> Tube:
    made = Tube(vid=new_vid(), label=label, study=study.vid)
    catalog.commit([Save(object=made)], by="ada")
    return made


def renamed(catalog: Catalog, old: Tube, label: str) -> Tube:
    new = msgspec.structs.replace(old, label=label)
    catalog.commit([Save(object=new, based_on=catalog.get([old.vid])[old.vid].version)], by="ada")
    return new


def annotation(client: Client, name: str) -> int:
    [number] = client.ids("select a.id from MapAnnotation a where a.name = :name", name=name)
    return number


def delete(client: Client, *numbers: int) -> None:
    from omero.cmd import Delete2

    client.submit(Delete2(targetObjects={"Annotation": list(numbers)}))


def drift(catalog: Catalog, *, repair: bool = False) -> list[Drift]:
    return list(catalog.drift(repair=repair))


def test_nothing_is_found_where_nobody_else_wrote(catalog: Catalog, kpn: Study) -> None:
    renamed(catalog, tube(catalog, kpn, "T1"), "T2")
    told = msgspec.structs.replace(kpn, description="é" * 5000)
    catalog.commit([Save(object=told, based_on=1)], by="ada")
    assert drift(catalog) == []
    assert list(catalog.damage()) == []


def test_a_deleted_annotation_comes_back_in_its_former_version(
    catalog: Catalog, kpn: Study, group: OwnGroup
) -> None:
    first = tube(catalog, kpn, "T1")
    renamed(catalog, first, "T2")
    with group.login() as client:
        delete(client, annotation(client, first.vid))
    assert catalog.get([first.vid]) == {}
    [found] = drift(catalog)
    assert (found.vid, found.kind) == (first.vid, "Tube")
    assert "deleted" in found.detail
    drift(catalog, repair=True)
    assert catalog.get([first.vid])[first.vid].object == first
    assert drift(catalog) == []


def test_a_deleted_annotation_without_a_former_version_leaves_a_tombstone(
    catalog: Catalog, kpn: Study, group: OwnGroup
) -> None:
    first = tube(catalog, kpn, "T1")
    head = catalog.head()
    with group.login() as client:
        delete(client, annotation(client, first.vid))
    drift(catalog, repair=True)
    assert isinstance(catalog.get([first.vid])[first.vid].object, Tombstone)
    [unit] = catalog.changes(head)
    assert [(c.vid, c.change) for c in unit.changes] == [(first.vid, ChangeKind.DELETED)]
    assert drift(catalog) == []


def test_an_edit_of_pairs_alone_is_taken_over_as_a_new_version(
    catalog: Catalog, kpn: Study, group: OwnGroup
) -> None:
    first = tube(catalog, kpn, "T1")
    with group.login() as client:
        found = client.query.get("MapAnnotation", annotation(client, first.vid))
        pairs = found.getMapValue()
        for pair in pairs:
            if pair.name == "label":
                pair.value = "T9"
        found.setMapValue(pairs)
        client.update.saveObject(found)
    assert len(drift(catalog)) == 1
    drift(catalog, repair=True)
    known = catalog.get([first.vid])[first.vid]
    assert (known.object.label, known.version) == ("T9", 2)  # type: ignore[attr-defined]
    assert drift(catalog) == []


def test_an_edit_that_is_no_object_any_more_is_undone(
    catalog: Catalog, kpn: Study, group: OwnGroup
) -> None:
    first = tube(catalog, kpn, "T1")
    renamed(catalog, first, "T2")
    with group.login() as client:
        found = client.query.get("MapAnnotation", annotation(client, first.vid))
        found.setMapValue([])
        client.update.saveObject(found)
    with pytest.raises(StorageError, match=first.vid):
        catalog.get([first.vid])
    drift(catalog, repair=True)
    assert catalog.get([first.vid])[first.vid].object == first
    assert drift(catalog) == []


def test_a_changed_description_is_mended(catalog: Catalog, kpn: Study, group: OwnGroup) -> None:
    from omero.rtypes import rstring

    first = tube(catalog, kpn, "T1")
    with group.login() as client:
        found = client.query.get("MapAnnotation", annotation(client, first.vid))
        found.setDescription(rstring("my favourite tube"))
        client.update.saveObject(found)
    drift(catalog, repair=True)
    assert catalog.get([first.vid])[first.vid].object == first
    assert drift(catalog) == []


@contextmanager
def repaired(group: OwnGroup, kpn: Study, *standing: Tube) -> Iterator[tuple[Catalog, Tube]]:
    """The catalog after a repair: whole, all there, and it took one tube more, which comes too."""
    with open_catalog(group.url) as mending:
        drift(mending, repair=True)
        assert list(mending.damage()) == []
        assert drift(mending) == []
        newest = tube(mending, kpn, "T3")
        told = {change.vid for unit in mending.changes({}) for change in unit.changes}
        assert told == {kpn.vid, *(one.vid for one in standing), newest.vid}
        assert set(mending.get(told)) == told
        assert [entry.object for entry in mending.history(newest.vid)] == [newest]
        yield mending, newest


@pytest.mark.parametrize("which", [1, 2, 3])
def test_a_deleted_commit_stops_writers_until_repaired(
    catalog: Catalog, kpn: Study, group: OwnGroup, which: int
) -> None:
    first, second = tube(catalog, kpn, "T1"), tube(catalog, kpn, "T2")
    position = catalog.head()
    log = next(iter(position))
    catalog.close()
    with group.login() as client:
        delete(client, annotation(client, f"{log}/{which:012d}"))
    with open_catalog(group.url) as again:
        assert set(again.get([kpn.vid, first.vid, second.vid])) == {
            kpn.vid,
            first.vid,
            second.vid,
        }
        assert len(list(again.damage())) == 1
        with pytest.raises(StorageError, match="verify --repair"):
            tube(again, kpn, "T3")
    with repaired(group, kpn, first, second) as (mending, third):
        assert list(mending.changes(mending.head())) == []
        assert mending.history(first.vid)
        # For who reads the feed it is one log still, and goes on from where it was read to.
        assert mending.head().keys() == position.keys()
        later = {change.vid for unit in mending.changes(position) for change in unit.changes}
        assert third.vid in later
        positions = [unit.position for unit in mending.changes({})]
        assert positions == sorted(positions, key=lambda one: one[log])
        receipt = mending.commit([Delete(vid=third.vid, based_on=1)], by="ada")
        assert (receipt.log, receipt.position) == (log, mending.head())


def test_the_head_of_a_damaged_log_is_never_before_what_was_read(
    catalog: Catalog, kpn: Study, group: OwnGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    from biobank_core.catalog.omero import log as omero_log

    [(log, before)] = catalog.head().items()
    with open_catalog(group.url) as other:
        made = [tube(other, kpn, f"T{n}") for n in range(3)]
        with group.login() as client:
            delete(client, annotation(client, f"{log}/{before + 1:012d}"))
        monkeypatch.setattr(omero_log, "_BEYOND_GAPS_S", 0.0)
        units = list(catalog.changes({log: before}))
        assert [unit.changes[0].vid for unit in units] == [made[1].vid, made[2].vid]
        assert catalog.head() == units[-1].position
        tube(other, kpn, "T4")  # one that has not noticed goes on
        assert catalog.head() == other.head() != units[-1].position


def test_who_writes_on_while_others_repair_writes_to_the_new_log(
    catalog: Catalog, kpn: Study, group: OwnGroup
) -> None:
    first, second = tube(catalog, kpn, "T1"), tube(catalog, kpn, "T2")
    [log] = catalog.head()
    with group.login() as client:
        delete(client, annotation(client, f"{log}/{2:012d}"))
    with open_catalog(group.url) as mending:
        drift(mending, repair=True)
        renamed(mending, second, "T2, found again")
        reached = mending.head()
    third = tube(catalog, kpn, "T3")
    with open_catalog(group.url) as again:
        told = {change.vid for unit in again.changes(reached) for change in unit.changes}
        assert third.vid in told
        assert (list(again.damage()), drift(again)) == ([], [])
        assert set(again.get([first.vid, second.vid, third.vid])) == {
            first.vid,
            second.vid,
            third.vid,
        }


def edited(client: Client, number: int, change: Callable[[Any], None]) -> None:
    """Change an annotation as any other program would."""
    found = client.query.get("MapAnnotation", number)
    change(found)
    client.update.saveObject(found)


def unreadable(client: Client, log: str, number: int) -> None:
    from omero.rtypes import rstring

    name = f"{log}/{number:012d}"
    edited(client, annotation(client, name), lambda found: found.setDescription(rstring("{}")))


def renamed_commit(client: Client, log: str, number: int) -> None:
    from omero.rtypes import rstring

    name = f"{log}/{number:012d}"
    edited(client, annotation(client, name), lambda found: found.setName(rstring("mine now")))


def repointed(client: Client, log: str, number: int) -> None:
    import omero.model
    from omero.rtypes import rlong, rstring

    other = omero.model.ExternalInfoI()
    other.setEntityId(rlong(1))
    other.setEntityType(rstring("other"))
    other.setLsid(rstring("other"))

    def change(found: Any) -> None:
        found.getDetails().setExternalInfo(other)

    edited(client, annotation(client, f"{log}/{number:012d}"), change)


def doubled(client: Client, log: str, number: int) -> None:
    import omero.model

    found = client.query.get("MapAnnotation", annotation(client, f"{log}/{number:012d}"))
    twin = omero.model.MapAnnotationI()
    twin.setNs(found.getNs())
    twin.setName(found.getName())
    twin.setDescription(found.getDescription())
    client.update.saveObject(twin)


def without_next_row(client: Client, log: str, number: int) -> None:
    from omero.cmd import Delete2

    last = client.query.get("MapAnnotation", annotation(client, f"{log}/{number:012d}"))
    token = json.loads(last.getDescription().getValue())["token"]
    client.submit(Delete2(targetObjects={"ExternalInfo": [token]}))


@pytest.mark.parametrize(
    ("which", "damage"),
    [
        (2, unreadable),
        (3, unreadable),
        (2, renamed_commit),
        (3, renamed_commit),
        (2, repointed),
        (3, repointed),
        (2, doubled),
        (3, doubled),
        (3, without_next_row),
    ],
)
def test_each_kind_of_damage_is_told_stops_writers_and_is_mended(
    catalog: Catalog,
    kpn: Study,
    group: OwnGroup,
    which: int,
    damage: Callable[[Client, str, int], None],
) -> None:
    first, second = tube(catalog, kpn, "T1"), tube(catalog, kpn, "T2")
    log = next(iter(catalog.head()))
    catalog.close()
    with group.login() as client:
        damage(client, log, which)
    with open_catalog(group.url) as again:
        assert len(list(again.damage())) == 1
        everything = {kpn.vid, first.vid, second.vid}
        assert set(again.get(everything)) == everything
        # The others are seen by who reads the whole chain, as `verify` does.
        if damage is not repointed and (damage, which) != (unreadable, 2):
            with pytest.raises(StorageError, match="verify --repair"):
                tube(again, kpn, "T3")
    with repaired(group, kpn, first, second):
        pass


@pytest.mark.parametrize("units", [0, 2])
def test_a_first_commit_that_is_gone_is_told_and_put_back(group: OwnGroup, units: int) -> None:
    made = []
    with open_catalog(group.url, create=True) as catalog:
        for number in range(units):
            made.append(Study(vid=new_vid(), label=f"S{number}"))
            catalog.commit([Save(object=made[-1])], by="ada")
    with group.login() as client:
        delete(client, *client.ids("select a.id from Annotation a where a.ns like '%/log/root'"))
    with pytest.raises(StorageError if units else InputError, match="biobank init"):
        open_catalog(group.url)
    with open_catalog(group.url, create=True) as again:
        assert (list(again.damage()), drift(again)) == ([], [])
        again.commit([Save(object=Study(vid=new_vid(), label="next"))], by="ada")
        assert [unit.number for unit in again.changes({})] == list(range(1, units + 2))
        assert set(again.get(one.vid for one in made)) == {one.vid for one in made}


def test_a_commit_that_was_taken_out_of_the_chain_is_told(
    catalog: Catalog, kpn: Study, group: OwnGroup
) -> None:
    tube(catalog, kpn, "T1")
    log = next(iter(catalog.head()))
    with group.login() as client:
        found = client.query.get("MapAnnotation", annotation(client, f"{log}/{1:012d}"))
        found.getDetails().setExternalInfo(None)
        client.update.saveObject(found)
    assert len(list(catalog.damage())) == 1
    drift(catalog, repair=True)
    assert list(catalog.damage()) == []
    tube(catalog, kpn, "T2")


def test_of_two_first_commits_the_empty_one_is_retired(
    catalog: Catalog, kpn: Study, group: OwnGroup
) -> None:
    from biobank_core.catalog.omero.log import open_log

    open_log(catalog._session, group.id, by="another")  # type: ignore[attr-defined]
    with open_catalog(group.url) as again, pytest.raises(StorageError, match="verify --repair"):
        tube(again, kpn, "T1")
    with open_catalog(group.url) as mending:
        drift(mending, repair=True)
    with open_catalog(group.url) as again:
        assert set(again.get([kpn.vid])) == {kpn.vid}


def test_verify_tells_and_mends_and_the_index_follows(
    catalog: Catalog, kpn: Study, group: OwnGroup, tmp_path: Path
) -> None:
    first = tube(catalog, kpn, "T1")
    with open_index(f"sqlite:///{tmp_path}/index.db", catalog=catalog) as index:
        assert list(verify(catalog, index)) == []
        with group.login() as client:
            delete(client, annotation(client, first.vid))
        assert first.vid in {finding.vid for finding in verify(catalog, index)}
        list(verify(catalog, index, repair=True))
        assert list(verify(catalog, index)) == []
