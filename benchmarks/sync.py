"""From the catalog through RabbitMQ into Neo4j: rate, and lag from commit to visible."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
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
SINGLE: Final = 500
LEAST_SHARE: Final = 0.5
LEAST_TIMES_SINGLE: Final = 40.0
UNIT: Final = 100

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
    objects = [*world.common(), *world.layered(count * 2 // 3)]
    events = [
        event for obj in objects if (event := project(obj, version=1, log="bench")) is not None
    ]
    raw = RawGraph(lab.neo4j.url, lab.neo4j.user, lab.neo4j.password)
    half = len(events) // 2
    # Before and after ours, so that a machine that others use too is as busy for both.
    raw_s = timed(raw.write, events[:half])
    ours_s = _ours(lab, objects)
    raw_s += timed(raw.write, events[half:])
    single_s = _single(raw, events)
    raw.clear()
    raw.close()
    ours, rate = len(events) / ours_s, len(events) / raw_s
    yield Figure(
        what=f"relay to Neo4j, {len(events):,} changes (raw: UNWIND batches of the same content)",
        ours=f"{ours:,.0f}/s",
        raw=f"{rate:,.0f}/s",
        ratio=ours / rate,
        aim=f"ratio {LEAST_SHARE}",
        met=ours / rate >= LEAST_SHARE,
    )
    yield Figure(
        what="the same beside one transaction a change",
        ours=f"{ours:,.0f}/s",
        raw=f"{SINGLE / single_s:,.0f}/s",
        ratio=ours * single_s / SINGLE,
        aim=f"ratio {LEAST_TIMES_SINGLE:g}",
        met=ours * single_s / SINGLE >= LEAST_TIMES_SINGLE,
    )


def _ours(lab: SyncLab, objects: list[Object]) -> float:
    """How many s it takes until all that was committed is in the index."""
    rest = iter(objects)
    last = ""
    while some := list(islice(rest, UNIT)):
        lab.catalog.commit([Save(object=each) for each in some], by="bench")
        last = some[-1].vid
    lab.start("consumer", "--batch", "5000")
    wait_until(lambda: "running: " in lab.log("consumer"), timeout_s=60)
    begun = time.perf_counter()
    lab.start("relay")
    with lab.index() as index:
        # One relay and one consumer keep the order.
        wait_until(lambda: last in index.versions([last]), timeout_s=1200)
        took_s = time.perf_counter() - begun
        assert pending(lab.catalog, index).changes == 0
    return took_s


def _single(raw: RawGraph, events: list[IndexEvent]) -> float:
    """How many s SINGLE changes take, each in a transaction of its own."""
    # Every third, so that there are nodes and actions among them as in the whole.
    chosen = events[:: len(events) // SINGLE][:SINGLE]
    return timed(lambda: [raw.write([event]) for event in chosen])


def _lag(lab: SyncLab) -> Iterator[Figure]:
    """Commits at a steady pace; another thread looks what is visible."""
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
