"""OMERO's account of its own changes: an Event a call, an EventLog row a changed object."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from tests.servers.omero.caller import Caller
from tests.servers.omero.model import Entity

_UNLOGGED = {"Event", "EventLog", "Session"}


class EventWriter:
    """Collects what one call changes and writes it down at the end of its transaction."""

    def __init__(self, connection: psycopg.Connection[Any], caller: Caller) -> None:
        self._connection = connection
        self._caller = caller
        self._event_id: int | None = None
        self._logs: list[tuple[str, str, int]] = []
        self._reserved: list[int] = []

    @property
    def event_id(self) -> int:
        """The call's Event, made when it is first asked for."""
        if self._event_id is None:
            with self._connection.cursor() as cursor:
                cursor.execute(
                    "insert into event (id, discriminator, time, experimenter, experimentergroup,"
                    " type, session) values (nextval('seq_event'), 'Event', %s, %s, %s,"
                    " (select id from eventtype where value = 'User'), %s) returning id",
                    [
                        int(time.time() * 1000),
                        self._caller.user_id,
                        max(self._caller.group_id, 0),
                        self._caller.session_id,
                    ],
                )
                row = cursor.fetchone()
            assert row is not None
            self._event_id = int(row[0])
        return self._event_id

    def log(self, action: str, entity: Entity, row_id: int) -> None:
        """Note that an object was inserted, updated or deleted."""
        if entity.root not in _UNLOGGED:
            self._logs.append((action, entity.java_name, row_id))

    def reserve(self, count: int) -> None:
        """Take the next ids now: rows of calls that end earlier will have greater ones."""
        with self._connection.cursor() as cursor:
            cursor.execute("select nextval('seq_eventlog') from generate_series(1, %s)", [count])
            self._reserved = [row[0] for row in cursor]

    def write(self) -> None:
        """Insert the EventLog rows; ids come from a sequence, so not in the order of commits."""
        if not self._logs:
            return
        event = self.event_id
        actions, types, ids = zip(*self._logs, strict=True)
        kept = self._reserved[: len(self._logs)]
        kept += [0] * (len(self._logs) - len(kept))
        with self._connection.cursor() as cursor:
            cursor.execute(
                "insert into eventlog (id, discriminator, action, entitytype, entityid, event)"
                " select case kept when 0 then nextval('seq_eventlog') else kept end, 'EventLog',"
                " action, type, entity, %s from unnest(%s::text[], %s::text[], %s::bigint[],"
                " %s::bigint[]) as change(action, type, entity, kept)",
                [event, list(actions), list(types), list(ids), kept],
            )
        self._logs = []
