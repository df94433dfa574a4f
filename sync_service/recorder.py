"""The recorder as a part of the service: follows one Galaxy into the catalog.

What is recorded, and what is left out (users, histories, tools, an opt-out tag), say the rules.
Everything else is `biobank_core.galaxy`: `biobank record --follow` does the same in one process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from biobank_core import addressing
from biobank_core.catalog.port import Catalog
from biobank_core.config import Settings, operator
from biobank_core.errors import BiobankError
from biobank_core.galaxy.client import GalaxyClient, server_key
from biobank_core.galaxy.follow import DEFAULT_INTERVAL_S, Follower
from biobank_core.galaxy.recorder import Scope, Summary
from biobank_core.galaxy.rounds import Hashes, LiveRounds
from biobank_core.galaxy.rules import load_rules
from sync_service.vitals import Part

# What Galaxy may have computed for us without asking: `biobank record --max-size`'s default.
MAX_BYTES: Final = 10_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderOptions:
    """How to record; as of `biobank record`'s options of these names.

    `study` is a label, `rules_file` a path, `interval_s` the longest time between two looks.
    """

    galaxy_name: str | None = None
    study: str | None = None
    rules_file: str | None = None
    hashes: Hashes = Hashes.EXISTING
    max_bytes: int = MAX_BYTES
    interval_s: float = DEFAULT_INTERVAL_S


class RecorderPart:
    """One recorder; several are harmless side by side. `run` ends when `stopping` is set.

    Raises ConfigurationError or InputError at once for settings and rules that can't be used.
    `open_catalog` is called in the thread of `run`, and anew after each failure.
    """

    def __init__(
        self,
        settings: Settings,
        options: RecorderOptions,
        *,
        open_catalog: Callable[[], Catalog],
        stopping: threading.Event,
        part: Part,
    ) -> None:
        self._url = settings.require_galaxy_url()
        self._key = settings.require_secret("GALAXY_API_KEY")
        self._server = options.galaxy_name or server_key(self._url)
        self._rules = load_rules(options.rules_file)
        self._options = options
        self._open_catalog = open_catalog
        self._stopping = stopping
        self._part = part
        self._catalog: Catalog | None = None
        self._rounds: LiveRounds | None = None
        self._follower = Follower(self._round, interval_s=options.interval_s)

    def run(self) -> None:
        """Record until told to stop. Raises what waiting would not mend, as a refused key."""
        watcher = threading.Thread(target=self._stop_when_told, name="recorder-stop", daemon=True)
        watcher.start()
        try:
            self._follower.run()
        finally:
            if self._rounds is not None:
                self._rounds.close()
            self._close()

    def _stop_when_told(self) -> None:
        self._stopping.wait()
        self._follower.stop()

    def _round(self, stopped: Callable[[], bool], not_now: frozenset[str]) -> Summary:
        try:
            summary = self._opened()(stopped, not_now)
        except BiobankError as exc:
            # What is open may be broken; the follower decides whether to go on.
            self._close()
            self._part.is_held_up(str(exc))
            raise
        self._part.moved()
        return summary

    def _opened(self) -> LiveRounds:
        if self._catalog is None:
            self._catalog = self._open_catalog()
            if self._rounds is not None:
                self._rounds.catalog = self._catalog
        if self._rounds is None:
            options = self._options
            study = addressing.study(self._catalog, options.study).vid if options.study else None
            self._rounds = LiveRounds(
                catalog=self._catalog,
                connect=lambda: GalaxyClient.connect(self._url, self._key.reveal()),
                server=self._server,
                scope=Scope(),
                rules=self._rules,
                study=study,
                by=operator(),
                hashes=options.hashes,
                max_bytes=options.max_bytes,
                ring=self._follower.wake,
            )
        return self._rounds

    def _close(self) -> None:
        if self._catalog is not None:
            self._catalog.close()
            self._catalog = None
