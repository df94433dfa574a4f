"""Who refers to whom, and what is there: bulk questions to the tables, in pages.

`Rows` is the `Present` of the checks; it remembers the row ids that it saw, for the writing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

from biobank_core.catalog.checks import State
from biobank_core.catalog.port import Referrer
from biobank_core.model.registry import bases, reference_fields, remember_kind

# Values a statement: large enough that the statement's own cost vanishes, small enough to keep
# memory flat.
PAGE: Final = 1000

T = TypeVar("T")


def pages(values: Iterable[T]) -> Iterator[list[T]]:
    """The values in lists of at most PAGE."""
    iterator = iter(values)
    while page := list(islice(iterator, PAGE)):
        yield page


class Links:
    """The small numbers that stand for (kind, field) in the table `reference`; the kinds held."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.kinds: set[str] = set()
        for name, known_bases in connection.execute("SELECT name, bases FROM kind"):
            remember_kind(name, tuple(known_bases.split(" ")))
            self.kinds.add(name)
        self.names: dict[int, tuple[str, str]] = {
            number: (kind, field)
            for number, kind, field in connection.execute("SELECT id, kind, field FROM link")
        }
        self.numbers = {name: number for number, name in self.names.items()}

    def numbers_of(
        self, fields: Collection[str] = (), kinds: Collection[str] | None = None
    ) -> list[int]:
        """The links of these fields (empty: any) of these kinds (None: any)."""
        return [
            number
            for (kind, field), number in self.numbers.items()
            if (not fields or field in fields) and (kinds is None or kind in kinds)
        ]


def add_kinds(connection: sqlite3.Connection, new: Collection[str]) -> Links:
    """Take these kinds in; another process may have done so meanwhile."""
    connection.executemany(
        "INSERT OR IGNORE INTO kind VALUES (?, ?)", [(kind, " ".join(bases(kind))) for kind in new]
    )
    connection.executemany(
        "INSERT OR IGNORE INTO link (kind, field) VALUES (?, ?)",
        [(kind, field.name) for kind in new for field in reference_fields(kind)],
    )
    return Links(connection)


class Rows:
    """The state of the catalog on one connection. See `checks.Present`."""

    def __init__(self, connection: sqlite3.Connection, links: Links) -> None:
        self.ids: dict[str, int] = {}
        self._connection = connection
        self._links = links

    def states(self, vids: Collection[str]) -> dict[str, State]:
        found: dict[str, State] = {}
        for page in pages(vids):
            for vid, number, kind, version, deleted in self._connection.execute(
                "SELECT o.vid, o.id, o.kind, o.version, o.deleted"
                " FROM json_each(?) j CROSS JOIN object o ON o.vid = j.value",
                (json.dumps(page),),
            ):
                found[vid] = State(kind, version, bool(deleted))
                self.ids[vid] = number
        return found

    def owners(self, keys: Collection[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for page in pages(keys):
            found.update(
                self._connection.execute(
                    "SELECT u.key, o.vid FROM json_each(?) j CROSS JOIN unique_key u"
                    " ON u.key = j.value CROSS JOIN object o ON o.id = u.object",
                    (json.dumps(page, ensure_ascii=False),),
                )
            )
        return found

    def referrers(self, vids: Collection[str], fields: Collection[str] = ()) -> Iterator[Referrer]:
        return self.referrers_by_link(vids, self._links.numbers_of(fields))

    def referrers_by_link(self, vids: Iterable[str], links: list[int]) -> Iterator[Referrer]:
        """Who refers to these through one of these links."""
        wanted = json.dumps(links)
        for page in pages(vids):
            for source, link, target in self._connection.execute(
                "SELECT s.vid, r.link, t.vid FROM json_each(?) j"
                " CROSS JOIN object t ON t.vid = j.value"
                " CROSS JOIN reference r ON r.target = t.id"
                " AND r.link IN (SELECT value FROM json_each(?))"
                " CROSS JOIN object s ON s.id = r.source",
                (json.dumps(page), wanted),
            ):
                yield Referrer(source, *self._links.names[link], target)

    def targets(self, vids: Collection[str], fields: Collection[str]) -> Iterator[Referrer]:
        wanted = json.dumps(self._links.numbers_of(fields))
        for page in pages(vids):
            for source, link, target in self._connection.execute(
                "SELECT s.vid, r.link, t.vid FROM json_each(?) j"
                " CROSS JOIN object s ON s.vid = j.value"
                " CROSS JOIN reference r ON r.source = s.id"
                " AND r.link IN (SELECT value FROM json_each(?))"
                " CROSS JOIN object t ON t.id = r.target",
                (json.dumps(page), wanted),
            ):
                yield Referrer(source, *self._links.names[link], target)
