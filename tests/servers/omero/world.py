"""What all servants share, and how an empty server's database is filled."""

from __future__ import annotations

import sys
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.servers.omero.caller import (
    GUEST_GROUP_ID,
    GUEST_ID,
    ROOT_ID,
    SYSTEM_GROUP_ID,
    USER_GROUP_ID,
)
from tests.servers.omero.database import Database
from tests.servers.omero.faults import Faults
from tests.servers.omero.schema import statements
from tests.servers.omero.sessions import Sessions, set_password

VERSION = "5.6.0"  # that of the API that the stand-in answers for
_GROUPS = (
    (SYSTEM_GROUP_ID, "system", "rw----"),
    (USER_GROUP_ID, "user", "rwr-r-"),
    (GUEST_GROUP_ID, "guest", "rw----"),
)
_MEMBERS = (
    (ROOT_ID, SYSTEM_GROUP_ID, True),
    (ROOT_ID, USER_GROUP_ID, False),
    (GUEST_ID, GUEST_GROUP_ID, False),
)
_ENUMERATIONS = {
    "EventType": "Import Internal Shoola User Task Test Processing FullText Sessions",
    "ChecksumAlgorithm": "Adler-32 CRC-32 MD5-128 Murmur3-32 Murmur3-128 SHA1-160 File-Size-64",
    "Format": "text/plain text/csv application/octet-stream application/json OMERO.tables",
    "DimensionOrder": "XYZCT XYCZT XYTCZ XYTZC XYCTZ XYZTC",
    "PixelsType": "bit int8 int16 int32 uint8 uint16 uint32 float double",
    "JobStatus": "Submitted Queued Running Error Finished Cancelled",
}


@dataclass
class World:
    """One server's state: its database in PostgreSQL, its files, its sessions and faults."""

    database: Database
    folder: Path
    config: dict[str, str]
    login_delay_s: float = 3.0
    sessions: Sessions = field(default_factory=Sessions)
    faults: Faults = field(default_factory=Faults)
    _queries: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def files(self) -> Path:
        """Where the contents of OriginalFiles lie, each under its id."""
        return self.folder / "Files"

    def note_query(self, text: str) -> None:
        """Keep each distinct HQL, one a line, for those who ask Hibernate itself about it."""
        line = " ".join(text.split())
        with self._lock:
            if line not in self._queries:
                self._queries.add(line)
                with (self.folder / "queries.hql").open("a") as handle:
                    handle.write(f"{line}\n")


def fill_database(connection: psycopg.Connection[Any], root_password: str) -> None:
    """Make the tables, the enumerations, the accounts root and guest and their groups.

    A database that has them is left as it is, but for root's password.
    """
    present = connection.execute("select to_regclass('experimenter')").fetchone()
    if present is None or present[0] is None:
        for statement in statements():
            connection.execute(statement.encode())
        _fill(connection)
    set_password(connection, ROOT_ID, root_password)
    connection.commit()


def _fill(connection: psycopg.Connection[Any]) -> None:
    connection.execute("alter table groupexperimentermap add column position serial")
    for table, values in _ENUMERATIONS.items():
        for value in values.split():
            connection.execute(
                f'insert into "{table.lower()}" (id, discriminator, value)'
                f" values (nextval('seq_{table.lower()}'), %s, %s)".encode(),
                [table, value],
            )
    connection.execute(
        "insert into node (id, discriminator, uuid, conn, up)"
        " values (0, 'Node', %s, 'stand-in', 0)",
        [str(uuid.uuid4())],
    )
    for user_id, name in ((ROOT_ID, "root"), (GUEST_ID, "guest")):
        connection.execute(
            "insert into experimenter (id, discriminator, omename, firstname, lastname, ldap)"
            " values (%s, 'Experimenter', %s, %s, 'Account', false)",
            [user_id, name, name],
        )
    for group_id, name, perms in _GROUPS:
        connection.execute(
            "insert into experimentergroup (id, discriminator, name, ldap)"
            " values (%s, 'ExperimenterGroup', %s, false)",
            [group_id, name],
        )
        connection.execute("insert into grouppermissions values (%s, %s)", [group_id, perms])
    for user_id, group_id, owner in _MEMBERS:
        connection.execute(
            "insert into groupexperimentermap (id, discriminator, child, parent, owner)"
            " values (nextval('seq_groupexperimentermap'), 'GroupExperimenterMap', %s, %s, %s)",
            [user_id, group_id, owner],
        )
    for sequence, start in (("experimenter", 2), ("experimentergroup", 3), ("node", 1)):
        connection.execute(f"select setval('seq_{sequence}', {start}, false)".encode())


def log(message: str) -> None:
    """Write one line to the server's log."""
    print(message, file=sys.stderr, flush=True)
