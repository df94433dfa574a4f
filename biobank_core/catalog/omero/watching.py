"""What other OMERO clients do to our annotations, found as they do it.

A watcher remembers which annotations are ours, by their id, and reads OMERO's own log: what it
says of those is looked at, unless a unit of ours wrote it. It can't see a change of pairs alone, of
which OMERO logs nothing: for that everything is compared from time to time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from biobank_core.catalog.omero.damage import damage, rootless
from biobank_core.catalog.omero.drift import Reconciler
from biobank_core.catalog.omero.event_log import EventLog, Row
from biobank_core.catalog.omero.log import Log
from biobank_core.catalog.omero.mending import WriterOf
from biobank_core.catalog.omero.names import (
    COMMIT,
    OBJECT,
    PAGE,
    PREFIX,
    ROOT,
    TEXT,
    TOMBSTONE,
    parse_unit,
)
from biobank_core.catalog.omero.places import Places
from biobank_core.catalog.omero.rows import Scope
from biobank_core.catalog.omero.session import pages
from biobank_core.catalog.port import Drift
from biobank_core.errors import StorageError

_ANNOTATIONS: Final = ("MapAnnotation", "XmlAnnotation")
# Calls that are remembered as units of ours, should a part of their rows come late.
_REMEMBERED: Final = 10_000


class Watcher:
    """See `port.Watch`.

    Holds some 200 bytes for each annotation of objects, texts and commits.
    """

    def __init__(
        self,
        scope: Scope,
        logs_of: Callable[[Scope], list[Log]],
        writer_of: WriterOf,
        refresh_views: Callable[[], None],
        *,
        grown: Callable[[], bool],
    ) -> None:
        self._scope = scope
        self._logs_of = logs_of
        self._writer_of = writer_of
        self._refresh_views = refresh_views
        self._grown = grown
        self._logs: list[Log] = []
        self._events: EventLog | None = None
        # The VID that each annotation is of; a commit's stands under its name.
        self._ours: dict[int, str] = {}
        self._units: deque[int] = deque(maxlen=_REMEMBERED)
        self._wrong: dict[str, list[Drift]] = {}
        self._damaged: list[Drift] = []
        self._places: Places | None = None

    def reconcile(self) -> list[Drift]:
        if self._events is None:
            # First: what is done while we list is then looked at twice, not never.
            self._events = EventLog(self._scope.session)
        self._ours = dict(self._listed())
        self._read_logs()
        self._places = None
        self._wrong = {}
        for found in Reconciler(self._scope, self._logs, self._writer_of).run(repair=False):
            self._wrong.setdefault(found.vid, []).append(found)
        self._refresh_views()
        return self._known()

    def look(self) -> list[Drift]:
        if self._events is None or self._has_grown():
            return self.reconcile()
        rows = self._events.new_rows()
        suspects, log_touched = self._touched(rows)
        if log_touched or self._damaged or self._lost_a_token(rows):
            self._read_logs()
        # What was found before may have been mended since.
        if suspects := suspects | self._wrong.keys():
            self._look_at(sorted(suspects))
        return self._known()

    def _has_grown(self) -> bool:
        try:
            return self._grown()
        except StorageError:  # a damaged log: what is wrong with it `_read_logs` tells
            return False

    def _known(self) -> list[Drift]:
        return [*self._damaged, *(one for vid in sorted(self._wrong) for one in self._wrong[vid])]

    def _look_at(self, vids: Sequence[str]) -> None:
        if self._places is None or not self._places.covers(vids):
            self._places = Places(self._logs, vids)
        reconciler = Reconciler(self._scope, self._logs, self._writer_of)
        self._wrong = {}
        for page in pages(vids, PAGE):
            for found in reconciler.check(page, self._places):
                self._wrong.setdefault(found.vid, []).append(found)

    def _read_logs(self) -> None:
        """Which logs there are, and what is wrong with them."""
        try:
            logs = self._logs_of(self._scope)
        except StorageError as exc:  # two first commits
            self._damaged = [Drift("", "", str(exc))]
            return
        if [log.uuid for log in logs] != [log.uuid for log in self._logs]:
            self._places = None
        self._logs = logs
        texts = [*map(str, rootless(self._scope))]
        texts.extend(text for log in logs for text in damage(self._scope, log))
        self._damaged = [Drift("", "", text) for text in texts]

    def _lost_a_token(self, rows: Sequence[Row]) -> bool:
        """Whether the row is gone that a next commit would point to; others go all the time."""
        return any(row.kind == "ExternalInfo" and row.action == "DELETE" for row in rows) and any(
            not log.token_is_there(log.head()) for log in self._logs
        )

    def _touched(self, rows: Sequence[Row]) -> tuple[set[str], bool]:
        """The VIDs that somebody else may have touched; whether a log itself may be."""
        rows = [row for row in rows if row.kind in _ANNOTATIONS]
        written = {row.entity for row in rows if row.action != "DELETE"}
        found = dict(self._named(sorted(written)))
        vids: set[str] = set()
        log_touched = False
        for row in rows:
            if row.action == "INSERT" and _is_commit(found.get(row.entity, "")):
                self._units.append(row.event)
        units = set(self._units)
        for row in rows:
            before = self._ours.pop(row.entity, None)
            now = found.get(row.entity)
            if now is not None and row.action != "DELETE":
                self._ours[row.entity] = now
            if row.event in units:
                continue
            for name in {before, now} - {None, ""}:
                if _is_commit(name) or name == ROOT:
                    log_touched = True
                elif name is not None:
                    vids.add(name)
        return vids, log_touched

    def _named(self, ids: Sequence[int]) -> Iterator[tuple[int, str]]:
        for page in pages(ids, PAGE):
            yield from _names(
                self._scope.rows(
                    "select a.id, a.name, a.ns from Annotation a",
                    "a.id in (:ids) and a.ns like :ours",
                    ids=list(page),
                    ours=f"{PREFIX}%",
                )
            )

    def _listed(self) -> Iterator[tuple[int, str]]:
        rows = self._scope.rows(
            "select a.id, a.name, a.ns from Annotation a", "a.ns like :ours", ours=f"{PREFIX}%"
        )
        return _names(rows)


def _names(rows: Iterable[Sequence[object]]) -> Iterator[tuple[int, str]]:
    for number, name, ns in rows:
        assert isinstance(number, int)
        if ns == ROOT:
            yield number, ROOT
        elif not isinstance(name, str) or not isinstance(ns, str):
            continue
        elif ns.startswith((OBJECT, TOMBSTONE)) or ns == COMMIT:
            yield number, name
        elif ns == TEXT:
            yield number, name.partition("/")[0]


def _is_commit(name: str | None) -> bool:
    return name is not None and parse_unit(name) is not None
