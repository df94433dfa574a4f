"""What the SQLite catalog does beyond the contract of all catalogs."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biobank_core.catalog.port import Delete, Save
from biobank_core.catalog.registry import open_catalog, schemes
from biobank_core.catalog.sqlite import SqliteCatalog
from biobank_core.errors import ConfigurationError, DuplicateError, InputError, StorageError
from biobank_core.lineage.events import IndexEvent
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import (
    Action,
    DataCollection,
    DataMember,
    DataSample,
    Port,
    Study,
    Tube,
)
from biobank_core.sqlite_file import SqliteFile, url_of_path

V = [f"V0{n:032X}" for n in range(100)]
KPN = Study(vid=V[1], label="KPN")
T1 = Tube(vid=V[2], label="T1", study=V[1])


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqliteCatalog]:
    with open_catalog(url_of_path(tmp_path / "c.db"), create=True) as opened:
        assert isinstance(opened, SqliteCatalog)
        yield opened


def save(catalog: SqliteCatalog, *objects: object, based_on: int = 0) -> None:
    catalog.commit([Save(object=obj, based_on=based_on) for obj in objects], by="test")  # type: ignore[arg-type]


# Listeners


def test_a_listener_is_told_inside_the_transaction(catalog: SqliteCatalog) -> None:
    told: list[tuple[bool, list[tuple[str, int, bool]]]] = []

    def listen(events: Sequence[IndexEvent]) -> None:
        told.append(
            (
                catalog.file.in_transaction,
                [(event.vid, event.version, event.deleted) for event in events],
            )
        )

    catalog.listeners.append(listen)
    save(catalog, KPN, T1)
    catalog.commit([Delete(vid=V[2], based_on=1)], by="test")
    assert told == [(True, [(V[2], 1, False)]), (True, [(V[2], 2, True)])]


def test_a_listener_that_fails_undoes_the_unit(catalog: SqliteCatalog) -> None:
    def listen(_events: Sequence[IndexEvent]) -> None:
        raise StorageError("the index is ill")

    save(catalog, KPN)
    catalog.listeners.append(listen)
    with pytest.raises(StorageError, match="ill"):
        save(catalog, T1)
    assert catalog.count() == {"Study": 1}
    catalog.listeners.clear()
    save(catalog, T1)


def test_a_transaction_that_fails_takes_the_kinds_that_it_brought_with_it(
    catalog: SqliteCatalog,
) -> None:
    def save_in_vain() -> None:
        with catalog.transaction():
            save(catalog, T1)
            raise KeyError

    save(catalog, KPN)
    with pytest.raises(KeyError):
        save_in_vain()
    assert list(catalog.find("Vessel", {"study": KPN.vid})) == []
    save(catalog, T1)
    assert [found.object for found in catalog.find("Vessel", {"study": KPN.vid})] == [T1]


def test_a_transaction_that_fails_undoes_all_of_its_units(catalog: SqliteCatalog) -> None:
    def fail() -> None:
        with catalog.transaction():
            save(catalog, KPN)
            save(catalog, T1)
            save(catalog, msgspec.structs.replace(T1, vid=V[3]))

    with pytest.raises(DuplicateError):
        fail()
    assert catalog.count() == {}
    assert catalog.head() == {}
    # Kinds that were first seen in the undone transaction are known again.
    save(catalog, KPN, T1)
    assert [referrer.vid for referrer in catalog.referring([V[1]])] == [V[2]]


# Files


def test_a_reading_user_finds_no_catalog_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="biobank init"):
        open_catalog(url_of_path(tmp_path / "c.db"))
    SqliteFile(tmp_path / "index.db", create=True).close()
    with pytest.raises(InputError, match="holds no catalog"):
        open_catalog(url_of_path(tmp_path / "index.db"))


def test_the_folder_is_made_too(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.db"
    open_catalog(url_of_path(path), create=True).close()
    assert path.exists()
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_body_that_was_damaged_is_named(catalog: SqliteCatalog) -> None:
    save(catalog, KPN, T1)
    with sqlite3.connect(catalog.file.path) as connection:
        connection.execute("UPDATE object SET body = '{' WHERE vid = ?", (V[2],))
    connection.close()
    with pytest.raises(StorageError, match=V[2]):
        catalog.get([V[2]])
    with pytest.raises(StorageError, match=V[2]):
        list(catalog.iterate())
    assert catalog.get([V[1]])[V[1]].object == KPN


def test_former_content_of_a_deleted_object_is_not_in_the_file(catalog: SqliteCatalog) -> None:
    secret = "Ottoline-Secretperson"
    save(catalog, KPN, msgspec.structs.replace(T1, label=secret, barcode=secret))
    save(catalog, msgspec.structs.replace(T1, label=secret + "2"), based_on=1)
    catalog.commit([Delete(vid=V[2], based_on=2)], by="test")
    path = catalog.file.path
    catalog.close()
    assert secret.encode() not in path.read_bytes()


# Opening by URL


def test_an_unknown_scheme_says_what_is_known() -> None:
    with pytest.raises(InputError, match="sqlite"):
        open_catalog("mysql://x")
    with pytest.raises(InputError, match=r"sqlite:///file\.db"):
        open_catalog("file.db")
    assert "sqlite" in schemes()


def test_a_driver_whose_library_is_not_installed_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "omero.clients", None)
    with pytest.raises(ConfigurationError, match=r"galaxy-biobank\[omero\]"):
        open_catalog("omero://host:4064/")


# Cycles: the same answer as a plain search over everything


NODES = V[10:18]
edges = st.lists(st.sampled_from(NODES), max_size=3, unique=True)
units = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["action", "collection"]), st.integers(0, 5), edges, edges),
        min_size=1,
        max_size=3,
        unique_by=lambda step: step[:2],
    ),
    min_size=1,
    max_size=8,
)


def acyclic(owners: dict[str, Action | DataCollection]) -> bool:
    """Whether no object is its own ancestor, told by taking away what has no ancestor left."""
    pairs: set[tuple[str, str]] = set()
    for owner in owners.values():
        if isinstance(owner, Action):
            pairs |= {(i.object, o.object) for i in owner.inputs for o in owner.outputs}
        else:
            pairs |= {(item.object, owner.vid) for item in owner.items}
    while pairs:
        kept = {(a, b) for a, b in pairs if any(b2 == a for _, b2 in pairs)}
        if kept == pairs:
            return False
        pairs = kept
    return True


@settings(deadline=None, max_examples=60)
@given(units)
def test_a_unit_is_refused_exactly_when_it_closes_a_cycle(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[list[tuple[str, int, list[str], list[str]]]],
) -> None:
    collections = {n: V[30 + n] for n in range(6)}
    folder = tmp_path_factory.mktemp("cycles")
    with open_catalog(url_of_path(folder / "c.db"), create=True) as opened:
        assert isinstance(opened, SqliteCatalog)
        save(opened, KPN, *(DataSample(vid=vid, label="d", study=V[1]) for vid in NODES))
        save(opened, *(DataCollection(vid=v, label="c", study=V[1]) for v in collections.values()))
        there: dict[str, Action | DataCollection] = {}
        versions = dict.fromkeys(collections.values(), 1)
        for unit in steps:
            changed = {obj.vid: obj for obj in _objects(unit, collections)}
            changes = [
                Save(object=obj, based_on=versions.get(vid, 0)) for vid, obj in changed.items()
            ]
            if acyclic(there | changed):
                versions.update(opened.commit(changes, by="test").versions)
                there |= changed
            else:
                with pytest.raises(InputError, match="cycle"):
                    opened.commit(changes, by="test")


def _objects(
    unit: list[tuple[str, int, list[str], list[str]]], collections: dict[int, str]
) -> Iterator[Action | DataCollection]:
    for what, number, first, second in unit:
        if what == "action":
            # Every third action reads a collection as well.
            extra = [collections[number]] if number % 3 == 0 else []
            inputs = [vid for vid in first if vid not in second] + extra
            yield msgspec.convert(
                {
                    "kind": "Action",
                    "vid": V[40 + number],
                    "category": "PROCESSING",
                    "study": V[1],
                    "status": "ok",
                    "begin": "2026-01-01T00:00:00Z",
                    "inputs": [Port(role="i", object=vid) for vid in inputs],
                    "outputs": [Port(role="o", object=vid) for vid in second],
                },
                Action,
            )
        else:
            inner = [collections[number + 1]] if number < 2 else []
            yield DataCollection(
                vid=collections[number],
                label="c",
                study=V[1],
                items=tuple(DataMember(role="m", object=vid) for vid in [*first, *inner]),
            )


def test_an_action_into_old_objects_that_lead_nowhere_needs_no_long_walk(
    catalog: SqliteCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    from biobank_core.catalog.sqlite.state import Rows

    asked: list[int] = []
    plain = Rows.referrers

    def counted(self: Rows, vids: set[str], fields: object = ()) -> object:
        asked.append(len(vids))
        return plain(self, vids, fields)  # type: ignore[arg-type]

    samples = [DataSample(vid=new_vid(), label="d", study=V[1]) for _ in range(50)]
    save(catalog, KPN, *samples)
    monkeypatch.setattr(Rows, "referrers", counted)
    new = DataSample(vid=new_vid(), label="d", study=V[1])
    steps = [("action", 1, [samples[0].vid], [new.vid])]
    save(catalog, new, *_objects(steps, {}))
    assert asked == []
