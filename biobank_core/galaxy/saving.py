"""Drafts meet the catalog: merged, saved in one unit with the cursor, again when others wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from biobank_core.catalog.port import Catalog, Save, Versioned
from biobank_core.errors import CycleError, DuplicateError, InputError, StaleVersionError
from biobank_core.galaxy.drafts import Draft
from biobank_core.galaxy.merge import merged
from biobank_core.galaxy.references import with_references
from biobank_core.galaxy.translate import PARTIAL, without_cycle
from biobank_core.model.base import Object
from biobank_core.model.kinds import (
    Action,
    Cursor,
    DataCollection,
    DataObject,
    Device,
    Port,
    Study,
    Tombstone,
)

_TRIES: Final = 8


@dataclass(slots=True)
class Saved:
    """What became of a batch: job ids."""

    recorded: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, other: Saved) -> None:
        """What became of others, too."""
        self.recorded += other.recorded
        self.unchanged += other.unchanged
        self.failed |= other.failed


@dataclass(slots=True)
class Saver:
    """Saves batches. `unassigned` is the VID of the study for what no rule knew.

    `cursor` is the one that this recorder read or saved last.
    """

    catalog: Catalog
    unassigned: str
    by: str
    cursor: Cursor | None = None
    _devices: dict[tuple[str, str | None], str] = field(default_factory=dict)

    def save(self, drafts: Sequence[Draft], cursor: Cursor | None) -> Saved:
        """Save the drafts and the cursor as one unit; what can't be saved is told by job id.

        When that is refused, those of each study are one unit (OMERO may keep studies in groups
        of their own); of a study that is refused, each draft by itself. The cursor comes last.
        """
        try:
            return self._save_together(drafts, cursor)
        except InputError:
            if not drafts:
                raise
        done = Saved()
        parts = _by_study(drafts)
        for part in parts:
            done.add(self._save_part(part, together=len(parts) > 1))
        if cursor is not None:
            waiting = tuple(dict.fromkeys((*cursor.waiting_job_ids, *done.failed)))
            self._save_together([], msgspec.structs.replace(cursor, waiting_job_ids=waiting))
        return done

    def save_whole(self, drafts: Sequence[Draft]) -> None:
        """Save the drafts as one unit, or raise."""
        self._save_together(drafts, None)

    def _save_part(self, drafts: Sequence[Draft], *, together: bool) -> Saved:
        if together:
            try:
                return self._save_together(drafts, None)
            except InputError:
                pass
        done = Saved()
        for draft in drafts:
            done.add(self._save_alone(draft))
        return done

    def _save_alone(self, draft: Draft) -> Saved:
        while True:
            try:
                return self._save_together([draft], None)
            except InputError as exc:
                action = draft.action
                if action is None or not action.outputs or not isinstance(exc, CycleError):
                    return Saved(failed={draft.job_id: str(exc)})
                if draft.references:
                    draft = _without_references(draft, action)
                    continue
                made = {port.object for port in action.outputs}
                action = without_cycle(action, made.intersection(exc.vids) or made)
                draft = draft.with_action(action)

    def _save_together(self, drafts: Sequence[Draft], cursor: Cursor | None) -> Saved:
        for attempt in range(_TRIES):
            try:
                return self._try(drafts, cursor)
            except (StaleVersionError, DuplicateError):
                # Another recorder, or a person, wrote in between: look again.
                self._devices.clear()
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    def _try(self, drafts: Sequence[Draft], cursor: Cursor | None) -> Saved:
        drafts = [self._with_registered_device(draft) for draft in drafts]
        standing = self.catalog.get(
            {vid for draft in drafts for vid in _named(draft)} | ({cursor.vid} if cursor else set())
        )
        states, touched = self._states(drafts, standing)
        saves = [_save(states[vid], standing) for vid in states if vid in touched]
        if cursor is not None:
            known = standing.get(cursor.vid)
            other = known.object if known else None
            if isinstance(other, Cursor) and other != self.cursor:
                cursor = _joined(other, cursor)
            if other != cursor:
                saves.append(_save(cursor, standing))
        if saves:
            self.catalog.commit(saves, by=self.by)
        if cursor is not None:
            self.cursor = cursor
        done = Saved()
        for draft in drafts:
            if draft.action is not None:
                changed = draft.action.vid in touched
                (done.recorded if changed else done.unchanged).append(draft.job_id)
        return done

    def _states(
        self, drafts: Sequence[Draft], standing: Mapping[str, Versioned]
    ) -> tuple[dict[str, Object], set[str]]:
        """(the objects as they are to be, the VIDs of those that change)."""
        gone = {vid for vid, known in standing.items() if isinstance(known.object, Tombstone)}
        states: dict[str, Object] = {}
        touched: set[str] = set()
        for draft in drafts:
            for made in draft.objects.values():
                new = _without(made, gone)
                if new is None:
                    continue
                before = states.get(new.vid)
                if before is None and new.vid in standing:
                    before = standing[new.vid].object
                after = new if before is None else self._merged(before, new, draft)
                if after is not before:
                    touched.add(new.vid)
                states[new.vid] = after
        return states, touched

    def _merged(self, before: Object, new: Object, draft: Draft) -> Object:
        return merged(
            before,
            new,
            unassigned=self.unassigned,
            history=self.catalog.history,
            label_is_makers=new.vid in draft.makers_labels,
            references=draft.references,
        )

    def _with_registered_device(self, draft: Draft) -> Draft:
        """A device that is registered with this label and release is the one that is used."""
        action = draft.action
        device = draft.objects.get(action.device or "") if action else None
        if action is None or not isinstance(device, Device):
            return draft
        key = (device.label, device.release)
        if key not in self._devices:
            where = {"label": device.label, "release": device.release}
            found = sorted(item.object.vid for item in self.catalog.find("Device", where))
            self._devices[key] = found[0] if found else device.vid
        vid = self._devices[key]
        if vid == device.vid:
            return draft
        action = msgspec.structs.replace(action, device=vid)
        objects = {v: obj for v, obj in draft.objects.items() if v != device.vid}
        return replace(draft, action=action, objects={**objects, action.vid: action})


def _by_study(drafts: Sequence[Draft]) -> list[list[Draft]]:
    """The drafts whose objects are of the same studies, in the order in which they came."""
    parts: dict[frozenset[str], list[Draft]] = {}
    for draft in drafts:
        studies = frozenset(filter(None, map(_study_of, draft.objects.values())))
        parts.setdefault(studies, []).append(draft)
    return list(parts.values())


def _study_of(obj: Object) -> str | None:
    if isinstance(obj, Study):
        return obj.vid
    study: str | None = getattr(obj, "study", None)
    return study


def _without_references(draft: Draft, action: Action) -> Draft:
    """What its parameters name came from what it made: nobody can have meant that."""
    references = draft.references or ()
    inputs = tuple(port for port in action.inputs if port not in references)
    action = msgspec.structs.replace(action, inputs=inputs)
    draft = replace(draft, references=())
    return draft.with_action(with_references(action, (), unknown=True))


def _named(draft: Draft) -> set[str]:
    """The VIDs of a draft's objects and of what they refer to in the graph."""
    vids = set(draft.objects)
    for obj in draft.objects.values():
        match obj:
            case Action():
                ports = (*obj.inputs, *obj.outputs, *obj.without_edge)
                vids.update(port.object for port in ports)
            case DataCollection():
                vids.update(item.object for item in obj.items)
    return vids


def _without(obj: Object, gone: set[str]) -> Object | None:
    """The object without what people deleted; None where it was deleted itself."""
    if obj.vid in gone:
        return None
    match obj:
        case DataObject() if obj.sample in gone:
            return None
        case DataCollection() if any(item.object in gone for item in obj.items):
            items = tuple(item for item in obj.items if item.object not in gone)
            return msgspec.structs.replace(obj, items=items)
        case Action():
            ends = (obj.inputs, obj.outputs, obj.without_edge)
            if any(port.object in gone for ports in ends for port in ports):
                inputs, outputs, passed = (_kept(ports, gone) for ports in ends)
                flags = tuple(dict.fromkeys((*obj.flags, PARTIAL)))
                return msgspec.structs.replace(
                    obj, inputs=inputs, outputs=outputs, without_edge=passed, flags=flags
                )
    return obj


def _kept(ports: tuple[Port, ...], gone: set[str]) -> tuple[Port, ...]:
    return tuple(port for port in ports if port.object not in gone)


def _joined(other: Cursor, mine: Cursor) -> Cursor:
    """Another recorder of the same server moved on meanwhile: nothing that it waits for is lost."""
    return msgspec.structs.replace(
        mine,
        position=max(other.position, mine.position),
        seen_job_ids=tuple(dict.fromkeys((*other.seen_job_ids, *mine.seen_job_ids))),
        waiting_job_ids=tuple(dict.fromkeys((*other.waiting_job_ids, *mine.waiting_job_ids))),
    )


def _save(obj: Object, standing: Mapping[str, Versioned]) -> Save:
    known = standing.get(obj.vid)
    return Save(object=obj, based_on=known.version if known else 0)
