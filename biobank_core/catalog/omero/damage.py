"""What is wrong with a log itself, and the new log that goes on from the last good commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from biobank_core.catalog.omero.log import Commit, Log, open_log, roots
from biobank_core.catalog.omero.names import COMMIT, parse_unit, unit_name
from biobank_core.catalog.omero.rows import Scope
from biobank_core.errors import StorageError


class Rootless(NamedTuple):
    """A log whose first commit is gone; `group` and `owner` of the others."""

    log: str
    group: int
    owner: int

    def __str__(self) -> str:
        return (
            f"the first commit of the log {self.log} of group {self.group} was deleted or changed "
            "in OMERO; `biobank init`, by an owner of the group, puts it back"
        )


def rootless(scope: Scope) -> list[Rootless]:
    """Logs without their first commit."""
    known = [f"{root.log}/%" for root in roots(scope)]
    found: list[Rootless] = []
    while True:
        others = {f"log{n}": name for n, name in enumerate(known)}
        condition = "a.ns = :ns" + "".join(f" and a.name not like :{name}" for name in others)
        rows = scope.rows("select min(a.name) from MapAnnotation a", condition, ns=COMMIT, **others)
        # OMERO gives the row of a null without its cell.
        if not rows or not rows[0] or not rows[0][0]:
            break
        name = rows[0][0]
        place = parse_unit(name)
        known.append(name if place is None else f"{place[0]}/%")
        if place is not None:
            places = scope.rows(
                "select a.details.group.id, a.details.owner.id from MapAnnotation a",
                "a.name = :name",
                name=name,
            )
            found.extend(Rootless(place[0], group, owner) for group, owner in places[:1])
    # Some may have been opened since the first question.
    there = {root.log for root in roots(scope)} if found else set()
    return [one for one in found if one.log not in there]


def put_back(scope: Scope, lost: Rootless, *, by: str) -> None:
    """Save the first commit of this log again, with the token that the second points to."""
    first = _points(scope, lost.log).get(unit_name(lost.log, 1), 0)
    open_log(scope.session, lost.group, by=by, again=(lost.log, first))


def damage(scope: Scope, log: Log) -> Iterator[str]:
    """What is wrong with this log, a sentence each."""
    if (what := log.gap()) is not None:
        yield log.damaged(what)
        return
    try:
        last = log.root
        chain = _Chain(scope, log.uuid)
        for commit in log.after(0):
            if not chain.joins(commit, last):
                yield log.damaged(f"commit {commit.number} no longer holds its place in the chain")
                return
            last = commit
    except StorageError as exc:
        yield str(exc)
        return
    if not log.token_is_there(last):
        yield log.damaged(f"what follows commit {last.number} is gone")
    elif log.taken(last) and log.look(last.number + 1) is None:
        yield log.damaged(f"what follows commit {last.number} is no commit any more")


def go_on(scope: Scope, log: Log, *, by: str) -> None:
    """Open a new log that names the last good commit of this one.

    It takes the place of the next commit: whoever has not noticed can't write to the old one.
    """
    last = _last_good(scope, log)
    log.given_up = True
    if log.goes_on():
        return
    end = max(log.following(0), key=lambda commit: commit.number, default=log.root)
    open_end = end.unit.token if log.token_is_there(end) and not log.taken(end) else None
    open_log(scope.session, log.group, by=by, before=last.name, token=open_end)


def superfluous(scope: Scope, roots: Sequence[Commit]) -> list[Commit]:
    """Of first commits that were saved at the same moment, oldest first, those that may go."""
    oldest: dict[str, Commit] = {}
    for root in roots:
        oldest.setdefault(root.log, root)
    twins = [root for root in roots if oldest[root.log] is not root]
    empty = [one for one in oldest.values() if next(Log(scope, one).following(0), None) is None]
    # All of them are empty: the oldest stays.
    return twins + (empty if len(empty) < len(oldest) else empty[1:])


def _last_good(scope: Scope, log: Log) -> Commit:
    last = log.root
    chain = _Chain(scope, log.uuid)
    try:
        for commit in log.after(0):
            if not chain.joins(commit, last):
                return last
            last = commit
    except StorageError:
        # Two of one number, or one that can't be read: commit by commit up to there.
        while True:
            try:
                found = log.look(last.number + 1)
            except StorageError:
                return last
            if found is None or not chain.joins(found, last):
                return last
            last = found
    return last


class _Chain:
    """The commits of a log, each of which points to the token that the one before it names."""

    def __init__(self, scope: Scope, log: str) -> None:
        self._scope = scope
        self._log = log
        self._points: dict[str, int] = {}

    def joins(self, commit: Commit, last: Commit) -> bool:
        """Whether this one follows that one."""
        if commit.name not in self._points:  # others go on writing
            self._points = _points(self._scope, self._log)
        return self._points.get(commit.name) == last.unit.token


def _points(scope: Scope, log: str) -> dict[str, int]:
    """The token that each commit of a log points to, by its name."""
    rows = scope.rows(
        "select a.name, e.id from MapAnnotation a join a.details.externalInfo e",
        "a.ns = :ns and a.name like :names",
        ns=COMMIT,
        names=f"{log}/%",
    )
    return dict(rows)
