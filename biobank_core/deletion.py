"""Deleting objects: what goes with them, what refers to them, and doing it.

The rules are the catalog's own (`Catalog.commit`, `model.base.OnCascade`); this says beforehand
what they will come to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from biobank_core.catalog.port import Catalog, Delete, Referrer, Versioned
from biobank_core.errors import NotFoundError
from biobank_core.model.base import OnCascade
from biobank_core.model.kinds import Tombstone
from biobank_core.model.registry import reference_fields


@dataclass(frozen=True, slots=True)
class Going:
    """An object that goes; `with_vid` is the one that takes it along, None for what was named."""

    vid: str
    kind: str
    label: str
    with_vid: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a delete comes to: `refuses` stand in its way; `keeps` will name the tombstones."""

    going: tuple[Going, ...]
    refuses: tuple[Referrer, ...]
    keeps: tuple[Referrer, ...]


def plan(catalog: Catalog, objects: Sequence[Versioned], *, cascade: bool) -> Plan:
    """What deleting these would do now. Raises NotFoundError for what is deleted already."""
    going: dict[str, Going] = {}
    for item in objects:
        if isinstance(item.object, Tombstone):
            raise NotFoundError(f"{item.object.vid} has been deleted already")
        going[item.object.vid] = _going(item, None)
    frontier = list(going)
    while frontier and cascade:
        taken = {
            referrer.vid: referrer.target
            for referrer in catalog.referring(frontier)
            if referrer.vid not in going and _policy(referrer) is OnCascade.DELETE
        }
        for vid, item in catalog.get(taken).items():
            going[vid] = _going(item, taken[vid])
        frontier = list(taken)
    refuses: list[Referrer] = []
    keeps: list[Referrer] = []
    for referrer in catalog.referring(going):
        if referrer.vid not in going:
            kept = cascade and _policy(referrer) is OnCascade.KEEP
            (keeps if kept else refuses).append(referrer)
    return Plan(tuple(going.values()), tuple(_ordered(refuses)), tuple(_ordered(keeps)))


def delete(
    catalog: Catalog, objects: Sequence[Versioned], *, cascade: bool, by: str
) -> tuple[Going, ...]:
    """Delete these, all or none; gives all that went, parts included.

    Raises what `Catalog.commit` raises: ConflictError while something refers to them,
    StaleVersionError when one was changed since it was read, NotFoundError when it is gone.
    """
    planned = {item.vid: item for item in plan(catalog, objects, cascade=cascade).going}
    newest = {item.object.vid: item.version for item in objects}
    receipt = catalog.commit(
        [Delete(vid=vid, based_on=version, cascade=cascade) for vid, version in newest.items()],
        by=by,
    )
    # What others added since the plan was made went, too.
    stones = catalog.get(vid for vid in receipt.versions if vid not in planned)
    late = {
        vid: Going(vid, item.object.of, "", None)
        for vid, item in stones.items()
        if isinstance(item.object, Tombstone)
    }
    return tuple((planned | late)[vid] for vid in receipt.versions)


def _going(item: Versioned, with_vid: str | None) -> Going:
    obj = item.object
    label = getattr(obj, "label", None) or getattr(obj, "code", None) or ""
    return Going(obj.vid, obj.kind, label, with_vid)


def _policy(referrer: Referrer) -> OnCascade:
    # A kind whose plug-in is missing has no fields that are known: then nothing is deleted.
    fields = reference_fields(referrer.kind)
    policies = (field.reference.on_cascade for field in fields if field.name == referrer.field)
    return next(policies, OnCascade.REFUSE)


def _ordered(referrers: Sequence[Referrer]) -> list[Referrer]:
    return sorted(set(referrers), key=lambda item: (item.target, item.kind, item.vid, item.field))
