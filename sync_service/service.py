"""`biobank-sync run`: the parts, each in a thread of its own, until a signal or a failure."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from biobank_core.catalog.port import Catalog
from biobank_core.catalog.registry import open_catalog
from biobank_core.config import Settings
from biobank_core.errors import BiobankError, ConfigurationError
from biobank_core.lineage.port import LineageIndex
from biobank_core.lineage.registry import open_index
from biobank_core.model.registry import decoder
from sync_service import consumer as consuming
from sync_service.broker import Session
from sync_service.consumer import Consumer
from sync_service.health import HealthServer
from sync_service.housekeeping import Housekeeping
from sync_service.metrics import Metrics
from sync_service.recorder import RecorderOptions, RecorderPart
from sync_service.relay import Relay
from sync_service.state import RelayState, default_path
from sync_service.topology import BrokerAddress
from sync_service.vitals import STALLED_AFTER_S, Part
from sync_service.watcher import RECONCILE_EVERY_H, WatcherPart

PARTS: Final = ("relay", "consumer", "recorder")
# A batch under way at SIGTERM is finished; the thread that does not end is not waited for longer.
_STOP_TIMEOUT_S: Final = 60.0
_LOOK_S: Final = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to run (some of PARTS) and how.

    `listen`: HOST:PORT for health and metrics, None for none. `reconcile_every_h`: how often all of
    a catalog that other programs can reach is compared with its log.
    """

    parts: frozenset[str] = frozenset(("relay", "consumer"))
    recorder: RecorderOptions = field(default_factory=RecorderOptions)
    batch: int = consuming.BATCH
    state: Path | None = None
    listen: str | None = None
    stalled_after_s: float = STALLED_AFTER_S
    reconcile_every_h: float = RECONCILE_EVERY_H


def open_sync_index(settings: Settings) -> LineageIndex:
    """The index that the service feeds. Raises ConfigurationError for one that needs none."""
    if settings.index is None or settings.index == settings.catalog:
        raise ConfigurationError(
            "an index in the catalog's own file is in step without a service; name one of its own "
            "with --index or BIOBANK_INDEX, such as neo4j://neo4j.example.org"
        )
    return open_index(settings.index, settings=settings)


@dataclass
class Service:
    """The parts of one process. `run` may be called once."""

    settings: Settings
    options: Options = field(default_factory=Options)
    metrics: Metrics = field(default_factory=Metrics)
    stopping: threading.Event = field(default_factory=threading.Event)
    parts: list[Part] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    def run(self) -> None:
        """Run until `stopping` is set; raises what ended a part that should not have ended."""
        # Kinds are described at their first use, and two threads that do so at once crash the
        # interpreter (msgspec 0.22).
        decoder()
        threads = list(self._threads())
        with contextlib.ExitStack() as stack:
            if self.options.listen is not None:
                server = HealthServer(
                    self.options.listen,
                    parts=self.parts,
                    metrics=self.metrics,
                    stalled_after_s=self.options.stalled_after_s,
                )
                stack.enter_context(server)
                log.info("health and metrics on port %d", server.port)
            for thread in threads:
                thread.start()
            log.info("running: %s", ", ".join(thread.name for thread in threads))
            while not self.stopping.wait(_LOOK_S):
                pass
            log.info("stopping: what is in hand is finished")
            for thread in threads:
                thread.join(_STOP_TIMEOUT_S)
        if self.failures:
            raise self.failures[0]

    def _threads(self) -> Iterator[threading.Thread]:
        if "recorder" in self.options.parts:
            recorder = RecorderPart(
                self.settings,
                self.options.recorder,
                open_catalog=self._catalog,
                stopping=self.stopping,
                part=self._part("recorder"),
            )
            yield self._thread("recorder", recorder.run)
        if "relay" in self.options.parts:
            watcher = WatcherPart(
                open_catalog=self._catalog,
                stopping=self.stopping,
                part=lambda: self._part("watcher"),
                metrics=self.metrics,
                reconcile_every_s=self.options.reconcile_every_h * 3600,
            )
            yield self._thread("watcher", watcher.run)
        if self.options.parts & {"relay", "consumer"}:
            yield from self._threads_at_broker(BrokerAddress.of(self.settings))

    def _threads_at_broker(self, address: BrokerAddress) -> Iterator[threading.Thread]:
        relay = None
        if "relay" in self.options.parts:
            relay = self._relay(address)
            yield self._thread("relay", relay.run)
        if "consumer" in self.options.parts:
            consumer = Consumer(
                open_index=self._index,
                open_session=lambda name: self._session(address, name),
                stopping=self.stopping,
                part=self._part("consumer"),
                metrics=self.metrics,
                batch=self.options.batch,
            )
            yield self._thread("consumer", consumer.run)
            housekeeping = Housekeeping(
                open_catalog=self._catalog,
                open_index=self._index,
                open_session=lambda name: self._session(address, name),
                stopping=self.stopping,
                part=self._part("housekeeping"),
                metrics=self.metrics,
                send_again=relay.send_again if relay else None,
            )
            yield self._thread("housekeeping", housekeeping.run)

    def _relay(self, address: BrokerAddress) -> Relay:
        part = self._part("relay")

        def on_blocked(reason: str | None) -> None:
            self.metrics.blocked.set(0 if reason is None else 1)
            if reason is not None:
                part.is_held_up(f"RabbitMQ takes no messages now: {reason}")

        def state_of(catalog: Catalog) -> RelayState:
            path = self.options.state or default_path(catalog.url, address.url)
            return RelayState(path, catalog_url=catalog.url)

        return Relay(
            open_catalog=self._catalog,
            open_session=lambda name: self._session(address, name, on_blocked=on_blocked),
            state_of=state_of,
            stopping=self.stopping,
            part=part,
            metrics=self.metrics,
        )

    def _part(self, name: str) -> Part:
        part = Part(name)
        self.parts.append(part)
        return part

    def _thread(self, name: str, run: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                run()
            # A part that can't go on ends the process: who supervises it starts a new one.
            except BaseException as exc:
                if not isinstance(exc, BiobankError):
                    # A bug: nobody is there to run a service again with BIOBANK_DEBUG=1.
                    log.critical("%s ended by a bug", name, exc_info=exc)
                self.failures.append(exc)
                self.stopping.set()

        return threading.Thread(target=guarded, name=name, daemon=True)

    def _catalog(self) -> Catalog:
        return open_catalog(self.settings.catalog)

    def _index(self) -> LineageIndex:
        return open_sync_index(self.settings)

    def _session(
        self,
        address: BrokerAddress,
        name: str,
        *,
        on_blocked: Callable[[str | None], None] = lambda _reason: None,
    ) -> Session:
        return Session(
            address,
            name=f"biobank-sync {name}",
            on_blocked=on_blocked,
            stopping=self.stopping.is_set,
        )


@contextlib.contextmanager
def stopped_by_signals(stopping: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set the event; a second one ends the process at once."""

    def stop(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
