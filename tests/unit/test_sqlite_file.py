from __future__ import annotations

import logging
import multiprocessing
import sqlite3
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from biobank_core import sqlite_file
from biobank_core.errors import ConfigurationError, InputError, StorageError
from biobank_core.sqlite_file import SqliteFile, path_of_url, url_of_path
from biobank_core.sqlite_place import AS_IT_LIES

STEP = "CREATE TABLE thing (number INTEGER PRIMARY KEY, name TEXT); CREATE INDEX i ON thing (name);"


def _made(path: Path) -> SqliteFile:
    made = SqliteFile(path, create=True)
    made.migrate("test", [STEP])
    return made


@pytest.fixture
def file(tmp_path: Path) -> SqliteFile:
    return _made(tmp_path / "x.db")


def numbers(file: SqliteFile) -> list[int]:
    with file.reading() as connection:
        return [row[0] for row in connection.execute("SELECT number FROM thing ORDER BY 1")]


def add(file: SqliteFile, number: int) -> None:
    with file.transaction() as connection:
        connection.execute("INSERT INTO thing VALUES (?, ?)", (number, "x"))


def add_and_fail(file: SqliteFile, number: int) -> None:
    with file.transaction():
        add(file, number)
        raise ZeroDivisionError


def make_and_add(path: str, number: int) -> None:
    made = _made(Path(path))
    for n in range(20):
        add(made, number * 100 + n)
    made.close()


def test_a_made_file_and_its_log_are_for_their_owner_only(file: SqliteFile) -> None:
    add(file, 1)
    modes = {path.name: path.stat().st_mode & 0o777 for path in file.path.parent.iterdir()}
    assert modes == {"x.db": 0o600, "x.db-wal": 0o600, "x.db-shm": 0o600}


def test_a_missing_file_is_not_made_unless_asked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="biobank init"):
        SqliteFile(tmp_path / "none.db", create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="can't be made"):
        SqliteFile(tmp_path / "no" / "x.db", create=True)


def test_a_file_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE moz_places (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="another program"):
        SqliteFile(path, create=True)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("not a database, " * 1000)
    before = path.read_bytes()
    with pytest.raises(StorageError, match="damaged or no SQLite file"):
        SqliteFile(path, create=True)
    assert path.read_bytes() == before


def test_a_damaged_file_is_a_storage_error(file: SqliteFile) -> None:
    with file.transaction() as connection:
        connection.executemany(
            "INSERT INTO thing VALUES (?, ?)", [(n, "x" * 200) for n in range(2000)]
        )
    file.close()
    content = bytearray(file.path.read_bytes())
    content[4096 * 2 :] = b"\xa5" * (len(content) - 4096 * 2)
    file.path.write_bytes(content)
    again = SqliteFile(file.path, create=False)
    with pytest.raises(StorageError, match="damaged"):
        numbers(again)


def test_a_newer_schema_is_refused_with_both_versions(file: SqliteFile) -> None:
    file.migrate("test", [STEP, "CREATE TABLE later (x);"])
    with pytest.raises(StorageError, match=r"version 2, this program\s+knows up to 1"):
        file.migrate("test", [STEP])


def test_a_migration_that_fails_leaves_nothing(file: SqliteFile) -> None:
    with pytest.raises(StorageError):
        file.migrate("test", [STEP, "CREATE TABLE later (x); NONSENSE;"])
    assert file.schema_version("test") == 1
    file.migrate("test", [STEP, "CREATE TABLE later (x);"])
    assert (file.schema_version("test"), file.schema_version("other")) == (2, 0)


def test_a_transaction_that_fails_is_undone(file: SqliteFile) -> None:
    add(file, 1)
    with pytest.raises(ZeroDivisionError):
        add_and_fail(file, 2)
    assert numbers(file) == [1]
    assert not file.in_transaction


def test_a_nested_transaction_that_fails_undoes_only_itself(file: SqliteFile) -> None:
    with file.transaction():
        add(file, 1)
        with pytest.raises(ZeroDivisionError):
            add_and_fail(file, 2)
        add(file, 3)
    assert numbers(file) == [1, 3]


@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "has ended"])
def test_what_is_changed_while_it_is_read_as_it_lies_is_not_taken_for_one_state(
    file: SqliteFile, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    with file.transaction() as connection:
        connection.executemany(
            "INSERT INTO thing VALUES (?, 'before')", [(number,) for number in range(20_000)]
        )
    file.close()
    # As in a folder that may not be written.
    monkeypatch.setattr(sqlite_file, "how_to_open", lambda _path: AS_IT_LIES)
    reader = SqliteFile(file.path, create=False)
    monkeypatch.undo()

    def read() -> set[str]:
        with reader.reading() as connection:
            rows = connection.execute("SELECT name FROM thing ORDER BY number")
            seen = {row[0] for row in rows.fetchmany(10)}
            writer = _made(file.path)
            with writer.transaction() as other:
                other.execute("UPDATE thing SET name = 'after!'")
            writer.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if ends:
                writer.close()
            return seen | {row[0] for row in rows}

    with pytest.raises(StorageError, match="was changed while it was read"):
        read()


def test_inside_a_transaction_one_reads_ones_own_writes(file: SqliteFile) -> None:
    with file.transaction():
        add(file, 1)
        assert numbers(file) == [1]


def test_a_reader_sees_one_state_and_blocks_nobody(file: SqliteFile) -> None:
    add(file, 1)
    other = SqliteFile(file.path, create=False)
    with file.reading() as connection:
        count = "SELECT count(*) FROM thing"
        assert connection.execute(count).fetchone() == (1,)
        add(other, 2)
        add(file, 3)
        assert connection.execute(count).fetchone() == (1,)
    assert numbers(file) == [1, 2, 3]


def test_waiting_too_long_for_another_writer_never_says_locked(
    file: SqliteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.1)
    other = SqliteFile(file.path, create=False)
    with (
        file.transaction(),
        pytest.raises(sqlite_file.TimeoutExceededError, match="another program") as caught,
    ):
        add(other, 1)
    assert caught.value.retryable
    add(other, 1)


def test_processes_may_make_and_write_one_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(make_and_add, str(path), n) for n in range(4)]:
            future.result(timeout=240)
    assert len(numbers(SqliteFile(path, create=False))) == 80


@pytest.mark.parametrize("step", range(1, 12))
def test_a_file_that_another_process_makes_between_two_steps_of_ours_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    path = tmp_path / "new.db"
    real = sqlite3.connect
    done = 0

    class Overtaken(sqlite3.Connection):
        def execute(self, *args: Any) -> sqlite3.Cursor:
            nonlocal done
            done += 1
            if done == step:
                with monkeypatch.context() as other:
                    other.setattr(sqlite3, "connect", real)
                    _made(path).close()
            return super().execute(*args)

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Overtaken))
    made = _made(path)
    assert done >= step
    add(made, 1)
    assert numbers(made) == [1]
    made.close()


def test_after_close_everything_says_so(file: SqliteFile) -> None:
    with file.reading() as connection:
        stream = connection.execute("SELECT 1")
        file.close()
    file.close()
    for call in (
        lambda: file.connection,
        lambda: numbers(file),
        lambda: add(file, 1),
        lambda: file.schema_version("test"),
    ):
        with pytest.raises(ConfigurationError, match="closed"):
            call()
    with pytest.raises(sqlite3.ProgrammingError):
        stream.fetchone()


def test_a_file_that_vanished_does_not_come_back_empty(file: SqliteFile, tmp_path: Path) -> None:
    file.close()
    with pytest.raises(InputError):
        SqliteFile(tmp_path / "gone.db", create=False)
    assert not (tmp_path / "gone.db").exists()


def test_an_empty_file_may_become_ours(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    made = SqliteFile(tmp_path / "x.db", create=True)
    made.migrate("test", [STEP])
    assert made.schema_version("test") == 1


@pytest.mark.parametrize(
    "name", ["x.db", "with space.db", "100%.db", "a?b#c.db", "ü株.db", "a%20b.db", "'; --.db"]
)
def test_any_path_survives_as_a_url(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert path_of_url(url_of_path(path)) == path
    made = SqliteFile(path, create=True)
    assert path.exists()
    assert path_of_url(made.url) == path


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x.db",
        "sqlite://",
        "sqlite:///",
        "sqlite://x.db",
        "sqlite:///:memory:",
        "sqlite:///x.db?mode=ro",
        "sqlite:///folder/",
        "sqlite:///nul%00.db",
        "omero://host",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(InputError):
        path_of_url(url)


def test_a_relative_url_names_a_relative_path() -> None:
    assert path_of_url("sqlite:///x/y.db") == Path("x/y.db")
    assert path_of_url("sqlite:////x/y.db") == Path("/x/y.db")


def test_a_network_file_system_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        SqliteFile(tmp_path / "local.db", create=True)
        assert not caplog.records
        monkeypatch.setattr(sqlite_file, "network_file_system", lambda _path: "nfs4")
        SqliteFile(tmp_path / "remote.db", create=True)
    assert "network file system (nfs4)" in caplog.text
