"""What is wrong with a log itself, and the new log that goes on from the last good commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from biobank_core.catalog.omero.log import Commit, Log, open_log
from biobank_core.catalog.omero.names import COMMIT
from biobank_core.catalog.omero.rows import Scope
from biobank_core.errors import StorageError


def damage(scope: Scope, log: Log) -> Iterator[str]:
    """What is wrong with this log, a sentence each."""
    if (what := log.gap()) is not None:
        yield log.damaged(what)
        return
    try:
        last = log.root
        points = _points(scope, log)
        for commit in log.after(0):
            if points.get(commit.name) != last.unit.token:
                yield log.damaged(f"commit {commit.number} no longer holds its place in the chain")
                return
            last = commit
    except StorageError as exc:
        yield str(exc)
        return
    if not log.token_is_there(last):
        yield log.damaged(f"what follows commit {last.number} is gone")


def go_on(scope: Scope, log: Log, *, by: str) -> None:
    """Open a new log that names the last good commit of this one."""
    open_log(scope.session, log.group, by=by, before=_last_good(scope, log).name)


def two_first_commits(scope: Scope, roots: Sequence[Commit]) -> list[Commit]:
    """Of logs that were opened at the same moment, those that nobody wrote to."""
    empty = []
    for root in roots:
        log = Log(scope, root)
        if next(log.following(0), None) is None:
            empty.append(root)
    return empty


def _last_good(scope: Scope, log: Log) -> Commit:
    last = log.root
    points = _points(scope, log)
    try:
        for commit in log.after(0):
            if points.get(commit.name) != last.unit.token:
                return last
            last = commit
    except StorageError:
        # Two of one number, or one that can't be read: commit by commit up to there.
        while True:
            try:
                found = log.look(last.number + 1)
            except StorageError:
                return last
            if found is None or points.get(found.name) != last.unit.token:
                return last
            last = found
    return last


def _points(scope: Scope, log: Log) -> dict[str, int]:
    """The token that each commit points to, by its name."""
    rows = scope.rows(
        "select a.name, e.id from MapAnnotation a join a.details.externalInfo e",
        "a.ns = :ns and a.name like :names",
        ns=COMMIT,
        names=f"{log.uuid}/%",
    )
    return dict(rows)
