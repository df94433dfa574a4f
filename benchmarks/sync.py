"""From the catalog through RabbitMQ into Neo4j: rate, and lag from commit to visible."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Final

from benchmarks import world
from benchmarks.raw_neo4j import RawGraph
from benchmarks.workspace import Figure, Workspace, percentile, seconds, timed
from biobank_core.catalog.port import Save
from biobank_core.lineage.events import IndexEvent
from biobank_core.lineage.follow import pending
from biobank_core.lineage.projection import project
from biobank_core.model.base import Object
from tests.faults.sync_lab import SyncLab, wait_until
from tests.servers.neo4j import Neo4jServer
from tests.servers.rabbitmq import RabbitMQServer

CHANGES: Final = 100_000
CHANGES_AT_FIRST: Final = 20_000
# A server that has just started is slow for whoever goes first: so many each, in turns, untimed.
WARMING: Final = 10_000
SINGLE: Final = 1_000
BATCH: Final = 5_000
LEAST_SHARE: Final = 0.5
LEAST_TIMES_SINGLE: Final = 40.0
UNIT: Final = 100
_LOOK_EVERY_S: Final = 0.25

LOAD_A_SECOND: Final = 200
LOAD_S: Final = 30.0
LOAD_UNIT: Final = 10
MOST_LAG_S: Final = 1.0


def figures(work: Workspace) -> Iterator[Figure]:
    """All on one RabbitMQ and one Neo4j of their own."""
    folder = work.folder / "sync"
    folder.mkdir()
    with ExitStack() as stack:
        rabbitmq = stack.enter_context(RabbitMQServer())
        neo4j = stack.enter_context(Neo4jServer(heap_mb=1024))
        lab = SyncLab(folder, rabbitmq, neo4j=neo4j, name="benchmark")
        stack.callback(lab.close)
        yield from _rates(lab, CHANGES if work.full else CHANGES_AT_FIRST)
        yield from _lag(lab)


def _rates(lab: SyncLab, count: int) -> Iterator[Figure]:
    assert lab.neo4j
    common = world.common()
    lab.catalog.commit([Save(object=each) for each in common], by="bench")
    objects = list(world.layered(count * 2 // 3))
    events = _events([*common, *objects])
    raw = RawGraph(lab.neo4j.url, lab.neo4j.user, lab.neo4j.password)
    lab.start("consumer", "--batch", str(BATCH))
    for turn in ("one", "two"):
        warming = list(_mixed(f"warming {turn}", WARMING))
        raw.write(_events(warming), batch=BATCH)
        raw.clear()
        _sent(lab, f"warming {turn}", warming)
    half = len(events) // 2
    # Before and after ours, so that a machine that others use too is as busy for both.
    first = _taken(lab, lambda: raw.write(events[:half], batch=BATCH))
    all_of_ours = _sent(lab, "all", objects)
    second = _taken(lab, lambda: raw.write(events[half:], batch=BATCH))
    some = events[:: len(events) // SINGLE][:SINGLE]
    raw_single_s = _taken(lab, lambda: _write_singly(raw, some)).seconds
    raw.clear()
    raw.close()
    lab.stop("consumer")
    # What a consumer without batches does: one message, one transaction, one acknowledgement.
    lab.start("consumer", "--batch", "1")
    _sent(lab, "warming singly", list(_mixed("warming singly", SINGLE // 4)))
    single = _sent(lab, "singly", list(_mixed("singly", SINGLE)))
    lab.stop("consumer")
    ours = len(events) / all_of_ours.seconds
    rate = len(events) / (first.seconds + second.seconds)
    yield Figure(
        what=f"relay to Neo4j, {len(events):,} changes (raw: UNWIND batches of the same content)",
        ours=f"{ours:,.0f}/s",
        raw=f"{rate:,.0f}/s",
        ratio=ours / rate,
        aim=f"ratio {LEAST_SHARE}",
        met=ours / rate >= LEAST_SHARE,
    )
    times = ours * single.seconds / SINGLE
    yield Figure(
        what="the same (raw: the consumer with one message a transaction)",
        ours=f"{ours:,.0f}/s",
        raw=f"{SINGLE / single.seconds:,.0f}/s",
        ratio=times,
        aim=f"ratio {LEAST_TIMES_SINGLE:g}",
        met=times >= LEAST_TIMES_SINGLE,
    )
    yield Figure(
        what="the same (raw: one change a transaction straight into Neo4j, unversioned)",
        ours=f"{ours:,.0f}/s",
        raw=f"{SINGLE / raw_single_s:,.0f}/s",
        ratio=ours * raw_single_s / SINGLE,
    )
    # All programs taken together: what others do on the machine matters little for it.
    ours_s = all_of_ours.processor_s / len(events) * 1000
    for what, raw_s in (
        ("raw: batches", (first.processor_s + second.processor_s) / len(events) * 1000),
        ("raw: the consumer with one message a transaction", single.processor_s / SINGLE * 1000),
    ):
        yield seconds(f"the same, processor time of 1,000 changes ({what})", ours_s, raw_s)


def _events(objects: Iterable[Object]) -> list[IndexEvent]:
    found = (project(each, version=1, log="bench") for each in objects)
    return [event for event in found if event is not None]


def _mixed(name: str, count: int) -> Iterator[Object]:
    """So many changes like those of the layers: of three two pieces of data and an action."""
    nodes = count * 2 // 3
    made = [world.data(f"{name} {number}") for number in range(nodes)]
    yield from made
    vids = [each.vid for each in made]
    for number in range(2, nodes, 2):
        yield world.action(f"{name} {number}", vids[number - 2 : number], vids[number : number + 2])


@dataclass(frozen=True, slots=True)
class _Cost:
    """What something took; `processor_s` of us, the servers and the service together."""

    seconds: float
    processor_s: float


def _taken(lab: SyncLab, do: Callable[[], object]) -> _Cost:
    def processor_s() -> float:
        assert lab.neo4j
        pids = [
            *(os.getpid(), *lab.neo4j.process_ids(), *lab.rabbitmq.process_ids()),
            *(process.pid for process in lab.processes.values()),
        ]
        # What clock_getcpuclockid(3) gives on Linux; Python has it for threads only.
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)

    before_s = processor_s()
    took_s = timed(do)
    return _Cost(took_s, processor_s() - before_s)


def _sent(lab: SyncLab, name: str, objects: list[Object]) -> _Cost:
    """What it takes a relay, once it runs, and the consumer to bring these into the index."""
    rest = iter(objects)
    last = ""
    while some := list(islice(rest, UNIT)):
        lab.catalog.commit([Save(object=each) for each in some], by="bench")
        last = some[-1].vid
    relay = f"relay {name}"
    lab.start(relay, "--state", str(lab.folder / "relay.json"))
    wait_until(lambda: "running: " in lab.log(relay), timeout_s=60, pause_s=0.01)
    with lab.index() as index:
        # One relay and one consumer keep the order.
        # Not too often: each look takes the server some milliseconds.
        cost = _taken(
            lab,
            lambda: wait_until(
                lambda: last in index.versions([last]), timeout_s=1200, pause_s=_LOOK_EVERY_S
            ),
        )
        assert pending(lab.catalog, index).changes == 0
    lab.stop(relay)
    return cost


def _write_singly(raw: RawGraph, events: list[IndexEvent]) -> None:
    for event in events:
        raw.write([event])


def _lag(lab: SyncLab) -> Iterator[Figure]:
    """Commits at a steady pace; another thread looks what is visible."""
    lab.start("relay", "--state", str(lab.folder / "relay.json"))
    lab.start("consumer beside")
    for name in lab.processes:
        wait_until(lambda name=name: "running: " in lab.log(name), timeout_s=60)  # type: ignore[misc]
    made: dict[str, float] = {}
    lags: list[float] = []
    done = threading.Event()

    def look() -> None:
        with lab.index() as index:
            while not done.is_set() or made:
                found = index.versions(list(made))
                now = time.perf_counter()
                lags.extend(now - made.pop(vid) for vid in found)
                time.sleep(0.02)

    thread = threading.Thread(target=look)
    thread.start()
    begun = time.perf_counter()
    for number in range(int(LOAD_S * LOAD_A_SECOND / LOAD_UNIT)):
        due_s = number * LOAD_UNIT / LOAD_A_SECOND - (time.perf_counter() - begun)
        time.sleep(max(0.0, due_s))
        unit = [world.data(f"lag {number} {n}") for n in range(LOAD_UNIT)]
        lab.catalog.commit([Save(object=each) for each in unit], by="bench")
        made[unit[-1].vid] = time.perf_counter()
    took_s = time.perf_counter() - begun
    done.set()
    thread.join()
    rate = LOAD_S * LOAD_A_SECOND / took_s
    yield seconds(
        f"lag from commit to visible in Neo4j at {rate:,.0f} changes/s, median",
        percentile(lags, 0.5),
    )
    yield seconds(
        f"lag from commit to visible in Neo4j at {rate:,.0f} changes/s, p95",
        percentile(lags, 0.95),
        most_s=MOST_LAG_S,
    )
