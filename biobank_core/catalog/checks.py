"""The checks of a unit that are the same for every driver, and what the unit then writes.

A driver calls `prepare` before its transaction (no I/O), and `check` inside it with a `Present`
that answers from the state before the unit. What `check` returns is written as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol

from biobank_core.catalog.cycles import refuse_container_loops, refuse_cycles
from biobank_core.catalog.one import (
    UniqueKey,
    exact_body,
    fits,
    kind_of,
    misfit,
    refuse_depth,
    unique_keys,
)
from biobank_core.catalog.port import Change, Delete, Referrer, Save
from biobank_core.errors import (
    ConflictError,
    DuplicateError,
    InputError,
    NotFoundError,
    StaleVersionError,
)
from biobank_core.model import codec
from biobank_core.model.base import Object, OnCascade, Reference, UnreadKind
from biobank_core.model.kinds import Tombstone
from biobank_core.model.registry import (
    ReferenceField,
    kinds,
    reference_fields,
    references,
)

# How many objects an error names that stand in the way of a delete.
_MAX_NAMED: Final = 3


class State(NamedTuple):
    """What the catalog has under a VID. `kind` of a deleted object is what it was."""

    kind: str
    version: int
    deleted: bool


class Present(Protocol):
    """The state before the unit; all questions are in bulk, of any size."""

    def states(self, vids: Collection[str]) -> Mapping[str, State]:
        """The state of each VID that is known."""

    def owners(self, keys: Collection[str]) -> Mapping[str, str]:
        """Which VID holds each of these unique keys."""

    def referrers(self, vids: Collection[str], fields: Collection[str] = ()) -> Iterator[Referrer]:
        """Living objects that refer to these, in these fields (empty: in any)."""

    def targets(self, vids: Collection[str], fields: Collection[str]) -> Iterator[Referrer]:
        """What these living objects refer to in these fields."""


class Draft(NamedTuple):
    """A save that is right by itself."""

    object: Object
    based_on: int
    body: bytes
    references: tuple[tuple[ReferenceField, str], ...]
    keys: tuple[UniqueKey, ...]


class Unit(NamedTuple):
    """The changes of one unit by VID, in their order."""

    saves: dict[str, Draft]
    deletes: dict[str, Delete]
    order: tuple[str, ...]


class Write(NamedTuple):
    """What is to be written of one object. `before` is None for what was never there."""

    object: Object
    version: int
    body: bytes
    references: tuple[tuple[ReferenceField, str], ...]
    keys: tuple[UniqueKey, ...]
    before: State | None

    @property
    def kind(self) -> str:
        """What it is; of a deleted object, what it was."""
        return kind_of(self.object)

    @property
    def deleted(self) -> bool:
        return isinstance(self.object, Tombstone)


def prepare(changes: Sequence[Change]) -> Unit:
    """Check each change by itself. Raises InputError naming the object, field and value."""
    saves: dict[str, Draft] = {}
    deletes: dict[str, Delete] = {}
    order: list[str] = []
    for change in changes:
        vid = change.object.vid if isinstance(change, Save) else change.vid
        if vid in saves or vid in deletes:
            raise InputError("stands twice in one unit", field="vid", value=vid)
        order.append(vid)
        if isinstance(change, Save):
            saves[vid] = _draft(change)
        else:
            deletes[vid] = change
    return Unit(saves, deletes, tuple(order))


def check(unit: Unit, present: Present) -> list[Write]:
    """What the unit writes, in the order of its changes, cascading deletes after them.

    Raises what `Catalog.commit` says.
    """
    before = present.states(_mentioned(unit))
    for vid, draft in unit.saves.items():
        _refuse_stale_save(draft, before.get(vid))
    for vid, delete in unit.deletes.items():
        _refuse_stale_delete(delete, before.get(vid))
    doomed: Mapping[str, bool] = {}
    if unit.deletes:
        doomed = _doomed(unit, present)
        if len(doomed) > len(unit.deletes):
            before = {**before, **present.states(doomed.keys() - unit.deletes.keys())}
    _refuse_bad_references(unit, before, doomed)
    _refuse_duplicates(unit, doomed, present)
    refuse_cycles(unit, before, present)
    refuse_container_loops(unit, before, present)
    if doomed:
        _refuse_danglers(unit, doomed, present)
    return _writes(unit, before, doomed)


def _draft(change: Save) -> Draft:
    obj = change.object
    if isinstance(obj, UnreadKind):
        raise InputError(
            f"{obj.vid} can't be changed: the plug-in of its kind is not installed",
            field="kind",
            value=obj.kind,
        )
    refuse_depth(obj)
    body = exact_body(obj)
    if isinstance(obj, Tombstone) and (obj.of not in kinds() or obj.of == "Tombstone"):
        raise InputError(f"Tombstone {obj.vid}: unknown kind", field="of", value=obj.of)
    return Draft(obj, change.based_on, body, tuple(references(obj)), unique_keys(obj))


def _mentioned(unit: Unit) -> set[str]:
    mentioned = set(unit.order)
    for draft in unit.saves.values():
        mentioned.update(target for _, target in draft.references)
    return mentioned


def _refuse_stale_save(draft: Draft, state: State | None) -> None:
    obj = draft.object
    version = state.version if state else 0
    if state is not None:
        if state.kind != kind_of(obj):
            raise InputError(
                f"{obj.vid} is a {state.kind} and can't become a {kind_of(obj)}",
                field="kind",
                value=kind_of(obj),
            )
        if isinstance(obj, Tombstone) and not state.deleted:
            raise InputError(
                f"{obj.vid} is a living {state.kind}; delete it instead of saving a Tombstone",
                field="kind",
                value=obj.kind,
            )
    if draft.based_on != version:
        raise StaleVersionError(_stale(obj.kind, obj.vid, draft.based_on, state))


def _refuse_stale_delete(delete: Delete, state: State | None) -> None:
    if state is None or state.deleted:
        raise NotFoundError(f"{delete.vid}: there is no such object to delete")
    if delete.based_on != state.version:
        raise StaleVersionError(_stale(state.kind, delete.vid, delete.based_on, state))


def _stale(kind: str, vid: str, based_on: int, state: State | None) -> str:
    if state is None:
        return f"{kind} {vid}: is not in the catalog, but this save is based on version {based_on}"
    gone = " (deleted)" if state.deleted else ""
    return (
        f"{kind} {vid}: version {state.version}{gone} is the newest, this change is based on "
        f"version {based_on}; read it again and decide anew"
    )


def _refuse_bad_references(
    unit: Unit, before: Mapping[str, State], doomed: Mapping[str, bool]
) -> None:
    for vid, draft in unit.saves.items():
        for field, target in draft.references:
            reason = _bad_reference(field.reference, target, unit, before, doomed)
            if reason is not None:
                raise InputError(
                    f"{draft.object.kind} {vid}: {reason}", field=field.name, value=target
                )


def _bad_reference(
    reference: Reference,
    target: str,
    unit: Unit,
    before: Mapping[str, State],
    doomed: Mapping[str, bool],
) -> str | None:
    saved = unit.saves.get(target)
    if saved is not None:
        kind, deleted, forced = kind_of(saved.object), isinstance(saved.object, Tombstone), True
    else:
        state = before.get(target)
        if state is None:
            return "names an object that does not exist"
        kind, deleted, forced = state.kind, state.deleted, True
        if target in doomed:
            deleted, forced = True, doomed[target]
    if deleted and not (forced and reference.on_cascade is OnCascade.KEEP):
        return "names a deleted object"
    return None if fits(reference, kind) else misfit(reference, kind)


def _refuse_duplicates(unit: Unit, doomed: Mapping[str, bool], present: Present) -> None:
    wanted: dict[str, str] = {}
    for vid, draft in unit.saves.items():
        for key in draft.keys:
            other = wanted.setdefault(key.key, vid)
            if other != vid:
                raise DuplicateError(_taken(draft.object, key, other))
    if not wanted:
        return
    for text, owner in present.owners(wanted.keys()).items():
        # An owner that is saved or deleted in this unit gives its old key up.
        if owner not in unit.saves and owner not in doomed:
            draft = unit.saves[wanted[text]]
            key = next(key for key in draft.keys if key.key == text)
            raise DuplicateError(_taken(draft.object, key, owner))


def _taken(obj: Object, key: UniqueKey, owner: str) -> str:
    return f"{obj.kind} {obj.vid}: {key.field} {key.value!r} is taken by {owner}"


def _doomed(unit: Unit, present: Present) -> dict[str, bool]:
    """All that is deleted, parts included -> whether its deletion cascades."""
    doomed = {vid: delete.cascade for vid, delete in unit.deletes.items()}
    frontier = [vid for vid, cascade in doomed.items() if cascade]
    while frontier:
        found = [
            referrer.vid
            for referrer in present.referrers(frontier, _fields_that_cascade())
            if _policy(referrer.kind, referrer.field) is OnCascade.DELETE
            and referrer.vid not in unit.saves
        ]
        frontier = []
        for vid in found:
            if not doomed.get(vid):
                if vid not in doomed:
                    frontier.append(vid)
                doomed[vid] = True
    return doomed


def _refuse_danglers(unit: Unit, doomed: Mapping[str, bool], present: Present) -> None:
    in_the_way: list[Referrer] = []
    for referrer in present.referrers(doomed.keys()):
        if referrer.vid in doomed or referrer.vid in unit.saves:
            continue
        if doomed[referrer.target] and _policy(referrer.kind, referrer.field) is OnCascade.KEEP:
            continue
        in_the_way.append(referrer)
        if len(in_the_way) > _MAX_NAMED:
            break
    if in_the_way:
        named = ", ".join(f"{r.kind} {r.vid} ({r.field})" for r in in_the_way[:_MAX_NAMED])
        more = " and more" if len(in_the_way) > _MAX_NAMED else ""
        raise ConflictError(
            f"{in_the_way[0].target} can't be deleted: {named}{more} still refer to it"
        )


@functools.cache
def _fields_that_cascade() -> frozenset[str]:
    return frozenset(
        field.name
        for kind in kinds()
        for field in reference_fields(kind)
        if field.reference.on_cascade is OnCascade.DELETE
    )


@functools.cache
def _policy(kind: str, field: str) -> OnCascade:
    # A kind whose plug-in is missing has no fields that are known: then nothing is deleted.
    policies = (f.reference.on_cascade for f in reference_fields(kind) if f.name == field)
    return next(policies, OnCascade.REFUSE)


def _writes(unit: Unit, before: Mapping[str, State], doomed: Mapping[str, bool]) -> list[Write]:
    now: Callable[[], datetime] = functools.cache(lambda: datetime.now(UTC))
    writes: list[Write] = []
    cascaded: Iterable[str] = (vid for vid in doomed if vid not in unit.deletes)
    for vid in (*unit.order, *cascaded):
        state = before.get(vid)
        version = (state.version if state else 0) + 1
        draft = unit.saves.get(vid)
        if draft is not None:
            writes.append(
                Write(draft.object, version, draft.body, draft.references, draft.keys, state)
            )
        else:
            stone = Tombstone(vid=vid, of=before[vid].kind, time=now())
            writes.append(Write(stone, version, codec.encode(stone), (), (), state))
    return writes
