"""SHA-256s that Galaxy has not computed yet: Galaxy is asked to, so that no data leave the server.

Galaxy does it by a task of its own, one after the other; here a few are on their way at a time,
and each is saved soon after it is there. What is not done when Galaxy is too slow, or when this is
stopped, is asked for by the next run: the catalog knows what has no hash.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from biobank_core.errors import BiobankError, UnreachableError
from biobank_core.galaxy import identity
from biobank_core.galaxy.client import GalaxyFaultError
from biobank_core.galaxy.live import LiveSource
from biobank_core.galaxy.refresh import Copies, Refresher

# Saved at once: little is lost by a kill, and no unit is a single hash.
_HASHES_A_UNIT: Final = 50
_FIRST_LOOK_S: Final = 0.3
_LONGEST_LOOK_S: Final = 10.0
# A disk gives 100 MB/s, and other tasks may be waiting before ours.
_PATIENCE_S: Final = 120.0
_SLOWEST_BYTES_PER_S: Final = 10e6
# Only such data are complete; Galaxy would hash half a file, or none.
_COMPLETE_STATES: Final = frozenset({"ok", "error", "empty", "failed_metadata"})


@dataclass(slots=True)
class Hashed:
    """What became of data without a hash.

    `found`: Galaxy had computed it meanwhile. `late`: it has not finished. `left_out`: too large,
    purged, or not complete. `failed`: reason by VID.
    """

    found: int = 0
    computed: int = 0
    late: int = 0
    left_out: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def is_computable(copies: Copies, max_bytes: int | None) -> bool:
    """Whether Galaxy can compute the hash, and may: its size is known and within the limit."""
    if copies.sha256 or copies.hda_id is None or copies.state not in _COMPLETE_STATES:
        return False
    return max_bytes is None or (copies.size_bytes is not None and copies.size_bytes <= max_bytes)


def compute(
    source: LiveSource,
    refresher: Refresher,
    wanted: Mapping[str, Copies],
    *,
    advance: Callable[[int], object] = lambda _by: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Hashed:
    """Have the hashes of these data computed and save them. Each must be `is_computable`.

    `advance` is told of each that is dealt with. Raises UnreachableError when the server is gone;
    what was saved by then stays.
    """
    done = Hashed()
    ready: dict[str, str] = {}
    items = (item for item in wanted.items() if not stopped())
    try:
        for (vid, _), answer in source.client.each(
            items, lambda item: _hash_of(source, item[1], stopped)
        ):
            if isinstance(answer, BiobankError):
                if isinstance(answer, UnreachableError) and not isinstance(
                    answer, GalaxyFaultError
                ):
                    raise answer
                done.failed[vid] = str(answer)
            elif answer is None:
                done.late += 1
            else:
                ready[vid] = answer
                done.computed += 1
            advance(1)
            if len(ready) >= _HASHES_A_UNIT:
                refresher.fill_hashes(ready)
                ready.clear()
    finally:
        refresher.fill_hashes(ready)
    return done


def _hash_of(source: LiveSource, copies: Copies, stopped: Callable[[], bool]) -> str | None:
    hda_id = copies.hda_id or ""
    source.ask_hash(hda_id)
    give_up_at = time.monotonic() + _PATIENCE_S + (copies.size_bytes or 0) / _SLOWEST_BYTES_PER_S
    pause_s = _FIRST_LOOK_S
    while not stopped():
        time.sleep(pause_s)
        record = source.dataset(hda_id)
        # Galaxy is not believed blindly: the answer must be about what was asked.
        if record is None or identity.data_sample_vid(record.uuid) != identity.data_sample_vid(
            copies.uuid
        ):
            return None
        if record.sha256 is not None:
            return record.sha256
        if record.purged or time.monotonic() > give_up_at:
            return None
        pause_s = min(pause_s * 1.5, _LONGEST_LOOK_S)
    return None
