"""OMERO's own log of what any client inserted, updated or deleted, read to the end again and again.

Its ids are not in the order of commits: a row may appear below others that were seen before, and a
call that was rolled back leaves ids that never come. So every id that was passed over is remembered
and asked for again. Rows are not filtered in the query: then all that is missing is a hole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from biobank_core.catalog.omero.names import PAGE
from biobank_core.catalog.omero.rows import ALL_GROUPS
from biobank_core.catalog.omero.session import Session, Value, pages

# Calls that are under way when the reading begins have ids below the newest; 301 is the most seen.
_LOOK_BACK: Final = 5_000
# A call that ended later than this after its ids were taken is found by the next reconcile.
_LATEST_S: Final = 3_600.0
# Young holes are looked at each time; older ones when they have aged by this part again.
_YOUNG_S: Final = 30.0
_AGED_BY: Final = 0.2
# Holes that are remembered: the newest. Each call that lost a race may leave some hundred.
_MOST_HOLES: Final = 200_000

_COLUMNS: Final = "select e.id, e.action, e.entityType, e.entityId, e.event.id from EventLog e"


class Row(NamedTuple):
    """One row: `action` INSERT, UPDATE or DELETE; `kind` as `MapAnnotation`; `event` is the call's.

    All rows of one call have one `event`, and become visible at once.
    """

    id: int
    action: str
    kind: str
    entity: int
    event: int


class _Hole:
    __slots__ = ("due", "since")

    def __init__(self, now: float) -> None:
        self.since = self.due = now


class EventLog:
    """The log from now on. `now` is a clock in seconds that never jumps."""

    def __init__(self, session: Session, *, now: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._now = now
        self._holes: dict[int, _Hole] = {}
        self._last = self._newest()
        first = max(self._last - _LOOK_BACK, 0)
        seen = {
            number
            for (number,) in self._projection(
                "select e.id from EventLog e where e.id > :first and e.id <= :last",
                {"first": first, "last": self._last},
            )
        }
        self._passed_over(number for number in range(first + 1, self._last) if number not in seen)

    def new_rows(self) -> list[Row]:
        """What became visible since the last look, late rows too, each once."""
        found = [*self._late(), *self._next()]
        return [row for row in found if row.action != "REINDEX"]

    @property
    def holes(self) -> int:
        """How many ids were passed over and may yet come."""
        return len(self._holes)

    def _next(self) -> Iterator[Row]:
        while True:
            rows = self._projection(
                f"{_COLUMNS} where e.id > :last order by e.id", {"last": self._last}, limit=PAGE
            )
            for row in map(_row, rows):
                self._passed_over(range(max(self._last + 1, row.id - _MOST_HOLES), row.id))
                self._last = row.id
                yield row
            if len(rows) < PAGE:
                return

    def _late(self) -> Iterator[Row]:
        now = self._now()
        for number in [n for n, hole in self._holes.items() if now - hole.since > _LATEST_S]:
            del self._holes[number]
        due = [number for number, hole in self._holes.items() if hole.due <= now]
        for page in pages(due, PAGE):
            for row in map(
                _row, self._projection(f"{_COLUMNS} where e.id in (:ids)", {"ids": page})
            ):
                del self._holes[row.id]
                yield row
        for number in due:
            if (hole := self._holes.get(number)) is not None:
                age_s = now - hole.since
                hole.due = now if age_s < _YOUNG_S else now + _AGED_BY * age_s

    def _passed_over(self, numbers: Iterable[int]) -> None:
        now = self._now()
        self._holes.update((number, _Hole(now)) for number in numbers)
        if len(self._holes) > _MOST_HOLES:
            for number in list(self._holes)[:-_MOST_HOLES]:
                del self._holes[number]

    def _newest(self) -> int:
        rows = self._projection("select max(e.id) from EventLog e")
        return int(rows[0][0]) if rows and rows[0] and rows[0][0] is not None else 0

    def _projection(
        self, hql: str, given: Mapping[str, Value] | None = None, *, limit: int | None = None
    ) -> list[list[Any]]:
        # The log is of the whole server, whatever group is asked in.
        return self._session.projection(hql, given, group=ALL_GROUPS, limit=limit)


def _row(columns: list[Any]) -> Row:
    number, action, java_name, entity, event = columns
    return Row(number, action, java_name.rpartition(".")[2], entity, event)
