"""Which group a unit goes to, and what of other groups it takes along.

Objects of a study live in the group of their study. Objects without one (individuals, devices,
setups) are copied, with VID and version, into each group whose objects name them: so that who sees
a group's actions sees their devices, whatever other groups they are in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from biobank_core.catalog.checks import Unit, Write
from biobank_core.catalog.omero import mapping
from biobank_core.catalog.omero.log import Log
from biobank_core.catalog.omero.names import parse_description, version_name
from biobank_core.catalog.omero.rows import Found, Full, Rows, Scope, newest
from biobank_core.catalog.omero.session import LostRace
from biobank_core.errors import InputError, UnreadableError
from biobank_core.model.registry import is_a

# Without a study of their own, and used by all.
_SHARED: Final = ("Individual", "Device", "ActionSetup")


class Copy(NamedTuple):
    """An object of another group that a unit takes along; `id` is the copy that it replaces."""

    found: Found
    full: Full
    long: Mapping[str, Any]
    id: int | None

    @property
    def checksum(self) -> str:
        return mapping.checksum(self.full.pairs, self.long)


def is_shared(kind: str) -> bool:
    """Whether objects of this kind are copied into the groups that use them."""
    return any(is_a(kind, base) for base in _SHARED)


def log_of(unit: Unit, logs: Sequence[Log], scope: Scope) -> Log:
    """Of several logs, the one that a unit goes to. Raises InputError when it belongs to two."""
    if len(logs) == 1:
        return logs[0]
    drafts = unit.saves.values()
    named = {target for draft in drafts for _, target in draft.references}
    found = scope.found_everywhere({*unit.order, *named})
    standing = {one.vid for one in found}
    studies = {
        target
        for vid, draft in unit.saves.items()
        for field, target in draft.references
        if field.name == "study" and vid not in standing
    }
    # Where its objects are already, and where the studies of the new ones are; else where that is
    # what they belong to.
    for vids in ({*unit.order, *studies}, named):
        group = _one_group([one for one in found if one.vid in vids], logs)
        if group is not None:
            return group
    shared = {one.group for one in found if one.vid in unit.order}
    return next((log for log in logs if log.group in shared), logs[0])


def _one_group(found: Iterable[Found], logs: Sequence[Log]) -> Log | None:
    by_group = {log.group: log for log in reversed(logs)}
    # What was moved has left a tombstone behind.
    there = newest(found).values()
    homed = {one.group for one in there if not is_shared(one.state.kind)} & by_group.keys()
    if len(homed) > 1:
        raise InputError(
            "the unit's objects belong to several groups of OMERO; save those of each group apart",
            value=sorted(homed),
        )
    return by_group[homed.pop()] if homed else None


def copies(scope: Scope, group: int, writes: Sequence[Write], rows: Rows) -> list[Copy]:
    """What the unit refers to that its group lacks, or has in an older version.

    Raises LostRace where that is changed meanwhile, UnreadableError where it can't be read.
    """
    if len(scope.groups) == 1:
        return []
    written = {write.object.vid for write in writes}
    wanted: dict[str, Found] = {}
    for write in writes:
        for _, target in write.references:
            best = rows.found.get(target)
            if target in written or best is None or best.group == group:
                continue
            if is_shared(best.state.kind):
                wanted[target] = best
    if not wanted:
        return []
    fulls = scope.full_by_id([one.id for one in wanted.values()])
    for vid, one in wanted.items():
        if not _as_found(one, fulls):
            raise LostRace(f"{vid} was changed meanwhile")
    texts = _texts(scope, list(wanted.values()), fulls)
    made = []
    for vid, one in wanted.items():
        full, long = fulls[one.id], texts.get(version_name(vid, one.version), {})
        if set(mapping.long_names(full.pairs)) - long.keys():
            if _as_found(one, scope.full_by_id([one.id])):
                raise UnreadableError(f"{vid}: a long text of it is missing")
            raise LostRace(f"{vid} was deleted meanwhile")
        here = rows.everywhere.get((vid, group))
        made.append(Copy(one, full, long, here.id if here else None))
    return made


def _as_found(one: Found, fulls: Mapping[int, Full]) -> bool:
    """Whether this is still the version that was found."""
    full = fulls.get(one.id)
    return full is not None and parse_description(full.description) == (one.version, one.unit)


def _texts(
    scope: Scope, found: Collection[Found], fulls: Mapping[int, Full]
) -> dict[str, dict[str, Any]]:
    names = [
        version_name(one.vid, one.version)
        for one in found
        if mapping.long_names(fulls[one.id].pairs)
    ]
    return scope.texts(names) if names else {}
