"""`biobank-sync` as an operator uses it, on a real RabbitMQ and a real Neo4j."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from biobank_core.catalog.port import Position, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.errors import InputError, RefusedError
from biobank_core.lineage.events import IndexEvent
from biobank_core.lineage.port import LineageIndex
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import DataSample
from sync_service import topology, tries
from sync_service.broker import Session
from sync_service.consumer import Consumer
from sync_service.housekeeping import Housekeeping
from sync_service.metrics import Metrics
from sync_service.relay import Relay
from sync_service.state import RelayState
from sync_service.topology import BrokerAddress
from sync_service.vitals import Part
from tests.faults.sync_lab import STUDY, SyncLab, wait_until
from tests.servers.neo4j import Neo4jServer
from tests.servers.processes import free_port
from tests.servers.rabbitmq import RabbitMQServer

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def lab(
    request: pytest.FixtureRequest, tmp_path: Path, rabbitmq: RabbitMQServer, neo4j: Neo4jServer
) -> Iterator[SyncLab]:
    made = SyncLab(tmp_path, rabbitmq, neo4j=neo4j, name=request.node.name)
    try:
        yield made
    finally:
        made.close()


def command(
    lab: SyncLab, *arguments: str, expect: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "sync_service", *arguments],
        cwd=lab.folder,
        env=lab.environment | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == expect, done.stderr
    return done


@contextmanager
def consuming(lab: SyncLab, *, refusing: set[str]) -> Iterator[Metrics]:
    """A consumer whose index refuses these VIDs, as long as they are in the set."""
    stopping, metrics = threading.Event(), Metrics()

    def open_index() -> LineageIndex:
        index = lab.index()
        really = index.apply

        def grudging(batch: Sequence[IndexEvent]) -> None:
            if bad := refusing & {event.vid for event in batch}:
                raise InputError(f"this index does not take {bad.pop()}")
            really(batch)

        index.apply = grudging  # type: ignore[method-assign]
        return index

    consumer = Consumer(
        open_index=open_index,
        open_session=lambda name: Session(
            BrokerAddress.of(lab.settings), name=name, stopping=stopping.is_set
        ),
        stopping=stopping,
        part=Part("consumer"),
        metrics=metrics,
    )
    thread = threading.Thread(target=consumer.run)
    thread.start()
    try:
        yield metrics
    finally:
        stopping.set()
        thread.join(60)
        assert not thread.is_alive()


def test_a_failing_message_is_tried_set_aside_replayed_and_discarded(
    lab: SyncLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tries, "_PAUSES_S", (0.1, 0.2, 0.4, 0.8))
    lab.changes.commit(lab.catalog)
    bad, hopeless = new_vid(), new_vid()
    samples = [DataSample(vid=vid, label="x", study=STUDY) for vid in (bad, hopeless, new_vid())]
    receipt = lab.catalog.commit([Save(object=each) for each in samples], by="test")
    refusing = {bad, hopeless}
    lab.start("relay")
    with consuming(lab, refusing=refusing), lab.session() as session, lab.index() as index:
        wait_until(lambda: session.depth(topology.DEAD_QUEUE) == 2)
        # The others went on meanwhile.
        wait_until(lambda: samples[2].vid in index.versions([samples[2].vid]))
        with pytest.raises(RefusedError, match="dead-letters"):
            index.wait(receipt, timeout_s=30)

        listed = command(lab, "dead-letters", "list", "--format", "json").stdout.splitlines()
        rows = {row["vid"]: row for row in map(json.loads, listed)}
        assert rows.keys() == refusing
        assert rows[bad]["tries"] == tries.MAX_TRIES
        assert rows[bad]["first"] < rows[bad]["last"]
        assert rows[bad]["reason"] == f"this index does not take {bad}"
        shown = command(lab, "dead-letters", "show", bad).stdout
        assert '"label":"x"' in shown
        status = json.loads(command(lab, "status", "--format", "json").stdout)
        assert (status["pending_changes"], status["refused_changes"]) == (0, 2)
        assert status["dead_letters"] == 2

        # Replayed while the index still refuses it: pending, till it is refused once more.
        command(lab, "dead-letters", "replay", bad)
        status = json.loads(command(lab, "status", "--format", "json").stdout)
        assert status["pending_changes"] + status["refused_changes"] == 2
        wait_until(lambda: session.depth(topology.DEAD_QUEUE) == 2)
        refusing.discard(bad)
        command(lab, "dead-letters", "replay", bad)
        wait_until(lambda: bad in index.versions([bad]))
        assert {vid for _, vid in index.refused()} == {hopeless}

        book = lab.folder / "book.jsonl"
        command(lab, "dead-letters", "discard", hopeless, expect=2)  # why?
        why = ("--why", "a test", "--by", "ada", "--log", str(book))
        command(lab, "dead-letters", "discard", rows[hopeless]["id"], *why)
        (entry,) = map(json.loads, book.read_text().splitlines())
        assert (entry["by"], entry["why"]) == ("ada", "a test")
        assert entry["discarded"] == rows[hopeless]["id"]
        assert [refusal.discarded for refusal in index.refused().values()] == [True]
        assert command(lab, "dead-letters", "list").stdout.count("\n") == 1
        command(lab, "dead-letters", "show", hopeless, expect=2)
        status = json.loads(command(lab, "status", "--format", "json").stdout)
        assert (status["refused_changes"], status["dead_letters"]) == (0, 0)


def test_what_is_wrong_with_a_server_is_said_and_no_secret(lab: SyncLab) -> None:
    done = command(lab, "status", RABBITMQ_PASSWORD="swordfish", expect=4)
    assert "does not know this user" in done.stderr
    assert "swordfish" not in done.stdout + done.stderr
    away = f"amqp://127.0.0.1:{free_port()}/"
    assert "can't be reached" in command(lab, "--broker", away, "status", expect=3).stderr
    done = command(lab, "status", NEO4J_PASSWORD="swordfish", expect=4)
    assert "swordfish" not in done.stdout + done.stderr
    with_password = "amqp://biobank:swordfish@127.0.0.1/"
    done = command(lab, "--broker", with_password, "status", expect=2)
    assert "swordfish" not in done.stdout + done.stderr


def test_a_service_with_a_wrong_password_waits_and_is_not_healthy(lab: SyncLab) -> None:
    port = free_port()
    lab.add_environment(RABBITMQ_PASSWORD="swordfish")
    lab.start("relay", "--listen", f"127.0.0.1:{port}", "--stalled-after", "1")

    def unhealthy() -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5)
        except urllib.error.HTTPError as error:
            return error.code == 503 and b"does not know this user" in error.read()
        except OSError:
            return False
        return False

    wait_until(unhealthy)
    lab.stop("relay")
    assert "swordfish" not in lab.log("relay")


def test_the_whole_service_is_healthy_and_counts(lab: SyncLab) -> None:
    port = free_port()
    process = lab.start("all", "--listen", f"127.0.0.1:{port}")
    lab.changes.commit(lab.catalog, 20)
    lab.wait_in_step()

    def asked(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    told = json.loads(asked("/healthz"))
    assert told["healthy"]
    assert told["parts"].keys() == {"relay", "consumer", "housekeeping"}
    wait_until(lambda: "biobank_sync_pending_changes 0.0" in asked("/metrics"))

    def counted(name: str) -> float:
        lines = (line for line in asked("/metrics").splitlines() if line[:1] != "#")
        return float(dict(line.rsplit(" ", 1) for line in lines)[name])

    # Counted a moment after it is in the index.
    wait_until(lambda: counted("biobank_sync_applied_messages_total") > 50)
    wait_until(lambda: counted("biobank_sync_commit_to_applied_seconds_count") > 50)
    # The checked mark was moved to the end of the feed.
    with lab.index() as index:
        wait_until(lambda: dict(index.checked()) == dict(lab.catalog.head()))
    assert process.poll() is None
    lab.stop("all")
    lab.check()


def test_a_queue_that_somebody_deleted_is_made_again_and_nothing_is_lost(lab: SyncLab) -> None:
    lab.start("relay")
    lab.changes.commit(lab.catalog, 5)
    with lab.session() as session:
        wait_until(lambda: session.depth(topology.QUEUE) > 0)
        lab.stop("relay")
        session.delete(topology.QUEUE)
    (lab.folder / "relay.json").unlink()  # what it had confirmed is gone
    lab.start("relay")
    lab.start("consumer")
    lab.changes.commit(lab.catalog, 5)
    lab.wait_in_step()
    lab.check()


def test_changes_that_a_broker_lost_are_asked_for_again(lab: SyncLab) -> None:
    lab.changes.commit(lab.catalog, 3)
    stopping, asked = threading.Event(), list[Position]()

    def send_again(since: Position) -> None:
        asked.append(since)
        stopping.set()

    Housekeeping(
        open_catalog=lambda: open_catalog(lab.settings.catalog),
        open_index=lab.index,
        open_session=lambda name: Session(BrokerAddress.of(lab.settings), name=name),
        stopping=stopping,
        part=Part("housekeeping"),
        metrics=Metrics(),
        send_again=send_again,
        look_s=0.2,
        lost_after_s=1.0,
    ).run()
    (since,) = asked
    assert not any(since.values())
    # A relay that believes to have sent all of it sends it again.
    lab.start("relay")
    state = lab.folder / "relay.json"
    wait_until(state.exists)
    lab.stop("relay")
    with lab.session() as session:
        session.purge(topology.QUEUE)
    again, metrics = threading.Event(), Metrics()
    relay = Relay(
        open_catalog=lambda: open_catalog(lab.settings.catalog),
        open_session=lambda name: Session(BrokerAddress.of(lab.settings), name=name),
        state_of=lambda catalog: RelayState(state, catalog_url=catalog.url),
        stopping=again,
        part=Part("relay"),
        metrics=metrics,
    )
    thread = threading.Thread(target=relay.run)
    thread.start()
    relay.send_again(since)
    lab.start("consumer")
    lab.wait_in_step()
    again.set()
    thread.join()
    lab.check()
