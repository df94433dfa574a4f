"""How the state of an object stands in a node's properties, and comes back from there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from biobank_core.errors import InputError
from biobank_core.lineage.events import (
    ActionEvent,
    DeviceEvent,
    IndexEvent,
    NodeEvent,
    SupersessionEvent,
)
from biobank_core.lineage.ledger import Shown
from biobank_core.model.ids import is_vid

Properties = dict[str, Any]

# Integers of a graph are of 64 bits.
_MAX_VERSION: Final = 2**63 - 1
# A kind becomes a label of its nodes.
_KIND: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
# The label of a node that only edges name.
PLACEHOLDER: Final = "Placeholder"
_TAKEN: Final = frozenset(
    {
        *("Object", "Record", "Action", "Device", "Supersession", PLACEHOLDER),
        *("BiobankIndex", "Refusal", "Checked"),
    }
)

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(IndexEvent).decode
# The labels beside :Record.
RECORDS: Final = {ActionEvent: "Action", DeviceEvent: "Device", SupersessionEvent: "Supersession"}


def check(event: IndexEvent) -> None:
    """Raises InputError for an event that no graph could hold, before anything is written."""
    vids = [event.vid]
    if isinstance(event, NodeEvent):
        if not _KIND.fullmatch(event.kind) or event.kind in _TAKEN:
            raise InputError("not a kind of node", field="kind", value=event.kind)
        vids += [member.node for member in event.members]
    elif isinstance(event, ActionEvent):
        vids += [member.node for member in (*event.inputs, *event.outputs)]
    elif isinstance(event, SupersessionEvent) and not event.deleted:
        vids += [event.new, event.old]
    for vid in vids:
        if not is_vid(vid):
            raise InputError("not a VID", field="vid", value=vid)
    if not 0 <= event.version <= _MAX_VERSION:
        raise InputError("not a version", field="version", value=event.version)


def label_of(event: IndexEvent) -> str:
    """The label beside :Object or :Record."""
    return event.kind if isinstance(event, NodeEvent) else RECORDS[type(event)]


def properties(states: Mapping[str, IndexEvent], shown: Shown) -> Properties:
    """What a node holds: what is shown, and as much beside it as the ledger needs."""
    event = shown.event
    held: Properties = {"vid": event.vid, "groups": sorted(shown.groups), "version": event.version}
    if event.deleted:
        held["deleted"] = True
    if isinstance(event, NodeEvent):
        held.update(kind=event.kind, label=event.label, deleted=event.deleted)
        if event.study is not None:
            held["study"] = event.study
    elif isinstance(event, ActionEvent):
        held.update(action_properties(event))
    elif isinstance(event, DeviceEvent):
        held.update(label=event.label, release=event.release)
    else:
        held.update(new=event.new, old=event.old)
    if len(states) > 1:
        logs = sorted(states)
        held["logs"] = logs
        held["versions"] = [states[log].version for log in logs]
        held["states"] = [_encode(states[log]).decode() for log in logs]
    elif has_ends(event):
        held["state"] = _encode(event).decode()
    return held


def action_properties(event: ActionEvent) -> Properties:
    """What an action's own record says of it; None for what is not known."""
    return {
        "category": event.category,
        "device": event.device,
        "setup": event.setup,
        "study": event.study,
        "status": event.status,
        "end": None if event.end is None else utc_text(event.end),
    }


def states_of(held: Properties, record: str | None) -> dict[str, IndexEvent]:
    """The ledger's states by log; nothing for a placeholder. `record`: the label of a Record."""
    if held.get("version") is None:
        return {}
    if "logs" in held:
        return dict(zip(held["logs"], map(_decode, held["states"]), strict=True))
    (log,) = held["groups"]
    if "state" in held:
        return {log: _decode(held["state"])}
    common: Properties = {
        "log": log,
        "vid": held["vid"],
        "version": held["version"],
        "deleted": held.get("deleted", False),
    }
    event: IndexEvent
    if record is None:
        event = NodeEvent(**common, kind=held["kind"], label=held["label"], study=held.get("study"))
    elif record == "Action":
        event = ActionEvent(
            **common,
            category=held["category"],
            device=held.get("device"),
            setup=held.get("setup"),
            study=held.get("study"),
            status=held["status"],
            end=None if "end" not in held else datetime.fromisoformat(held["end"]),
        )
    elif record == "Device":
        event = DeviceEvent(**common, label=held["label"], release=held.get("release"))
    else:
        event = SupersessionEvent(**common, new=held["new"], old=held["old"])
    return {log: event}


def utc_text(time: datetime) -> str:
    """A time as properties have it: ISO 8601 in UTC, so that text order is time order."""
    return time.astimezone(UTC).isoformat()


def has_ends(event: IndexEvent) -> bool:
    """Whether it names members, inputs or outputs: more than properties alone can hold."""
    if isinstance(event, NodeEvent):
        return bool(event.members)
    return isinstance(event, ActionEvent) and bool(event.inputs or event.outputs)
