"""From the catalog's change feed to RabbitMQ: the position moves on when all is confirmed.

What is sent is the state that an object has now, not the one that it had at the change: a later
change of it is sent again, and the index takes the greater version whatever the order.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from biobank_core.catalog.port import Catalog, ChangeKind, CommittedUnit, Position
from biobank_core.errors import UnreadableError
from biobank_core.lineage.events import IndexEvent
from biobank_core.lineage.projection import in_graph, project_all
from sync_service import messages, topology
from sync_service.broker import Outgoing, Session
from sync_service.metrics import Metrics
from sync_service.state import RelayState
from sync_service.vitals import BackOff, Part, trouble_waited_out

# Changes whose objects are loaded and sent at once.
BATCH: Final = 1_000
# Between two looks at the feed.
POLL_S: Final = 0.2
# Batches that may be under way before the oldest is waited for.
_UNDER_WAY: Final = 4
# How long a confirm is waited for with the feed held open.
_PATIENCE_S: Final = 5.0
# AMQP's headers share one frame (128 KiB); an error's text may quote what it could not read.
_MAX_REASON_CHARS: Final = 2_000

log = logging.getLogger(__name__)

_Wanted: TypeAlias = dict[tuple[str, str], CommittedUnit]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of the feed: objects by (log, VID) with the unit that changed them last.

    `changes`: how many were read for it; `reached`: the position after it, None within a unit.
    """

    wanted: _Wanted
    changes: int
    reached: Position | None


class Relay:
    """One relay; several are harmless side by side. `run` ends when `stopping` is set.

    `open_catalog` and `open_session` (given a name) are called anew after each failure.
    """

    def __init__(
        self,
        *,
        open_catalog: Callable[[], Catalog],
        open_session: Callable[[str], Session],
        state_of: Callable[[Catalog], RelayState],
        stopping: threading.Event,
        part: Part,
        metrics: Metrics,
        poll_s: float = POLL_S,
    ) -> None:
        self._open_catalog = open_catalog
        self._open_session = open_session
        self._state_of = state_of
        self._stopping = stopping
        self._part = part
        self._metrics = metrics
        self._poll_s = poll_s
        self._back_off = BackOff(stopping)
        self._again_from: Position | None = None

    def send_again(self, since: Position) -> None:
        """Send what the feed holds after `since` once more; may be called from any thread."""
        self._again_from = dict(since)

    def run(self) -> None:
        """Relay until told to stop. Raises ConfigurationError only."""
        while not self._stopping.is_set():
            with (
                trouble_waited_out(
                    self._back_off, part=lambda: self._part, reconnects=self._metrics.reconnects
                ),
                self._open_catalog() as catalog,
                self._open_session("relay") as session,
            ):
                self._serve(catalog, session, self._state_of(catalog))

    def _serve(self, catalog: Catalog, session: Session, state: RelayState) -> None:
        self._metrics.blocked.set(0)
        position: Position = state.load()
        while not self._stopping.is_set():
            head = dict(catalog.head())
            position = self._from_where(position, head)
            if position == head:
                # Connected, and nothing to do: an earlier trouble is over.
                self._part.waits(False)
                self._part.moved()
                session.drive(self._stopping.is_set, timeout_s=self._poll_s)
                continue
            self._part.waits(True)
            position = self._caught_up(catalog, session, state, position, head)
            self._part.moved()
            self._back_off.reset()

    def _from_where(self, position: Position, head: Mapping[str, int]) -> Position:
        again, self._again_from = self._again_from, None
        if again is not None:
            position = {log: min(number, again.get(log, 0)) for log, number in position.items()}
        lost = [name for name, number in position.items() if number > head.get(name, 0)]
        if lost:
            # A catalog that was restored from a copy: what it did since then comes from a feed
            # that begins anew at an earlier number.
            log.warning("the feed of %s is shorter than it was: reading all of it", ", ".join(lost))
            position = {name: number for name, number in position.items() if name not in lost}
        return position

    def _caught_up(
        self,
        catalog: Catalog,
        session: Session,
        state: RelayState,
        position: Position,
        head: Mapping[str, int],
    ) -> Position:
        """Send what lies between; the position then, as far as it was confirmed."""
        confirmed = position
        under_way: deque[tuple[int, _Piece]] = deque()

        def settle(most: int, *, timeout_s: float | None = None) -> bool:
            nonlocal confirmed
            while len(under_way) > most:
                tag, piece = under_way[0]
                if not session.settle(tag, timeout_s=timeout_s):
                    return False
                under_way.popleft()
                if piece.reached is not None:
                    state.save(piece.reached)
                    confirmed = piece.reached
                self._metrics.relayed_changes.inc(piece.changes)
                self._part.moved()
            return True

        # Closed before anything is waited for that may take long: reading the feed may hold a
        # snapshot of the catalog.
        whole = True
        with contextlib.closing(_pieces(catalog, position)) as pieces:
            for piece in pieces:
                under_way.append((session.send(self._outgoing(catalog, piece.wanted)), piece))
                if not settle(_UNDER_WAY, timeout_s=_PATIENCE_S) or self._stopping.is_set():
                    whole = False
                    break
        if not settle(0) or not whole:
            return confirmed
        # The last units may be such as the feed leaves out; they need not be looked at again.
        ended = {name: max(number, confirmed.get(name, 0)) for name, number in head.items()}
        ended |= {name: number for name, number in confirmed.items() if name not in head}
        if ended != confirmed:
            state.save(ended)
        return ended

    def _outgoing(self, catalog: Catalog, wanted: _Wanted) -> Iterator[Outgoing]:
        sent = 0
        for event in _readable(catalog, wanted):
            sent += 1
            if isinstance(event, _Unreadable):
                log.error("sent without its state: %s", event.reason)
                yield _without_state(event.id, messages.UNREADABLE_KEY, event.reason)
                continue
            unit = wanted[event.log, event.vid]
            body = messages.encode(
                event,
                unit=f"{unit.log}/{unit.number}",
                unit_size=len(unit.changes),
                time=unit.time,
            )
            key, name = messages.routing_key(event), messages.message_id(event)
            if len(body) > messages.MAX_BODY_BYTES:
                reason = f"its state takes {len(body):,} bytes, more than a message may have"
                yield _without_state(name, key, reason)
                continue
            yield Outgoing(
                exchange=topology.EXCHANGE,
                routing_key=key,
                body=body,
                message_id=name,
                content_type=messages.CONTENT_TYPE,
            )
        self._metrics.published.inc(sent)


@dataclass(frozen=True, slots=True)
class _Unreadable:
    """A state that the catalog can't give back; `id` is its message's."""

    id: str
    reason: str


def _without_state(name: str, routing_key: str, reason: str) -> Outgoing:
    """What the consumer sets aside with this reason; people mend the catalog or the index."""
    return Outgoing(
        exchange=topology.EXCHANGE,
        routing_key=routing_key,
        body=b"",
        message_id=name,
        content_type=messages.CONTENT_TYPE,
        headers={messages.LEFT_OUT_HEADER: reason[:_MAX_REASON_CHARS]},
    )


def _readable(catalog: Catalog, wanted: _Wanted) -> Iterator[IndexEvent | _Unreadable]:
    """The events of these objects, with those in their place that can't be read."""
    parts = [list(wanted)]
    while parts:
        part = parts.pop()
        try:
            yield from list(project_all(catalog, part))
        except UnreadableError as exc:
            if len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
                continue
            [(of, vid)] = part
            unit = wanted[of, vid]
            version = next(one.version for one in unit.changes if one.vid == vid)
            yield _Unreadable(messages.id_of_state(of, vid, version), str(exc))


def _pieces(catalog: Catalog, since: Position) -> Generator[_Piece, None, None]:
    """The feed after `since`; an object that changed twice within a piece is in it once."""
    wanted: _Wanted = {}
    changes = 0
    position = dict(since)
    with contextlib.closing(_units(catalog, since)) as units:
        for unit in units:
            for change in unit.changes:
                changes += 1
                if in_graph(change.kind) or change.change is ChangeKind.DELETED:
                    wanted[unit.log, change.vid] = unit
                if len(wanted) >= BATCH:
                    # Within a unit: its number counts only when all of it is on its way.
                    yield _Piece(wanted, changes, None)
                    wanted, changes = {}, 0
            position.update(unit.position)
            if len(wanted) >= BATCH // 2:
                yield _Piece(wanted, changes, dict(position))
                wanted, changes = {}, 0
    if position != since:
        yield _Piece(wanted, changes, position)


def _units(catalog: Catalog, since: Position) -> Generator[CommittedUnit, None, None]:
    yield from catalog.changes(since)
