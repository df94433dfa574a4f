"""biobank rebuild: the index anew, in the catalog's own file and in another."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from biobank_core.cli import cli
from biobank_core.lineage.registry import open_index

TOUR = Path(__file__).parents[2] / "examples" / "tour"
# The index and its URL as an option: in the catalog's own file, and in another.
PLACES = [("c.db", ()), ("i.db", ("--index", "i.db"))]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("BIOBANK_", "GALAXY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BIOBANK_CATALOG", "sqlite:///c.db")


def biobank(*args: str) -> Result:
    return CliRunner().invoke(cli, args)


def fill() -> None:
    study = ("--study", "KPN")
    for args in (
        ("register", "Study", str(TOUR / "studies.tsv")),
        ("register", "Individual", str(TOUR / "individuals.tsv"), *study),
        ("register", "Tube", str(TOUR / "tubes.tsv"), *study),
        ("load", str(TOUR / "analyses.jsonl")),
    ):
        done = biobank(*args)
        assert done.exit_code == 0, done.stderr


def digest(file: str) -> str:
    with open_index(f"sqlite:///{file}", create=False) as index:
        return index.digest()


@pytest.mark.parametrize(("file", "index"), PLACES, ids=["own file", "another file"])
def test_a_rebuilt_index_has_the_digest_of_the_one_in_step(
    file: str, index: tuple[str, ...]
) -> None:
    fill()
    right = digest("c.db")
    assert biobank(*index, "rebuild").exit_code == 0
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE lineage_node SET label = 'wrong'")
        connection.execute("DELETE FROM lineage_input")
    connection.close()
    assert digest(file) != right
    done = biobank(*index, "rebuild")
    assert done.exit_code == 0
    assert done.stdout == ""
    assert done.stderr == ("35 objects read; the index holds 16 nodes, edges: 14 PRODUCED\n")
    assert digest(file) == right
    assert "in step" in biobank(*index, "status").stdout


def test_an_index_that_can_t_be_brought_up_to_date_is_rebuilt() -> None:
    fill()
    assert biobank("--index", "i.db", "rebuild").exit_code == 0
    with sqlite3.connect("i.db") as connection:
        # What is in the ledger can't be read back: whoever follows the feed stumbles over it.
        connection.execute("UPDATE lineage_ledger SET content = x'00'")
        connection.execute("UPDATE lineage_position SET number = 1")
    connection.close()
    assert biobank("--index", "i.db", "status").exit_code != 0
    assert biobank("--index", "i.db", "rebuild").exit_code == 0
    assert digest("i.db") == digest("c.db")


def test_an_empty_catalog_gives_an_empty_index_and_a_missing_one_is_refused() -> None:
    assert biobank("rebuild").exit_code == 2
    assert not Path("c.db").exists()
    assert biobank("init").exit_code == 0
    done = biobank("rebuild")
    assert done.stderr == "0 objects read; the index holds 0 nodes, edges: none\n"
