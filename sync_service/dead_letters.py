"""Messages that were set aside: sending them there, looking at them, sending them again.

A dead letter is the message as it was, with why, how often it was tried, and when first and last.
Doubles are harmless: who died between setting aside and acknowledging does it again.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from biobank_core.errors import InputError, StorageError, UnreachableError
from biobank_core.lineage.port import LineageIndex, Refusal
from sync_service import topology
from sync_service.broker import Delivery, Outgoing, Session
from sync_service.messages import CONTENT_TYPE, decode, state_of_id
from sync_service.projector import refusal_of

_REASON: Final = "x-biobank-reason"
_TRIES: Final = "x-biobank-tries"
_FIRST: Final = "x-biobank-first-try"
_LAST: Final = "x-biobank-last-try"
# AMQP's headers share one frame (128 KiB); an error's text may quote a whole message.
_MAX_REASON_CHARS: Final = 2_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One dead letter. `id` names it in commands; `routing_key` says what it is about.

    `log`, `vid` and `version` are None where the message does not say which state it is of.
    """

    tag: int
    id: str
    log: str | None
    vid: str | None
    version: int | None
    routing_key: str
    reason: str
    tries: int
    first: str
    last: str
    body: bytes

    @property
    def refusal(self) -> Refusal | None:
        """What the index was told of it."""
        if self.log is None or self.vid is None or self.version is None:
            return None
        return refusal_of(self.log, self.vid, self.version, self.reason)

    @property
    def committed(self) -> datetime | None:
        """When its change was committed; None where it can't be read."""
        try:
            return decode(self.body).time
        except InputError:
            return None


def key_of(message_id: str | None, body: bytes) -> str:
    """What a message is known by: its id if it names a state of ours, else its content."""
    if message_id is not None and state_of_id(message_id) is not None:
        return message_id
    return f"sha256:{hashlib.sha256(body).hexdigest()[:16]}"


def outgoing(
    delivery: Delivery, *, reason: str, tries: int, first: datetime, last: datetime
) -> Outgoing:
    """The dead letter that this delivery becomes."""
    return Outgoing(
        exchange=topology.DEAD_EXCHANGE,
        routing_key=delivery.routing_key,
        body=delivery.body,
        message_id=delivery.message_id or "",
        content_type=delivery.content_type or CONTENT_TYPE,
        headers={
            _REASON: reason[:_MAX_REASON_CHARS],
            _TRIES: tries,
            _FIRST: first.isoformat(),
            _LAST: last.isoformat(),
        },
    )


def letters(session: Session) -> Iterator[DeadLetter]:
    """The dead letters that are there now; each stays unless its tag is acknowledged.

    While they are read nobody else sees them; closing the session puts them back.
    """
    # Not "until it is empty": one that is sent again may be back before the last was read.
    for _ in range(session.depth(topology.DEAD_QUEUE)):
        delivery = session.get(topology.DEAD_QUEUE)
        if delivery is None:
            return
        yield _read(delivery)


def replay(session: Session, letter: DeadLetter, *, index: LineageIndex | None) -> None:
    """Send it to the consumers again; its change is then pending, no longer refused."""
    if index is not None and (refusal := letter.refusal) is not None:
        committed = letter.committed or refusal.time
        index.refuse([msgspec.structs.replace(refusal, sent_again=True, time=committed)])
    message = Outgoing(
        exchange=topology.EXCHANGE,
        routing_key=letter.routing_key,
        body=letter.body,
        message_id=letter.id,
        content_type=CONTENT_TYPE,
    )
    if not session.settle(session.send([message])):
        raise UnreachableError("interrupted before RabbitMQ confirmed the message")
    session.acknowledge(letter.tag)
    log.info("replayed %s", letter.id, extra={"message_id": letter.id})


def discard(
    session: Session,
    letter: DeadLetter,
    *,
    index: LineageIndex | None,
    by: str,
    why: str,
    book: Path,
) -> None:
    """Throw it away; who and why goes into the log and, first, into the file `book`."""
    if index is not None and (refusal := letter.refusal) is not None:
        index.refuse([msgspec.structs.replace(refusal, discarded=True)])
    entry = {
        "time": datetime.now(UTC).isoformat(),
        "discarded": letter.id,
        "by": by,
        "why": why,
        "reason": letter.reason,
        "tries": letter.tries,
        "first": letter.first,
        "last": letter.last,
    }
    _append(book, entry)
    session.acknowledge(letter.tag)
    log.warning(
        "%s discarded %s: %s", by, letter.id, why, extra={"message_id": letter.id, "by": by}
    )


def matching(found: Iterable[DeadLetter], ids: frozenset[str]) -> Iterator[DeadLetter]:
    """Those with one of these ids, or whose VID is one of them."""
    return (letter for letter in found if letter.id in ids or letter.vid in ids)


def _read(delivery: Delivery) -> DeadLetter:
    headers = delivery.headers
    state = state_of_id(delivery.message_id or "")
    return DeadLetter(
        tag=delivery.tag,
        id=key_of(delivery.message_id, delivery.body),
        log=state[0] if state else None,
        vid=state[1] if state else None,
        version=state[2] if state else None,
        routing_key=delivery.routing_key,
        reason=str(headers.get(_REASON, "unknown")),
        tries=_number(headers.get(_TRIES)),
        first=str(headers.get(_FIRST, "")),
        last=str(headers.get(_LAST, "")),
        body=delivery.body,
    )


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _append(book: Path, entry: dict[str, object]) -> None:
    try:
        book.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(book, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, msgspec.json.encode(entry) + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as exc:
        raise StorageError(f"{book}: {exc.strerror}") from exc
