"""`biobank load`: speed, linearity, peak memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from benchmarks.workspace import Figure, Workspace, memory, rate

OBJECTS: Final = 100_000
MANY: Final = 1_000_000
LEAST_A_SECOND: Final = 8_000
MOST_MB: Final = 500
# As fast at a million as at a hundred thousand, but for a tenth.
LEAST_LINEARITY: Final = 0.9


def figures(work: Workspace) -> Iterator[Figure]:
    """The command as a user runs it, start of Python included."""
    few = work.mixed(OBJECTS)
    stores = [few]
    if work.full:
        stores.append(work.mixed(MANY))
    for store in stores:
        what = f"load of {store.count:,} objects"
        yield rate(what, store.count, store.ours.seconds, store.raw_s, least=LEAST_A_SECOND)
        yield memory(f"{what}, peak memory", store.ours.peak_mb, most_mb=MOST_MB)
    if work.full:
        many = stores[-1]
        share = (many.count / many.ours.seconds) / (few.count / few.ours.seconds)
        yield Figure(
            what=f"load, speed at {many.count:,} over that at {few.count:,}",
            ours=f"{share:.2f}",
            aim=f"{LEAST_LINEARITY}",
            met=share >= LEAST_LINEARITY,
        )
