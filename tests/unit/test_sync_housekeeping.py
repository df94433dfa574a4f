"""Housekeeping: what was relayed and stays away is asked for again, whatever else arrives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from biobank_core.catalog.port import Catalog, CommittedUnit, Position, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.lineage.projection import project
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import Individual
from biobank_core.sqlite_file import SqliteFile
from sync_service import housekeeping
from sync_service.broker import Session
from sync_service.housekeeping import Housekeeping
from sync_service.metrics import Metrics
from sync_service.vitals import Part
from tests.unit.test_lineage_service import FedByOthers

LOOKS = 4


class Joined:
    """Two catalogs as one with a log of each, as one on OMERO with two groups is."""

    def __init__(self, *catalogs: Catalog) -> None:
        self._catalogs = catalogs

    def __enter__(self) -> Joined:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def head(self) -> Position:
        return {log: number for each in self._catalogs for log, number in each.head().items()}

    def changes(self, since: Position) -> Iterator[CommittedUnit]:
        for each in self._catalogs:
            yield from each.changes(since)


class Quiet:
    """A session at a broker whose queues are empty; between two looks something happens."""

    def __init__(self, happens: Callable[[], None]) -> None:
        self._happens = happens

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def depth(self, _queue: str) -> int:
        return 0

    def drive(self, _until: Callable[[], bool], *, timeout_s: float) -> None:
        assert timeout_s >= 0
        self._happens()


@pytest.fixture
def catalogs(tmp_path: Path) -> Iterator[list[Catalog]]:
    with (
        open_catalog(f"sqlite:///{tmp_path}/1.db", create=True) as one,
        open_catalog(f"sqlite:///{tmp_path}/2.db", create=True) as two,
    ):
        yield [one, two]


@pytest.mark.parametrize("lost_in", [0, 1, None])
def test_what_is_lost_of_one_log_is_missed_while_another_is_busy(
    catalogs: list[Catalog],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lost_in: int | None,
) -> None:
    monkeypatch.setattr(housekeeping, "_PAUSES_A_LOOK", 0)  # each look counts what is pending
    stopping, asked = threading.Event(), list[Position]()
    looks = 0

    def open_index() -> FedByOthers:
        index = FedByOthers(SqliteFile(tmp_path / "i.db", create=True), owns_file=True)
        index.migrate()
        return index

    def committed(number: int, *, arrives: bool) -> None:
        person = Individual(vid=new_vid())
        log = catalogs[number].commit([Save(object=person)], by="test").position
        if arrives:
            event = project(person, version=1, log=next(iter(log)))
            assert event
            with open_index() as index:
                index.apply([event])

    def others_write() -> None:
        nonlocal looks
        looks += 1
        for number in (0, 1):
            if number != lost_in:
                committed(number, arrives=True)
        if looks == LOOKS:
            stopping.set()

    for number in (0, 1):
        committed(number, arrives=True)
    before = dict(Joined(*catalogs).head())
    if lost_in is not None:
        committed(lost_in, arrives=False)
    Housekeeping(
        open_catalog=lambda: cast(Catalog, Joined(*catalogs)),
        open_index=open_index,
        open_session=lambda _name: cast(Session, Quiet(others_write)),
        stopping=stopping,
        part=Part("housekeeping"),
        metrics=Metrics(),
        send_again=asked.append,
        look_s=0.0,
        lost_after_s=0.0,
    ).run()
    assert bool(asked) == (lost_in is not None)
    for since in asked:
        [log] = catalogs[lost_in or 0].head()
        assert since[log] == before[log]
