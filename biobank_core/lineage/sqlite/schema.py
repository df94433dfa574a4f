"""The tables of the index, and how VIDs and roles stand in them."""

from __future__ import annotations

import functools
import json
from typing import Final

from biobank_core.errors import InputError
from biobank_core.model.ids import is_vid

COMPONENT: Final = "lineage"

# Everything is joined by small integers; a VID (16 bytes) is written once. A row of lineage_vid
# without a row of lineage_node is a placeholder, or no node at all. Links (actions with both ends,
# collections) are kept as they are, n + m rows, not as n x m edges.
_STEP_1: Final = """
CREATE TABLE lineage_vid (
    id INTEGER PRIMARY KEY,
    vid BLOB NOT NULL UNIQUE
);
CREATE TABLE lineage_log (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);
CREATE TABLE lineage_groups (
    id INTEGER PRIMARY KEY,
    names TEXT NOT NULL UNIQUE
);
CREATE TABLE lineage_ledger (
    object INTEGER NOT NULL,
    log INTEGER NOT NULL,
    version INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (object, log)
) WITHOUT ROWID;
CREATE TABLE lineage_node (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    label TEXT NOT NULL,
    study BLOB,
    groups INTEGER NOT NULL,
    deleted INTEGER NOT NULL
);
CREATE TABLE lineage_action (
    id INTEGER PRIMARY KEY,
    category TEXT NOT NULL,
    device INTEGER,
    setup BLOB,
    status TEXT NOT NULL,
    ended TEXT,
    middle INTEGER
);
CREATE TABLE lineage_device (
    id INTEGER PRIMARY KEY,
    label TEXT NOT NULL,
    release TEXT
);
CREATE TABLE lineage_input (
    node INTEGER NOT NULL,
    link INTEGER NOT NULL,
    roles TEXT NOT NULL,
    PRIMARY KEY (node, link)
) WITHOUT ROWID;
CREATE INDEX lineage_input_by_link ON lineage_input (link);
CREATE TABLE lineage_output (
    node INTEGER NOT NULL,
    link INTEGER NOT NULL,
    roles TEXT NOT NULL,
    PRIMARY KEY (node, link)
) WITHOUT ROWID;
CREATE INDEX lineage_output_by_link ON lineage_output (link);
CREATE TABLE lineage_use (
    node INTEGER NOT NULL,
    action INTEGER NOT NULL,
    roles TEXT NOT NULL,
    PRIMARY KEY (node, action)
) WITHOUT ROWID;
CREATE INDEX lineage_use_by_action ON lineage_use (action);
CREATE TABLE lineage_supersession (
    id INTEGER PRIMARY KEY,
    new INTEGER NOT NULL,
    old INTEGER NOT NULL
);
CREATE INDEX lineage_supersession_by_new ON lineage_supersession (new);
CREATE INDEX lineage_supersession_by_old ON lineage_supersession (old);
CREATE TABLE lineage_position (
    log TEXT PRIMARY KEY,
    number INTEGER NOT NULL
) WITHOUT ROWID;
"""

# What could not be taken in: dead letters that a consumer told of.
_STEP_2: Final = """
CREATE TABLE lineage_refusal (
    vid TEXT NOT NULL,
    log TEXT NOT NULL,
    version INTEGER NOT NULL,
    reason TEXT NOT NULL,
    time TEXT NOT NULL,
    discarded INTEGER NOT NULL,
    PRIMARY KEY (vid, log)
) WITHOUT ROWID;
"""

# A node and an action show their VID in every answer: the look-up into lineage_vid was a third of
# the time. The same for the roles, which a link's index then gives without a look at its table.
_STEP_3: Final = """
ALTER TABLE lineage_node RENAME TO lineage_node_before;
CREATE TABLE lineage_node (
    id INTEGER PRIMARY KEY,
    vid BLOB NOT NULL,
    kind TEXT NOT NULL,
    label TEXT NOT NULL,
    study BLOB,
    groups INTEGER NOT NULL,
    deleted INTEGER NOT NULL
);
INSERT INTO lineage_node SELECT n.id, v.vid, n.kind, n.label, n.study, n.groups, n.deleted
    FROM lineage_node_before n JOIN lineage_vid v ON v.id = n.id ORDER BY n.id;
DROP TABLE lineage_node_before;
ALTER TABLE lineage_action RENAME TO lineage_action_before;
CREATE TABLE lineage_action (
    id INTEGER PRIMARY KEY,
    vid BLOB NOT NULL,
    category TEXT NOT NULL,
    device INTEGER,
    setup BLOB,
    status TEXT NOT NULL,
    ended TEXT,
    middle INTEGER
);
INSERT INTO lineage_action
    SELECT a.id, v.vid, a.category, a.device, a.setup, a.status, a.ended, a.middle
    FROM lineage_action_before a JOIN lineage_vid v ON v.id = a.id ORDER BY a.id;
DROP TABLE lineage_action_before;
DROP INDEX lineage_input_by_link;
CREATE INDEX lineage_input_by_link ON lineage_input (link, node, roles);
DROP INDEX lineage_output_by_link;
CREATE INDEX lineage_output_by_link ON lineage_output (link, node, roles);
"""

STEPS: Final = (_STEP_1, _STEP_2, _STEP_3)

TABLES: Final = (
    "lineage_vid",
    "lineage_log",
    "lineage_groups",
    "lineage_ledger",
    "lineage_node",
    "lineage_action",
    "lineage_device",
    "lineage_input",
    "lineage_output",
    "lineage_use",
    "lineage_supersession",
    "lineage_position",
    "lineage_refusal",
)


def to_blob(vid: str) -> bytes:
    """The 16 bytes of a VID. Raises InputError for what is not one."""
    if not is_vid(vid):
        raise InputError("not a VID", field="vid", value=vid)
    return bytes.fromhex(vid[2:])


def to_vid(blob: bytes) -> str:
    """The VID of these 16 bytes."""
    return f"V0{blob.hex().upper()}"


@functools.lru_cache(maxsize=65_536)
def roles_to_text(roles: tuple[str, ...]) -> str:
    """Roles as a JSON array."""
    return json.dumps(roles, ensure_ascii=False)


@functools.lru_cache(maxsize=65_536)
def roles_of_text(text: str) -> tuple[str, ...]:
    """What `roles_to_text` wrote."""
    return tuple(json.loads(text))
