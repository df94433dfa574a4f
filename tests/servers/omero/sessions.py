"""Accounts, passwords and the sessions that are open."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import omero
import psycopg

from tests.servers.omero.caller import SYSTEM_GROUP_ID, USER_GROUP_ID
from tests.servers.omero.errors import security

_TIME_TO_IDLE_MS = 600_000


@dataclass
class LiveSession:
    """One open session; a restart of the server ends it.

    `memberships`: (group, whether its owner) as the session knows them.
    """

    uuid: str
    row_id: int
    user_id: int
    user_name: str
    group_id: int
    clients: int = 1
    detached: bool = False
    memberships: list[tuple[int, bool]] | None = None
    last_used_s: float = field(default_factory=time.monotonic)
    stateful: dict[str, Any] = field(default_factory=dict)  # servants that belong to it, by name

    def touch(self) -> None:
        """Note that the session is in use."""
        self.last_used_s = time.monotonic()


def password_hash(password: str, salt: str | None = None) -> str:
    """Return a salted hash."""
    salt = salt or secrets.token_hex(8)
    return f"{salt}${hashlib.sha256((salt + password).encode()).hexdigest()}"


def password_fits(password: str, kept: str) -> bool:
    """Tell whether a password has this hash."""
    return secrets.compare_digest(password_hash(password, kept.partition("$")[0]), kept)


def set_password(connection: psycopg.Connection[Any], user_id: int, password: str) -> None:
    """Keep an account's password."""
    connection.execute(
        "insert into password (experimenter_id, hash) values (%s, %s)"
        " on conflict (experimenter_id) do update set hash = excluded.hash",
        [user_id, password_hash(password)],
    )


class Sessions:
    """The open sessions by UUID."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, LiveSession] = {}

    def get(self, session_uuid: str) -> LiveSession | None:
        """Return an open session."""
        with self._lock:
            return self._open.get(session_uuid)

    def join(self, session_uuid: str) -> LiveSession | None:
        """Return an open session for one more client."""
        with self._lock:
            found = self._open.get(session_uuid)
            if found is not None:
                found.clients += 1
            return found

    def remove(self, session_uuid: str) -> LiveSession | None:
        """End a session, whoever still uses it."""
        with self._lock:
            return self._open.pop(session_uuid, None)

    def leave(self, session_uuid: str) -> int:
        """Let one client go; the last one's leaving ends the session. Return how many remain."""
        with self._lock:
            found = self._open.get(session_uuid)
            if found is None:
                return 0
            found.clients -= 1
            if found.clients <= 0 and not found.detached:
                del self._open[session_uuid]
            return max(found.clients, 0)

    def all(self) -> list[LiveSession]:
        """Return the open sessions."""
        with self._lock:
            return list(self._open.values())

    def login(
        self, connection: psycopg.Connection[Any], user_name: str, password: str, group: str
    ) -> LiveSession | None:
        """Open a session for an account; None if name or password is wrong."""
        row = connection.execute(
            "select e.id, p.hash from experimenter e join password p on p.experimenter_id = e.id"
            " where e.omename = %s",
            [user_name],
        ).fetchone()
        if row is None or not password_fits(password, row[1]):
            return None
        return self.open(connection, user_id=row[0], user_name=user_name, group=group)

    def open(
        self, connection: psycopg.Connection[Any], *, user_id: int, user_name: str, group: str
    ) -> LiveSession:
        """Open a session in that group (its id or name), else in the account's default group."""
        made = str(uuid.uuid4())
        row = connection.execute(
            "insert into session (id, discriminator, uuid, owner, node, timetoidle, timetolive,"
            " started, defaulteventtype) values (nextval('seq_session'), 'Session', %s, %s, 0, %s,"
            " 0, %s, 'User') returning id",
            [made, user_id, _TIME_TO_IDLE_MS, int(time.time() * 1000)],
        ).fetchone()
        assert row is not None
        session = LiveSession(
            made, row[0], user_id, user_name, _group_id(connection, user_id, group)
        )
        with self._lock:
            self._open[made] = session
        return session


def default_group(connection: psycopg.Connection[Any], user_id: int) -> int:
    """Return an account's default group: the first it was put into, `user` left out."""
    row = connection.execute(
        "select parent from groupexperimentermap where child = %s and parent <> %s"
        " order by position, id limit 1",
        [user_id, USER_GROUP_ID],
    ).fetchone()
    return int(row[0]) if row is not None else USER_GROUP_ID


def _group_id(connection: psycopg.Connection[Any], user_id: int, group: str) -> int:
    if not group:
        return default_group(connection, user_id)
    row = connection.execute("select id from experimentergroup where name = %s", [group]).fetchone()
    if row is None:
        reason = f"No such group: {group}"
        raise omero.WrappedCreateSessionException(
            reason, False, -1, "ome.conditions.ApiUsageException"
        )
    group_id = int(row[0])
    member = connection.execute(
        "select 1 from groupexperimentermap where child = %s and parent in (%s, %s)",
        [user_id, group_id, SYSTEM_GROUP_ID],
    ).fetchone()
    if member is None:
        raise security(f"User {user_id} is not a member of group {group_id} and cannot login")
    return group_id
