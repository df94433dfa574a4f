"""The lineage index in an SQLite file: the port's methods over `write` and `read`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol, runtime_checkable

from biobank_core.catalog.port import Position
from biobank_core.garbage import no_collector
from biobank_core.lineage.events import IndexEvent
from biobank_core.lineage.port import (
    Answer,
    Edge,
    LineageIndex,
    Node,
    Question,
    Refusal,
    Relation,
    Use,
    edge_order,
)
from biobank_core.lineage.sqlite import read, write
from biobank_core.lineage.sqlite import refusals as set_aside
from biobank_core.lineage.sqlite.answer import connected
from biobank_core.lineage.sqlite.schema import COMPONENT, STEPS, TABLES, to_blob
from biobank_core.model.ids import is_vid
from biobank_core.sqlite_file import SqliteFile, path_of_url

_KEYS: Final = 500


@runtime_checkable
class InSqliteFile(Protocol):
    """A catalog in an SQLite file that tells its listeners of changes, in their transaction."""

    file: SqliteFile
    listeners: list[Callable[[list[IndexEvent]], None]]

    def head(self) -> Position:
        """See `Catalog.head`."""
        ...


def open_index(
    url: str, *, create: bool, beside: object = None, account: object = None
) -> SqliteLineage:
    """The index at `sqlite:///...`, at the newest schema; made when it is missing and `create`.

    `beside` is an opened catalog: when it keeps its objects in the very same file, that open file
    is shared and the catalog's changes are listened to, so that both change in one transaction.
    A file needs no `account`.
    """
    if isinstance(beside, InSqliteFile) and _same_file(beside.file, url):
        index = SqliteLineage(beside.file)
        index.migrate()
        index.listen_to(beside)
        return index
    index = SqliteLineage(SqliteFile(path_of_url(url), create=create), owns_file=True)
    index.migrate()
    return index


class SqliteLineage(LineageIndex):
    """The index in a file of its own or in the catalog's.

    In the catalog's file `apply`, called by the catalog's listener, joins the catalog's
    transaction. In another file it keeps the position of the feed it was told of.
    """

    def __init__(self, file: SqliteFile, *, owns_file: bool = False) -> None:
        self._file = file
        self._owns_file = owns_file

    @property
    def url(self) -> str:
        """Its address, `sqlite:///...`."""
        return self._file.url

    def schema_version(self) -> int:
        """See the port."""
        return self._file.schema_version(COMPONENT)

    def migrate(self) -> None:
        """See the port."""
        self._file.migrate(COMPONENT, STEPS)

    def close(self) -> None:
        """Closes the file, unless it is shared with the catalog."""
        if self._owns_file:
            self._file.close()

    def apply(self, batch: Sequence[IndexEvent]) -> None:
        """See the port."""
        if not batch:
            return
        with self._file.transaction() as connection:
            write.take_in(connection, batch)
            set_aside.end(connection, batch)

    def transaction(self) -> AbstractContextManager[object]:
        """All that is done inside happens at once or not at all."""
        return self._file.transaction()

    def position(self) -> Position:
        """How far the feed was taken in; empty when never, or when told by listeners."""
        with self._file.reading() as connection:
            return dict(connection.execute("SELECT log, number FROM lineage_position").fetchall())

    def set_position(self, position: Position) -> None:
        """Remember how far the feed was taken in."""
        with self._file.transaction() as connection:
            connection.execute("DELETE FROM lineage_position")
            connection.executemany("INSERT INTO lineage_position VALUES (?, ?)", position.items())

    def listen_to(self, catalog: InSqliteFile) -> None:
        """Apply each of the catalog's changes in the catalog's own transaction.

        The position moves on with them, unless units were missed (another process wrote while it
        kept its index elsewhere): then it stays, and the next `catch_up` begins there.
        """

        def take_in(events: list[IndexEvent]) -> None:
            # In the catalog's transaction, which ends with any error of ours: no need of another.
            connection = self._file.connection
            write.take_in(connection, events)
            set_aside.end(connection, events)
            head = dict(catalog.head())
            if sum(head.values()) == sum(self.position().values()) + 1:
                connection.executemany(
                    "INSERT INTO lineage_position VALUES (?, ?)"
                    " ON CONFLICT DO UPDATE SET number = excluded.number",
                    head.items(),
                )

        catalog.listeners.append(take_in)

    def connected(self, question: Question) -> Answer:
        """See the port."""
        with self._file.reading() as connection, no_collector():
            return connected(connection, question)

    def versions(self, vids: Iterable[str], *, log: str | None = None) -> dict[str, int]:
        """See the port."""
        wanted = list(dict.fromkeys(vids))
        found: dict[str, int] = {}
        with self._file.reading() as connection:
            for start in range(0, len(wanted), _KEYS):
                some = [to_blob(vid) for vid in wanted[start : start + _KEYS] if is_vid(vid)]
                marks = ",".join("?" * len(some))
                # Ascending, so that of several logs the greatest stays.
                found.update(
                    connection.execute(
                        "SELECT 'V0' || hex(vid), version FROM lineage_vid "  # noqa: S608  # question marks only
                        "JOIN lineage_ledger l ON object = lineage_vid.id "
                        "JOIN lineage_log g ON g.id = l.log "
                        f"WHERE vid IN ({marks}) AND (? IS NULL OR g.name = ?) ORDER BY version",
                        (*some, log, log),
                    )
                )
        return found

    def checked(self) -> Position:
        """See the port; what `catch_up` took in was seen to be applied."""
        return self.position()

    def set_checked(self, position: Position, *, exactly: bool = False) -> None:
        """See the port."""
        with self._file.transaction():
            before = {} if exactly else self.position()
            kept = {log: max(number, before.get(log, 0)) for log, number in position.items()}
            self.set_position({**before, **kept})

    def refuse(self, refusals: Sequence[Refusal]) -> None:
        """See the port."""
        with self._file.transaction() as connection:
            set_aside.add(connection, refusals)

    def refused(self, vids: Iterable[str] | None = None) -> dict[tuple[str, str], Refusal]:
        """See the port."""
        with self._file.reading() as connection:
            return set_aside.standing(connection, vids)

    def forget_refusals(self, refusals: Iterable[Refusal]) -> None:
        """See the port."""
        with self._file.transaction() as connection:
            set_aside.end(connection, refusals)

    def nodes(self) -> Iterator[Node]:
        """See the port."""
        with self._file.reading() as connection:
            reader = read.Reader(connection)
            for page in reader.pages():
                yield from reader.nodes_of(page)
                reader.forget()

    def edges(self) -> Iterator[Edge]:
        """See the port."""
        with self._file.reading() as connection:
            reader = read.Reader(connection)
            for page in reader.pages():
                yield from sorted(reader.edges_from(page), key=edge_order)
                reader.forget()

    def uses(self) -> Iterator[Use]:
        """See the port."""
        with self._file.reading() as connection:
            reader = read.Reader(connection)
            for page in reader.pages():
                yield from reader.uses(page)
                reader.forget()

    def content(self) -> Iterator[Node | Edge | Use]:
        """See the port."""
        with self._file.reading() as connection:
            reader = read.Reader(connection)
            for page in reader.pages_as_they_lie():
                yield from reader.nodes_of(page)
                yield from reader.edges_from(page)
                yield from reader.uses(page)
                reader.forget()

    def clear(self) -> None:
        """See the port."""
        with self._file.transaction() as connection:
            for table in TABLES:
                connection.execute(f"DELETE FROM {table}")  # noqa: S608  # our own names

    def forget(self, vids: Iterable[str]) -> None:
        """See the port."""
        with self._file.transaction() as connection:
            write.forget(connection, vids)

    def damage(self) -> Iterator[str]:
        """See the port; a file that is the catalog's is the catalog's to look at."""
        return self._file.damage() if self._owns_file else iter(())

    def count(self) -> Mapping[str, int]:
        """See the port."""
        with self._file.reading() as connection:
            return {
                name: number
                for name, query in _COUNTS.items()
                for (number,) in connection.execute(query)
                if number or name == "nodes"
            }


_COUNTS: Final = {
    "nodes": "SELECT count(*) FROM lineage_node",
    Relation.PRODUCED.value: """
        SELECT count(*) FROM lineage_action a
        CROSS JOIN lineage_input i ON i.link = a.id CROSS JOIN lineage_node s ON s.id = i.node
        CROSS JOIN lineage_output o ON o.link = a.id CROSS JOIN lineage_node t ON t.id = o.node
    """,
    Relation.COLLECTED_IN.value: """
        SELECT count(*) FROM lineage_output o CROSS JOIN lineage_input i ON i.link = o.link
        CROSS JOIN lineage_node s ON s.id = i.node CROSS JOIN lineage_node t ON t.id = o.node
        WHERE o.node = o.link
    """,
    Relation.SUPERSEDES.value: """
        SELECT count(*) FROM (
            SELECT DISTINCT s.new, s.old FROM lineage_supersession s
            JOIN lineage_node n ON n.id = s.new JOIN lineage_node m ON m.id = s.old
        )
    """,
}


def _same_file(file: SqliteFile, url: str) -> bool:
    path = path_of_url(url)
    return path.exists() and file.path.exists() and path.samefile(file.path)
