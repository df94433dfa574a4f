"""The rounds that a `Follower` makes of one live server: each a recording of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from biobank_core.catalog.port import Catalog
from biobank_core.galaxy.client import GalaxyClient
from biobank_core.galaxy.events import Doorbell
from biobank_core.galaxy.live import LiveSource
from biobank_core.galaxy.recorder import Recorder, Scope, Summary
from biobank_core.galaxy.rules import Rules

log = logging.getLogger(__name__)


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
    hashes: bool = True
    ring: Callable[[], None] = lambda: None
    _client: GalaxyClient | None = None
    _doorbell: Doorbell | None = field(default=None, repr=False)

    def __call__(self, stopped: Callable[[], bool], not_now: frozenset[str]) -> Summary:
        """One recording, as `Follower` wants it."""
        client = self._connected()
        # A new source each time: names, tags and running workflows change meanwhile.
        recorder = Recorder(
            self.catalog,
            LiveSource(client, hashes=self.hashes),
            server=self.server,
            scope=self.scope,
            rules=self.rules,
            study=self.study,
            by=self.by,
        )
        return recorder.run(recorder.prepare(not_now), stopped=stopped)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._doorbell is not None:
            self._doorbell.stop()

    def _connected(self) -> GalaxyClient:
        if self._client is None:
            self._client = client = self.connect()
            whose = "all users" if client.user.is_admin else client.user.email or client.user.id
            log.info("following Galaxy %s at %s, jobs of %s", client.version, client.url, whose)
            self._doorbell = Doorbell(client, self.ring)
            self._doorbell.start()
        return self._client
