"""Who changed what of one object, and when: field by field."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final

from biobank_core.catalog.port import Catalog, ChangeKind
from biobank_core.model import codec
from biobank_core.model.base import Object

# The same in all versions of an object.
_FIXED: Final = ("kind", "vid")


class Happened(Enum):
    """What a version is. CREATED also when a deleted object came back."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field before and after, as JSON values; None where it was not set. Parts of a structured
    field have names with a dot, as `galaxy.state`.
    """

    field: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class VersionChange:
    """One version. `fields` is None where the content is gone with a deletion."""

    version: int
    time: datetime
    by: str
    happened: Happened
    fields: tuple[FieldChange, ...] | None


def history_of(catalog: Catalog, vid: str) -> list[VersionChange]:
    """All versions of an object, oldest first, each with what it changed; empty for an unknown."""
    changes: list[VersionChange] = []
    before: dict[str, Any] = {}
    lives = False
    for entry in catalog.history(vid):
        fields: tuple[FieldChange, ...] | None = None
        if entry.change is ChangeKind.DELETED:
            happened, lives, before = Happened.DELETED, False, {}
        else:
            happened, lives = (Happened.UPDATED if lives else Happened.CREATED), True
            if entry.object is not None:
                after = _fields(entry.object)
                fields = _differences(before, after)
                before = after
        changes.append(VersionChange(entry.version, entry.time, entry.by, happened, fields))
    return changes


def _differences(before: dict[str, Any], after: dict[str, Any]) -> tuple[FieldChange, ...]:
    return tuple(
        FieldChange(name, before.get(name), after.get(name))
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    )


def _fields(obj: Object) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in json.loads(codec.encode(obj)).items():
        if name in _FIXED:
            continue
        if isinstance(value, dict) and value:
            found.update((f"{name}.{part}", inner) for part, inner in value.items())
        else:
            found[name] = value
    return found
