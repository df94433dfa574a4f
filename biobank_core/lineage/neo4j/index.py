"""The lineage index in Neo4j: the port's methods over `write` and `read`.

The sync service feeds it, and `biobank rebuild` makes it anew; who asks does not feed it. Nothing
is opened before the first use, so a server that is down is found out by who asks it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final, TypeVar

import neo4j

from biobank_core.catalog.port import Position
from biobank_core.lineage.events import IndexEvent
from biobank_core.lineage.in_place import Held, Progress
from biobank_core.lineage.neo4j import read, rebuilding, schema, streams, write
from biobank_core.lineage.neo4j.connection import (
    Connection,
    ConstraintError,
    OutOfMemoryError,
    parse,
    run,
)
from biobank_core.lineage.neo4j.states import check
from biobank_core.lineage.port import (
    Answer,
    Edge,
    LineageIndex,
    Node,
    Question,
    Refusal,
    Use,
    checked_refusals,
)
from biobank_core.model.ids import is_vid

T = TypeVar("T")

DEFAULT_USER: Final = "neo4j"

# VIDs of one question to the ledger.
_KEYS: Final = 10_000
# Objects of one transaction of `forget` and `doubt`.
_FORGOTTEN: Final = 2_000


def open_index(
    url: str,
    *,
    create: bool = True,
    beside: object = None,
    account: Callable[[str], str | None] = os.environ.get,
) -> Neo4jLineage:
    """The index at `neo4j://`, `bolt://`, `neo4j+s://` or `bolt+s://`; not reached before its use.

    `account` gives NEO4J_USER (else `neo4j`) and NEO4J_PASSWORD; without a password none is sent.
    Constraints and indexes are made at the first use, where they are missing. `beside` is of no use
    here.
    """
    password = account("NEO4J_PASSWORD")
    auth = None if password is None else (account("NEO4J_USER") or DEFAULT_USER, password)
    return Neo4jLineage(Connection(parse(url), auth))


class Neo4jLineage(LineageIndex):
    """One database. May be used by several threads and processes at once."""

    def __init__(self, connection: Connection) -> None:
        self._lazy = connection
        self._migrated = False

    @property
    def url(self) -> str:
        """Its address, without user and password."""
        return self._lazy.address.shown

    @property
    def _connection(self) -> Connection:
        if not self._migrated:
            self.migrate()
        return self._lazy

    def schema_version(self) -> int:
        """See the port."""
        return self._lazy.read(schema.version)

    def migrate(self) -> None:
        """See the port."""
        schema.migrate(self._lazy)
        self._migrated = True

    def close(self) -> None:
        """See the port."""
        self._migrated = False
        self._lazy.close()

    def bookmarks(self) -> tuple[str, ...]:
        """What to give to another index's `see`, so that it answers with what this one wrote."""
        return self._lazy.bookmarks()

    def see(self, bookmarks: Iterable[str]) -> None:
        """From now on answer only with all of this in (matters in a cluster)."""
        self._lazy.see(bookmarks)

    # Writing

    def apply(self, batch: Sequence[IndexEvent]) -> None:
        """See the port; a batch too large for the server's memory is halved, and so on."""
        for event in batch:
            check(event)
        if not batch:
            return
        try:
            self._connection.write(lambda tx: write.take_in(tx, batch))
        except OutOfMemoryError:
            if len(batch) == 1:
                raise
            self.apply(batch[: len(batch) // 2])
            self.apply(batch[len(batch) // 2 :])
        except ConstraintError:
            # Somebody took out an object and left its edges.
            self._connection.write(lambda tx: write.take_in(tx, batch, fresh=False))

    def forget(self, vids: Iterable[str]) -> None:
        """See the port; some thousand a transaction. Takes what somebody's hand named, too."""
        for some in _chunks(dict.fromkeys(vids), _FORGOTTEN):
            self._connection.write(lambda tx, some=some: write.forget(tx, some))  # type: ignore[misc]

    def clear(self) -> None:
        """See the port; what is not ours in the database stays."""
        self._connection.write_alone(
            "MATCH (n:Object|Record|Refusal|Checked) "
            "CALL (n) { DETACH DELETE n } IN TRANSACTIONS OF 5000 ROWS",
            {},
        )

    # Made anew, in place

    def rebuild_in_progress(self) -> Progress | None:
        """See `in_place.RebuiltInPlace`."""
        return rebuilding.in_progress(self._connection)

    def begin_rebuild(self, head: Position) -> Progress:
        """See `in_place.RebuiltInPlace`."""
        return rebuilding.begin(self._connection, head)

    def take_in_anew(self, batch: Sequence[IndexEvent], *, progress: Progress) -> list[Held]:
        """See `in_place.RebuiltInPlace`."""
        for event in batch:
            check(event)
        return rebuilding.take_in_anew(self._connection, batch, progress)

    def doubt(self, vids: Iterable[str]) -> None:
        """See `in_place.RebuiltInPlace`."""
        for some in _chunks(dict.fromkeys(vids), _FORGOTTEN):
            self._connection.write(lambda tx, some=some: write.doubt(tx, some))  # type: ignore[misc]

    def unseen(self, progress: Progress, *, after: str, most: int) -> list[str]:
        """See `in_place.RebuiltInPlace`."""
        return rebuilding.unseen(self._connection, progress, after=after, most=most)

    def end_rebuild(self, progress: Progress) -> None:
        """See `in_place.RebuiltInPlace`."""
        rebuilding.end(self._connection, progress)

    # Asking

    def connected(self, question: Question) -> Answer:
        """See the port."""
        return read.connected(self._connection, question)

    def versions(self, vids: Iterable[str], *, log: str | None = None) -> dict[str, int]:
        """See the port."""
        found: dict[str, int] = {}
        for some in _chunks(filter(is_vid, dict.fromkeys(vids)), _KEYS):
            rows = read.chunked(self._connection, _VERSIONS, {"vids": some})
            for vid, version, groups, logs, versions in rows:
                held = dict(zip(logs, versions, strict=True)) if logs else {groups[0]: version}
                if log is None:
                    found[vid] = max(held.values())
                elif log in held:
                    found[vid] = held[log]
        return found

    def nodes(self) -> Iterator[Node]:
        """See the port."""
        return streams.nodes(self._connection)

    def edges(self) -> Iterator[Edge]:
        """See the port."""
        return streams.edges(self._connection)

    def uses(self) -> Iterator[Use]:
        """See the port."""
        return streams.uses(self._connection)

    def content(self) -> Iterator[Node | Edge | Use]:
        """See the port."""
        return streams.content(self._connection)

    def count(self) -> Mapping[str, int]:
        """See the port."""
        return streams.count(self._connection)

    # How far the feed was taken in, and what could not be

    def checked(self) -> Position:
        """See the port."""
        return {row[0]: row[1] for row in self._rows(_CHECKED)}

    def set_checked(self, position: Position, *, exactly: bool = False) -> None:
        """See the port."""

        def work(tx: neo4j.ManagedTransaction) -> None:
            if exactly:
                run(tx, "MATCH (c:Checked) DELETE c").consume()
            rows = [[log, number] for log, number in sorted(position.items())]
            run(tx, _SET_CHECKED, rows=rows).consume()

        self._connection.write(work)

    def refuse(self, refusals: Sequence[Refusal]) -> None:
        """See the port."""
        rows = [
            {
                "vid": item.vid,
                "log": item.log,
                "version": item.version,
                "reason": item.reason,
                "time": item.time.isoformat(),
                "discarded": item.discarded,
                "sent_again": item.sent_again,
            }
            for item in checked_refusals(refusals)
        ]
        self._connection.write(lambda tx: run(tx, _REFUSE, rows=rows).consume())

    def refused(self, vids: Iterable[str] | None = None) -> dict[tuple[str, str], Refusal]:
        """See the port."""
        wanted = None if vids is None else list(vids)
        return {
            (log, vid): Refusal(
                log=log,
                vid=vid,
                version=version,
                reason=reason,
                time=datetime.fromisoformat(time),
                discarded=discarded,
                sent_again=again,
            )
            for vid, log, version, reason, time, discarded, again in self._rows(
                _REFUSED, vids=wanted
            )
        }

    def forget_refusals(self, refusals: Iterable[Refusal]) -> None:
        """See the port."""
        rows = [(item.vid, item.log, item.version) for item in refusals]
        self._connection.write(lambda tx: write.end_refusals(tx, rows))

    def _rows(self, query: str, **parameters: object) -> list[list[Any]]:
        return self._connection.rows(query, parameters)


_VERSIONS: Final = f"""
UNWIND $vids AS vid
OPTIONAL MATCH (o:Object {{vid: vid}})
OPTIONAL MATCH (r:Record {{vid: vid}})
WITH vid, CASE WHEN o.version IS NOT NULL THEN o ELSE r END AS h
WHERE h.version IS NOT NULL
WITH [vid, h.version, h.groups, h.logs, h.versions] AS row
{read.CHUNKS}
"""
_CHECKED: Final = "MATCH (c:Checked) RETURN c.log, c.number"
_SET_CHECKED: Final = """
UNWIND $rows AS r
MERGE (c:Checked {log: r[0]})
SET c.lock = true
REMOVE c.lock
SET c.number = CASE WHEN c.number > r[1] THEN c.number ELSE r[1] END
"""
_REFUSE: Final = """
UNWIND $rows AS r
MERGE (f:Refusal {vid: r.vid, log: r.log})
SET f.lock = true
REMOVE f.lock
WITH f, r WHERE f.version IS NULL OR f.version <= r.version
SET f = r
"""
_REFUSED: Final = """
MATCH (f:Refusal) WHERE $vids IS NULL OR f.vid IN $vids
RETURN f.vid, f.log, f.version, f.reason, f.time, f.discarded, coalesce(f.sent_again, false)
"""


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
