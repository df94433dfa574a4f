"""What goes over the broker: the same event comes out, and nothing hostile comes through."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biobank_core.errors import InputError
from biobank_core.lineage.events import (
    ActionEvent,
    DeviceEvent,
    IndexEvent,
    Member,
    NodeEvent,
    SupersessionEvent,
)
from biobank_core.lineage.projection import project
from biobank_core.model.ids import derived_vid
from sync_service import messages
from sync_service.cli import COMMANDS, cli
from tests.unit.random_catalogs import catalogs

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def vid(name: str) -> str:
    return derived_vid("Test", name)


EVENTS: tuple[IndexEvent, ...] = (
    NodeEvent(log="L", vid=vid("a"), version=1, kind="DataSample", label="a", study=vid("s")),
    NodeEvent(
        log="L",
        vid=vid("c"),
        version=2,
        kind="DataCollection",
        label="c",
        members=(Member("m", vid("a")),),
    ),
    NodeEvent(log="L", vid=vid("a"), version=3, kind="DataSample", deleted=True),
    ActionEvent(
        log="L",
        vid=vid("job"),
        version=1,
        category="PROCESSING",
        device=vid("tool"),
        status="ok",
        end=NOW,
        inputs=(Member("in", vid("a")),),
        outputs=(Member("out", vid("b")),),
    ),
    ActionEvent(log="L", vid=vid("job"), version=2, deleted=True),
    DeviceEvent(log="L", vid=vid("tool"), version=1, label="tool", release="1.0"),
    SupersessionEvent(log="L", vid=vid("sup"), version=1, new=vid("b"), old=vid("a")),
)


def encoded(event: IndexEvent) -> bytes:
    return messages.encode(event, unit="L/7", unit_size=3, time=NOW)


def changed(event: IndexEvent = EVENTS[0], /, **attributes: Any) -> bytes:
    """The message with other attributes; `data__x` changes the field x of its data."""
    body = json.loads(encoded(event))
    for name, value in attributes.items():
        if name.startswith("data__"):
            body["data"][name.removeprefix("data__")] = value
        else:
            body[name] = value
    return json.dumps(body).encode()


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_comes_out_as_it_went_in(event: IndexEvent) -> None:
    received = messages.decode(encoded(event))
    assert received.event == event
    assert received.time == NOW
    assert received.id == messages.message_id(event)
    assert messages.state_of_id(received.id) == (event.log, event.vid, event.version)


@settings(max_examples=50, deadline=None)
@given(catalogs())
def test_what_a_catalog_holds_goes_through(objects: list[Any]) -> None:
    for number, obj in enumerate(objects, start=1):
        event = project(obj, version=number, log="log")
        if event is not None:
            assert messages.decode(encoded(event)).event == event


def test_a_message_has_the_attributes_of_cloudevents_and_of_its_unit() -> None:
    body = json.loads(encoded(EVENTS[0]))
    assert {name: body[name] for name in ("specversion", "type", "subject", "time")} == {
        "specversion": "1.0",
        "type": "org.biobank.lineage.node.v1",
        "subject": vid("a"),
        "time": "2026-01-01T12:00:00Z",
    }
    assert (body["unitid"], body["unitsize"]) == ("L/7", 3)
    # CloudEvents 1.0, "Attribute naming convention": lower-case letters and digits only.
    assert all(name.isascii() and name.isalnum() and name.islower() for name in body)


def test_the_schema_that_is_documented_is_the_one_that_messages_keep() -> None:
    documented = json.loads((ROOT / "docs/lineage-event-v1.schema.json").read_text())
    assert documented == json.loads(json.dumps(messages.schema())), (
        "run: python -m sync_service.messages > docs/lineage-event-v1.schema.json"
    )
    for event in EVENTS:
        jsonschema.validate(json.loads(encoded(event)), documented)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(changed(data__version="1")), documented)


POISON = {
    "bad JSON": b'{"specversion": "1.0", ',
    "no UTF-8": b'{"specversion": "\xff"}',
    "another document": b'"hello"',
    "nothing": b"",
    "deep nesting": b"[" * 100_000,
    "deep data": changed().replace(b'"data": {', b'"data": ' + b'{"a":' * 50_000 + b"{", 1),
    "a missing attribute": b'{"specversion":"1.0","id":"x"}',
    "another CloudEvents": changed(specversion="2.0"),
    "an unknown type": changed(type="org.example.thing.v1"),
    "an unknown type of ours": changed(type="org.biobank.lineage.thing.v1"),
    "data of another type": changed(type="org.biobank.lineage.action.v1"),
    "a number for a text": changed(data__label=7),
    "a text for a number": changed(data__version="1"),
    "an unknown field": changed(data__colour="red"),
    "an unknown kind": changed(data__kind="Unicorn"),
    "a kind that is no node": changed(data__kind="Study"),
    "a kind that is Cypher": changed(data__kind="A` {x:1}) DETACH DELETE n //"),
    "a VID that is none": changed(subject="V01", data__vid="V01"),
    "another subject": changed(subject=vid("b")),
    "version 0": changed(data__version=0),
    "a negative version": changed(data__version=-1),
    "a huge version": changed(data__version=2**63),
    "no log": changed(data__log=""),
    "a long log": changed(data__log="x" * 201),
    "a NUL": changed(data__label="a\x00b"),
    "a member that is no VID": changed(EVENTS[1], data__members=[{"role": "m", "node": "x"}]),
    "a member without a role": changed(EVENTS[1], data__members=[{"node": vid("a")}]),
    "an unknown status": changed(EVENTS[3], data__status="great"),
    "an unknown category": changed(EVENTS[3], data__category=""),
    "a time without a zone": changed(EVENTS[3], data__end="2026-01-01T00:00:00"),
    "10 MB": b" " * 10_000_000 + changed(),
}


@pytest.mark.parametrize("name", POISON)
def test_what_is_no_message_of_ours_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(InputError) as refused:
        messages.decode(POISON[name])
    assert 0 < len(str(refused.value)) < 1000


def test_a_newer_schema_is_refused_and_says_so() -> None:
    with pytest.raises(InputError, match="schema version 2 is newer than 1"):
        messages.decode(changed(type="org.biobank.lineage.node.v2", data__new_field=1))


def test_attributes_that_others_add_are_left_alone() -> None:
    assert messages.decode(changed(traceparent="00-0af7651916cd43dd")).event == EVENTS[0]


NO_IDS = ("", "x", "L/{0}/0", "/{0}/1", "L/{0}/1x", "L/V0/1", "L/{0}/²", "L/{0}/" + "9" * 100)


@pytest.mark.parametrize("pattern", NO_IDS)
def test_an_id_that_names_no_state_of_ours_is_none(pattern: str) -> None:
    assert messages.state_of_id(pattern.format(vid("a"))) is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(InputError):
        messages.decode(body)


def test_every_command_says_in_the_list_what_its_own_help_says() -> None:
    for name, text in COMMANDS.items():
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        assert (command.help or "").split("\n\n")[0].replace("\n", " ").strip() == text
