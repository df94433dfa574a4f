"""The index against the catalog: what is found, what is mended, and nothing else."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from biobank_core.catalog.port import Catalog, Delete, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.cli import cli
from biobank_core.lineage import links
from biobank_core.lineage import verify as verifying
from biobank_core.lineage.follow import rebuild
from biobank_core.lineage.port import LineageIndex
from biobank_core.lineage.registry import open_index
from biobank_core.lineage.verify import Finding, What, verify
from biobank_core.model.ids import derived_vid
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionStatus,
    DataCollection,
    DataMember,
    DataSample,
    Port,
    SoftwareProgram,
    Study,
    Supersession,
)
from tests.unit.random_catalogs import catalogs


def vid(name: str) -> str:
    return derived_vid("Test", name)


def data(name: str) -> DataSample:
    return DataSample(vid=vid(name), label=name, study=vid("study"))


def job(name: str, inputs: str, outputs: str) -> Action:
    return Action(
        vid=vid(name),
        category=ActionCategory.PROCESSING,
        study=vid("study"),
        device=vid("tool"),
        status=ActionStatus.OK,
        begin=datetime(2026, 1, 1, tzinfo=UTC),
        end=datetime(2026, 1, 1, tzinfo=UTC),
        inputs=tuple(Port(role=f"in {item}", object=vid(item)) for item in inputs),
        outputs=tuple(Port(role="out", object=vid(item)) for item in outputs),
    )


# a, b -> job -> c, d;  c in list;  d superseded by e;  e is used and leaves the house.
WORLD = (
    Study(vid=vid("study"), label="KPN"),
    SoftwareProgram(vid=vid("tool"), label="kleborate", release="2.2.0"),
    *map(data, "abcde"),
    job("job", "ab", "cd"),
    job("use", "e", ""),
    DataCollection(
        vid=vid("list"),
        label="list",
        study=vid("study"),
        items=(DataMember(role="m", object=vid("c")),),
    ),
    Supersession(vid=vid("newer"), new=vid("e"), old=vid("d")),
)


@contextmanager
def stores(*, own_file: bool = True) -> Iterator[tuple[Catalog, LineageIndex]]:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/catalog.db"
        index_url = url if own_file else f"sqlite:///{folder}/index.db"
        with (
            open_catalog(url, create=True) as catalog,
            open_index(index_url, catalog=catalog) as index,
        ):
            yield catalog, index


def save(catalog: Catalog, *objects: object) -> None:
    catalog.commit([Save(object=obj) for obj in objects], by="tester")  # type: ignore[arg-type]


@pytest.fixture
def world() -> Iterator[tuple[Catalog, LineageIndex]]:
    with stores() as (catalog, index):
        save(catalog, *WORLD)
        yield catalog, index


def sabotage(index: LineageIndex, *statements: str) -> None:
    with index.transaction() as connection:  # type: ignore[attr-defined]
        for statement in statements:
            connection.execute(statement)


def number(name: str) -> str:
    return f"(SELECT id FROM lineage_vid WHERE vid = x'{vid(name)[2:]}')"


@pytest.mark.parametrize("own_file", [True, False])
@pytest.mark.parametrize("repair", [True, False])
def test_an_index_in_step_has_nothing_to_be_found(own_file: bool, repair: bool) -> None:
    with stores(own_file=own_file) as (catalog, index):
        assert list(verify(catalog, index, repair=repair)) == []
        save(catalog, *WORLD)
        assert list(verify(catalog, index, repair=repair)) == []
        catalog.commit([Delete(vid=vid("a"), based_on=1, cascade=True)], by="tester")
        catalog.commit([Delete(vid=vid("newer"), based_on=1)], by="tester")
        assert list(verify(catalog, index, repair=repair)) == []
        assert any(node.deleted for node in index.nodes())


def edge(relation: str, source: str, target: str) -> str:
    return f"edge {relation} {vid(source)} -> {vid(target)}"


SABOTAGE = {
    "a node that is gone": (
        f"DELETE FROM lineage_node WHERE id = {number('b')}",
        {
            (What.MISSING, "b", "DataSample", "node 'b'"),
            (What.MISSING, "job", "Action", edge("PRODUCED", "b", "c")),
            (What.MISSING, "job", "Action", edge("PRODUCED", "b", "d")),
        },
    ),
    "a label": (
        f"UPDATE lineage_node SET label = 'x' WHERE id = {number('a')}",
        {(What.STALE, "a", "DataSample", "node 'a': label 'x' instead of 'a'")},
    ),
    "a node too many": (
        f"INSERT INTO lineage_vid VALUES (999, x'{vid('ghost')[2:]}');"
        f"INSERT INTO lineage_node VALUES (999, x'{vid('ghost')[2:]}', 'Tube', 'ghost', NULL, 1,"
        " 0)",
        {(What.EXTRA, "ghost", "Tube", "node 'ghost'")},
    ),
    "an input too many": (
        f"INSERT INTO lineage_input VALUES ({number('e')}, {number('job')}, '[]')",
        {
            (What.EXTRA, "job", "Action", edge("PRODUCED", "e", "c")),
            (What.EXTRA, "job", "Action", edge("PRODUCED", "e", "d")),
        },
    ),
    "an output that is gone": (
        f"DELETE FROM lineage_output WHERE node = {number('d')}",
        {
            (What.MISSING, "job", "Action", f"made {vid('d')}"),
            (What.MISSING, "job", "Action", edge("PRODUCED", "a", "d")),
            (What.MISSING, "job", "Action", edge("PRODUCED", "b", "d")),
        },
    ),
    "a member that is gone": (
        f"DELETE FROM lineage_input WHERE link = {number('list')}",
        {(What.MISSING, "list", "DataCollection", edge("COLLECTED_IN", "c", "list"))},
    ),
    "a role": (
        f"UPDATE lineage_input SET roles = '[\"x\"]' WHERE link = {number('list')}",
        {
            (
                What.STALE,
                "list",
                "DataCollection",
                f"{edge('COLLECTED_IN', 'c', 'list')}: source_roles ['x'] instead of ['m']",
            )
        },
    ),
    "a use that is gone": (
        "DELETE FROM lineage_use",
        {(What.MISSING, "use", "Action", f"use of {vid('e')} as 'in e'")},
    ),
    "a status": (
        f"UPDATE lineage_action SET status = 'error' WHERE id = {number('use')}",
        {
            (
                What.STALE,
                "use",
                "Action",
                f"use of {vid('e')} as 'in e': maker.status 'error' instead of 'ok'",
            )
        },
    ),
    "a supersession that is gone": (
        "DELETE FROM lineage_supersession",
        {(What.MISSING, "newer", "Supersession", edge("SUPERSEDES", "e", "d"))},
    ),
    "a supersession too many": (
        f"INSERT INTO lineage_supersession VALUES (777, {number('a')}, {number('b')})",
        {(What.EXTRA, "", "Supersession", edge("SUPERSEDES", "a", "b"))},
    ),
    "a version from the future": (
        f"UPDATE lineage_ledger SET version = 9 WHERE object = {number('list')}",
        {(What.STALE, "list", "DataCollection", "the index holds version 9, the catalog 1")},
    ),
}


@pytest.mark.parametrize("name", SABOTAGE)
def test_drift_is_found_and_just_that_is_mended(
    name: str, world: tuple[Catalog, LineageIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, index = world
    right = index.digest()
    statements, expected = SABOTAGE[name]
    sabotage(index, *statements.split(";"))
    named = {
        Finding(what, vid(owner) if owner else "", kind, detail)
        for what, owner, kind, detail in expected
    }
    assert set(verify(catalog, index)) == named

    def fails(*_args: object) -> None:
        raise AssertionError("mended by making all of it anew")

    monkeypatch.setattr(verifying, "rebuild", fails)
    assert set(verify(catalog, index, repair=True)) == named
    assert list(verify(catalog, index)) == []
    assert index.digest() == right


def test_two_supersessions_of_one_pair_are_one_edge_at_the_first_look(
    world: tuple[Catalog, LineageIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, index = world
    monkeypatch.setattr(verifying, "_looked_closely", None)
    save(catalog, Supersession(vid=vid("again"), new=vid("e"), old=vid("d")))
    assert list(verify(catalog, index)) == []


def test_a_wrong_release_is_found_wherever_it_shows(world: tuple[Catalog, LineageIndex]) -> None:
    catalog, index = world
    right = index.digest()
    sabotage(index, "UPDATE lineage_device SET release = '9'")
    found = list(verify(catalog, index, repair=True))
    assert {finding.what for finding in found} == {What.STALE}
    assert all("maker.release '9' instead of '2.2.0'" in finding.detail for finding in found)
    assert index.digest() == right
    assert list(verify(catalog, index)) == []


def test_what_others_write_during_the_first_look_is_no_finding(
    world: tuple[Catalog, LineageIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, index = world
    held, looks = verifying.rows.held, []

    def written_meanwhile(*args: object) -> object:
        looks.append(1)
        if len(looks) == 1:
            save(catalog, data("f"))
        return held(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(verifying.rows, "held", written_meanwhile)
    assert list(verify(catalog, index)) == []
    assert len(looks) == 2


TABLES = ("node", "action", "device", "input", "output", "use", "supersession", "ledger", "vid")
# Each example makes files: shrinking would take minutes.
_quick = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_is_lost_is_found_and_made_anew(
    table: str, world: tuple[Catalog, LineageIndex]
) -> None:
    catalog, index = world
    right = index.digest()
    sabotage(index, f"DELETE FROM lineage_{table}")
    assert list(verify(catalog, index, repair=True)) or table == "ledger"
    assert index.digest() == right
    assert list(verify(catalog, index)) == []


@_quick
@given(objects=catalogs(), own_file=st.booleans(), small=st.booleans(), draw=st.data())
def test_any_lost_rows_are_found_and_mended(
    objects: list[object], own_file: bool, small: bool, draw: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch, stores(own_file=own_file) as (catalog, index):
        if small:
            patch.setattr(links, "MAX_EDGES_OF_ACTION", 2)
            patch.setattr(verifying, "_ROWS_AT_ONCE", 3)
        save(catalog, *objects)
        assert list(verify(catalog, index)) == []
        right = index.digest()
        for table in draw.draw(st.sets(st.sampled_from(TABLES), min_size=1, max_size=3)):
            rest = draw.draw(st.integers(0, 2))
            column = {"input": "link", "output": "link", "use": "action", "ledger": "object"}
            name = column.get(table, "id")
            sabotage(index, f"DELETE FROM lineage_{table} WHERE {name} % 3 = {rest}")
        # The digest leaves out a device's VID: not all that is found shows there.
        assert list(verify(catalog, index)) or index.digest() == right
        list(verify(catalog, index, repair=True))
        assert index.digest() == right
        assert list(verify(catalog, index)) == []


def test_an_index_of_another_catalog_is_made_that_of_this_one() -> None:
    with stores() as (catalog, index), stores(own_file=False) as (other, strange):
        save(catalog, *WORLD)
        save(other, Study(vid=vid("other"), label="other"))
        rebuild(catalog, strange)
        strange.set_position(other.head())  # type: ignore[attr-defined]
        assert {finding.what for finding in verify(other, strange)} == {What.EXTRA}
        list(verify(other, strange, repair=True))
        assert list(strange.nodes()) == []
        assert index.digest() != strange.digest()


# The command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("BIOBANK_", "GALAXY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BIOBANK_CATALOG", "sqlite:///c.db")
    with open_catalog("sqlite:///c.db", create=True) as catalog:
        save(catalog, *WORLD)
    return tmp_path


def biobank(*args: str) -> Result:
    return CliRunner().invoke(cli, args)


HEADER = "what\tvid\tkind\tdetail\n"


@pytest.mark.parametrize("index", [(), ("--index", "i.db")], ids=["own file", "another file"])
def test_the_command_says_what_it_found_and_mends_it_when_told(
    index: tuple[str, ...], folder: Path
) -> None:
    done = biobank(*index, "verify")
    assert (done.exit_code, done.stdout, done.stderr) == (0, HEADER, "nothing found\n")
    with sqlite3.connect(index[1] if index else "c.db") as connection:
        connection.execute(f"UPDATE lineage_node SET label = '=1' WHERE id = {number('a')}")
    connection.close()
    line = f"stale\t{vid('a')}\tDataSample\tnode 'a': label '=1' instead of 'a'\n"
    done = biobank(*index, "verify")
    assert (done.exit_code, done.stdout) == (1, HEADER + line)
    assert done.stderr == "1 found; `biobank verify --repair` mends it\n"
    done = biobank(*index, "verify", "--repair")
    assert (done.exit_code, done.stdout, done.stderr) == (0, HEADER + line, "1 found; mended\n")
    assert biobank(*index, "verify").exit_code == 0


def test_a_damaged_file_is_a_finding_that_no_repair_mends(folder: Path) -> None:
    assert biobank("verify").exit_code == 0
    connection = sqlite3.connect("c.db")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    (page,) = connection.execute(
        "SELECT rootpage FROM sqlite_master WHERE name = 'lineage_output_by_link'"
    ).fetchone()
    connection.close()
    with Path("c.db").open("r+b") as stream:
        stream.seek((page - 1) * size)
        stream.write(b"\xff" * 64)
    for option in ((), ("--repair",)):
        done = biobank("verify", *option)
        assert done.exit_code == 1, done.stderr
        first = done.stdout.splitlines()[1].split("\t")
        assert first[:3] == ["damaged", "", ""]
        assert "c.db: pages are damaged (SQLite: " in first[3]
        assert "biobank dump" in done.stderr
    assert biobank("dump").exit_code == 0


def test_an_object_that_can_t_be_read_back_is_a_finding(folder: Path) -> None:
    with sqlite3.connect("c.db") as connection:
        connection.execute("UPDATE object SET body = '{' WHERE vid = ?", (vid("a"),))
    connection.close()
    assert biobank("rebuild").exit_code == 2
    done = biobank("verify")
    assert done.exit_code == 1
    assert f"damaged\t\t\tc.db: {vid('a')} can't be read back" in done.stdout
