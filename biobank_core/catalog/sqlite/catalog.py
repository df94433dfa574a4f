"""The catalog port over one SQLite file: units in one transaction, reads from snapshots."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from biobank_core.catalog.checks import Write, check, prepare
from biobank_core.catalog.port import (
    Catalog,
    Change,
    ChangedObject,
    ChangeKind,
    CommittedUnit,
    HistoryEntry,
    Position,
    Receipt,
    Referrer,
    Versioned,
)
from biobank_core.catalog.sqlite.finding import BODY, COLUMNS, Query, queries, queries_of_kinds
from biobank_core.catalog.sqlite.rescue import rows_left
from biobank_core.catalog.sqlite.schema import COMPONENT, STEPS
from biobank_core.catalog.sqlite.state import PAGE, Links, Rows, add_kinds, pages
from biobank_core.catalog.sqlite.writing import write_unit
from biobank_core.errors import InputError, StorageError, UnreadableError
from biobank_core.lineage.events import IndexEvent
from biobank_core.lineage.projection import project
from biobank_core.model import codec
from biobank_core.model.base import Object
from biobank_core.model.registry import NOT_IN_FEED, with_subkinds
from biobank_core.sqlite_file import SqliteFile, path_of_url

# Called inside the transaction of a unit with what it tells the index.
Listener = Callable[[Sequence[IndexEvent]], None]

# Units of the feed that are read at once; each may hold some thousands of changes.
_UNITS_A_PAGE: Final = 50


def open_catalog(url: str, *, create: bool = False, salvage: bool = False) -> SqliteCatalog:
    """The catalog at `sqlite:///...`; with `create` it is made, folder and all, when missing.

    With `salvage` also one whose few tables beside the objects are damaged, for `dump`. Raises
    InputError when it is missing and may not be made, or the file holds no catalog.
    """
    path = path_of_url(url)
    if create:
        _make_folder(path)
    file = SqliteFile(path, create=create)
    try:
        try:
            if not create and file.schema_version(COMPONENT) == 0:
                raise InputError("holds no catalog; `biobank init` makes one", file=str(path))
            catalog = SqliteCatalog(file)
            catalog.migrate()
        except StorageError:
            if not (salvage and any(file.damage())):
                raise
            catalog = SqliteCatalog(file)
    except BaseException:
        file.close()
        raise
    return catalog


class SqliteCatalog(Catalog):
    """A catalog in an opened file, which it closes with itself.

    `listeners` are called inside each unit's transaction with its index events: when one fails,
    the unit fails.
    """

    def __init__(self, file: SqliteFile) -> None:
        self.file: Final = file
        self.listeners: list[Listener] = []
        self._log: str | None = None
        self._links: Links | None = None

    @property
    def url(self) -> str:
        return self.file.url

    @property
    def log(self) -> str:
        """The identifier of the change log; the same for the life of the file."""
        if self._log is None:
            with self.file.errors():
                (self._log,) = self.file.connection.execute(
                    "SELECT log FROM catalog_log"
                ).fetchone()
        return self._log

    def schema_version(self) -> int:
        return self.file.schema_version(COMPONENT)

    def migrate(self) -> None:
        self.file.migrate(COMPONENT, STEPS)
        with self.file.errors():
            Links(self.file.connection)

    def close(self) -> None:
        self.file.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        try:
            with self.file.transaction():
                yield
        except BaseException:
            # Numbers given in this transaction are gone with it.
            self._links = None
            raise

    def commit(self, changes: Sequence[Change], *, by: str) -> Receipt:
        unit = prepare(changes)
        try:
            with self.file.transaction() as connection:
                if not changes:
                    return Receipt({}, self.head())
                rows = Rows(connection, self._known_links(connection))
                writes = check(unit, rows)
                links = self._with_kinds(connection, writes)
                number = write_unit(
                    connection,
                    writes,
                    ids=rows.ids,
                    links=links.numbers,
                    time=datetime.now(UTC),
                    by=by,
                )
                if self.listeners:
                    self._tell(writes)
                return Receipt(
                    {write.object.vid: write.version for write in writes},
                    self.head() if number is None else {self.log: number},
                )
        except BaseException:
            # Numbers given in this transaction are gone with it.
            self._links = None
            raise

    def rehearse(self, changes: Sequence[Change]) -> None:
        """Raises what `commit` would raise of these now; saves nothing."""
        unit = prepare(changes)
        with self.file.reading() as connection:
            check(unit, Rows(connection, Links(connection)))

    def get(self, vids: Iterable[str]) -> dict[str, Versioned]:
        wanted = list(dict.fromkeys(vids))
        if len(wanted) <= PAGE:
            # One statement is one snapshot by itself.
            with self.file.errors():
                return dict(self._got(self.file.connection, wanted))
        found: dict[str, Versioned] = {}
        with self.file.reading() as connection:
            for page in pages(wanted):
                found.update(self._got(connection, page))
        return found

    def find(self, kind: str, where: Mapping[str, Any] | None = None) -> Iterator[Versioned]:
        self.file.connection  # noqa: B018 (raises at once when closed, as does what follows)
        with self.file.errors():
            found = queries(kind, where or {}, self._known_links(self.file.connection))
        return self._streamed(found)

    def lines(self, kind: str, where: Mapping[str, Any] | None = None) -> Iterator[bytes]:
        self.file.connection  # noqa: B018
        with self.file.errors():
            known = self._known_links(self.file.connection)
            found = queries(kind, where or {}, known, in_order=False)
        return self._lines(found)

    def lines_of(self, kinds: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        self.file.connection  # noqa: B018
        return self._lines_of(sorted(set(kinds)))

    def iterate(self, kinds: Iterable[str] | None = None) -> Iterator[Versioned]:
        self.file.connection  # noqa: B018
        return self._streamed(queries_of_kinds(kinds))

    def referring(
        self, vids: Iterable[str], kinds: Iterable[str] | None = None
    ) -> Iterator[Referrer]:
        self.file.connection  # noqa: B018
        wanted = None
        if kinds is not None:
            wanted = {name for kind in kinds for name in (kind, *with_subkinds(kind))}
        return self._referring(dict.fromkeys(vids), wanted)

    def count(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        with self.file.errors():
            # Grouped as the index over kinds lies, so that nothing is sorted.
            for deleted, kind, number in self.file.connection.execute(
                "SELECT deleted, kind, count(*) FROM object GROUP BY deleted, kind"
            ):
                concrete = "Tombstone" if deleted else kind
                counts[concrete] = counts.get(concrete, 0) + number
        return dict(sorted(counts.items()))

    def changes(self, since: Position) -> Iterator[CommittedUnit]:
        self.file.connection  # noqa: B018
        return self._changes(since.get(self.log, 0))

    def head(self) -> Position:
        with self.file.errors():
            row = self.file.connection.execute(
                "SELECT number FROM unit WHERE in_feed ORDER BY number DESC LIMIT 1"
            ).fetchone()
        return {self.log: row[0]} if row else {}

    def history(self, vid: str) -> list[HistoryEntry]:
        with self.file.errors():
            rows = self.file.connection.execute(
                "SELECT v.version, u.time, u.by, v.deleted, CAST(v.body AS BLOB) FROM ("
                " SELECT id AS object, version, deleted, unit, body FROM object WHERE vid = :vid"
                " UNION ALL SELECT object, version, deleted, unit, body FROM history"
                " WHERE object = (SELECT id FROM object WHERE vid = :vid)"
                ") v JOIN unit u ON u.number = v.unit ORDER BY v.version",
                {"vid": vid},
            ).fetchall()
        return [
            HistoryEntry(
                version=version,
                time=datetime.fromisoformat(time),
                by=by,
                change=ChangeKind.DELETED if deleted else ChangeKind.SAVED,
                object=None if deleted or body is None else self._decoded(vid, body),
            )
            for version, time, by, deleted, body in rows
        ]

    def rescue(self, after: str) -> Iterator[Versioned | None]:
        with self.file.reading() as connection:
            for row in rows_left(connection):
                if row is None:
                    yield None
                elif row[0] > after:
                    yield self._rescued(*row)

    def damage(self) -> Iterator[str]:
        return self.file.damage()

    def _known_links(self, connection: sqlite3.Connection) -> Links:
        # Kinds only ever come, and other processes bring some, too: else what these name is missed.
        (held,) = connection.execute("SELECT count(*) FROM kind").fetchone()
        if self._links is None or len(self._links.kinds) != held:
            self._links = Links(connection)
        return self._links

    def _with_kinds(self, connection: sqlite3.Connection, writes: Sequence[Write]) -> Links:
        links = self._known_links(connection)
        new = {write.kind for write in writes} - links.kinds
        if new:
            links = self._links = add_kinds(connection, sorted(new))
        return links

    def _tell(self, writes: Sequence[Write]) -> None:
        log = self.log
        events = [
            event
            for write in writes
            if (event := project(write.object, version=write.version, log=log)) is not None
        ]
        if events:
            for listener in self.listeners:
                listener(events)

    def _got(
        self, connection: sqlite3.Connection, vids: list[str]
    ) -> Iterator[tuple[str, Versioned]]:
        rows = connection.execute(
            f"SELECT {COLUMNS} FROM json_each(?) j CROSS JOIN object o ON o.vid = j.value",  # noqa: S608
            (json.dumps(vids),),
        ).fetchall()
        for vid, version, body in rows:
            yield vid, Versioned(self._decoded(vid, body), version)

    def _streamed(self, found: Sequence[Query]) -> Iterator[Versioned]:
        with self.file.reading() as connection:
            streams = [_rows(connection, query) for query in found]
            merged = streams[0] if len(streams) == 1 else heapq.merge(*streams)
            for vid, version, body in merged:
                yield Versioned(self._decoded(vid, body), version)

    def _lines(self, found: Sequence[Query]) -> Iterator[bytes]:
        with self.file.reading() as connection:
            for query in found:
                sql = query.sql.replace(COLUMNS, BODY, 1)
                cursor = connection.execute(sql, query.parameters)
                while page := cursor.fetchmany(PAGE):
                    for (body,) in page:
                        yield body

    def _lines_of(self, kinds: list[str]) -> Iterator[tuple[str, bytes]]:
        with self.file.reading() as connection:
            # From the first page to the last: by an index each object would be looked up alone.
            cursor = connection.execute(
                f"SELECT o.kind, {BODY} FROM object o NOT INDEXED"  # noqa: S608
                " WHERE o.deleted = 0 AND o.kind IN (SELECT value FROM json_each(?))",
                (json.dumps(kinds),),
            )
            while page := cursor.fetchmany(PAGE):
                yield from page

    def _referring(self, vids: Iterable[str], kinds: set[str] | None) -> Iterator[Referrer]:
        with self.file.reading() as connection:
            links = self._links = Links(connection)
            yield from Rows(connection, links).referrers_by_link(
                vids, links.numbers_of(kinds=kinds)
            )

    def _changes(self, since: int) -> Iterator[CommittedUnit]:
        log = self.log
        with self.file.reading() as connection:
            while units := connection.execute(
                "SELECT number, time, by FROM unit WHERE number > ? AND in_feed"
                " ORDER BY number LIMIT ?",
                (since, _UNITS_A_PAGE),
            ).fetchall():
                first, since = units[0][0], units[-1][0]
                changed: dict[int, list[ChangedObject]] = {}
                for unit, vid, version, kind, deleted, _ in connection.execute(
                    "SELECT unit, vid, version, kind, deleted, id AS object FROM object"
                    " WHERE unit BETWEEN :first AND :last"
                    " UNION ALL SELECT h.unit, o.vid, h.version, o.kind, h.deleted, h.object"
                    " FROM history h JOIN object o ON o.id = h.object"
                    " WHERE h.unit BETWEEN :first AND :last ORDER BY 1, 6",
                    {"first": first, "last": since},
                ).fetchall():
                    if kind not in NOT_IN_FEED:
                        change = ChangeKind.DELETED if deleted else ChangeKind.SAVED
                        changed.setdefault(unit, []).append(
                            ChangedObject(vid, version, kind, change)
                        )
                for number, time, by in units:
                    yield CommittedUnit(
                        log=log,
                        number=number,
                        position={log: number},
                        time=datetime.fromisoformat(time),
                        by=by,
                        changes=tuple(changed.get(number, ())),
                    )

    def _rescued(self, vid: str, version: int, body: bytes) -> Versioned | None:
        try:
            obj = self._decoded(vid, body)
        except StorageError:
            return None
        return Versioned(obj, version) if obj.vid == vid else None

    def _decoded(self, vid: str, body: bytes) -> Object:
        try:
            return codec.decode_stored(body)
        except msgspec.MsgspecError as exc:
            raise UnreadableError(f"{self.file.path}: {vid} can't be read back: {exc}") from exc


def _rows(connection: sqlite3.Connection, query: Query) -> Iterator[tuple[str, int, bytes]]:
    cursor = connection.execute(query.sql, query.parameters)
    while page := cursor.fetchmany(PAGE):
        yield from page


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise StorageError(f"{path.parent}: can't be made: {exc.strerror or exc}") from exc
