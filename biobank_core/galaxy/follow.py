"""Recording that goes on: round after round, woken by Galaxy where it can, by the clock always.

A round is one recording, with its cursor saved: what stops between two rounds, or between two
units of one, goes on there next time. Nothing here depends on being told: an event only makes the
next round come sooner.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from biobank_core.errors import (
    StaleVersionError,
    TimeoutExceededError,
    UnreachableError,
)
from biobank_core.galaxy.recorder import Summary

log = logging.getLogger(__name__)

DEFAULT_INTERVAL_S: Final = 60.0
# Sooner would show a job's data before the job itself has ended, and be a burden for Galaxy.
SHORTEST_INTERVAL_S: Final = 2.0
LONGEST_INTERVAL_S: Final = 3600.0
_GROWTH: Final = 1.5
_FIRST_BACK_OFF_S: Final = 5.0
_LONGEST_BACK_OFF_S: Final = 300.0
# An odd job is asked for again, but not with every round.
_FIRST_DELAY_OF_ODD_S: Final = 60.0
_LONGEST_DELAY_OF_ODD_S: Final = 6 * 3600.0

# What passes without anybody doing anything. A key that is refused, or a full disk, does not.
_PASSING: Final = (UnreachableError, TimeoutExceededError, StaleVersionError)


@dataclass(slots=True)
class OddJobs:
    """Jobs that could not be recorded, and when each is worth asking for again (monotonic s)."""

    _times: dict[str, tuple[float, float]] = field(default_factory=dict)

    def not_now(self) -> frozenset[str]:
        """The ids of those to leave alone in the next round."""
        now = time.monotonic()
        return frozenset(job_id for job_id, (_, due) in self._times.items() if due > now)

    def note(self, failed: dict[str, str]) -> dict[str, str]:
        """Remember what failed in a round; returns what fails for the first time."""
        now = time.monotonic()
        # What was due, and did not fail again, is recorded.
        known = {
            job_id: item
            for job_id, item in self._times.items()
            if item[1] > now or job_id in failed
        }
        new = {job_id: reason for job_id, reason in failed.items() if job_id not in known}
        for job_id in failed:
            delay = _FIRST_DELAY_OF_ODD_S
            if job_id in known:
                delay = min(known[job_id][0] * 2, _LONGEST_DELAY_OF_ODD_S)
            known[job_id] = (delay, now + delay)
        self._times = known
        return new


@dataclass(slots=True)
class Followed:
    """What was done from the start until now."""

    rounds: int = 0
    recorded: int = 0
    linked: int = 0


class Follower:
    """Calls `do_round` until it is stopped.

    `do_round` gets a function that tells whether to end early (between two units), and the ids of
    odd jobs to leave alone. `interval_s` is the longest time between two rounds: it is shorter
    while something happens.
    """

    def __init__(
        self,
        do_round: Callable[[Callable[[], bool], frozenset[str]], Summary],
        *,
        interval_s: float = DEFAULT_INTERVAL_S,
        shortest_s: float = SHORTEST_INTERVAL_S,
    ) -> None:
        self._do_round = do_round
        self._longest_s = interval_s
        self._shortest_s = min(shortest_s, interval_s)
        # A SimpleQueue may be put to from a signal handler; a lock or an Event may not.
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopped = False
        self._odd = OddJobs()
        self._waiting = 0
        self._unknown_studies: set[str] = set()
        self.done = Followed()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def stop(self) -> None:
        """End after the unit in hand. May be called from any thread and from a signal handler."""
        self._stopped = True
        self._bell.put(None)

    def wake(self) -> None:
        """Something happened in Galaxy: look soon. May be called from any thread."""
        if self._bell.empty():
            self._bell.put(None)

    def run(self) -> Followed:
        """Record until stopped; returns what was done.

        Galaxy going away, or the catalog, ends nothing: it is said once, and tried again less and
        less often. Raises what waiting would not mend: NotPermittedError, StorageError.
        """
        pause_s = self._shortest_s
        away_since: float | None = None
        back_off_s = _FIRST_BACK_OFF_S
        while not self._stopped:
            try:
                summary = self._do_round(lambda: self._stopped, self._odd.not_now())
            except _PASSING as exc:
                if away_since is None:
                    away_since = time.monotonic()
                    log.warning("%s; it is tried again until it works", exc)
                self._rest(back_off_s)
                back_off_s = min(back_off_s * 2, _LONGEST_BACK_OFF_S)
                continue
            if away_since is not None:
                log.warning("it works again, after %.0f s", time.monotonic() - away_since)
                away_since, back_off_s = None, _FIRST_BACK_OFF_S
            if self._tell(summary):
                pause_s = self._shortest_s
            if self._rest(pause_s):
                pause_s = self._shortest_s
            else:
                pause_s = min(pause_s * _GROWTH, self._longest_s)
        return self.done

    def _tell(self, summary: Summary) -> bool:
        """Say and sum up what a round did; whether there was anything new."""
        new_odd = self._odd.note(summary.failed)
        for job_id, reason in new_odd.items():
            log.warning("job %s was not recorded, and is asked for again: %s", job_id, reason)
        for label in sorted(summary.unknown_studies - self._unknown_studies):
            log.warning("the rules name a study that is unknown: %r", label)
        self._unknown_studies |= summary.unknown_studies
        news = bool(summary.recorded or summary.linked or new_odd)
        if news:
            log.info(
                "recorded %d, linked to samples %d, unlinked %d, not ended yet %d, failed %d",
                summary.recorded,
                summary.linked,
                len(summary.unlinked),
                summary.waiting,
                len(summary.failed),
            )
        news = news or summary.waiting != self._waiting
        self._waiting = summary.waiting
        self.done.rounds += 1
        self.done.recorded += summary.recorded
        self.done.linked += summary.linked
        return news

    def _rest(self, seconds: float) -> bool:
        """Wait so long, or until the bell rings; whether it rang.

        Never shorter than the shortest interval: many events at once are one look.
        """
        begin = time.monotonic()
        try:
            self._bell.get(timeout=seconds)
        except queue.Empty:
            return False
        while not self._stopped:
            left_s = begin + min(self._shortest_s, seconds) - time.monotonic()
            if left_s <= 0:
                break
            try:
                self._bell.get(timeout=left_s)
            except queue.Empty:
                break
        while not self._bell.empty():
            self._bell.get()
        return True
