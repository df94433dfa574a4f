"""Messages that are no good among good ones: these are applied, those set aside, and only once."""

from __future__ import annotations

import json
import time

import pytest

from sync_service import topology
from sync_service.broker import Outgoing
from sync_service.messages import CONTENT_TYPE
from tests.faults.sync_lab import SyncLab, wait_until
from tests.unit.test_sync_messages import POISON, changed

pytestmark = pytest.mark.timeout(900)


def poison() -> dict[str, bytes]:
    newer = changed(type="org.biobank.lineage.node.v2")
    return {**POISON, "a newer schema": newer}


def test_poison_among_good_messages_is_set_aside_and_never_loops(sync_lab: SyncLab) -> None:
    sync_lab.start("relay")
    sync_lab.start("consumer", "--batch", "100")
    bad = list(poison().values())
    sync_lab.chance.shuffle(bad)
    with sync_lab.under_load(), sync_lab.session() as session:
        time.sleep(2)
        for number, body in enumerate(bad):
            message = Outgoing(
                exchange=topology.EXCHANGE,
                routing_key="lineage.node",
                body=body,
                # Some also with properties that are no text.
                message_id=b"\xff\xfe" if number % 5 == 0 else "",  # type: ignore[arg-type]
                content_type=CONTENT_TYPE,
                headers={"x-biobank-reason": b"\xff"} if number % 7 == 0 else {},
            )
            session.settle(session.send([message]))
            time.sleep(0.05)
        begun = time.monotonic()
        wait_until(lambda: session.depth(topology.DEAD_QUEUE) == len(bad))
        print(f"set aside {time.monotonic() - begun:.1f} s after the last one was sent")
    sync_lab.wait_in_step()
    wait_until(sync_lab.queue_is_empty)
    tried = sync_lab.log("consumer").count("of message")
    time.sleep(3)
    assert sync_lab.log("consumer").count("of message") == tried, "it goes on trying"
    sync_lab.check(dead_letters=len(bad))
    found = {letter.body: letter for letter in sync_lab.dead_letters()}
    assert found.keys() == set(bad)
    assert all(letter.tries == 1 and letter.first and letter.last for letter in found.values())
    assert "schema version 2 is newer" in found[poison()["a newer schema"]].reason
    assert "10,000," in found[poison()["10 MB"]].reason


def test_an_object_too_large_for_a_message_is_set_aside_and_the_relay_goes_on(
    sync_lab: SyncLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.loads(changed())
    message = Outgoing(
        exchange=topology.EXCHANGE,
        routing_key="lineage.node",
        body=b"",
        message_id=body["id"],
        content_type=CONTENT_TYPE,
        headers={"x-biobank-left-out": "its state takes 9,000,000 bytes"},
    )
    with sync_lab.session() as session:
        session.settle(session.send([message]))
        sync_lab.start("consumer")
        wait_until(lambda: session.depth(topology.DEAD_QUEUE) == 1)
    (letter,) = sync_lab.dead_letters()
    assert "9,000,000 bytes; run `biobank verify --repair`" in letter.reason
    with sync_lab.index() as index:
        refusal = index.refused()[letter.log or "", letter.vid or ""]
        assert refusal.version == letter.version == 1
