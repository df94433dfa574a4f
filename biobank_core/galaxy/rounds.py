"""The rounds that a `Follower` makes of one live server: each a recording of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from types import TracebackType
from typing import Final, Self

from biobank_core.catalog.port import Catalog
from biobank_core.galaxy.again import look_for_hashes
from biobank_core.galaxy.client import GalaxyClient
from biobank_core.galaxy.events import Doorbell
from biobank_core.galaxy.hashing import compute, is_computable
from biobank_core.galaxy.live import LiveSource
from biobank_core.galaxy.recorder import Recorder, Scope, Summary
from biobank_core.galaxy.refresh import Copies, Refresher
from biobank_core.galaxy.rules import Rules

log = logging.getLogger(__name__)

# Between two looks for references that were registered since: each reads all actions.
_LOOK_BACK_S: Final = 3600.0
# Between two lists of all jobs that have not ended; a large server has thousands.
_ASK_WAITING_S: Final = 60.0
_SAY_EVERY_S: Final = 30.0
# A busy Galaxy computes a hash long after the job. Between the looks for one the time doubles.
_FIRST_DELAY_OF_HASHES_S: Final = 60.0
_LONGEST_DELAY_OF_HASHES_S: Final = 3600.0
# More of them are of a first recording: their jobs ended long ago, and no hash is on its way.
_MOST_LATE: Final = 1000
# Jobs that end meanwhile wait until these are done.
_HASHES_A_ROUND: Final = 16


class Hashes(Enum):
    """Which SHA-256s of data are taken: none, those that Galaxy has, or all, computed by it."""

    NONE = "none"
    EXISTING = "existing"
    COMPUTE = "compute"


@dataclass(slots=True, kw_only=True)
class LiveRounds:
    """Records what is new at each call; connects at the first one, and listens from then on.

    `connect` is called until it succeeds once. `ring` is called, from another thread, when Galaxy
    says that something changed. `server`, `study` and the rest are as of `Recorder`.
    """

    catalog: Catalog
    connect: Callable[[], GalaxyClient]
    server: str
    scope: Scope
    rules: Rules
    study: str | None
    by: str
    hashes: Hashes = Hashes.EXISTING
    max_bytes: int | None = None
    ring: Callable[[], None] = lambda: None
    _client: GalaxyClient | None = None
    _doorbell: Doorbell | None = field(default=None, repr=False)
    # Data whose hash was not there when they were recorded: Galaxy computes it after the job, or
    # never. By VID: when to look for it, and how much later once more (monotonic s, s).
    _late: dict[str, tuple[float, float]] = field(default_factory=dict)
    _look_back_at: float = 0.0
    _ask_waiting_at: float = 0.0
    # Jobs of the last look that the rules leave out; the next one shows many of them again.
    _unwanted: set[str] = field(default_factory=set)
    _to_compute: dict[str, Copies] | None = None

    def __call__(self, stopped: Callable[[], bool], not_now: frozenset[str]) -> Summary:
        """One recording, as `Follower` wants it."""
        # A new source each time: names, tags and running workflows change meanwhile.
        source = LiveSource(self._connected(), hashes=self.hashes is not Hashes.NONE)
        if source.hashes:
            self._hash(source, stopped)
        recorder = Recorder(
            self.catalog,
            source,
            server=self.server,
            scope=self.scope,
            rules=self.rules,
            study=self.study,
            by=self.by,
        )
        if time.monotonic() >= self._look_back_at:
            recorder.link_references()
            self._look_back_at = time.monotonic() + _LOOK_BACK_S
        ask_waiting = time.monotonic() >= self._ask_waiting_at
        todo = recorder.prepare(not_now, unwanted=self._unwanted, ask_waiting=ask_waiting)
        if ask_waiting:
            self._ask_waiting_at = time.monotonic() + _ASK_WAITING_S
        self._unwanted = recorder.unwanted
        try:
            return recorder.run(todo, _Said(len(todo)), stopped=stopped)
        finally:
            # Also of a round that breaks off: what it saved is not asked for again.
            self._look_for(recorder.summary.without_hash)

    def _look_for(self, data: Iterable[str]) -> None:
        """Look for the hashes of these in the next round."""
        self._late |= dict.fromkeys(data, (time.monotonic(), _FIRST_DELAY_OF_HASHES_S))

    def _hash(self, source: LiveSource, stopped: Callable[[], bool]) -> None:
        """Look for the hashes of what came last; have a few of the missing computed."""
        refresher = Refresher(self.catalog, source, server=self.server, by=self.by)
        if self.hashes is Hashes.COMPUTE and self._to_compute is None:
            self._look_for(refresher.without_hash(self.max_bytes))
            self._to_compute = {}
        missing: dict[str, Copies] = {}
        now_s = time.monotonic()
        due = {vid: delay_s for vid, (due_s, delay_s) in self._late.items() if due_s <= now_s}
        if due:
            _, missing = look_for_hashes(refresher, due)
            for vid in due:
                del self._late[vid]
        if self._to_compute is None:
            for vid in missing if len(missing) <= _MOST_LATE else ():
                if due[vid] <= _LONGEST_DELAY_OF_HASHES_S:
                    self._late[vid] = (now_s + due[vid], due[vid] * 2)
            return
        self._to_compute |= {v: c for v, c in missing.items() if is_computable(c, self.max_bytes)}
        now = dict(islice(self._to_compute.items(), _HASHES_A_ROUND))
        done = compute(source, refresher, now, stopped=stopped)
        for vid in now:
            del self._to_compute[vid]
        if now:
            log.info("hashes computed %d, failed %d", done.computed, len(done.failed))
        if self._to_compute:
            self.ring()

    def close(self) -> None:
        """Listen no more. Idempotent."""
        if self._doorbell is not None:
            self._doorbell.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _connected(self) -> GalaxyClient:
        if self._client is None:
            self._client = client = self.connect()
            whose = "all users" if client.user.is_admin else client.user.email or client.user.id
            log.info("following Galaxy %s at %s, jobs of %s", client.version, client.url, whose)
            self._doorbell = Doorbell(client, self.ring)
            self._doorbell.start()
        return self._client


class _Said:
    """Says now and then how far a long round is."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._next_at = time.monotonic() + _SAY_EVERY_S

    def __call__(self, jobs: int) -> None:
        self._done += jobs
        if time.monotonic() >= self._next_at:
            log.info("%d of %d jobs looked at", self._done, self._total)
            self._next_at = time.monotonic() + _SAY_EVERY_S
