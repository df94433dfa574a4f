"""Messages into the index: a batch in one transaction, and who is to blame when it fails.

What an error says decides: a server that is away, full or read-only is no message's fault, and no
message is counted for it. Else the batch is bisected until the failing messages are found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from biobank_core.errors import (
    BiobankError,
    ConfigurationError,
    NotPermittedError,
    StorageError,
)
from biobank_core.lineage.events import IndexEvent
from biobank_core.lineage.port import LineageIndex, Refusal

# So many single messages failing one after the other, and it is probably not the messages.
_ENOUGH_SUSPECTS: Final = 3


@dataclass(frozen=True, slots=True)
class Item:
    """A message that was understood, on its way into the index. `tag`: whose delivery it is."""

    tag: int
    id: str
    event: IndexEvent
    time: datetime | None = None


@dataclass(slots=True)
class Outcome:
    """What became of a batch."""

    applied: list[Item] = field(default_factory=list)
    failed: list[tuple[Item, Exception]] = field(default_factory=list)


def blames_index(exc: Exception) -> bool:
    """Whether the error speaks of the index (away, full, read-only), not of what it was given."""
    return isinstance(exc, BiobankError) and (
        exc.retryable or isinstance(exc, StorageError | NotPermittedError | ConfigurationError)
    )


def apply(index: LineageIndex, items: Sequence[Item], *, suspicious: bool = False) -> Outcome:
    """Apply them, in one transaction if all goes well; any number of times, in any order.

    Raises the index's error when the index is to blame; nothing is counted then. `suspicious`: it
    was blamed several times although it answers, so look whether a message is behind it (one too
    large for its memory, say).
    """
    outcome = Outcome()
    in_a_row = 0
    parts = [list(items)]
    while parts:
        part = parts.pop()
        try:
            index.apply([item.event for item in part])
        # Whatever a message can make a driver raise, the other messages must get through.
        except Exception as exc:
            if blames_index(exc) and not suspicious:
                raise
            if len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
                continue
            outcome.failed.append((part[0], exc))
            in_a_row += blames_index(exc)
            enough = in_a_row >= _ENOUGH_SUSPECTS or not (parts or outcome.applied)
            if blames_index(exc) and enough:
                if not _takes_writes(index, part[0]):
                    raise
                in_a_row = 0
        else:
            in_a_row = 0
            outcome.applied += part
    return outcome


def answers(index: LineageIndex) -> bool:
    """Whether the index answers a question."""
    try:
        index.checked()
    except BiobankError:
        return False
    return True


def refusal_of(log: str, vid: str, version: int, reason: str) -> Refusal:
    """That this state was set aside now."""
    return Refusal(log=log, vid=vid, version=version, reason=reason, time=datetime.now(UTC))


def _takes_writes(index: LineageIndex, item: Item) -> bool:
    """Whether a small write goes through: the note that the message is refused, taken back.

    Where a refusal of the object stands it is written once more as it is: that its dead letter was
    sent again, say, must not be forgotten.
    """
    event = item.event
    try:
        standing = list(index.refused([event.vid]).values())
        if standing:
            index.refuse(standing)
            return True
        note = refusal_of(event.log, event.vid, event.version, "being looked at")
        index.refuse([note])
        index.forget_refusals([note])
    except BiobankError:
        return False
    return True
