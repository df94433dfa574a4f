"""Killed with SIGKILL at any moment, a command run again gives what it gives undisturbed."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from benchmarks import world
from biobank_core.catalog.registry import open_catalog
from biobank_core.errors import InputError
from tests.faults.compared import by_names, dump_and_digest
from tests.faults.galaxy_over_http import served
from tests.faults.killing import SEED, Killer, Lab
from tests.unit.scripted_galaxy import chained

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

OBJECTS = 10_000
TUBES = 3_000
JOBS = 160


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A folder with OBJECTS objects in a file, in any order."""
    folder = tmp_path / "lab"
    folder.mkdir()
    lines = list(world.lines(world.mixed(OBJECTS)))
    random.Random(SEED).shuffle(lines)
    (folder / "objects.jsonl").write_bytes(b"".join(lines))
    return Lab(folder)


def count_of(folder: Path, kind: str | None = None) -> int:
    """How many objects the folder's catalog holds; 0 where it is not even made."""
    try:
        with open_catalog(f"sqlite:///{folder}/c.db") as catalog:
            counts = catalog.count()
    except InputError:
        return 0
    return counts.get(kind, 0) if kind else sum(counts.values())


def test_a_killed_load(killer: Killer, lab: Lab) -> None:
    undisturbed = lab.copy("undisturbed")
    killer.measure(undisturbed, "load", "objects.jsonl")
    expected = dump_and_digest(undisturbed.folder)
    while not killer.done:
        mine = lab.copy("killed")
        killer.kill(mine, "load", "objects.jsonl")
        assert count_of(mine.folder) in (0, OBJECTS)
        mine.run("load", "objects.jsonl")
        assert dump_and_digest(mine.folder) == expected


def test_a_killed_register(killer: Killer, tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    people = range(TUBES // 10)
    (folder / "studies.tsv").write_text("label\nKPN\n")
    (folder / "people.tsv").write_text(
        "code\tgender\n" + "".join(f"P{number}\tMALE\n" for number in people)
    )
    (folder / "tubes.tsv").write_text(
        "label\tsource\tcategory\tbegin\n"
        + "".join(f"T{n}\tP{n % len(people)}\tIMPORT\t2026-01-01\n" for n in range(TUBES))
    )
    lab = Lab(folder)
    lab.run("register", "Study", "studies.tsv")
    lab.run("register", "Individual", "people.tsv", "--study", "KPN")
    command = ("register", "Tube", "tubes.tsv", "--study", "KPN")
    undisturbed = lab.copy("undisturbed")
    killer.measure(undisturbed, *command)
    expected = by_names(dump_and_digest(undisturbed.folder)[0])
    while not killer.done:
        mine = lab.copy("killed")
        killer.kill(mine, *command)
        assert count_of(mine.folder, "Tube") in (0, TUBES)
        mine.run(*command)
        assert by_names(dump_and_digest(mine.folder)[0]) == expected


@pytest.mark.parametrize("index", [None, "index.db"], ids=["in the same file", "in another file"])
def test_a_killed_rebuild(killer: Killer, lab: Lab, index: str | None) -> None:
    lab.run("load", "objects.jsonl")
    expected = dump_and_digest(lab.folder)
    where = ("--index", f"sqlite:///{index}") if index else ()
    if index:
        lab.run(*where, "rebuild")
    broken = _lose_nodes(lab.folder / (index or "c.db"))
    undisturbed = lab.copy("undisturbed")
    killer.measure(undisturbed, *where, "rebuild")
    assert dump_and_digest(undisturbed.folder, index=index) == expected
    whole = _nodes(undisturbed.folder / (index or "c.db"))
    while not killer.done:
        mine = lab.copy("killed")
        killer.kill(mine, *where, "rebuild")
        assert _nodes(mine.folder / (index or "c.db")) in (broken, whole)
        mine.run(*where, "rebuild")
        assert dump_and_digest(mine.folder, index=index) == expected


def test_a_killed_record(killer: Killer, tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    with served(chained(JOBS)) as url:
        lab = Lab(folder, {"GALAXY_URL": url, "GALAXY_API_KEY": "key"})
        # One name whatever the port.
        command = ("record", "--galaxy-name", "galaxy")
        undisturbed = lab.copy("undisturbed")
        killer.measure(undisturbed, *command)
        expected = dump_and_digest(undisturbed.folder)
        assert count_of(undisturbed.folder, "Action") == JOBS
        while not killer.done:
            mine = lab.copy("killed")
            before = 0
            # Twice, for a resumed run is killed as well as a first one.
            for _ in range(2):
                killer.kill(mine, *command)
                recorded = count_of(mine.folder, "Action")
                assert before <= recorded <= JOBS
                before = recorded
            last = mine.run(*command)
            assert f"recorded\t{JOBS - before}\n" in last.stdout
            assert dump_and_digest(mine.folder) == expected


def _lose_nodes(path: Path) -> int:
    """Take a third of its nodes out of an index; how many are left."""
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM lineage_node WHERE id % 3 = 0")
    connection.close()
    return _nodes(path)


def _nodes(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        (count,) = connection.execute("SELECT count(*) FROM lineage_node").fetchone()
    finally:
        connection.close()
    return int(count)
