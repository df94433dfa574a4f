"""Whether each part of the service moves: what `/healthz` and the log are told.

By the monotonic clock, so that a clock that jumps makes nobody ill.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter

from biobank_core.errors import BiobankError, ConfigurationError

# Nothing moved for so long although something waits: not healthy.
STALLED_AFTER_S: Final = 60.0

_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 15.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sign:
    """What one part says of itself. `idle_s`: since something moved; `trouble`: what it waits for.

    `waiting`: something is there for it to do.
    """

    part: str
    idle_s: float
    waiting: bool
    trouble: str | None

    def stalled(self, after_s: float) -> bool:
        """Whether it should have moved and did not."""
        return (self.waiting or self.trouble is not None) and self.idle_s > after_s


class Part:
    """What a part tells of itself; safe between threads. Says each new trouble in the log, once."""

    def __init__(self, name: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._now = now
        self._moved_at = now()
        self._waiting = False
        self._trouble: str | None = None
        self._lock = threading.Lock()

    def moved(self) -> None:
        """Something was done, or there was nothing to do."""
        with self._lock:
            over, self._trouble = self._trouble, None
            self._moved_at = self._now()
        if over is not None:
            log.info("%s goes on", self.name, extra={"part": self.name})

    def waits(self, waiting: bool) -> None:
        """Whether something is there to be done."""
        with self._lock:
            if not waiting and self._trouble is None:
                self._moved_at = self._now()
            self._waiting = waiting

    def is_held_up(self, trouble: str) -> None:
        """It can't go on, and why; until it moves."""
        with self._lock:
            new, self._trouble = trouble != self._trouble, trouble
        if new:
            log.warning("%s waits: %s", self.name, trouble, extra={"part": self.name})

    def sign(self) -> Sign:
        """How it is now."""
        with self._lock:
            return Sign(self.name, self._now() - self._moved_at, self._waiting, self._trouble)


class BackOff:
    """Longer and longer pauses, of random length so that many clients do not come back at once."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._next_s = _FIRST_PAUSE_S

    def pause(self) -> None:
        """Wait a while, or until told to stop."""
        self._stopping.wait(self._next_s * random.uniform(0.5, 1.0))  # noqa: S311  # no secret
        self._next_s = min(2 * self._next_s, _LONGEST_PAUSE_S)

    def reset(self) -> None:
        """It went well: the next pause is a short one again."""
        self._next_s = _FIRST_PAUSE_S


@contextmanager
def trouble_waited_out(
    back_off: BackOff, *, part: Callable[[], Part], reconnects: Counter
) -> Iterator[None]:
    """What a part does on its connections: a failure is told, counted, and followed by a pause.

    Raises ConfigurationError only, which no later try would mend.
    """
    try:
        yield
    except ConfigurationError:
        raise
    except BiobankError as exc:
        reconnects.labels(part().name).inc()
        part().is_held_up(str(exc))
        back_off.pause()
