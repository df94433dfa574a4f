"""The change feed and the history of objects, both read from the log."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from biobank_core.catalog.omero import mapping
from biobank_core.catalog.omero.log import Commit, Log, commits_named
from biobank_core.catalog.omero.names import (
    HISTORY,
    LOG_PAGE,
    PAGE,
    PART,
    parse_description,
    version_name,
)
from biobank_core.catalog.omero.rows import Full, Scope, steadily
from biobank_core.catalog.omero.session import pages
from biobank_core.catalog.port import (
    ChangedObject,
    ChangeKind,
    CommittedUnit,
    HistoryEntry,
    Position,
)
from biobank_core.errors import StorageError
from biobank_core.model.registry import NOT_IN_FEED

_BY_LOST_COMMIT: Final = "unknown: its commit is gone from the log"


def changes(logs: Sequence[Log], since: Position) -> Iterator[CommittedUnit]:
    """The units of all logs after `since`, one log after the other."""
    position = dict(since)
    for identity, part in ((log.identity, part) for log in logs for part in (*log.older, log)):
        reached = position.get(identity, 0) - part.begin
        for commit in part.following(max(reached, 0)) if reached < PART else ():
            if not commit.shown:
                continue
            position[identity] = part.begin + commit.number
            yield CommittedUnit(
                log=identity,
                number=part.begin + commit.number,
                position=dict(position),
                time=commit.unit.time,
                by=commit.unit.by,
                changes=tuple(
                    ChangedObject(
                        change.vid,
                        change.version,
                        change.kind,
                        ChangeKind.DELETED if change.deleted else ChangeKind.SAVED,
                    )
                    for change in commit.unit.changes
                    if change.kind not in NOT_IN_FEED
                ),
            )


def head(logs: Sequence[Log]) -> Position:
    """Where a reader of the feed stands who has read all of it."""
    position: dict[str, int] = {}
    for log in logs:
        for part in (log, *reversed(log.older)):
            if number := part.newest_in_feed():
                position[log.identity] = part.begin + number
                break
    return position


def history(scope: Scope, vid: str) -> list[HistoryEntry]:
    """All versions of one object, oldest first."""
    return steadily(
        functools.partial(_versions, scope, vid), functools.partial(_entries, scope, vid)
    )


def _versions(scope: Scope, vid: str) -> list[Full]:
    current = scope.full([vid]).get(vid)
    if current is None:
        return []
    known = parse_description(current.description)
    newest = known[0] if known else 0
    names = [version_name(vid, version) for version in range(1, newest)]
    return [*scope.full(names).values(), current]


def _entries(scope: Scope, vid: str, fulls: list[Full]) -> list[HistoryEntry]:
    written = {one.name: _written(one) for one in fulls}
    commits: dict[str, Commit] = {}
    for page in pages(sorted({unit for _, unit in written.values()}), LOG_PAGE):
        commits.update(commits_named(scope, list(page)))
    texts = scope.texts(
        version_name(vid, written[one.name][0]) for one in fulls if mapping.long_names(one.pairs)
    )
    entries = []
    for one in sorted(fulls, key=lambda full: written[full.name][0]):
        version, unit = written[one.name]
        commit = commits.get(unit)
        deleted = (mapping.KIND, "Tombstone") in one.pairs
        emptied = any(name == mapping.DELETED for name, _ in one.pairs)
        long = texts.get(version_name(vid, version))
        entries.append(
            HistoryEntry(
                version=version,
                time=commit.unit.time if commit else _saved_at(scope, one),
                by=commit.unit.by if commit else _BY_LOST_COMMIT,
                change=ChangeKind.DELETED if deleted else ChangeKind.SAVED,
                object=None if deleted or emptied else mapping.decoded(vid, one.pairs, long),
            )
        )
    return entries


def former(scope: Scope, names: Sequence[str]) -> dict[str, Full]:
    """Former versions (`VID/version`) with their pairs."""
    found: dict[str, Full] = {}
    for page in pages(names, PAGE):
        found.update((k, one) for k, one in scope.full(page).items() if one.ns == HISTORY)
    return found


def _saved_at(scope: Scope, full: Full) -> datetime:
    """When OMERO saved the annotation: for one whose commit was lost with a part of the log."""
    rows = scope.rows(
        "select a.details.updateEvent.time from MapAnnotation a", "a.id = :id", id=full.id
    )
    return datetime.fromtimestamp(rows[0][0] / 1000, UTC)


def _written(full: Full) -> tuple[int, str]:
    parsed = parse_description(full.description)
    if parsed is None:
        raise StorageError(f"{full.name}: its description was changed in OMERO")
    return parsed
