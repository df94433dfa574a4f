"""The catalog port over OMERO: units through the commit log, everything else by queries."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from biobank_core.catalog.checks import Unit as CheckedUnit
from biobank_core.catalog.checks import Write, check, prepare
from biobank_core.catalog.omero import feed, finding
from biobank_core.catalog.omero.groups import Groups
from biobank_core.catalog.omero.log import Change as LoggedChange
from biobank_core.catalog.omero.log import Commit, Log, Unit, commit_annotation
from biobank_core.catalog.omero.names import KIND, SCHEMA_VERSION, unit_name
from biobank_core.catalog.omero.rows import Rows, Scope
from biobank_core.catalog.omero.session import LostRace, Session, UnknownFate
from biobank_core.catalog.omero.writing import as_annotations, read_former
from biobank_core.catalog.port import (
    Catalog,
    Change,
    CommittedUnit,
    HistoryEntry,
    Position,
    Receipt,
    Referrer,
    Versioned,
)
from biobank_core.errors import BiobankError, StorageError, TimeoutExceededError
from biobank_core.model.ids import is_vid
from biobank_core.model.registry import NOT_IN_FEED, remember_kind, with_subkinds

# Others who write all the time cost us some tries; each of them gets its turn in between.
_COMMIT_TIMEOUT_S: Final = 180.0
_LONGEST_PAUSE_S: Final = 0.5
# Tries of one call that fails though nobody's commit stands in the way, before the log is looked
# at for damage: namespaces that are new, deadlocks with other programs.
_TRIES: Final = 6


class OmeroCatalog(Catalog):
    """A catalog in the groups of an OMERO server, through a session that it closes with itself."""

    def __init__(self, session: Session) -> None:
        self._session: Final = session
        self._groups: Final = Groups(session)
        self._scope: Final = Scope(session, self._groups.ids)
        self._logs: list[Log] | None = None
        self._kinds: set[str] | None = None

    @property
    def url(self) -> str:
        return self._session.address.url

    @property
    def round_trips(self) -> int:
        """How many calls were made to the server since it was opened."""
        return self._session.round_trips

    def schema_version(self) -> int:
        self._session.refuse_closed()
        return SCHEMA_VERSION if self._known_logs() else 0

    def migrate(self) -> None:
        self._session.refuse_closed()
        if not self._known_logs():
            self._groups.open_first_log()
            self._logs = None

    def close(self) -> None:
        try:
            for log in self._logs or ():
                log.tokens.drop()
        finally:
            self._session.close()

    def commit(self, changes: Sequence[Change], *, by: str) -> Receipt:
        self._session.refuse_closed()
        unit = prepare(changes)
        if not changes:
            return Receipt({}, self.head())
        log = self._groups.log_of(unit, self._known_logs(), self._scope)
        return _Writer(self._scope, log, self._held_kinds(), unit, by=by).commit()

    def get(self, vids: Iterable[str]) -> dict[str, Versioned]:
        self._session.refuse_closed()
        self._held_kinds()
        return self._scope.get(vids)

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
        return feed.head(self._known_logs())

    def history(self, vid: str) -> list[HistoryEntry]:
        self._session.refuse_closed()
        self._held_kinds()
        return feed.history(self._scope, vid) if is_vid(vid) else []

    def _known_logs(self) -> list[Log]:
        if self._logs is None:
            self._logs = self._groups.logs(self._scope)
        return self._logs

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


class _Writer:
    """One unit on its way into a log."""

    def __init__(
        self, scope: Scope, log: Log, kinds: set[str], unit: CheckedUnit, *, by: str
    ) -> None:
        self._scope = scope
        self._session = scope.session
        self._log = log
        self._kinds = kinds
        self._unit = unit
        self._by = by
        self._id = uuid.uuid4().hex

    def commit(self) -> Receipt:
        """Save it; when another commit comes first, read and check anew."""
        until = time.monotonic() + _COMMIT_TIMEOUT_S
        head = self._log.head(known=True)
        tries = 0
        while True:
            rows = Rows(self._scope)
            try:
                writes = check(self._unit, rows)
            except BiobankError:
                # Questions that were asked before and after another's commit may contradict.
                newest = self._log.head()
                if newest.number == head.number:
                    raise
                head = newest
                continue
            committed = self._saved(head, writes, rows)
            if committed is not None:
                return self._receipt(writes, committed)
            tries += 1
            if time.monotonic() > until:
                raise TimeoutExceededError(
                    f"{self._session.address.server}: others write all the time; nothing was saved"
                )
            time.sleep(random.uniform(0, min(0.02 * 2**tries, _LONGEST_PAUSE_S)))  # noqa: S311
            head = self._log.head()

    def _saved(self, head: Commit, writes: Sequence[Write], rows: Rows) -> Commit | None:
        """The commit, or None when another one took its place."""
        number = head.number + 1
        name = unit_name(self._log.uuid, number)
        new_kinds = sorted({write.kind for write in writes} - self._kinds)
        items = as_annotations(
            writes,
            read_former(self._scope, writes, rows.found),
            unit=name,
            new_kinds=new_kinds,
        )
        token = self._log.tokens.take()
        in_feed = any(write.kind not in NOT_IN_FEED for write in writes)
        unit = Unit(
            id=self._id,
            token=token,
            feed=number if in_feed else head.unit.feed,
            time=datetime.now(UTC),
            by=self._by,
            changes=tuple(
                LoggedChange(write.object.vid, write.version, write.kind, write.deleted)
                for write in writes
            ),
        )
        items.append(commit_annotation(name, unit, token=head.unit.token))
        if not self._appended(items, number, head.unit.token):
            self._log.tokens.give_back(token)
            return None
        commit = Commit(self._log.uuid, number, unit, 0, self._log.group, self._log.owner)
        self._log.moved(commit)
        self._kinds.update(new_kinds)
        return commit

    def _appended(self, items: Sequence[Any], number: int, token: int) -> bool:
        """Whether it is our unit that has this number now; settles what became of lost calls."""
        reason = ""
        for _ in range(_TRIES):
            try:
                self._session.save(items, group=self._log.group)
            except LostRace as exc:
                reason = str(exc)
            except UnknownFate:
                self._session.reopen()
                reason = "the connection breaks off"
            else:
                return True
            there = self._log.look(number)
            if there is not None:
                return there.unit.id == self._id
            time.sleep(random.uniform(0, 0.1))  # noqa: S311
        self._refuse_damage(number, token)
        raise StorageError(
            f"{self._session.address.server} does not take the unit: {reason}; nothing was saved"
        )

    def _refuse_damage(self, number: int, token: int) -> None:
        later = self._log.beyond(number)
        rows = self._session.projection(
            "select e.id from ExternalInfo e where e.id = :id",
            {"id": token},
            group=self._log.group,
        )
        if later is not None or not rows:
            what = f"commit {later.name} stands there" if later else "its token is gone"
            raise StorageError(
                f"the log of group {self._log.group} is damaged: commit {number} is missing, but "
                f"{what}; somebody deleted a part of it. Reading goes on; `biobank verify "
                "--repair` (owner of the group) makes writing possible again"
            )

    def _receipt(self, writes: Sequence[Write], commit: Commit) -> Receipt:
        return Receipt(
            {write.object.vid: write.version for write in writes},
            {self._log.uuid: commit.unit.feed} if commit.unit.feed else {},
        )
