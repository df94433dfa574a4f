"""What a new recording may change in the catalog: it fills gaps, and nothing that people set.

Labels, links and statuses that people gave stay; the known is never replaced by the unknown; an
object that would not change is not saved again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TypeVar

import msgspec

from biobank_core.catalog.port import HistoryEntry
from biobank_core.galaxy.references import UNKNOWN_REFERENCE, with_references
from biobank_core.galaxy.translate import PARTIAL
from biobank_core.model.base import Object
from biobank_core.model.galaxy import GalaxyDataset
from biobank_core.model.kinds import (
    Action,
    DataObject,
    DataSample,
    Port,
)
from biobank_core.model.kinds import Collection as KindOfCollection

S = TypeVar("S", bound=msgspec.Struct)
History = Callable[[str], Sequence[HistoryEntry]]


def merged(
    old: Object,
    new: Object,
    *,
    unassigned: str,
    history: History,
    label_is_makers: bool = False,
    references: Collection[Port] | None = None,
) -> Object:
    """`old` with what `new` knows better; `old` itself where there is nothing.

    `unassigned` is the VID of the study for what no rule knew. `label_is_makers`: the label of
    `new` is that of the copy which the making job put out, and so comes before that of another
    copy, unless a person changed it (`history` tells). `references` are those of the inputs of an
    action that the rules know of: they are added (None: the rules say nothing).
    """
    result: Object = old
    match old, new:
        case DataSample(), DataSample():
            galaxy = _dataset(old.galaxy, new.galaxy)
            result = msgspec.structs.replace(
                old, galaxy=galaxy, study=_study(old.study, new.study, unassigned)
            )
            if label_is_makers and old.label != new.label and not renamed(old, history):
                told = (
                    msgspec.structs.replace(galaxy, as_of=_as_of(galaxy, new)) if galaxy else None
                )
                result = msgspec.structs.replace(result, label=new.label, galaxy=told)
        case DataObject(), DataObject():
            result = _filled(old, new)
        case KindOfCollection(), KindOfCollection():
            result = msgspec.structs.replace(
                _filled(old, new, nested=("galaxy",)),
                study=_study(old.study, new.study, unassigned),
            )
        case Action(), Action():
            result = _action(old, new, unassigned, references)
    return old if result == old else result


def _action(
    old: Action, new: Action, unassigned: str, references: Collection[Port] | None
) -> Action:
    result = _filled(old, new, nested=("galaxy",))
    result = msgspec.structs.replace(result, study=_study(old.study, new.study, unassigned))
    if old.galaxy and new.galaxy and old.galaxy.tool_version is None and new.galaxy.tool_version:
        # The device without a release gives way to the exact one.
        result = msgspec.structs.replace(result, device=new.device)
    if (
        old.galaxy
        and new.galaxy
        and (old.galaxy.times_from, new.galaxy.times_from)
        == (
            "job",
            "metrics",
        )
    ):
        galaxy = msgspec.structs.replace(result.galaxy, times_from="metrics")  # type: ignore[type-var]
        result = msgspec.structs.replace(result, begin=new.begin, end=new.end, galaxy=galaxy)
    if PARTIAL in old.flags and PARTIAL not in new.flags:
        result = msgspec.structs.replace(
            result,
            inputs=new.inputs,
            outputs=new.outputs,
            without_edge=new.without_edge,
            flags=new.flags,
        )
    if references is not None:
        unknown = UNKNOWN_REFERENCE in new.flags
        result = with_references(result, references, unknown=unknown)
    return result


def _dataset(old: GalaxyDataset | None, new: GalaxyDataset | None) -> GalaxyDataset | None:
    if old is None or new is None:
        return old or new
    result = _filled(old, new)
    if new.as_of is None or (old.as_of is not None and new.as_of <= old.as_of):
        return result
    asked = {
        name: value
        for name in ("deleted", "purged")
        if (value := getattr(new, name)) is not None
        and value != getattr(old, name)
        # It is one copy; another one, that was seen before, may be there still: a refresh tells.
        and (value is False or old.as_of is None)
    }
    # The time of asking alone is no change.
    return msgspec.structs.replace(result, **asked, as_of=new.as_of) if asked else result


def _filled(old: S, new: S, *, nested: tuple[str, ...] = ()) -> S:
    """`old` with its None fields taken from `new`."""
    changes = {}
    for name in old.__struct_fields__:
        mine, theirs = getattr(old, name), getattr(new, name)
        if mine is None and theirs is not None:
            changes[name] = theirs
        elif name in nested and mine is not None and theirs is not None:
            changes[name] = _filled(mine, theirs)
    return msgspec.structs.replace(old, **changes) if changes else old


def _study(old: str, new: str, unassigned: str) -> str:
    return new if old == unassigned else old


def _as_of(galaxy: GalaxyDataset, new: DataSample) -> datetime | None:
    return (new.galaxy.as_of if new.galaxy else None) or galaxy.as_of


def renamed(sample: DataSample, history: History) -> bool:
    """Whether a person changed the label: without a new asking of Galaxy (`as_of`)."""
    states = [entry.object for entry in history(sample.vid)]
    return any(
        before.label != after.label and before.galaxy == after.galaxy
        for before, after in pairwise(states)
        if isinstance(before, DataSample) and isinstance(after, DataSample)
    )
