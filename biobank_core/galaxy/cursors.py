"""How far a recording got: which jobs the next one asks about, and which it need not."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from biobank_core.galaxy import identity
from biobank_core.galaxy.client import GalaxyUser
from biobank_core.model.kinds import Cursor

# Transactions of Galaxy's end some time after the update time that they write.
OVERLAP: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is recorded: everything that the user may see, or one history, or one invocation."""

    history_id: str | None = None
    invocation_id: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Todo:
    """A job to deal with. `update_time` is None for one that an earlier run left waiting."""

    job_id: str
    update_time: datetime | None
    ended: bool = True


def name_of(server: str, user: GalaxyUser, scope: Scope, told: str) -> str:
    """What a recording of this scope calls its cursor.

    `told` stands for all else that decides what is recorded: with other rules, what was recorded
    before is looked at once more.
    """
    parts = [
        f"user {user.id}" if not user.is_admin else "all users",
        f"history {scope.history_id}" if scope.history_id else "",
        f"invocation {scope.invocation_id}" if scope.invocation_id else "",
        f"since {scope.since.isoformat()}" if scope.since else "",
    ]
    digest = hashlib.sha256(told.encode()).hexdigest()[:16]
    return ", ".join(part for part in (server, *parts, f"rules {digest}") if part)


def cursor_after(
    old: Cursor | None,
    batch: Sequence[Todo],
    *,
    name: str,
    times: Mapping[str, datetime],
    waiting: Collection[str],
    failed: Collection[str],
    position: datetime | None = None,
) -> Cursor | None:
    """The cursor when these jobs are dealt with; None where nothing has a time yet.

    `times` are the update times of the jobs in this run's list. `waiting` and `failed` of the
    batch are asked for again. `position`: all up to then is dealt with, beside the batch.
    """
    known = [todo.update_time for todo in batch if todo.update_time is not None]
    known += [time for time in (position, old.position if old else None) if time is not None]
    if not known:
        return None
    position = max(known)
    dealt_with = [t.job_id for t in batch if t.job_id not in waiting and t.job_id not in failed]
    # A job that is not in this run's list was updated before what the next run will list.
    seen = [
        job_id
        for job_id in dict.fromkeys((*(old.seen_job_ids if old else ()), *dealt_with))
        if job_id in times and times[job_id] >= position - OVERLAP
    ]
    in_batch = {todo.job_id for todo in batch}
    still = [i for i in (old.waiting_job_ids if old else ()) if i not in in_batch]
    return Cursor(
        vid=identity.cursor_vid(name),
        name=name,
        position=position,
        seen_job_ids=tuple(seen),
        waiting_job_ids=tuple(dict.fromkeys((*still, *sorted(waiting), *sorted(failed)))),
    )
