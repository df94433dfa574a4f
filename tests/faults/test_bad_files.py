"""A full disk, a file that may not be written, one of a newer release, a damaged one."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import world
from tests.faults.compared import dump_and_digest
from tests.faults.killing import Lab, environment

OBJECTS = 3_000


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    folder = tmp_path_factory.mktemp("bad") / "lab"
    folder.mkdir()
    (folder / "objects.jsonl").write_bytes(b"".join(world.lines(world.mixed(OBJECTS))))
    (folder / "more.jsonl").write_bytes(b"".join(world.lines(world.typed_samples(1_000))))
    lab = Lab(folder)
    lab.run("load", "objects.jsonl")
    return lab


@pytest.fixture
def lab(template: Lab, tmp_path: Path) -> Lab:
    shutil.copytree(template.folder, tmp_path / "lab")
    return Lab(tmp_path / "lab")


# A file that can't grow

_FEW_PAGES = """
import sys
from biobank_core.cli import cli
from biobank_core.sqlite_file import SqliteFile
opened = SqliteFile._open
def limited(self):
    connection = opened(self)
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 10}")
    return connection
SqliteFile._open = limited
cli.main(sys.argv[1:])
"""


def _without_space(lab: Lab, *args: str) -> subprocess.CompletedProcess[str]:
    """SQLite's own SQLITE_FULL, after ten more pages: a full disk without a disk of our own."""
    return _process(lab, "-c", _FEW_PAGES, *args)


def _over_quota(lab: Lab, *args: str) -> subprocess.CompletedProcess[str]:
    """Every write beyond a few bytes more than there are fails, as it does beyond a quota."""
    limit = (lab.folder / "c.db").stat().st_size // 4

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return _process(lab, "-m", "biobank_core.cli", *args, prepare=limited)


def _process(
    lab: Lab, *args: str, prepare: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        cwd=lab.folder,
        env=environment(lab.folder),
        capture_output=True,
        text=True,
        preexec_fn=prepare,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("limited", "message"),
    [
        (_without_space, "c.db: the disk is full; nothing of this was saved"),
        (_over_quota, "c.db: can't be written: a quota or a limit on the size of files is used up"),
    ],
    ids=["full disk", "quota"],
)
def test_without_room_nothing_is_saved_and_nothing_is_lost(
    lab: Lab, limited: Callable[..., subprocess.CompletedProcess[str]], message: str
) -> None:
    before = dump_and_digest(lab.folder)
    for _ in range(2):
        done = limited(lab, "load", "more.jsonl")
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert dump_and_digest(lab.folder) == before
    lab.run("verify")
    lab.run("load", "more.jsonl")
    assert len(dump_and_digest(lab.folder)[0]) > len(before[0])


# A file that may not be written


def _powerless(lab: Lab, *args: str) -> subprocess.CompletedProcess[str]:
    """The command without root's right to write to any file."""
    words = [sys.executable, "-m", "biobank_core.cli", *args]
    if os.geteuid() == 0:
        words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *words]
    return subprocess.run(
        words,
        cwd=lab.folder,
        env=environment(lab.folder),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_file_that_may_not_be_written_is_read_and_says_so_when_written_to(lab: Lab) -> None:
    before = dump_and_digest(lab.folder)
    (lab.folder / "c.db").chmod(0o400)
    done = _powerless(lab, "load", "more.jsonl")
    assert done.returncode == 2
    assert "c.db: the file may not be written" in done.stderr
    assert _powerless(lab, "verify").returncode == 0
    assert _powerless(lab, "dump").stdout.encode() == before[0]


def test_a_file_in_a_folder_that_may_not_be_written_is_read_as_it_lies(lab: Lab) -> None:
    before = dump_and_digest(lab.folder)
    assert not (lab.folder / "c.db-wal").exists()
    lab.folder.chmod(0o500)
    try:
        done = _powerless(lab, "dump")
        assert done.stdout.encode() == before[0]
        assert "c.db is read as it lies" in done.stderr
        assert _powerless(lab, "verify").returncode == 0
        done = _powerless(lab, "load", "more.jsonl")
        assert done.returncode == 2
        assert "c.db: the file may not be written" in done.stderr
    finally:
        lab.folder.chmod(0o700)


def test_changes_that_are_only_in_the_log_of_such_a_file_are_not_passed_over(lab: Lab) -> None:
    with closing(sqlite3.connect(lab.folder / "c.db")) as connection:
        connection.execute("UPDATE unit SET by = 'somebody'")
        connection.commit()
        log = (lab.folder / "c.db-wal").read_bytes()
    (lab.folder / "c.db-wal").write_bytes(log)
    lab.folder.chmod(0o500)
    try:
        done = _powerless(lab, "dump")
        assert done.returncode == 2
        assert "c.db-wal holds changes that are not in the file yet: copy both" in done.stderr
    finally:
        lab.folder.chmod(0o700)


# A file of a newer release


@pytest.mark.parametrize("component", ["catalog", "lineage"])
@pytest.mark.parametrize("command", [("load", "more.jsonl"), ("status",), ("verify",)])
def test_a_file_of_a_newer_schema_is_refused_with_both_versions(
    lab: Lab, component: str, command: tuple[str, ...]
) -> None:
    with sqlite3.connect(lab.folder / "c.db") as connection:
        connection.execute("INSERT INTO biobank_migration VALUES (?, 99, 'later')", (component,))
    connection.close()
    done = lab.run(*command, expect=2)
    assert f"c.db: its {component} schema is version 99, this program knows up to" in done.stderr
    assert "use a newer release of galaxy-biobank" in done.stderr


# A damaged file


def _overwrite(path: Path, table: str, *, every: int) -> None:
    """Overwrite every so many-th page of a table or index, beginning with its last."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    (root,) = connection.execute(
        "SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)
    ).fetchone()
    connection.close()
    data = bytearray(path.read_bytes())
    leaves = _leaves(data, root, size)
    for page in leaves[::-every]:
        start = (page - 1) * size
        data[start : start + size] = b"\xff" * size
    path.write_bytes(data)


def _leaves(data: bytearray, page: int, size: int) -> list[int]:
    """The leaf pages below a page of a b-tree (https://sqlite.org/fileformat2.html#b_tree_pages)."""
    start = (page - 1) * size
    kind = data[start]
    if kind in (0x0A, 0x0D):
        return [page]
    assert kind in (0x02, 0x05), "no b-tree page"
    cells = int.from_bytes(data[start + 3 : start + 5], "big")
    children = []
    for number in range(cells):
        pointer = start + 12 + 2 * number
        cell = start + int.from_bytes(data[pointer : pointer + 2], "big")
        children.append(int.from_bytes(data[cell : cell + 4], "big"))
    children.append(int.from_bytes(data[start + 8 : start + 12], "big"))
    return [leaf for child in children for leaf in _leaves(data, child, size)]


def test_of_a_damaged_file_verify_says_so_and_dump_saves_what_can_be_read(lab: Lab) -> None:
    whole = set(dump_and_digest(lab.folder)[0].splitlines())
    _overwrite(lab.folder / "c.db", "object", every=10)
    found = lab.run("verify", expect=1)
    assert found.stdout.splitlines()[1].startswith("damaged\t\t\t")
    assert "c.db: the file is damaged" in found.stdout
    assert "save what can be read with `biobank dump`" in found.stderr
    done = lab.run("dump", "--output", "saved.jsonl", expect=2)
    saved = (lab.folder / "saved.jsonl").read_bytes().splitlines()
    assert len(saved) == len(set(saved)), "an object was written twice"
    lost = whole - set(saved)
    assert set(saved) < whole
    # A tenth of the pages is gone, the last one, which knows how many there were, among them.
    assert 0.05 * OBJECTS < len(lost) < 0.2 * OBJECTS
    assert "c.db: the file is damaged" in done.stderr
    assert f"{len(lost)} objects could not be read; {len(saved):,} were written" in done.stderr


@pytest.mark.parametrize("table", ["object_by_kind", "unit", "lineage_node", "reference"])
def test_damage_anywhere_is_found_and_no_object_lost_by_what_dump_does_not_need(
    lab: Lab, table: str
) -> None:
    whole = dump_and_digest(lab.folder)[0]
    _overwrite(lab.folder / "c.db", table, every=2)
    found = lab.run("verify", expect=1)
    assert found.stdout.splitlines()[1].startswith("damaged\t\t\t")
    assert lab.run("dump").stdout.encode() == whole


@pytest.mark.parametrize("table", ["kind", "link", "biobank_migration", "catalog_log"])
def test_damage_to_a_small_table_that_every_command_needs_leaves_all_to_be_saved(
    lab: Lab, table: str
) -> None:
    whole = dump_and_digest(lab.folder)[0]
    _overwrite(lab.folder / "c.db", table, every=1)
    lab.run("load", "more.jsonl", expect=2)
    done = lab.run("dump", expect=0 if table == "catalog_log" else 2)
    assert done.stdout.encode() == whole
    if done.returncode:
        assert "c.db: the file is damaged" in done.stderr
        assert "0 objects could not be read; 3,000 were written" in done.stderr


def test_with_a_damaged_index_alone_every_object_is_saved(lab: Lab) -> None:
    whole = set(dump_and_digest(lab.folder)[0].splitlines())
    _overwrite(lab.folder / "c.db", "sqlite_autoindex_object_1", every=3)
    done = lab.run("dump", expect=2)
    assert set(done.stdout.encode().splitlines()) == whole
    assert "0 objects could not be read; 3,000 were written" in done.stderr
    # What was saved makes the same catalog again.
    (lab.folder / "saved.jsonl").write_text(done.stdout)
    lab.run("--catalog", "sqlite:///new.db", "load", "saved.jsonl")
    again = lab.run("--catalog", "sqlite:///new.db", "dump").stdout
    assert set(again.encode().splitlines()) == whole


def test_an_object_whose_bytes_were_changed_is_lost_alone(lab: Lab) -> None:
    path = lab.folder / "c.db"
    victim = world.vid("data", 7)
    mark = f'"{victim}","label"'.encode()
    data = path.read_bytes()
    assert data.count(mark) == 1
    path.write_bytes(data.replace(mark, mark.replace(b'"label"', b'"lab\x00l"')))
    done = lab.run("dump", expect=2)
    vids = {json.loads(line)["vid"] for line in done.stdout.splitlines()}
    assert len(vids) == OBJECTS - 1
    assert victim not in vids
    assert f"{victim} can't be read back" in done.stderr
    assert "1 objects could not be read; 2,999 were written" in done.stderr


def test_what_is_no_sqlite_file_at_all_is_said_to_be_none(lab: Lab) -> None:
    (lab.folder / "c.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 8000)
    for command in ("verify", "dump"):
        done = lab.run(command, expect=2)
        assert "the file is damaged or no SQLite file" in done.stderr
