"""The watcher of the sync service: what it says, and what it does when the catalog is away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from biobank_core.catalog.port import Catalog, Drift, Watch
from biobank_core.catalog.registry import open_catalog
from biobank_core.catalog.sqlite import SqliteCatalog
from biobank_core.errors import BiobankError, UnreachableError
from sync_service.metrics import Metrics
from sync_service.vitals import Part
from sync_service.watcher import WatcherPart, last_told

GONE = Drift("V0" + "1" * 32, "Tube", "its annotation was deleted in OMERO by another program")


class Script:
    """A watch that finds, one look after the other, what it is given; then all is told to stop."""

    def __init__(self, looks: list[list[Drift] | BiobankError], stopping: threading.Event) -> None:
        self._looks = looks
        self._stopping = stopping

    def look(self) -> list[Drift]:
        found = self._looks.pop(0)
        if not self._looks:
            self._stopping.set()
        if isinstance(found, BiobankError):
            raise found
        return found

    reconcile = look


class Shared:
    """A real catalog, as if other programs could reach it."""

    def __init__(self, catalog: Catalog, watch: Watch) -> None:
        self.url = catalog.url
        self._watch = watch

    def watch(self) -> Watch:
        return self._watch

    def __enter__(self) -> Shared:
        return self

    def __exit__(self, *_exc: object) -> None:
        pass


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    monkeypatch.setattr("sync_service.watcher.state_folder", lambda: tmp_path / "state")
    return open_catalog(f"sqlite:///{tmp_path}/c.db", create=True)


def run(open_it: Callable[[], Catalog], stopping: threading.Event, metrics: Metrics) -> list[Part]:
    parts: list[Part] = []

    def new_part() -> Part:
        parts.append(Part("watcher"))
        return parts[-1]

    WatcherPart(
        open_catalog=open_it,
        stopping=stopping,
        part=new_part,
        metrics=metrics,
        look_s=0,
    ).run()
    return parts


def foreign(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("biobank_sync_foreign_changes")


def test_a_file_that_no_other_program_reaches_is_not_watched(catalog: Catalog) -> None:
    assert run(lambda: catalog, threading.Event(), Metrics()) == []
    with open_catalog(catalog.url) as again:
        assert isinstance(again, SqliteCatalog)
        assert last_told(again) is None


def test_what_is_new_is_said_once_and_counted_until_it_is_mended(
    catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="sync_service.watcher")
    stopping, metrics = threading.Event(), Metrics()
    shared = cast(Catalog, Shared(catalog, Script([[], [GONE], [GONE]], stopping)))
    [part] = run(lambda: shared, stopping, metrics)
    assert foreign(metrics) == 1
    assert (metrics.registry.get_sample_value("biobank_sync_reconciled_timestamp_seconds") or 0) > 0
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"Tube {GONE.vid}: {GONE.detail}; `biobank verify --repair` mends it"]
    told = last_told(shared)
    assert told is not None
    assert told.foreign == 1
    assert part.sign().trouble is None
    stopping.clear()
    shared = cast(Catalog, Shared(catalog, Script([[GONE], []], stopping)))
    run(lambda: shared, stopping, metrics)
    assert foreign(metrics) == 0
    assert caplog.records[-1].getMessage() == "what other programs changed is mended"


def test_a_catalog_that_is_away_is_waited_for_and_compared_anew(catalog: Catalog) -> None:
    stopping, metrics = threading.Event(), Metrics()
    script = Script([[], UnreachableError("OMERO is away"), [GONE]], stopping)
    shared = cast(Catalog, Shared(catalog, script))
    [part] = run(lambda: shared, stopping, metrics)
    assert foreign(metrics) == 1
    assert part.sign().trouble is None
    name = "biobank_sync_reconnects_total"
    assert metrics.registry.get_sample_value(name, {"part": "watcher"}) == 1
