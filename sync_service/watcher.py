"""Watches what other programs do to a catalog on a server that they share with us.

It mends nothing: what it finds it says, in the log, in the metrics, and in a file that
`biobank-sync status` reads. `biobank verify --repair` mends.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from biobank_core.catalog.port import Catalog, Drift, Watch, Watchable
from sync_service.metrics import Metrics
from sync_service.state import state_folder, write_whole
from sync_service.vitals import BackOff, Part, trouble_waited_out

LOOK_S: Final = 5.0
RECONCILE_EVERY_H: Final = 24.0
# How old the file may get while nothing new is found.
_TELL_EVERY_S: Final = 30.0

log = logging.getLogger(__name__)


class Told(msgspec.Struct, frozen=True):
    """What a watcher found: `foreign` changes that nobody mended; when it last looked, and when it
    last compared everything."""

    catalog: str
    foreign: int
    looked: datetime
    reconciled: datetime


def told_path(catalog_url: str) -> Path:
    """Where the watchers of this account tell of this catalog."""
    name = hashlib.sha256(catalog_url.encode()).hexdigest()[:16]
    return state_folder() / f"watcher-{name}.json"


def last_told(catalog: Catalog) -> Told | None:
    """What a watcher of this account last found in this catalog; None where none has looked."""
    if not isinstance(catalog, Watchable):
        return None
    try:
        return msgspec.json.decode(told_path(catalog.url).read_bytes(), type=Told)
    except (OSError, msgspec.DecodeError):
        return None


class WatcherPart:
    """One is enough; several are harmless. `run` ends when `stopping` is set.

    It ends at once for a catalog that no other program can reach. `part` is called when there is
    something to tell.
    """

    def __init__(
        self,
        *,
        open_catalog: Callable[[], Catalog],
        stopping: threading.Event,
        part: Callable[[], Part],
        metrics: Metrics,
        look_s: float = LOOK_S,
        reconcile_every_s: float = RECONCILE_EVERY_H * 3600,
    ) -> None:
        self._open_catalog = open_catalog
        self._stopping = stopping
        self._new_part = part
        self._metrics = metrics
        self._look_s = look_s
        self._reconcile_every_s = reconcile_every_s
        self._back_off = BackOff(stopping)
        self._part: Part | None = None
        self._known: frozenset[Drift] = frozenset()

    def run(self) -> None:
        """Watch until told to stop. Raises ConfigurationError only."""
        while not self._stopping.is_set():
            with (
                trouble_waited_out(
                    self._back_off, part=self._its_part, reconnects=self._metrics.reconnects
                ),
                self._open_catalog() as catalog,
            ):
                if isinstance(catalog, Watchable):
                    self._serve(catalog.url, catalog.watch())
                    continue
                if self._part is not None:
                    self._part.moved()
                return

    def _serve(self, url: str, watch: Watch) -> None:
        reconciled_at, found = time.monotonic(), watch.reconcile()
        reconciled = datetime.now(UTC)
        told_at = float("-inf")
        while True:
            news = self._tell(found)
            if news or time.monotonic() - told_at > _TELL_EVERY_S:
                told = Told(url, len(found), datetime.now(UTC), reconciled)
                write_whole(told_path(url), msgspec.json.encode(told))
                told_at = time.monotonic()
            self._metrics.reconciled.set(reconciled.timestamp())
            self._its_part().moved()
            self._back_off.reset()
            if self._stopping.wait(self._look_s):
                return
            if time.monotonic() - reconciled_at > self._reconcile_every_s:
                reconciled_at, found = time.monotonic(), watch.reconcile()
                reconciled = datetime.now(UTC)
            else:
                found = watch.look()

    def _tell(self, found: list[Drift]) -> bool:
        """Say what is new; whether anything is, or is over."""
        now = frozenset(found)
        before, self._known = self._known, now
        for one in found:
            if one not in before:
                what = f"{one.kind} {one.vid}".strip() or "the catalog"
                log.warning("%s: %s; `biobank verify --repair` mends it", what, one.detail)
        if before and not now:
            log.info("what other programs changed is mended")
        self._metrics.foreign.set(len(found))
        return now != before

    def _its_part(self) -> Part:
        if self._part is None:
            self._part = self._new_part()
        return self._part
