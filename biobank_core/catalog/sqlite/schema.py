"""The tables of a catalog in SQLite.

object     the newest version of every VID (a Tombstone where `deleted`); `unit` wrote it. `label`
           and `handle` are what people and Galaxy find it by (see `label_of`, `handle_of`).
history    former versions; `body` is NULL once the object is deleted
reference  who names whom, both ways; `link` says which field of which kind
kind       the kinds that are held and their bases, so that one whose plug-in is gone stays readable
unit       the change log: what unit n wrote are the rows of object and history with unit = n
"""

from __future__ import annotations

import functools
from typing import Final

from biobank_core.model.base import Object
from biobank_core.model.kinds import (
    Action,
    Cursor,
    DataCollection,
    DataObject,
    DataSample,
    Enrollment,
    Vessel,
)
from biobank_core.model.registry import is_a

COMPONENT: Final = "catalog"

STEPS: Final = (
    """
    CREATE TABLE catalog_log (
        id INTEGER PRIMARY KEY CHECK (id = 1), log TEXT NOT NULL
    );
    INSERT INTO catalog_log VALUES (1, lower(hex(randomblob(16))));

    CREATE TABLE kind (
        name TEXT PRIMARY KEY,
        bases TEXT NOT NULL
    ) WITHOUT ROWID;

    CREATE TABLE unit (
        number INTEGER PRIMARY KEY,
        time TEXT NOT NULL,
        by TEXT NOT NULL,
        in_feed INTEGER NOT NULL
    );

    CREATE TABLE object (
        id INTEGER PRIMARY KEY,
        vid TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        version INTEGER NOT NULL,
        deleted INTEGER NOT NULL,
        unit INTEGER NOT NULL REFERENCES unit,
        label TEXT,
        handle TEXT,
        body TEXT NOT NULL
    );
    CREATE INDEX object_by_kind ON object (deleted, kind, vid);
    CREATE INDEX object_by_unit ON object (unit);
    CREATE INDEX object_by_label ON object (label) WHERE label IS NOT NULL;
    CREATE INDEX object_by_handle ON object (handle) WHERE handle IS NOT NULL;

    CREATE TABLE history (
        id INTEGER PRIMARY KEY,
        object INTEGER NOT NULL REFERENCES object,
        version INTEGER NOT NULL,
        deleted INTEGER NOT NULL,
        unit INTEGER NOT NULL REFERENCES unit,
        body TEXT
    );
    CREATE UNIQUE INDEX history_by_object ON history (object, version);
    CREATE INDEX history_by_unit ON history (unit);

    CREATE TABLE link (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        field TEXT NOT NULL,
        UNIQUE (kind, field)
    );
    CREATE TABLE reference (
        source INTEGER NOT NULL REFERENCES object,
        link INTEGER NOT NULL REFERENCES link,
        target INTEGER NOT NULL REFERENCES object,
        PRIMARY KEY (source, link, target)
    ) WITHOUT ROWID;
    CREATE INDEX reference_by_target ON reference (target, link, source);

    CREATE TABLE unique_key (
        key TEXT PRIMARY KEY,
        object INTEGER NOT NULL REFERENCES object
    ) WITHOUT ROWID;
    CREATE INDEX unique_key_by_object ON unique_key (object);
    """,
)


def label_of(obj: Object) -> str | None:
    """What stands in the indexed column `label`."""
    match obj:
        case Enrollment():
            return obj.code
        case Cursor():
            return obj.name
    label: str | None = getattr(obj, "label", None)
    return label


def handle_of(obj: Object) -> str | None:
    """What stands in the indexed column `handle`: what the world outside knows it by."""
    match obj:
        case Action():
            return obj.galaxy.job_id if obj.galaxy else None
        case DataSample():
            return obj.galaxy.dataset_uuid if obj.galaxy else None
        case DataCollection():
            return obj.galaxy.hdca_id if obj.galaxy else None
        case DataObject():
            return obj.uri
        case Vessel():
            return obj.barcode
    return None


@functools.cache
def column_of(kind: str, field: str) -> str | None:
    """The indexed column that holds this field of such objects; None where there is none."""
    handles = {
        "Action": "galaxy.job_id",
        "DataSample": "galaxy.dataset_uuid",
        "DataCollection": "galaxy.hdca_id",
        "DataObject": "uri",
        "Vessel": "barcode",
    }
    if any(field == name and is_a(kind, base) for base, name in handles.items()):
        return "handle"
    labels = {"Enrollment": "code", "Cursor": "name"}
    return "label" if field == labels.get(kind, "label") else None
