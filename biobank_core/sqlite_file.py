"""One SQLite file that the catalog and the lineage index share.

Writing goes through one connection and `transaction()`; streaming reads go through `reading()`,
which gives a snapshot that no writer disturbs and that disturbs no writer (WAL).
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from biobank_core.errors import (
    BiobankError,
    ConfigurationError,
    InputError,
    StorageError,
    TimeoutExceededError,
)
from biobank_core.sqlite_place import AS_IT_LIES, AS_USUAL, how_to_open, network_file_system

_log = logging.getLogger(__name__)

# "biob" in ASCII: tells our files from those of other programs (see PRAGMA application_id).
APPLICATION_ID: Final = 0x62696F62

# A `load` of a million objects is one transaction; another writer waits for it, patiently.
BUSY_TIMEOUT_S: Final = 300.0

# 64 MiB of pages: a transaction of 100,000 objects then hardly spills.
_CACHE_KIB: Final = 65_536
# The write-ahead log is cut back to this many bytes after a huge transaction.
_JOURNAL_LIMIT_BYTES: Final = 64 * 1024 * 1024
_MAX_IDLE_READERS: Final = 2
_FILE_MODE: Final = 0o600

_MIGRATIONS_TABLE: Final = """
CREATE TABLE IF NOT EXISTS biobank_migration (
    component TEXT NOT NULL, version INTEGER NOT NULL, applied TEXT NOT NULL,
    PRIMARY KEY (component, version)
) WITHOUT ROWID
"""


def path_of_url(url: str) -> Path:
    """The path in `sqlite:///relative.db` or `sqlite:////absolute.db` (percent-encoded).

    Raises InputError for anything else.
    """
    prefix = "sqlite:///"
    if not url.startswith(prefix):
        raise InputError("an SQLite URL looks like sqlite:///file.db", value=url)
    text, mark, _ = url[len(prefix) :].partition("?")
    path = unquote(text)
    if mark or not path or path == ":memory:" or "\x00" in path or path.endswith("/"):
        raise InputError("an SQLite URL names a file and has no options", value=url)
    return Path(path)


def url_of_path(path: Path) -> str:
    """The URL that `path_of_url` turns into this path."""
    return f"sqlite:///{quote(os.fspath(path), safe='/ ~+,=@:')}"


class SqliteFile:
    """An SQLite file of ours, opened; made with mode 0600 when it is missing and `create`.

    Raises InputError when it is missing and may not be made, StorageError when it is not ours or
    damaged. After `close` everything raises ConfigurationError.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool) -> None:
        self.path: Final = Path(path)
        self._connection: sqlite3.Connection | None = None
        self._idle_readers: list[sqlite3.Connection] = []
        self._busy_readers: set[sqlite3.Connection] = set()
        self._depth = 0
        if create:
            self._make_empty()
        elif not self.path.exists():
            raise InputError("there is no such file; `biobank init` makes it", file=str(self.path))
        self._mode: Final = how_to_open(self.path)
        self._lay: Final = self._state() if self._mode == AS_IT_LIES else None
        if (system := network_file_system(self.path)) is not None:
            _log.warning(
                "%s is on a network file system (%s): SQLite can lose data there when more than "
                "one machine uses the file",
                self.path,
                system,
            )
        with self.errors():
            self._connection = self._open()
            try:
                self._prepare(self._connection)
            except BaseException:
                self.close()
                raise

    @property
    def url(self) -> str:
        """Its address, `sqlite:///...`."""
        return url_of_path(self.path)

    @property
    def connection(self) -> sqlite3.Connection:
        """The one connection that writes. Wrap what you do with it in `errors()`."""
        if self._connection is None:
            raise ConfigurationError(f"{self.path} is closed already")
        return self._connection

    @property
    def in_transaction(self) -> bool:
        """Whether a `transaction()` is open."""
        return self._depth > 0

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns what sqlite3 raises inside into errors of ours that name the file."""
        try:
            yield
        except sqlite3.Error as exc:
            raise self._translated(exc) from exc
        except OverflowError as exc:
            raise InputError("a number is beyond 64 bits") from exc
        except UnicodeEncodeError as exc:
            raise InputError("text holds a lone surrogate", value=exc.object) from exc
        if self._changed:
            raise self._changed_error()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE .. COMMIT, rolled back on any exception.

        A nested one is a savepoint of the outer: when it fails and the outer goes on, only its own
        writes are undone.
        """
        connection = self.connection
        depth = self._depth
        begin, commit, rollback = _words(depth)
        with self.errors():
            if depth == 0 and connection.in_transaction:
                raise ConfigurationError(f"{self.path}: a transaction was begun by hand")
            connection.execute(begin)
            self._depth = depth + 1
            try:
                yield connection
                connection.execute(commit)
            except BaseException:
                # After a full disk or a lost file SQLite has rolled back by itself.
                if connection.in_transaction:
                    with suppress(sqlite3.Error):
                        for statement in rollback:
                            connection.execute(statement)
                raise
            finally:
                self._depth = depth

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection whose reads all see one state, for as long as the block lasts.

        Inside a `transaction()` it is the writing connection, so that one's own writes are seen.
        Never write with it.
        """
        with self.errors():
            if self._depth:
                yield self.connection
                return
            self.connection  # noqa: B018 (raises when closed)
            reader = self._idle_readers.pop() if self._idle_readers else self._open()
            self._busy_readers.add(reader)
            try:
                reader.execute("BEGIN")
                yield reader
            finally:
                self._busy_readers.discard(reader)
                with suppress(sqlite3.Error):
                    if reader.in_transaction:
                        reader.execute("ROLLBACK")
                if self._connection is None or len(self._idle_readers) >= _MAX_IDLE_READERS:
                    reader.close()
                else:
                    self._idle_readers.append(reader)

    def schema_version(self, component: str) -> int:
        """The version of this component's tables; 0 where nothing was made yet."""
        with self.errors():
            return _version(self.connection, component)

    def migrate(self, component: str, steps: Sequence[str]) -> None:
        """Run the SQL scripts that this component still lacks, in one transaction. Idempotent.

        Step n (from 1) makes version n; steps are only ever appended. Raises StorageError when the
        file is of a newer release.
        """
        if self.schema_version(component) == len(steps):
            return
        with self.transaction() as connection:
            connection.execute(_MIGRATIONS_TABLE)
            version = _version(connection, component)
            if version > len(steps):
                raise StorageError(
                    f"{self.path}: its {component} schema is version {version}, this program "
                    f"knows up to {len(steps)}; use a newer release of galaxy-biobank"
                )
            for number, script in enumerate(steps[version:], start=version + 1):
                for statement in _statements(script):
                    connection.execute(statement)
                connection.execute(
                    "INSERT INTO biobank_migration VALUES (?, ?, ?)",
                    (component, number, datetime.now(UTC).isoformat()),
                )

    def damage(self) -> Iterator[str]:
        """What SQLite finds wrong with the file (`PRAGMA quick_check`), a sentence each."""
        try:
            with self.reading() as connection:
                said = connection.execute("PRAGMA quick_check").fetchall()
        except StorageError as exc:
            # So badly damaged that the check itself fails.
            yield str(exc)
            return
        for (text,) in said:
            # One answer may be several lines, each with SQLite's own word for the file before it.
            for line in str(text).splitlines():
                if line != "ok" and not line.startswith("*** in database"):
                    yield f"{self.path}: {_explained(line)}"

    def close(self) -> None:
        """Close all connections. Idempotent."""
        connection, self._connection = self._connection, None
        for reader in (*self._idle_readers, *self._busy_readers):
            with suppress(sqlite3.Error):
                reader.close()
        self._idle_readers.clear()
        self._busy_readers.clear()
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _make_empty(self) -> None:
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _FILE_MODE))
        except FileExistsError:
            return
        except OSError as exc:
            raise StorageError(f"{self.path}: can't be made: {exc.strerror or exc}") from exc

    def _open(self) -> sqlite3.Connection:
        # An absolute path, because a reader may be opened after the program changed its folder.
        target = f"file:{quote(os.fspath(self._absolute()))}?{self._mode}"
        connection = sqlite3.connect(
            target,
            uri=True,
            isolation_level=None,
            timeout=BUSY_TIMEOUT_S,
            check_same_thread=False,
            cached_statements=512,
        )
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT_BYTES}")
        return connection

    def _state(self) -> tuple[int, int] | None:
        try:
            found = self._absolute().stat()
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns

    @property
    def _changed(self) -> bool:
        """Whether a file that is read as it lies, without locks, was written to since."""
        return self._lay is not None and self._lay != self._state()

    def _changed_error(self) -> StorageError:
        return StorageError(
            f"{self.path} was changed while it was read as it lies, so that what was read may be "
            "of two moments; read it again"
        )

    def _absolute(self) -> Path:
        if not hasattr(self, "_absolute_path"):
            self._absolute_path = self.path.absolute()
        return self._absolute_path

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # In this order: another process that makes the file just now writes the id first.
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (ours,) = connection.execute("PRAGMA application_id").fetchone()
        if ours != APPLICATION_ID and (ours or tables):
            raise StorageError(f"{self.path} is the SQLite file of another program")
        if self._mode != AS_USUAL:
            return
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            self._switch_to_wal(connection)
        if ours != APPLICATION_ID:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def _switch_to_wal(self, connection: sqlite3.Connection) -> None:
        # The switch needs the file alone and SQLite does not wait for that by itself; two
        # processes that make the file at once meet here.
        give_up_at = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as exc:
                if _name(exc) != "SQLITE_BUSY" or time.monotonic() > give_up_at:
                    raise
            else:
                if mode != "wal":
                    raise StorageError(f"{self.path}: this file system allows no write-ahead log")
                return
            time.sleep(0.02)

    def _translated(self, exc: sqlite3.Error) -> BiobankError:
        if self._connection is None and isinstance(exc, sqlite3.ProgrammingError):
            return ConfigurationError(f"{self.path} is closed already")
        if self._changed:
            return self._changed_error()
        name = _name(exc)
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return TimeoutExceededError(
                f"{self.path}: another program has been writing for {BUSY_TIMEOUT_S:.0f} s; "
                "try again when it is done"
            )
        if name == "SQLITE_FULL":
            return StorageError(f"{self.path}: the disk is full; nothing of this was saved")
        if name == "SQLITE_IOERR_WRITE":
            return StorageError(
                f"{self.path}: can't be written: a quota or a limit on the size of files is used "
                "up, or the disk fails; nothing of this was saved"
            )
        if name.startswith("SQLITE_READONLY"):
            return StorageError(f"{self.path}: the file may not be written")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return StorageError(f"{self.path}: the file is damaged or no SQLite file ({exc})")
        if "no such table" in str(exc):
            return StorageError(f"{self.path}: holds no biobank yet; `biobank init` makes it")
        return StorageError(f"{self.path}: {exc}")


# Words of SQLite's check -> what they mean for who has the file.
_DAMAGE: Final = (
    (("missing from index", "wrong # of entries", "non-unique entry"), "an index is damaged"),
    (("NULL value in", "CHECK constraint", " value in "), "a value is damaged"),
    (("Tree ", "Page ", "page ", "Freelist", "malformed"), "pages are damaged"),
)


def _explained(line: str) -> str:
    meanings = (meaning for words, meaning in _DAMAGE if any(word in line for word in words))
    return f"{next(meanings, 'the file is damaged')} (SQLite: {line})"


def _words(depth: int) -> tuple[str, str, tuple[str, ...]]:
    if depth == 0:
        return "BEGIN IMMEDIATE", "COMMIT", ("ROLLBACK",)
    name = f"nested_{depth}"
    return f"SAVEPOINT {name}", f"RELEASE {name}", (f"ROLLBACK TO {name}", f"RELEASE {name}")


def _version(connection: sqlite3.Connection, component: str) -> int:
    there = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'biobank_migration'"
    ).fetchone()
    if there is None:
        return 0
    row = connection.execute(
        "SELECT coalesce(max(version), 0) FROM biobank_migration WHERE component = ?", (component,)
    ).fetchone()
    return int(row[0])


def _statements(script: str) -> Iterator[str]:
    """The statements of a script: `executescript` would commit the transaction around it."""
    statement = ""
    for part in script.split(";")[:-1]:
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _name(exc: sqlite3.Error) -> str:
    return getattr(exc, "sqlite_errorname", "") or ""
