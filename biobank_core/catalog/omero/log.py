"""The commit log of a group: a chain that exactly one writer can lengthen at a time.

Commit n is a MapAnnotation named `<log>/<n, 12 digits>`; its description is the unit as JSON. It
names a *token*, a row made beforehand that is unique in OMERO's database once an annotation points
to it (`details.externalInfo`). Commit n+1 points to the token that n named: a second commit n+1
can't be saved, and with it nothing of its unit.
"""

from __future__ import annotations

import functools
import random
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from omero.model import ExternalInfoI, MapAnnotationI
from omero.rtypes import rstring

from biobank_core.catalog.omero.names import (
    COMMIT,
    FIRST_LOG_PAGE,
    LOG_PAGE,
    PART,
    ROOT,
    SCHEMA_VERSION,
    parse_unit,
    unit_name,
)
from biobank_core.catalog.omero.rows import ALL_GROUPS, Scope
from biobank_core.catalog.omero.session import LostRace, Session, UnknownFate
from biobank_core.catalog.omero.tokens import Tokens
from biobank_core.errors import StorageError


class GivenUp(Exception):
    """Nothing was saved: a repair has opened a log that goes on from this one."""


class Change(msgspec.Struct, frozen=True, array_like=True):
    """One object of a unit, as it stands in the log; `checksum` is of its pairs and long texts."""

    vid: str
    version: int
    kind: str
    deleted: bool
    checksum: str


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A commit, as it stands in its description.

    `id` is the unit's own; `token` the id of the row that the next commit points to; `feed` the
    number of the newest commit up to this one that the change feed shows. A first commit has the
    `schema`, and in `before` the commit that it goes on from when an older log was damaged.
    """

    id: str
    token: int
    feed: int
    time: datetime
    by: str
    changes: tuple[Change, ...] = ()
    schema: int | None = None
    before: str | None = None


class Commit(msgspec.Struct, frozen=True):
    """A unit and its place."""

    log: str
    number: int
    unit: Unit
    annotation: int
    group: int
    owner: int

    @property
    def name(self) -> str:
        return unit_name(self.log, self.number)

    @property
    def shown(self) -> bool:
        """Whether it is in the change feed."""
        return self.unit.feed == self.number


# How often a log that stays open is looked at for what follows a missing commit.
_BEYOND_GAPS_S: Final = 15.0

_decoder: Final = msgspec.json.Decoder(Unit)
_COLUMNS: Final = (
    "select a.name, a.description, a.id, a.details.group.id, a.details.owner.id"
    " from MapAnnotation a"
)


def parse_commit(row: Sequence[Any]) -> Commit:
    """The commit of a row of columns. Raises StorageError when somebody changed it."""
    name, description, annotation, group, owner = row
    place = parse_unit(name or "")
    if place is None:
        raise StorageError(f"annotation {annotation}: {name!r} is no name of a commit")
    try:
        unit = _decoder.decode(description or "")
    except msgspec.MsgspecError as exc:
        raise StorageError(
            f"commit {name} (annotation {annotation}) can't be read: {exc}; `biobank verify "
            "--repair` opens a new log after it"
        ) from exc
    return Commit(place[0], place[1], unit, annotation, group, owner)


def roots(scope: Scope) -> list[Commit]:
    """The first commits of all logs in these groups that the account may read, oldest first."""
    rows = scope.rows(_COLUMNS, "a.ns = :ns", ns=ROOT)
    return sorted((parse_commit(row) for row in rows), key=lambda commit: commit.annotation)


def commits_named(
    scope: Scope, names: Sequence[str], *, damaged: bool = False
) -> dict[str, Commit]:
    """The commits of these names. Raises StorageError for two of one name, or one changed.

    Of a log that is known to be `damaged` those that can be read, and of two the older.
    """
    found: dict[str, Commit] = {}
    if not names:
        return found
    rows = scope.rows(_COLUMNS, "a.ns = :ns and a.name in (:names)", ns=COMMIT, names=names)
    for row in sorted(rows, key=lambda row: int(row[2])):
        try:
            commit = parse_commit(row)
        except StorageError:
            if damaged:
                continue
            raise
        if commit.name in found:
            if damaged:
                continue
            raise StorageError(
                f"the log has two commits {commit.name} (annotations {commit.annotation} and "
                f"{found[commit.name].annotation}); `biobank verify --repair` opens a new log"
            )
        found[commit.name] = commit
    return found


class Log:
    """One log: where it ends, and the tokens for going on.

    `older` are the damaged logs of the group that this one goes on from, oldest first; `identity`
    is the same for all of them: by it an index tells groups apart. `begin` is what the feed counts
    its commits on from.
    """

    def __init__(self, scope: Scope, root: Commit, older: tuple[Log, ...] = ()) -> None:
        self.uuid: Final = root.log
        # What can be read of a log that another one goes on from is read.
        self.given_up = False
        self.older: Final = older
        self.begin: Final = PART * len(older)
        self.identity: Final = older[0].uuid if older else root.log
        self.group: Final = root.group
        self.owner: Final = root.owner
        self.root: Final = root
        self._scope = scope
        self._head: Commit | None = None
        self._newest: int | None = None
        self._looked_beyond_at = time.monotonic()
        self._sound = False
        self._tokens = Tokens(scope.session, root.group)

    @property
    def tokens(self) -> Tokens:
        """Tokens of ours that no commit names yet."""
        return self._tokens

    def head(self, *, known: bool = False) -> Commit:
        """The newest commit; with `known` the newest that we know of, at no call where we do."""
        if self._head is None:
            self._head = self._last() or self.root
        elif known:
            return self._head
        for commit in self.after(self._head.number):
            self._head = commit
        return self._head

    def newest_in_feed(self) -> int:
        """The number of the newest commit that the feed shows; 0 where there is none."""
        if self.given_up:
            if self._newest is None:  # nobody adds to it
                self._newest = self._newest_after(0)
            return self._newest
        newest = max(self._newest or 0, self.head().unit.feed)
        # Where a commit is missing the head stays before it; who reads the feed goes on.
        now = time.monotonic()
        if now - self._looked_beyond_at > _BEYOND_GAPS_S:
            self._looked_beyond_at = now
            newest = self._newest_after(newest)
        self._newest = newest
        return newest

    def _newest_after(self, number: int) -> int:
        shown = (commit.number for commit in self.following(number) if commit.shown)
        return max(shown, default=number)

    def gap(self) -> str | None:
        """What is wrong with the numbers of the commits, if anything; one query over all names."""
        condition = self._scope.where("a.ns = :ns and a.name like :names")
        [[count, greatest]] = self._scope.session.projection(
            f"select count(a.id), max(a.name) from MapAnnotation a{condition}",  # noqa: S608
            self._scope.parameters({"ns": COMMIT, "names": f"{self.uuid}/%"}),
            group=self._scope.context,
        )
        place = parse_unit(greatest) if greatest else None
        number = place[1] if place else 0
        if count == number:
            return None
        if count < number:
            return f"{number - count} of its {number} commits are missing"
        return f"it has {count} commits, the last of them of number {number}"

    def token_is_there(self, commit: Commit) -> bool:
        """Whether the row that the next commit would point to still exists."""
        rows = self._scope.session.projection(
            "select e.id from ExternalInfo e where e.id = :id",
            {"id": commit.unit.token},
            group=self.group,
        )
        return bool(rows)

    def taken(self, commit: Commit) -> bool:
        """Whether something points to the row that the next commit would point to."""
        rows = self._scope.session.projection(
            "select a.id from Annotation a where a.details.externalInfo.id = :id",
            {"id": commit.unit.token},
            group=ALL_GROUPS,
        )
        return bool(rows)

    def goes_on(self) -> bool:
        """Whether another log goes on from this one."""
        known = roots(Scope(self._scope.session, [self.group]))
        return any((root.unit.before or "").startswith(f"{self.uuid}/") for root in known)

    def refuse_damage(self) -> None:
        """Raises StorageError where somebody deleted a part of the log; asked once a session."""
        if not self._sound:
            if (what := self.gap()) is not None:
                raise StorageError(self.damaged(what))
            self._sound = True

    def damaged(self, what: str) -> str:
        """The sentence that says so."""
        return (
            f"the log {self.uuid} of group {self.group} is damaged: {what}; somebody changed or "
            "deleted a part of it in OMERO. Reading goes on; `biobank verify --repair` (by an "
            "owner of the group) makes writing possible again"
        )

    def moved(self, commit: Commit) -> None:
        """We saved this one: the head is there."""
        self._head = commit

    def look(self, number: int) -> Commit | None:
        """The commit of this number, if there is one now."""
        name = unit_name(self.uuid, number)
        return commits_named(self._scope, [name], damaged=self.given_up).get(name)

    def beyond(self, number: int) -> Commit | None:
        """The next commit of a greater number, if there is one."""
        while True:
            rows = self._scope.rows(
                "select min(a.name) from MapAnnotation a",
                "a.ns = :ns and a.name like :names and a.name > :name",
                ns=COMMIT,
                names=f"{self.uuid}/%",
                name=unit_name(self.uuid, number),
            )
            # OMERO gives the row of a null without its cell.
            place = parse_unit(rows[0][0]) if rows and rows[0] and rows[0][0] else None
            if place is None:
                return None
            number = place[1]
            if (commit := self.look(number)) is not None or not self.given_up:
                return commit

    def after(self, number: int) -> Iterator[Commit]:
        """The commits after this number, in order, up to where one is missing."""
        size = FIRST_LOG_PAGE
        while True:
            wanted = range(number + 1, number + 1 + size)
            size = LOG_PAGE
            names = [unit_name(self.uuid, one) for one in wanted]
            found = commits_named(self._scope, names, damaged=self.given_up)
            for name in names:
                if name not in found:
                    return
                yield found[name]
            number = wanted[-1]

    def following(self, number: int) -> Iterator[Commit]:
        """All commits after this number, those behind a gap too: reading goes on."""
        while True:
            for commit in self.after(number):
                number = commit.number
                yield commit
            later = self.beyond(number + 1)
            if later is None:
                return
            # Both may have come between the two questions: only what is not there now is missing.
            if self.look(number + 1) is None:
                number = later.number - 1

    def _last(self) -> Commit | None:
        """The commit that was saved last or nearly so: ids are not in the order of commits."""
        rows = self._scope.session.projection(
            _COLUMNS
            + self._scope.where("a.ns = :ns and a.name like :names")
            + " order by a.id desc",
            self._scope.parameters({"ns": COMMIT, "names": f"{self.uuid}/%"}),
            group=self._scope.context,
            limit=1,
        )
        return parse_commit(rows[0]) if rows else None


def commit_annotation(name: str, unit: Unit, *, ns: str = COMMIT, token: int | None = None) -> Any:
    """The annotation of a commit, not saved yet; `token` is the one that it points to."""
    item = MapAnnotationI()
    item.ns = rstring(ns)
    item.name = rstring(name)
    item.description = rstring(msgspec.json.encode(unit).decode())
    if token is not None:
        item.details.externalInfo = ExternalInfoI(token, False)
    return item


def open_log(
    session: Session,
    group: int,
    *,
    by: str,
    before: str | None = None,
    token: int | None = None,
    again: tuple[str, int] | None = None,
) -> None:
    """Save the first commit of a new log, unless another one did at the same moment.

    `before` and `token`: the commit that it goes on from, and the token that it points to itself.
    `again`: a log that lost its first commit, and the token that its second commit points to.
    """
    tokens = Tokens(session, group)
    log, named = again or (uuid.uuid4().hex, tokens.take())
    root = Unit(
        id=uuid.uuid4().hex,
        token=named,
        feed=0,
        time=datetime.now(UTC),
        by=by,
        schema=SCHEMA_VERSION,
        before=before,
    )
    first = commit_annotation(unit_name(log, 0), root, ns=ROOT, token=token)
    opened = functools.partial(_opened, Scope(session, [group]), root.id, before)
    while True:
        try:
            session.save([first], group=group)
        except UnknownFate:
            session.reopen()
            if not any(opened()):
                session.save([first], group=group)
        except LostRace:  # another one used the namespace for the first time, or took the place
            if not any(opened()):
                session.save([first], group=group)
        ours, others = opened()
        if not (ours and others):
            break
        # Two of them would be one too many, and nobody writes to ours yet.
        session.delete({"Annotation": [ours.annotation]}, group=group)
        if opened()[1]:
            break
        time.sleep(random.uniform(0, 0.2))  # noqa: S311
    tokens.drop()


def _opened(scope: Scope, unit: str, before: str | None) -> tuple[Commit | None, list[Commit]]:
    """The first commit whose unit this is, and others that go on from the same commit."""
    known = roots(scope)
    ours = next((root for root in known if root.unit.id == unit), None)
    rest = [root for root in known if before and root.unit.before == before and root is not ours]
    return ours, rest
