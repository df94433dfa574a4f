"""`select` over very many samples."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from benchmarks import raw, world
from benchmarks.workspace import Figure, Workspace, biobank, memory, seconds, timed
from biobank_core.config import load_settings
from biobank_core.selection.criteria import Criteria
from biobank_core.selection.select import select
from biobank_core.stores import open_stores

SAMPLES: Final = 100_000
MOST_S: Final = 5.0
MOST_MB: Final = 1_000


def figures(work: Workspace) -> Iterator[Figure]:
    """A tenth is done already, and the consents of every tenth person are withdrawn."""
    store = work.store("typed", lambda: world.typed_samples(SAMPLES))
    settings = load_settings(catalog=f"sqlite:///{store.folder}/c.db", environment={})
    criteria = Criteria(study=world.vid("study"), tool="tool", release="<2")
    with open_stores(settings, write=False) as stores:
        ours_s = timed(select, stores.catalog, criteria)
    connection = sqlite3.connect(store.folder / "raw.db")
    raw_s = timed(raw.bodies, connection)
    connection.close()
    yield seconds(
        f"select over {SAMPLES:,} samples ({store.count:,} objects; raw: read and decode them)",
        ours_s,
        raw_s,
        most_s=MOST_S,
    )
    cost = biobank(store.folder, "select", "--study", "BENCH", "--tool", "tool", "--release", "<2")
    yield seconds("`biobank select`, the same", cost.seconds)
    yield memory("`biobank select`, peak memory", cost.peak_mb, most_mb=MOST_MB)
