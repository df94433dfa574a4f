"""`biobank dump`, `rebuild` and `verify`: going through all of a catalog."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from benchmarks import raw
from benchmarks.load import MANY, OBJECTS
from benchmarks.workspace import Figure, Workspace, biobank, memory, rate, timed

DUMPED_A_SECOND: Final = 20_000
REBUILT_A_SECOND: Final = 20_000
VERIFIED_A_SECOND: Final = 50_000
MOST_MB: Final = 500


def figures(work: Workspace) -> Iterator[Figure]:
    """The commands as a user runs them, start of Python included."""
    store = work.mixed(MANY if work.full else OBJECTS)
    folder, count = store.folder, store.count
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
    lines = folder / "dumped.jsonl"
    for name, cost, raw_s, least in (
        (
            "dump",
            biobank(folder, "dump", output=lines),
            timed(raw.dump, connection, lines),
            DUMPED_A_SECOND,
        ),
        (
            "rebuild",
            biobank(folder, "rebuild"),
            timed(raw.rebuild, connection),
            REBUILT_A_SECOND,
        ),
        (
            "verify",
            biobank(folder, "verify"),
            timed(raw.verify, connection),
            VERIFIED_A_SECOND,
        ),
    ):
        what = f"{name} of {count:,} objects"
        yield rate(what, count, cost.seconds, raw_s, least=least)
        yield memory(f"{what}, peak memory", cost.peak_mb, most_mb=MOST_MB)
    connection.close()
    lines.unlink()
