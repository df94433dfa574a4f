"""What goes over the broker: CloudEvents 1.0, structured JSON, one state of one object each.

    {"specversion": "1.0", "type": "org.biobank.lineage.node.v1", "subject": "V0...", ...,
     "unitid": "<log>/<number>", "unitsize": 3, "data": {the IndexEvent}}

The number at the end of `type` is the version of the schema of `data`. A consumer refuses a newer
one than it knows. docs/messages.md and docs/lineage-event-v1.schema.json describe all fields.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from biobank_core.errors import InputError
from biobank_core.lineage.events import (
    ActionEvent,
    DeviceEvent,
    IndexEvent,
    Member,
    NodeEvent,
    SupersessionEvent,
)
from biobank_core.model.ids import is_vid
from biobank_core.model.kinds import ActionCategory, ActionStatus
from biobank_core.model.registry import is_node

SCHEMA_VERSION: Final = 1
CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
# The schema's own name; a URN because the file comes with the program, not from a server.
DATA_SCHEMA: Final = f"urn:biobank:lineage-event:{SCHEMA_VERSION}"

# A collection of 70,000 members takes about this much. Larger bodies are refused unread: they are
# not ours, and parsing one takes several times its size in memory.
MAX_BODY_BYTES: Final = 8 * 1024 * 1024

# Why the relay sent a state without its body; the consumer sets it aside with that for a reason.
LEFT_OUT_HEADER: Final = "x-biobank-left-out"
# What a state is sent as whose object can't be read: nobody knows what it would be an event of.
UNREADABLE_KEY: Final = "lineage.unreadable"

# Versions count saves; SQLite and Neo4j both keep signed 64-bit integers.
_MAX_VERSION: Final = 2**63 - 1
# A log's id goes into ids, AMQP's properties and log files. Catalogs use UUIDs.
_LOG: Final = re.compile(r"[A-Za-z0-9_.:-]{1,150}")
_TYPE: Final = re.compile(r"org\.biobank\.lineage\.([a-z]+)\.v([1-9][0-9]{0,5})")
_NAMES: Final[dict[type[Any], str]] = {
    NodeEvent: "node",
    ActionEvent: "action",
    DeviceEvent: "device",
    SupersessionEvent: "supersession",
}
_TYPES: Final = {cls: f"org.biobank.lineage.{name}.v1" for cls, name in _NAMES.items()}
_CATEGORIES: Final = frozenset(category.value for category in ActionCategory)
_STATUSES: Final = frozenset(status.value for status in ActionStatus)


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One event. `time`: of the commit; `unitid`, `unitsize`: its unit and how many changes it has.

    `id` names the state, so that every copy of it has the same one.
    """

    specversion: Literal["1.0"] = "1.0"
    id: Annotated[str, Meta(min_length=1)]
    source: Annotated[str, Meta(min_length=1)]
    type: Annotated[str, Meta(pattern=rf"^{_TYPE.pattern}$")]
    subject: Annotated[str, Meta(pattern=r"^V0[0-9A-F]{32}$")]
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"
    dataschema: str = DATA_SCHEMA
    unitid: str
    unitsize: Annotated[int, Meta(ge=1)]
    data: IndexEvent


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A message before it is known what its data must look like."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str = ""
    time: datetime | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was understood. `time` is that of the commit, None where it does not say."""

    id: str
    time: datetime | None
    event: IndexEvent


_encoder = msgspec.json.Encoder()
_envelopes = msgspec.json.Decoder(_Envelope)
_events = msgspec.json.Decoder(IndexEvent)


def message_id(event: IndexEvent) -> str:
    """The name of this state: log, VID and version."""
    return id_of_state(event.log, event.vid, event.version)


def id_of_state(log: str, vid: str, version: int) -> str:
    """The same of a state whose event is not known; `state_of_id` reads it."""
    return f"{log}/{vid}/{version}"


def state_of_id(text: str) -> tuple[str, str, int] | None:
    """The (log, VID, version) that a message's id names; None when it is not one of ours."""
    parts = text.rsplit("/", 2)
    if len(parts) != 3 or not _LOG.fullmatch(parts[0]):
        return None
    log, vid, number = parts
    # Bounded before it is converted: a number of a megabyte is nobody's version.
    if not is_vid(vid) or len(number) > 19 or not number.isascii() or not number.isdigit():
        return None
    version = int(number)
    return (log, vid, version) if 1 <= version <= _MAX_VERSION else None


def routing_key(event: IndexEvent) -> str:
    """What a queue binds to: `lineage.node`, `lineage.action`, ..."""
    return f"lineage.{_NAMES[type(event)]}"


def encode(event: IndexEvent, *, unit: str, unit_size: int, time: datetime) -> bytes:
    """The body of the message that tells this event."""
    return _encoder.encode(
        Message(
            id=message_id(event),
            source=f"urn:biobank:catalog:{event.log}",
            type=_TYPES[type(event)],
            subject=event.vid,
            time=time,
            unitid=unit,
            unitsize=unit_size,
            data=event,
        )
    )


def decode(body: bytes) -> Received:
    """The event that a body tells, checked. Raises InputError that says what is wrong with it."""
    if len(body) > MAX_BODY_BYTES:
        raise InputError(f"a body of {len(body):,} bytes, more than {MAX_BODY_BYTES:,}: not read")
    try:
        envelope = _envelopes.decode(body)
    except msgspec.ValidationError as exc:
        raise InputError(f"not a CloudEvent of ours: {exc}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InputError("not JSON in UTF-8") from exc
    if envelope.specversion != "1.0":
        raise InputError("another version of CloudEvents", value=envelope.specversion)
    name = _known(envelope.type)
    try:
        event = _events.decode(envelope.data)
    except msgspec.ValidationError as exc:
        raise InputError(f"wrong data: {exc}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InputError("the data are no JSON object") from exc
    if _NAMES[type(event)] != name:
        raise InputError("the data are of another type than the message", value=envelope.type)
    if envelope.subject != event.vid:
        raise InputError("another subject than the data's vid", value=envelope.subject)
    _check(event)
    time = envelope.time
    return Received(
        id=envelope.id, time=time if time and time.tzinfo is not None else None, event=event
    )


def schema() -> dict[str, Any]:
    """The JSON Schema of a message."""
    made = msgspec.json.schema(Message)
    title = f"biobank lineage event, schema version {SCHEMA_VERSION}"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **made}


def _known(type_: str) -> str:
    match = _TYPE.fullmatch(type_)
    if match is None or match[1] not in _NAMES.values():
        raise InputError("an unknown type of message", value=type_)
    if int(match[2]) > SCHEMA_VERSION:
        raise InputError(
            f"schema version {match[2]} is newer than {SCHEMA_VERSION}, the newest known here; "
            "bring biobank-sync up to date, then replay it",
            value=type_,
        )
    return match[1]


def _check(event: IndexEvent) -> None:
    """What types alone do not say. Raises InputError naming the field."""
    if not _LOG.fullmatch(event.log):
        raise InputError("must name a log", field="log", value=event.log)
    if not 1 <= event.version <= _MAX_VERSION:
        raise InputError("must be a version", field="version", value=event.version)
    _vids("vid", (event.vid,))
    match event:
        case NodeEvent():
            _known_kind(event.kind)
            _vids("study", (event.study,))
            _members("members", event.members)
            _texts("label", event.label)
        case ActionEvent():
            if not event.deleted and event.category not in _CATEGORIES:
                raise InputError("unknown category", field="category", value=event.category)
            if not event.deleted and event.status not in _STATUSES:
                raise InputError("unknown status", field="status", value=event.status)
            if event.end is not None and event.end.tzinfo is None:
                raise InputError("needs a time zone", field="end", value=event.end.isoformat())
            _vids("device", (event.device, event.setup, event.study))
            _members("inputs", event.inputs)
            _members("outputs", event.outputs)
        case DeviceEvent():
            _texts("label", event.label, event.release)
        case SupersessionEvent() if not event.deleted:
            _vids("new", (event.new, event.old))


def _known_kind(kind: str) -> None:
    try:
        if is_node(kind):
            return
    except InputError:
        pass
    raise InputError(
        "no known kind of node; install the plug-in that brings it, then replay it",
        field="kind",
        value=kind,
    )


def _vids(field: str, values: Iterable[str | None]) -> None:
    for value in values:
        if value is not None and not is_vid(value):
            raise InputError("must be a VID", field=field, value=value)


def _members(field: str, members: tuple[Member, ...]) -> None:
    for member in members:
        if not is_vid(member.node):
            raise InputError("must be a VID", field=field, value=member.node)
        _texts(field, member.role)


def _texts(field: str, *values: str | None) -> None:
    for value in values:
        if value is not None and "\x00" in value:
            raise InputError("holds a NUL character", field=field)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
