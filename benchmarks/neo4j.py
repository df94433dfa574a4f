"""Lineage in Neo4j: questions, the ladder, and making and checking the index."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain, islice
from typing import Final
from unittest.mock import patch

from benchmarks import world
from benchmarks.lineage import RUNGS, ladder
from benchmarks.load import MANY, OBJECTS
from benchmarks.raw_neo4j import RawGraph
from benchmarks.workspace import (
    Figure,
    Store,
    Workspace,
    biobank,
    memory,
    percentile,
    seconds,
    timed,
)
from biobank_core.catalog.registry import open_catalog
from biobank_core.config import load_settings
from biobank_core.lineage.events import IndexEvent
from biobank_core.lineage.port import Direction, LineageIndex, Question
from biobank_core.lineage.projection import in_graph, project
from biobank_core.lineage.registry import open_index
from tests.servers.neo4j import Neo4jServer

LOG: Final = "bench"
BATCH: Final = 5_000
NODES: Final = 100_000
MANY_NODES: Final = 1_000_000
QUESTIONS: Final = 200
# Untimed questions before: a server that has just started has compiled nothing yet.
WARMING: Final = 100
MOST_S: Final = 0.100
DOWNSTREAM: Final = 200
DOWNSTREAM_MOST_S: Final = 0.050
LADDER_MOST_S: Final = 1.0
LEAST_SHARE: Final = 1 / 1.5
VERIFIED_A_SECOND: Final = 20_000
MOST_MB: Final = 500
# Objects that the raw writer is given, half before ours and half after: the machine may be busy.
RAW_NODES: Final = 20_000


def figures(work: Workspace) -> Iterator[Figure]:
    """All on one Neo4j of its own, filled by `biobank rebuild`, then with a graph in layers."""
    with ExitStack() as stack:
        # The graph of the full size takes 2.5 GB on the disk, and is meant to be in memory.
        cache_mb = 3072 if work.full else 1024
        server = stack.enter_context(Neo4jServer(heap_mb=2048, page_cache_mb=cache_mb))
        stack.enter_context(patch.dict(os.environ, server.environment))
        yield from _made(server, work.mixed(MANY if work.full else OBJECTS))
        settings = load_settings(catalog="unused.db", environment=dict(os.environ))
        index = stack.enter_context(open_index(server.url, settings=settings))
        yield from _asked(index, MANY_NODES if work.full else NODES)
        yield from _climbed(index)


def _made(server: Neo4jServer, store: Store) -> Iterator[Figure]:
    events = _events(RAW_NODES)
    half = len(events) // 2
    raw = RawGraph(server.url, server.user, server.password)
    # A server that has just started is slow: all of it once, untimed.
    raw.write(events)
    raw.clear()
    raw_s = timed(raw.write, events[:half])
    rebuilt = biobank(store.folder, "--index", server.url, "rebuild")
    verified = biobank(store.folder, "--index", server.url, "verify")
    raw_s += timed(raw.write, events[half:])
    raw.clear()
    raw.close()
    # Files have no place in the graph: neither side is credited with them.
    with open_catalog(f"sqlite:///{store.folder}/c.db") as catalog:
        counted = catalog.count().items()
    nodes_and_actions = sum(number for kind, number in counted if in_graph(kind))
    ours, theirs = nodes_and_actions / rebuilt.seconds, len(events) / raw_s
    what = (
        f"`biobank rebuild` of {store.count:,} objects in Neo4j, those of the graph a second "
        "(raw: UNWIND batches)"
    )
    yield Figure(
        what=what,
        ours=f"{ours:,.0f}/s",
        raw=f"{theirs:,.0f}/s",
        ratio=ours / theirs,
        aim=f"ratio {LEAST_SHARE:.2f}",
        met=ours >= LEAST_SHARE * theirs,
    )
    yield memory("the same, peak memory", rebuilt.peak_mb, most_mb=MOST_MB)
    rate = store.count / verified.seconds
    yield Figure(
        what=f"`biobank verify` of {store.count:,} objects in Neo4j",
        ours=f"{rate:,.0f}/s",
        aim=f"{VERIFIED_A_SECOND:,}/s",
        met=rate >= VERIFIED_A_SECOND,
    )
    yield memory("the same, peak memory", verified.peak_mb, most_mb=MOST_MB)


def _events(nodes: int) -> list[IndexEvent]:
    """Nodes first, as the raw writer needs them; mixed, so that both halves have both."""
    parts: list[IndexEvent] = []
    layered = iter(world.layered(nodes))
    data = [project(made, version=1, log=LOG) for made in islice(layered, nodes)]
    actions = [project(made, version=1, log=LOG) for made in layered]
    for first in (True, False):
        for some in (data, actions):
            half = len(some) // 2
            parts += [one for one in (some[:half] if first else some[half:]) if one is not None]
    return parts


def _asked(index: LineageIndex, nodes: int) -> Iterator[Figure]:
    index.clear()
    objects = chain(world.common(), world.layered(nodes))
    while some := list(islice(objects, BATCH)):
        events = (project(made, version=1, log=LOG) for made in some)
        index.apply([event for event in events if event is not None])
    chance = random.Random(2)  # noqa: S311  # the same questions every time
    # Asked as a user of this group, as the command does.
    groups = frozenset({LOG})
    took, sizes = [], []
    near: list[float] = []
    for direction in (Direction.BOTH, Direction.DOWNSTREAM):
        for _ in range(WARMING):
            start = world.vid("data", chance.randrange(nodes))
            index.connected(Question(starts=(start,), direction=direction, groups=groups))
    for _ in range(QUESTIONS):
        start = world.vid("data", chance.randrange(nodes))
        question = Question(starts=(start,), groups=groups)
        took.append(timed(index.connected, question))
        sizes.append(len(index.connected(question).nodes))
    # A start some layers from the end of its component has some 200 pieces of data downstream.
    for _ in range(QUESTIONS):
        component = chance.randrange(nodes // (world.WIDTH * world.LAYERS))
        layer = world.LAYERS - DOWNSTREAM // world.WIDTH - 2
        first = (component * world.LAYERS + layer) * world.WIDTH
        start = world.vid("data", first + chance.randrange(world.WIDTH))
        question = Question(starts=(start,), direction=Direction.DOWNSTREAM, groups=groups)
        near.append(timed(index.connected, question))
    edges = index.count().get("PRODUCED", 0)
    graph = f"{nodes:,} nodes and {edges:,} edges"
    size = f"answers of {percentile(sizes, 0.5):,.0f} (median) to {max(sizes):,} objects"
    yield seconds(f"Neo4j: {graph}, {size}, median", percentile(took, 0.5))
    yield seconds("the same, p95", percentile(took, 0.95), most_s=MOST_S)
    what = f"Neo4j: {graph}, some {DOWNSTREAM} downstream, p95"
    yield seconds(what, percentile(near, 0.95), most_s=DOWNSTREAM_MOST_S)


def _climbed(index: LineageIndex) -> Iterator[Figure]:
    index.clear()
    objects = [*world.common(), *ladder()]
    events = (project(made, version=1, log=LOG) for made in objects)
    index.apply([event for event in events if event is not None])
    start = world.vid("data", "rung 0")
    took = [timed(index.connected, Question(starts=(start,))) for _ in range(5)]
    what = f"Neo4j: a ladder of {RUNGS:,} diamonds"
    yield seconds(f"{what}, the first time", took[0], most_s=LADDER_MOST_S)
    yield seconds(f"{what}, median of 5", percentile(took, 0.5), most_s=LADDER_MOST_S)
