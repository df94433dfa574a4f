"""From the queue into the index: a batch a transaction, acknowledged after its commit.

Whatever dies in between, messages come again, and applying one again changes nothing. While the
index takes a batch, in a thread of its own, the next one is received and heartbeats go out. A
message that fails is tried a bounded number of times with growing pauses, the others going on
meanwhile; then it is set aside as a dead letter, and only then acknowledged.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from biobank_core.errors import BiobankError, InputError, UnreachableError
from biobank_core.lineage.port import LineageIndex
from sync_service import dead_letters, messages, projector, topology
from sync_service.broker import Delivery, Session
from sync_service.metrics import Metrics
from sync_service.projector import Item
from sync_service.tries import Tried, Tries
from sync_service.vitals import BackOff, Part, trouble_waited_out

# Messages of one transaction: Neo4j writes some thousand at once eighty times faster than singly.
BATCH: Final = 2_000

# A first message is not kept waiting for a full batch; while more come, they are waited for.
_LINGER_S: Final = 0.1
_LULL_S: Final = 0.01
_LOOK_S: Final = 0.5
# RabbitMQ closes a channel that sits on a message for half an hour; nobody here holds one longer
# than this.
_LONGEST_HELD_S: Final = 300.0
# What a batch that was killed half-way costs again, and how long SIGTERM may take.
_SLOW_BATCH_S: Final = 20.0
_QUICK_BATCH_S: Final = 5.0
_BURIAL_TIMEOUT_S: Final = 30.0
_MAX_PREFETCH: Final = 65_535  # AMQP 0-9-1: a short

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    """A failed message in hand, and when to do something about it. `item` None: not understood."""

    delivery: Delivery
    item: Item | None
    tried: Tried
    since: float
    due_at: float


class Consumer:
    """One consumer; any number may run at once. `run` ends when `stopping` is set.

    The batch in hand is finished then. `open_index` and `open_session` (given a name) are called
    anew after each failure.
    """

    def __init__(
        self,
        *,
        open_index: Callable[[], LineageIndex],
        open_session: Callable[[str], Session],
        stopping: threading.Event,
        part: Part,
        metrics: Metrics,
        batch: int = BATCH,
    ) -> None:
        self._open_index = open_index
        self._open_session = open_session
        self._stopping = stopping
        self._part = part
        self._metrics = metrics
        self._most = batch
        self._size = batch
        self._tries = Tries(told=metrics.tries.inc)
        self._held: dict[int, _Held] = {}
        self._blamed = False
        self._applied_in_all = 0
        self._back_off = BackOff(stopping)

    def run(self) -> None:
        """Consume until told to stop. Raises ConfigurationError only."""
        while not self._stopping.is_set():
            with (
                trouble_waited_out(
                    self._back_off, part=lambda: self._part, reconnects=self._metrics.reconnects
                ),
                self._open_index() as index,
                self._open_session("consumer") as session,
            ):
                self._serve(index, session)
        count = self._applied_in_all
        log.info("applied %d messages in all", count, extra={"applied": count})

    def _serve(self, index: LineageIndex, session: Session) -> None:
        # Some indexes are reached only when they are used; a message need not find that out.
        index.checked()
        # What an earlier connection held has gone back into the queue.
        self._held.clear()
        # Twice a batch: the next one is on its way while one goes into the index.
        session.consume(topology.QUEUE, prefetch=min(2 * self._size, _MAX_PREFETCH))
        while not self._stopping.is_set():
            batch = self._collected(session)
            if batch:
                self._part.waits(True)
                self._take(index, session, batch)
            elif not self._held:
                # Connected, and nothing to do: an earlier trouble is over.
                self._part.waits(False)
                self._part.moved()
            self._look_after_held(index, session)

    def _collected(self, session: Session) -> list[Delivery]:
        """Up to a batch of what has come; empty when nothing came for a while."""
        come: deque[Delivery] = session.deliveries
        due_at = min((held.due_at for held in self._held.values()), default=float("inf"))
        look_s = max(0.0, min(_LOOK_S, due_at - time.monotonic()))
        session.drive(lambda: bool(come) or self._stopping.is_set(), timeout_s=look_s)
        give_up_at = time.monotonic() + _LINGER_S
        before = 0
        while before < len(come) < self._size and time.monotonic() < give_up_at:
            before = len(come)
            session.drive(lambda: len(come) >= self._size, timeout_s=_LULL_S)
        return [come.popleft() for _ in range(min(self._size, len(come)))]

    def _take(self, index: LineageIndex, session: Session, batch: list[Delivery]) -> None:
        """Apply a batch; what fails is held, what can never go through is set aside."""
        by_tag = {delivery.tag: delivery for delivery in batch}
        items: list[Item] = []
        dead: list[tuple[Delivery, Item | None, Tried]] = []
        for delivery in batch:
            key = dead_letters.key_of(delivery.message_id, delivery.body)
            try:
                if (left_out := delivery.headers.get(messages.LEFT_OUT_HEADER)) is not None:
                    raise InputError(f"{left_out}; run `biobank verify --repair`, then discard it")
                received = messages.decode(delivery.body)
            except InputError as exc:
                # No later try would read it otherwise.
                tried = self._tries.failed(key, str(exc), final=True)
                dead.append((delivery, None, tried))
            else:
                items.append(Item(delivery.tag, key, received.event, received.time))
        outcome = self._applied(index, session, items)
        for item, error in outcome.failed:
            self._note(by_tag[item.tag], item, error)
        dead += [(held.delivery, held.item, held.tried) for held in self._over(by_tag)]
        self._acknowledge(session, outcome.applied, whole=len(outcome.applied) == len(batch))
        self._set_aside(index, session, dead)

    def _applied(
        self, index: LineageIndex, session: Session, items: list[Item]
    ) -> projector.Outcome:
        """What became of these; raises the index's error when it is to blame."""
        if not items:
            return projector.Outcome()
        begun = time.monotonic()
        # It was blamed, and yet it answers: are the messages to blame?
        suspicious = self._blamed and projector.answers(index)
        future = _in_background(
            session, lambda: projector.apply(index, items, suspicious=suspicious)
        )
        try:
            outcome = future.result()
        except BiobankError:
            self._blamed = True
            raise
        self._blamed = False
        self._back_off.reset()
        took_s = time.monotonic() - begun
        if took_s > _SLOW_BATCH_S:
            self._size = max(1, self._size // 2)
        elif took_s < _QUICK_BATCH_S:
            self._size = min(self._most, self._size * 2)
        self._count(outcome)
        return outcome

    def _count(self, outcome: projector.Outcome) -> None:
        now = datetime.now(UTC)
        for item in outcome.applied:
            self._tries.forget(item.id)
            if item.time is not None:
                # A clock that jumped back must not make a negative time of it.
                lag_s = max(0.0, (now - item.time).total_seconds())
                self._metrics.commit_to_applied.observe(lag_s)
        if outcome.applied:
            self._applied_in_all += len(outcome.applied)
            self._metrics.applied.inc(len(outcome.applied))
            self._metrics.batches.inc()
            self._part.moved()

    def _note(self, delivery: Delivery, item: Item, exc: Exception) -> None:
        """Count a failed try, and hold the message until the next one."""
        # An error that is none of ours is a bug of a driver; its type says more than its text.
        reason = str(exc) if isinstance(exc, BiobankError) else f"{type(exc).__name__}: {exc}"
        tried = self._tries.failed(item.id, reason)
        now = time.monotonic()
        before = self._held.get(delivery.tag)
        since = before.since if before else now
        self._held[delivery.tag] = _Held(delivery, item, tried, since, now + tried.pause_s)

    def _over(self, tags: Iterable[int]) -> list[_Held]:
        """Those of these deliveries that are held and not to be tried again."""
        held = (self._held[tag] for tag in tags if tag in self._held)
        return [one for one in held if one.tried.over]

    def _look_after_held(self, index: LineageIndex, session: Session) -> None:
        """Try the held messages whose pause is over, each by itself."""
        now = time.monotonic()
        for held in [held for held in self._held.values() if held.due_at <= now]:
            if now - held.since > _LONGEST_HELD_S:
                raise UnreachableError("a message could not be set aside in time: giving it back")
            if held.item is not None and not held.tried.over:
                outcome = self._applied(index, session, [held.item])
                if outcome.applied:
                    del self._held[held.delivery.tag]
                    session.acknowledge(held.delivery.tag)
                for item, error in outcome.failed:
                    self._note(held.delivery, item, error)
            over = self._over([held.delivery.tag])
            self._set_aside(index, session, [(one.delivery, one.item, one.tried) for one in over])

    def _acknowledge(self, session: Session, applied: list[Item], *, whole: bool) -> None:
        if not applied:
            return
        last = applied[-1].tag
        if whole and not any(tag < last for tag in self._held):
            session.acknowledge(max(item.tag for item in applied), and_before=True)
        else:
            for item in applied:
                session.acknowledge(item.tag)

    def _set_aside(
        self,
        index: LineageIndex,
        session: Session,
        dead: list[tuple[Delivery, Item | None, Tried]],
    ) -> None:
        """Make dead letters of these: noted in the index, confirmed by RabbitMQ, acknowledged.

        The index is told first: one that takes no writes has refused nothing, and whoever waits
        for one of these is told at once.
        """
        if not dead:
            return
        refusals = []
        for delivery, item, tried in dead:
            state = messages.state_of_id(delivery.message_id or "")
            if item is not None:
                state = (item.event.log, item.event.vid, item.event.version)
            if state is not None:
                refusals.append(projector.refusal_of(*state, tried.reason))
        if refusals:
            index.refuse(refusals)
        if not self._buried(dead):
            now = time.monotonic()
            for delivery, item, tried in dead:
                before = self._held.get(delivery.tag)
                since = before.since if before else now
                due_at = now + _BURIAL_TIMEOUT_S
                self._held[delivery.tag] = _Held(delivery, item, tried, since, due_at)
            return
        for delivery, _, tried in dead:
            session.acknowledge(delivery.tag)
            self._held.pop(delivery.tag, None)
            key = dead_letters.key_of(delivery.message_id, delivery.body)
            self._tries.forget(key)
            log.error(
                "set aside as a dead letter after %d tries: %s (%s)",
                tried.tries,
                key,
                tried.reason,
                extra={"message_id": key, "tries": tried.tries},
            )
        self._metrics.dead.inc(len(dead))
        self._part.moved()

    def _buried(self, dead: list[tuple[Delivery, Item | None, Tried]]) -> bool:
        """Send these to the dead letters; whether RabbitMQ confirmed them in time.

        On a connection of its own: when the broker's disk is full it stops reading from whoever
        publishes, and acknowledgements must still get through.
        """
        with self._open_session("dead letters") as session:
            tag = session.send(
                dead_letters.outgoing(
                    delivery,
                    reason=tried.reason,
                    tries=tried.tries,
                    first=tried.first,
                    last=tried.last,
                )
                for delivery, _, tried in dead
            )
            in_time = session.drive(
                lambda: session.settled(tag) or self._stopping.is_set(),
                timeout_s=_BURIAL_TIMEOUT_S,
            )
            return in_time and session.settle(tag)


def _in_background(
    session: Session, work: Callable[[], projector.Outcome]
) -> Future[projector.Outcome]:
    """Do this in another thread, and drive the session until it is done, well or not.

    Raises what the session does, and only when the work has ended: nobody closes an index that is
    being written.
    """
    future: Future[projector.Outcome] = Future()

    def worked() -> None:
        try:
            future.set_result(work())
        except BaseException as exc:  # noqa: BLE001  # whoever asks for the result is told
            future.set_exception(exc)
        session.wake()

    # Not of a pool, whose threads the interpreter waits for at its end however long they hang.
    thread = threading.Thread(target=worked, name="apply", daemon=True)
    thread.start()
    try:
        session.drive(future.done)
    finally:
        thread.join()
    return future
