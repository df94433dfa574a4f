"""How often each message failed: counted by the consumer itself, by the message's id.

The broker's own count would also count lost connections, which are no message's fault.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

# How often one message may fail, and the pauses between: 15 s in all.
MAX_TRIES: Final = 5
_PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """How often a message failed, when first and last, and why the last time."""

    tries: int
    first: datetime
    last: datetime
    reason: str
    final: bool = False

    @property
    def over(self) -> bool:
        """Whether it is not to be tried again."""
        return self.final or self.tries >= MAX_TRIES

    @property
    def pause_s(self) -> float:
        """How long to wait before the next try."""
        return _PAUSES_S[min(self.tries, len(_PAUSES_S)) - 1]


class Tries:
    """The counts of the messages that failed and were neither applied nor set aside since."""

    def __init__(self, *, told: Callable[[], None] = lambda: None) -> None:
        self._tried: dict[str, Tried] = {}
        self._told = told

    def failed(self, key: str, reason: str, *, final: bool = False) -> Tried:
        """Count one more; `final`: another try would be of no use."""
        now = datetime.now(UTC)
        before = self._tried.get(key)
        tried = Tried(
            tries=before.tries + 1 if before else 1,
            # The clock may have jumped back.
            first=min(before.first, now) if before else now,
            last=now,
            reason=reason,
            final=final,
        )
        self._tried[key] = tried
        self._told()
        log.warning(
            "try %d of message %s failed: %s",
            tried.tries,
            key,
            reason,
            extra={"message_id": key, "tries": tried.tries},
        )
        return tried

    def forget(self, key: str) -> None:
        """It was applied, or set aside."""
        self._tried.pop(key, None)
