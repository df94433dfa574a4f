"""Lineage in a large graph: the library, with real objects, the command; the ladder."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from typing import Final

from benchmarks import raw, world
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
from biobank_core.config import load_settings
from biobank_core.lineage.port import Question
from biobank_core.model.base import Object
from biobank_core.stores import open_stores

NODES: Final = 200_000
MANY_NODES: Final = 1_000_000
QUESTIONS: Final = 200
RUNGS: Final = 1_000
MOST_S: Final = 0.010
WITH_OBJECTS_MOST_S: Final = 0.030
COMMAND_MOST_S: Final = 0.8
LADDER_MOST_S: Final = 0.1
FAN: Final = 250
FAN_OUTPUTS: Final = 2_000
WIDE_MOST_MB: Final = 1_000
LOAD_MOST_MB: Final = 500


def figures(work: Workspace) -> Iterator[Figure]:
    """Answers of up to 1,000 objects from anywhere in the graph, in both directions."""
    nodes = MANY_NODES if work.full else NODES
    store = work.store("layered", lambda: [*world.common(), *world.layered(nodes)])
    yield from _answers(store, nodes)
    rungs = work.store("ladder", lambda: [*world.common(), *ladder()])
    yield from _climbed(rungs)
    if work.full:
        wide = work.store("wide", lambda: [*world.common(), *_fan()])
        cost = biobank(wide.folder, "lineage", world.vid("data", "root"))
        what = f"`biobank lineage`, an answer of {FAN * FAN_OUTPUTS:,} objects"
        yield seconds(what, cost.seconds)
        yield memory(f"{what}, peak memory", cost.peak_mb, most_mb=WIDE_MOST_MB)
        what = f"load of what that answer is about, {FAN} actions of {FAN_OUTPUTS:,} outputs each"
        yield memory(f"{what}, peak memory", wide.ours.peak_mb, most_mb=LOAD_MOST_MB)


def _answers(store: Store, nodes: int) -> Iterator[Figure]:
    chance = random.Random(2)  # noqa: S311  # the same questions every time
    asked = [world.vid("data", chance.randrange(nodes)) for _ in range(QUESTIONS)]
    connection = sqlite3.connect(store.folder / "raw.db")
    settings = load_settings(catalog=f"sqlite:///{store.folder}/c.db", environment={})
    plain, full, raw_plain, raw_full, sizes = [], [], [], [], []
    with open_stores(settings, write=False) as stores:
        edges = stores.index.count().get("PRODUCED", 0)

        def ask(vid: str, *, objects: bool) -> None:
            answer = stores.lineage.ask(Question(starts=(vid,)))
            if objects:
                stores.lineage.objects(answer)
            else:
                sizes.append(len(answer.nodes))

        for vid in asked:
            plain.append(timed(ask, vid, objects=False))
            full.append(timed(ask, vid, objects=True))
            raw_plain.append(timed(raw.connected, connection, vid, objects=False))
            raw_full.append(timed(raw.connected, connection, vid, objects=True))
    connection.close()
    graph = f"{nodes:,} nodes and {edges:,} edges"
    size = f"answers of {percentile(sizes, 0.5):,.0f} (median) to {max(sizes):,} objects"
    yield seconds(
        f"lineage in {graph}, {size}, p95",
        percentile(plain, 0.95),
        percentile(raw_plain, 0.95),
        most_s=MOST_S,
    )
    yield seconds(
        "the same with real objects, p95",
        percentile(full, 0.95),
        percentile(raw_full, 0.95),
        most_s=WITH_OBJECTS_MOST_S,
    )
    commands = [biobank(store.folder, "lineage", vid).seconds for vid in asked[:10]]
    yield seconds("`biobank lineage`, p95 of 10", percentile(commands, 0.95), most_s=COMMAND_MOST_S)


def _climbed(store: Store) -> Iterator[Figure]:
    start = world.vid("data", "rung 0")
    settings = load_settings(catalog=f"sqlite:///{store.folder}/c.db", environment={})
    connection = sqlite3.connect(store.folder / "raw.db")
    with open_stores(settings, write=False) as stores:
        question = Question(starts=(start,))
        # The middle of five: the first one reads the file.
        ours_s = percentile([timed(stores.lineage.ask, question) for _ in range(5)], 0.5)
    raw_s = percentile(
        [timed(raw.connected, connection, start, objects=False) for _ in range(5)], 0.5
    )
    connection.close()
    yield seconds(f"lineage up a ladder of {RUNGS:,} diamonds", ours_s, raw_s, most_s=LADDER_MOST_S)


def _fan() -> Iterator[Object]:
    """One piece of data of which very many were made."""
    yield world.data("root")
    for number in range(FAN):
        made = [world.data(f"leaf {number} {leaf}") for leaf in range(FAN_OUTPUTS)]
        yield from made
        yield world.action(f"fan {number}", [world.vid("data", "root")], [one.vid for one in made])


def ladder() -> Iterator[Object]:
    """Diamonds one after another: 2 to the power of RUNGS ways from the first to the last."""
    yield world.data("rung 0")
    for number in range(RUNGS):
        here, left, right, there = (
            world.data(f"{name} {rung}")
            for name, rung in (
                ("rung", number),
                ("left", number),
                ("right", number),
                ("rung", number + 1),
            )
        )
        yield from (left, right, there)
        yield world.action(f"split {number}", [here.vid], [left.vid, right.vid])
        yield world.action(f"join {number}", [left.vid, right.vid], [there.vid])
