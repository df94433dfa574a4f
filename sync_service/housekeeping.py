"""Looks how far the index is behind the catalog, and moves its `checked` mark.

The mark is what makes an answer's age known and a wait for everything possible. Counting all that
is pending takes the longer the more it is, and is done the less often for it. Changes that
stay away for long, though they were relayed, are sent again: a broker that lost its disk lost what
it had confirmed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from biobank_core.catalog.port import Catalog, Position
from biobank_core.lineage.follow import Pending, advance_checked, advance_to_gap
from biobank_core.lineage.port import LineageIndex
from sync_service import topology
from sync_service.broker import Session
from sync_service.metrics import Metrics
from sync_service.vitals import BackOff, Part, trouble_waited_out

LOOK_S: Final = 2.0
# What is done again and again is followed by a pause so many times as long: most of the time is
# for who writes.
_PAUSES_A_LOOK: Final = 9
_LONGEST_PAUSE_S: Final = 30.0
# With nothing in the queue, nothing relayed and something still missing for so long, it is lost.
LOST_AFTER_S: Final = 300.0


class Housekeeping:
    """One is enough; several are harmless. `run` ends when `stopping` is set.

    `send_again`: what to call with a position when changes after it seem to be lost; None where no
    relay runs in this process.
    """

    def __init__(
        self,
        *,
        open_catalog: Callable[[], Catalog],
        open_index: Callable[[], LineageIndex],
        open_session: Callable[[str], Session],
        stopping: threading.Event,
        part: Part,
        metrics: Metrics,
        send_again: Callable[[Position], None] | None = None,
        look_s: float = LOOK_S,
        lost_after_s: float = LOST_AFTER_S,
    ) -> None:
        self._open_catalog = open_catalog
        self._open_index = open_index
        self._open_session = open_session
        self._stopping = stopping
        self._part = part
        self._metrics = metrics
        self._send_again = send_again
        self._look_s = look_s
        self._lost_after_s = lost_after_s
        self._back_off = BackOff(stopping)
        # Logs of which something is pending: up to where all is settled, and since when.
        self._behind: dict[str, tuple[int, float]] = {}
        self._count_at = time.monotonic()

    def run(self) -> None:
        """Look again and again until told to stop. Raises ConfigurationError only."""
        while not self._stopping.is_set():
            with (
                trouble_waited_out(
                    self._back_off, part=lambda: self._part, reconnects=self._metrics.reconnects
                ),
                self._open_catalog() as catalog,
                self._open_index() as index,
                self._open_session("housekeeping") as session,
            ):
                while not self._stopping.is_set():
                    pause_s = self._look(catalog, index, session)
                    self._back_off.reset()
                    session.drive(self._stopping.is_set, timeout_s=pause_s)

    def _look(self, catalog: Catalog, index: LineageIndex, session: Session) -> float:
        """Look once; how many s to pause then."""
        queued = session.depth(topology.QUEUE)
        self._metrics.queued.set(queued)
        self._metrics.dead_letters.set(session.depth(topology.DEAD_QUEUE))
        begun = time.monotonic()
        if begun < self._count_at and not advance_to_gap(catalog, index):
            self._part.moved()
            took_s = time.monotonic() - begun
            return max(self._look_s, min(_PAUSES_A_LOOK * took_s, _LONGEST_PAUSE_S))
        head = catalog.head()
        found = advance_checked(catalog, index)
        now = time.monotonic()
        self._count_at = now + _PAUSES_A_LOOK * (now - begun)
        self._metrics.pending.set(found.changes)
        self._metrics.refused.set(len(found.refused))
        age_s = (datetime.now(UTC) - found.oldest).total_seconds() if found.oldest else 0.0
        self._metrics.lag.set(max(0.0, age_s))
        self._part.moved()
        self._look_for_lost(found, head, queued)
        return self._look_s

    def _look_for_lost(self, found: Pending, head: Position, queued: int) -> None:
        now = time.monotonic()
        before, self._behind = self._behind, {}
        if queued:
            return
        # Each log by itself: others may be busy.
        for log, number in head.items():
            settled = found.settled.get(log, 0)
            if settled < number:
                known = before.get(log)
                since = known[1] if known is not None and known[0] == settled else now
                self._behind[log] = settled, since
        lost = any(now - since > self._lost_after_s for _, since in self._behind.values())
        if lost and self._send_again is not None:
            self._behind = {}
            self._send_again(found.settled)
