"""The catalog port over OMERO: units through the commit log, everything else by queries."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Final

from biobank_core.catalog.checks import Unit, Write, check, prepare
from biobank_core.catalog.omero import feed, finding, removal
from biobank_core.catalog.omero.commit import Writer
from biobank_core.catalog.omero.content import Contents
from biobank_core.catalog.omero.damage import damage, rootless
from biobank_core.catalog.omero.drift import Reconciler
from biobank_core.catalog.omero.groups import Groups
from biobank_core.catalog.omero.log import GivenUp, Log, roots
from biobank_core.catalog.omero.names import KIND, SCHEMA_VERSION
from biobank_core.catalog.omero.rows import Found, Rows, Scope
from biobank_core.catalog.omero.session import Session
from biobank_core.catalog.omero.views import Due, Views
from biobank_core.catalog.omero.watching import Watcher
from biobank_core.catalog.port import (
    Catalog,
    Change,
    CommittedUnit,
    Drift,
    HistoryEntry,
    Position,
    Receipt,
    Referrer,
    Versioned,
)
from biobank_core.errors import UnreachableError
from biobank_core.model import codec
from biobank_core.model.ids import is_vid
from biobank_core.model.kinds import Tombstone
from biobank_core.model.registry import remember_kind, with_subkinds

# Who is written into the history for what `verify --repair` does; OMERO itself notes the account.
_REPAIR: Final = "biobank verify --repair"
# How often a catalog that stays open looks whether there are other groups or logs now.
_NEW_LOGS_S: Final = 15.0


class OmeroCatalog(Catalog):
    """A catalog in the groups of an OMERO server, through a session that it closes with itself."""

    def __init__(self, session: Session) -> None:
        self._session: Final = session
        self._groups: Final = Groups(session)
        self._scope: Final = Scope(session, self._groups.ids)
        self._views: Final = Due(self._scope)
        self._logs: list[Log] | None = None
        self._looked_at = time.monotonic()
        self._kinds: set[str] | None = None
        self._content: Final = Contents(self._scope)

    @property
    def content(self) -> Contents:
        """See `port.KeepsContent`."""
        return self._content

    @property
    def url(self) -> str:
        return self._session.address.url

    @property
    def round_trips(self) -> int:
        """How many calls were made to the server since it was opened."""
        return self._session.round_trips

    def schema_version(self) -> int:
        self._session.refuse_closed()
        if self._logs is None and not roots(self._scope):
            return 0
        return SCHEMA_VERSION

    def migrate(self) -> None:
        self._session.refuse_closed()
        if not self.schema_version():
            self._groups.open_first_log(self._scope)
            self._logs = None

    def close(self) -> None:
        try:
            self._views.write(now=True)
            for log in self._logs or ():
                log.tokens.drop()
        finally:
            self._session.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, UnreachableError):
            self._views.forget()  # it would be waited for once more
        super().__exit__(kind, error, trace)

    def commit(self, changes: Sequence[Change], *, by: str) -> Receipt:
        self._session.refuse_closed()
        unit = prepare(changes)
        if not changes:
            return Receipt({}, self.head())
        try:
            log, receipt = self._committed(unit, by=by)
        except GivenUp:  # the log was repaired since we looked which there are
            self._logs = None
            log, receipt = self._committed(unit, by=by)
        self._views.note(log.group, unit)
        self._views.write()
        if unit.deletes:
            self._content.remove_of(receipt.versions.keys() - unit.saves.keys())
        if unit.deletes and len(self._known_logs()) > 1:
            for other in self._groups.mine(self._known_logs()):
                self._views.note_all(other.group)
            return replace(receipt, others=tuple(self._bury_copies(log, receipt, by=by)))
        return receipt

    def _committed(self, unit: Unit, *, by: str) -> tuple[Log, Receipt]:
        log = self._groups.log_of(unit, self._known_logs(), self._scope)
        return log, Writer(self._scope, log, self._held_kinds(), by=by).commit(unit)

    def rehearse(self, changes: Sequence[Change]) -> None:
        """Raises what `commit` would raise of these now; saves nothing."""
        self._session.refuse_closed()
        unit = prepare(changes)
        self._held_kinds()
        self._groups.log_of(unit, self._known_logs(), self._scope)
        check(unit, Rows(self._scope))

    def _bury_copies(self, log: Log, receipt: Receipt, *, by: str) -> Iterator[Receipt]:
        """Delete the copies that other groups hold of what was deleted."""
        gone = self._scope.get(receipt.versions)
        for other in self._known_logs():
            left = [
                one
                for one in self._scope.found_everywhere(receipt.versions)
                if one.group == other.group and other is not log and not one.state.deleted
                if isinstance(gone[one.vid].object, Tombstone)
            ]
            if left:

                def plan(rows: Rows, left: Sequence[Found] = left) -> list[Write]:
                    for one in left:
                        rows.put(one)
                    return [_burial(gone[one.vid], one) for one in left]

                yield Writer(self._scope, other, self._held_kinds(), by=by).force(plan)

    def get(self, vids: Iterable[str]) -> dict[str, Versioned]:
        self._session.refuse_closed()
        self._held_kinds()
        return self._scope.get(vids)

    def get_in(self, log: str, vids: Iterable[str]) -> dict[str, Versioned]:
        logs = self._known_logs()
        if len(logs) == 1:
            return self.get(vids)
        self._session.refuse_closed()
        self._held_kinds()
        groups = {one.group for one in logs if one.identity == log}
        return Scope(self._session, sorted(groups)).get(vids) if groups else {}

    def find(self, kind: str, where: Mapping[str, Any] | None = None) -> Iterator[Versioned]:
        self._session.refuse_closed()
        self._held_kinds()
        return finding.find(self._scope, kind, where or {})

    def iterate(self, kinds: Iterable[str] | None = None) -> Iterator[Versioned]:
        self._session.refuse_closed()
        self._held_kinds()
        return finding.iterate(self._scope, kinds)

    def referring(
        self, vids: Iterable[str], kinds: Iterable[str] | None = None
    ) -> Iterator[Referrer]:
        self._session.refuse_closed()
        self._held_kinds()
        wanted = None
        if kinds is not None:
            wanted = {name for kind in kinds for name in (kind, *with_subkinds(kind))}
        for referrer in self._scope.referrers([vid for vid in vids if is_vid(vid)]):
            if wanted is None or referrer.kind in wanted:
                yield referrer

    def count(self) -> dict[str, int]:
        self._session.refuse_closed()
        self._held_kinds()
        return finding.count(self._scope)

    def changes(self, since: Position) -> Iterator[CommittedUnit]:
        self._session.refuse_closed()
        return feed.changes(self._known_logs(), since)

    def head(self) -> Position:
        self._session.refuse_closed()
        self._look_for_new_logs()
        return feed.head(self._known_logs())

    def history(self, vid: str) -> list[HistoryEntry]:
        self._session.refuse_closed()
        self._held_kinds()
        return feed.history(self._scope, vid) if is_vid(vid) else []

    def drift(self, *, repair: bool = False) -> Iterator[Drift]:
        self._session.refuse_closed()
        if repair:
            self._groups.mend_logs(self._scope)
            self._logs = None
        self._held_kinds()
        yield from Reconciler(self._scope, self._known_logs(), self._writer_of).run(repair=repair)
        if repair:
            self._refresh_views()
        if repair:
            self._content.remove_left_over()

    def damage(self) -> Iterator[str]:
        self._session.refuse_closed()
        yield from map(str, rootless(self._scope))
        for log in self._known_logs():
            yield from damage(self._scope, log)

    def watch(self) -> Watcher:
        """See `port.Watchable`."""
        self._session.refuse_closed()
        self._held_kinds()
        return Watcher(
            self._scope,
            self._groups.logs,
            self._writer_of,
            self._refresh_views,
            grown=self._look_for_new_logs,
        )

    def holdings(self) -> dict[str, int]:
        """See `port.Removable`."""
        return removal.holdings(self._scope)

    def remove_all(self, advance: Callable[[int], None]) -> None:
        """See `port.Removable`."""
        self._views.forget()
        for group in self._scope.groups:
            Views(self._scope, group).remove_all()
        removal.remove_all(self._scope, advance)
        self._logs, self._kinds = None, None

    def _refresh_views(self) -> None:
        for log in self._groups.mine(self._known_logs()):
            self._views.note_all(log.group)
        self._views.write(now=True)

    def _writer_of(self, log: Log) -> Writer:
        return Writer(self._scope, log, self._held_kinds(), by=_REPAIR)

    def _known_logs(self) -> list[Log]:
        if self._logs is None:
            self._logs = self._groups.logs(self._scope)
        return self._logs

    def _look_for_new_logs(self) -> bool:
        """Whether there are other groups or logs now; how long ago it was asked counts.

        A daemon stays open while its account joins a group, or a log is opened in another group or
        after a damaged one.
        """
        now = time.monotonic()
        if self._logs is None or now - self._looked_at <= _NEW_LOGS_S:
            return False
        self._looked_at = now
        if self._groups.joined():
            self._scope.groups = self._groups.ids
            self._logs = None
            return True
        found = {root.log for root in roots(self._scope)}
        if found == {part.uuid for log in self._logs for part in (*log.older, log)}:
            return False
        self._logs = None
        return True

    def _held_kinds(self) -> set[str]:
        """The kinds that the catalog notes; those whose plug-in is missing are made known."""
        if self._kinds is None:
            rows = self._scope.rows(
                "select a.name, a.description from MapAnnotation a", "a.ns = :ns", ns=KIND
            )
            for kind, line in rows:
                remember_kind(kind, tuple(line.split(" ")))
            self._kinds = {kind for kind, _ in rows}
        return self._kinds


def _burial(stone: Versioned, copy: Found) -> Write:
    """The tombstone of an object in place of a copy of it."""
    body = codec.encode(stone.object)
    return Write(stone.object, stone.version, body, (), (), copy.state)
