"""An action with two inputs and two outputs, one durable commit each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from benchmarks import raw, world
from benchmarks.workspace import Figure, Workspace, timed
from biobank_core.catalog.port import Save
from biobank_core.config import load_settings
from biobank_core.model.base import Object
from biobank_core.stores import open_stores

ACTIONS: Final = 1_000
LEAST_SHARE: Final = 0.5


def figures(work: Workspace) -> Iterator[Figure]:
    """Ours and raw in turns, so that a busy machine is as busy for both."""
    folder = work.folder / "commit"
    folder.mkdir()
    first = [*world.common(), world.data("a"), world.data("b")]
    units = [_unit(number) for number in range(ACTIONS)]
    rows = [raw.rows_of(world.lines(unit)) for unit in units]
    settings = load_settings(catalog=f"sqlite:///{folder}/c.db", environment={})
    connection = raw.opened(folder / "raw.db")
    ours_s = raw_s = 0.0
    with open_stores(settings, write=True) as stores:
        stores.catalog.commit([Save(object=each) for each in first], by="bench")

        def commit(number: int) -> None:
            stores.catalog.commit([Save(object=each) for each in units[number]], by="bench")

        def commit_raw(number: int) -> None:
            connection.execute("BEGIN IMMEDIATE")
            raw.insert(connection, rows[number])
            connection.execute("COMMIT")

        for number in range(ACTIONS):
            ours_s += timed(commit, number)
            raw_s += timed(commit_raw, number)
    connection.close()
    yield Figure(
        what="commit of an action with 2 inputs and 2 outputs, durable",
        ours=f"{ACTIONS / ours_s:,.0f}/s",
        raw=f"{ACTIONS / raw_s:,.0f}/s",
        ratio=raw_s / ours_s,
        aim=f"ratio {LEAST_SHARE}",
        met=raw_s / ours_s >= LEAST_SHARE,
    )


def _unit(number: int) -> list[Object]:
    """The action and what it makes of what the one before made."""
    before = ("a", "b") if number == 0 else (f"{number - 1} a", f"{number - 1} b")
    made = [world.data(f"{number} a"), world.data(f"{number} b")]
    inputs = [world.vid("data", name) for name in before]
    return [*made, world.action(f"unit {number}", inputs, [each.vid for each in made])]
