"""One connection to RabbitMQ with one channel, driven by the thread that owns it.

On pika's SelectConnection: its BlockingConnection waits for the confirm of each single message,
which a quorum queue answers in milliseconds; here any number is under way at once.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Self

import pika
from pika import exceptions as amqp
from pika.adapters.select_connection import SelectConnection

from biobank_core.errors import (
    BiobankError,
    ConfigurationError,
    NotPermittedError,
    UnreachableError,
)
from sync_service import topology
from sync_service.topology import BrokerAddress

# RabbitMQ drops a connection that it has not heard of for so long.
HEARTBEAT_S: Final = 120
_CONNECT_TIMEOUT_S: Final = 15.0
_CALL_TIMEOUT_S: Final = 30.0
_CLOSE_TIMEOUT_S: Final = 5.0
# How often a drive that waits looks whether it shall end.
_TICK_S: Final = 0.2
_PERSISTENT: Final = 2

_ACCESS_REFUSED: Final = 403  # AMQP 0-9-1, section 1.1: reply codes
_NOT_FOUND: Final = 404
_PRECONDITION_FAILED: Final = 406
_INTERNAL_ERROR: Final = 541

# So it is for ever after a crash within half a second of the queue's being deleted and made again
# (3.10.8). No number in it: who says a trouble says it once.
_IF_A_QUEUE_IS_DOWN: Final = (
    "`rabbitmqctl list_queues name state messages` says whether our queue is full or down. One "
    "that stays down: `rabbitmqctl delete_queue NAME`; it is made anew"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message to send."""

    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    content_type: str
    headers: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that we were given and have to acknowledge."""

    tag: int
    body: bytes
    message_id: str | None
    routing_key: str
    content_type: str | None
    headers: Mapping[str, Any]


class Session:
    """Opened at once; raises errors of biobank_core.errors only.

    UnreachableError when the broker is away or breaks off, NotPermittedError for a wrong account,
    ConfigurationError for a queue of that name that is not ours. After an error, close it and open
    another one. `on_blocked` is told the broker's reason when it takes no messages (its disk or
    memory is full), and None when it takes them again. `stopping` ends a wait early.
    """

    def __init__(
        self,
        address: BrokerAddress,
        *,
        name: str,
        on_blocked: Callable[[str | None], None] = lambda _reason: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._address = address
        self._stopping = stopping
        self._on_blocked = on_blocked
        self._error: Exception | None = None
        self._returned: str | None = None
        self._next_tag = 1
        self._unconfirmed: dict[int, None] = {}
        self._refused = False
        self._channel: Any = None
        self._found_empty = False
        self._closing = False
        self.blocked = False
        self.deliveries: deque[Delivery] = deque()
        self._connection = SelectConnection(
            _parameters(address, name),
            on_open_callback=self._opened,
            on_open_error_callback=self._failed,
            on_close_callback=self._failed,
        )
        try:
            self._connection.add_on_connection_blocked_callback(self._told_blocked)
            self._connection.add_on_connection_unblocked_callback(self._told_unblocked)
            self._wait(lambda: self._channel is not None and self._channel.is_open, "connecting")
            self._set_up()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    # Sending

    def send(self, messages: Iterable[Outgoing]) -> int:
        """Begin to send these; the tag of the last one, for `settle`."""
        self._check()
        for message in messages:
            properties = pika.BasicProperties(
                content_type=message.content_type,
                delivery_mode=_PERSISTENT,
                message_id=message.message_id,
                headers=dict(message.headers) or None,
            )
            with self._errors():
                self._channel.basic_publish(
                    message.exchange, message.routing_key, message.body, properties, mandatory=True
                )
            self._unconfirmed[self._next_tag] = None
            self._next_tag += 1
        return self._next_tag - 1

    def settled(self, tag: int) -> bool:
        """Whether all messages up to this tag are confirmed."""
        return not self._unconfirmed or next(iter(self._unconfirmed)) > tag

    def settle(self, tag: int, *, timeout_s: float | None = None) -> bool:
        """Wait until all up to this tag are confirmed; False when told to stop or out of time.

        A broker whose disk is full confirms nothing until it has room again. Raises
        UnreachableError when a message can't be kept: no queue takes it, or the broker says no.
        """
        done = self.drive(lambda: self.settled(tag) or self._stopping(), timeout_s=timeout_s)
        if self._returned is not None:
            raise UnreachableError(
                f"{self._address.url}: no queue took a message ({self._returned}); somebody "
                "deleted it"
            )
        if self._refused:
            raise UnreachableError(
                f"{self._address.url}: RabbitMQ refuses messages; {_IF_A_QUEUE_IS_DOWN}"
            )
        return done and self.settled(tag)

    # Receiving

    def consume(self, queue: str, *, prefetch: int) -> None:
        """Have messages put into `deliveries`, at most `prefetch` that are not acknowledged."""
        self._call(partial(self._channel.basic_qos, prefetch_count=prefetch))
        self._channel.add_on_cancel_callback(self._cancelled)
        self._call(partial(self._channel.basic_consume, queue, self._received))

    def acknowledge(self, tag: int, *, and_before: bool = False) -> None:
        """The message needs not to be given again; with `and_before`, nor those given earlier."""
        self._check()
        with self._errors():
            self._channel.basic_ack(tag, multiple=and_before)

    def get(self, queue: str) -> Delivery | None:
        """One message of a queue, None when it is empty. It comes back unless acknowledged."""
        found: list[Delivery | None] = []

        def got(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
            found.append(_delivery(method, properties, body))

        self._check()
        self._found_empty = False
        self._channel.basic_get(queue, got)
        self._wait(lambda: bool(found) or self._found_empty, "getting a message")
        return found[0] if found else None

    def depth(self, queue: str) -> int:
        """How many messages wait in the queue, those not counted that somebody holds."""
        frame = self._call(partial(self._channel.queue_declare, queue, passive=True))
        return int(frame.method.message_count)

    def purge(self, queue: str) -> None:
        """Throw away what waits in the queue, for tests."""
        self._call(partial(self._channel.queue_purge, queue))

    def delete(self, queue: str) -> None:
        """Delete the queue with what waits in it, for tests."""
        self._call(partial(self._channel.queue_delete, queue))

    # Driving

    def drive(
        self, until: Callable[[], bool] = lambda: False, *, timeout_s: float | None = None
    ) -> bool:
        """Send and receive until `until` says so (True) or the time is over (False)."""
        give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
        loop = self._connection.ioloop
        loop.activate_poller()
        try:
            while True:
                self._check()
                if until():
                    return True
                left_s = _TICK_S if give_up_at is None else give_up_at - time.monotonic()
                if left_s <= 0:
                    return False
                timer = loop.call_later(min(left_s, _TICK_S), _nothing)
                try:
                    with self._errors():
                        loop.poll()
                        loop.process_timeouts()
                finally:
                    loop.remove_timeout(timer)
        finally:
            loop.deactivate_poller()

    def wake(self) -> None:
        """Let a `drive` look at its `until` now; the one thing that other threads may call."""
        self._connection.ioloop.add_callback_threadsafe(_nothing)

    def close(self) -> None:
        """Let go of it; what was not acknowledged is given to somebody else."""
        self._closing = True
        with contextlib.suppress(BiobankError, amqp.AMQPError, OSError):
            if self._connection.is_open:
                self._connection.close()
            if not self._connection.is_closed and self._error is None:
                self.drive(lambda: self._connection.is_closed, timeout_s=_CLOSE_TIMEOUT_S)
        with contextlib.suppress(Exception):  # half-open sockets have their own ways to fail
            self._connection.ioloop.close()

    def _set_up(self) -> None:
        channel = self._channel
        channel.add_on_return_callback(self._came_back)
        self._call(partial(channel.confirm_delivery, self._confirmed))
        for exchange, kind, queue, key in (
            (topology.EXCHANGE, "topic", topology.QUEUE, topology.BINDING),
            (topology.DEAD_EXCHANGE, "fanout", topology.DEAD_QUEUE, ""),
        ):
            self._call(partial(channel.exchange_declare, exchange, kind, durable=True))
            arguments = topology.queue_arguments(self._version)
            self._call(partial(channel.queue_declare, queue, durable=True, arguments=arguments))
            self._call(partial(channel.queue_bind, queue, exchange, key))

    @property
    def _version(self) -> str:
        told = self._connection.server_properties or {}
        return str(told.get("version", ""))

    def _call(self, begin: Callable[..., Any]) -> Any:
        """Do a call of the channel, which takes a `callback`, and wait for its answer."""
        answers: list[Any] = []
        self._check()
        with self._errors():
            begin(callback=answers.append)
        self._wait(lambda: bool(answers), "an answer")
        return answers[0]

    def _wait(self, until: Callable[[], bool], what: str) -> None:
        timeout_s = _CONNECT_TIMEOUT_S if what == "connecting" else _CALL_TIMEOUT_S
        if not self.drive(until, timeout_s=timeout_s):
            raise UnreachableError(f"{self._address.url}: no end of {what} in {timeout_s:g} s")

    def _check(self) -> None:
        if self._error is not None and not self._closing:
            raise self._translated(self._error) from self._error

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (amqp.AMQPError, OSError) as exc:
            raise self._translated(exc) from exc

    def _translated(self, exc: Exception) -> BiobankError:
        if isinstance(exc, BiobankError):
            return exc
        return translated(exc, self._address.url)

    # What pika tells us

    def _opened(self, connection: Any) -> None:
        connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._failed)
        channel.add_callback(self._told_empty, [pika.spec.Basic.GetEmpty], False)
        self._channel = channel

    def _failed(self, _where: Any, reason: Exception | str) -> None:
        error = reason if isinstance(reason, Exception) else amqp.AMQPConnectionError(str(reason))
        # The first one says why; a channel's is followed by the connection's.
        self._error = self._error or error

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        if not isinstance(method, pika.spec.Basic.Ack):
            self._refused = True
        if method.multiple:
            for tag in list(self._unconfirmed):
                if tag > method.delivery_tag:
                    break
                del self._unconfirmed[tag]
        else:
            self._unconfirmed.pop(method.delivery_tag, None)

    def _came_back(self, _channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        self._returned = f"{method.reply_code} {method.reply_text}"

    def _received(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.deliveries.append(_delivery(method, properties, body))

    def _told_empty(self, _frame: Any) -> None:
        self._found_empty = True

    def _cancelled(self, _frame: Any) -> None:
        self._failed(None, amqp.ConsumerCancelled())

    def _told_blocked(self, _connection: Any, frame: Any) -> None:
        self.blocked = True
        self._on_blocked(str(frame.method.reason) or "no reason given")

    def _told_unblocked(self, _connection: Any, _frame: Any) -> None:
        self.blocked = False
        self._on_blocked(None)


def translated(exc: Exception, url: str) -> BiobankError:
    """What an error of pika or of a socket is among ours."""
    if isinstance(exc, amqp.AuthenticationError | amqp.ProbableAuthenticationError):
        return NotPermittedError(f"{url}: RabbitMQ does not know this user and password")
    if isinstance(exc, amqp.ProbableAccessDeniedError):
        return NotPermittedError(f"{url}: RabbitMQ does not let this user into that virtual host")
    if isinstance(exc, amqp.ChannelClosedByBroker | amqp.ConnectionClosedByBroker):
        if exc.reply_code == _ACCESS_REFUSED:
            return NotPermittedError(f"{url}: {exc.reply_text}")
        if exc.reply_code == _INTERNAL_ERROR:
            return UnreachableError(f"{url}: RabbitMQ failed within; {_IF_A_QUEUE_IS_DOWN}")
        if exc.reply_code == _PRECONDITION_FAILED and "inequivalent" in exc.reply_text:
            return ConfigurationError(
                f"{url}: a queue or exchange of our name has other settings; delete it, the relay "
                f"makes it anew ({exc.reply_text})"
            )
    # pika wraps what went wrong into lists of attempts; the innermost says it.
    reason: object = exc
    while isinstance(reason, BaseException) and getattr(reason, "exceptions", None):
        reason = reason.exceptions[-1]  # type: ignore[attr-defined]
    inner = getattr(reason, "exception", None)
    return UnreachableError(f"{url}: RabbitMQ can't be reached ({inner or reason!r})")


def _parameters(address: BrokerAddress, name: str) -> pika.ConnectionParameters:
    tls = pika.SSLOptions(ssl.create_default_context(), address.host) if address.tls else None
    return pika.ConnectionParameters(
        host=address.host,
        port=address.port,
        virtual_host=address.virtual_host,
        credentials=pika.PlainCredentials(address.user, address.password.reveal()),
        heartbeat=HEARTBEAT_S,
        connection_attempts=1,
        socket_timeout=_CONNECT_TIMEOUT_S,
        stack_timeout=_CONNECT_TIMEOUT_S,
        ssl_options=tls,
        client_properties={"connection_name": name},
    )


def _delivery(method: Any, properties: Any, body: bytes) -> Delivery:
    return Delivery(
        tag=method.delivery_tag,
        body=body,
        message_id=_text(properties.message_id),
        routing_key=_text(method.routing_key) or "",
        content_type=_text(properties.content_type),
        headers=properties.headers or {},
    )


def _text(value: object) -> str | None:
    # What is no UTF-8 comes as bytes.
    return value if isinstance(value, str) else None


def _nothing() -> None:
    """What only wakes a poll."""
