"""Deletions racing with updates, objects recorded again, clocks that jump."""

from __future__ import annotations

import json
import random
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from biobank_core.catalog.port import Catalog, Delete, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.errors import ConflictError, NotFoundError
from biobank_core.lineage.port import Node
from biobank_core.model.ids import derived_vid
from biobank_core.model.kinds import DataSample, Tombstone
from tests.faults.sync_lab import STUDY, SyncLab
from tests.servers.missing import service_is_missing

pytestmark = pytest.mark.timeout(900)

OBJECTS = 20
ROUNDS = 150
_FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"


def vid(number: int) -> str:
    return derived_vid("Race", str(number))


def sample(number: int, label: str) -> DataSample:
    return DataSample(vid=vid(number), label=label, study=STUDY)


def version_of(catalog: Catalog, number: int) -> int:
    found = catalog.get([vid(number)])
    return found[vid(number)].version if found else 0


def node(lab: SyncLab, number: int) -> Node:
    with lab.index() as index:
        return next(node for node in index.nodes() if node.vid == vid(number))


def test_deletions_that_race_with_updates_end_as_the_catalog_says(sync_lab: SyncLab) -> None:
    for name in ("relay", "relay 2", "consumer", "consumer 2"):
        sync_lab.start(name, "--batch", "20")
    with open_catalog(sync_lab.settings.catalog) as catalog:
        sync_lab.changes.commit(catalog)
        catalog.commit([Save(object=sample(n, "first")) for n in range(OBJECTS)], by="test")

    def race(seed: int, failures: list[BaseException]) -> None:
        chance = random.Random(f"{seed} {sync_lab.chance.random()}")
        try:
            with open_catalog(sync_lab.settings.catalog) as catalog:
                for turn in range(ROUNDS):
                    number = chance.randrange(OBJECTS)
                    based_on = version_of(catalog, number)
                    change: Any = Save(object=sample(number, f"{seed} {turn}"), based_on=based_on)
                    if chance.random() < 0.4:
                        change = Delete(vid=vid(number), based_on=based_on, cascade=True)
                    try:
                        catalog.commit([change], by="test")
                    except (ConflictError, NotFoundError):
                        continue  # the other one was quicker, or it is gone already
        except BaseException as exc:  # noqa: BLE001  # told below
            failures.append(exc)

    failures: list[BaseException] = []
    racers = [threading.Thread(target=race, args=(n, failures)) for n in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert not failures
    sync_lab.wait_in_step()
    sync_lab.check()
    with open_catalog(sync_lab.settings.catalog) as catalog, sync_lab.index() as index:
        shown = {node.vid: node for node in index.nodes()}
        for number, found in ((n, catalog.get([vid(n)])[vid(n)]) for n in range(OBJECTS)):
            assert shown[vid(number)].deleted == isinstance(found.object, Tombstone)


def test_what_was_deleted_and_is_recorded_again_is_visible_again(sync_lab: SyncLab) -> None:
    sync_lab.start("relay")
    sync_lab.start("consumer")
    with open_catalog(sync_lab.settings.catalog) as catalog:
        sync_lab.changes.commit(catalog)
        catalog.commit([Save(object=sample(0, "first"))], by="test")
        sync_lab.wait_in_step()
        assert not node(sync_lab, 0).deleted
        catalog.commit([Delete(vid=vid(0), based_on=1)], by="test")
        sync_lab.wait_in_step()
        assert node(sync_lab, 0).deleted
        catalog.commit([Save(object=sample(0, "again"), based_on=2)], by="test")
        sync_lab.wait_in_step()
        assert (node(sync_lab, 0).deleted, node(sync_lab, 0).label) == (False, "again")
    sync_lab.check()


def test_clocks_that_jump_back_and_forth_change_nothing(sync_lab: SyncLab, tmp_path: Path) -> None:
    library = next(Path("/").glob(_FAKETIME.lstrip("/")), None)
    if library is None or shutil.which("faketime") is None:
        service_is_missing("faketime is not installed: apt-get install faketime")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    sync_lab.add_environment(
        LD_PRELOAD=str(library),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        # Only what people set: the monotonic clock never jumps.
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    sync_lab.start("relay")
    sync_lab.start("consumer")
    with open_catalog(sync_lab.settings.catalog) as catalog:
        for jump in ("-2h", "+1d", "-400d"):
            sync_lab.changes.commit(catalog, 10)
            clock.write_text(jump)
            sync_lab.changes.commit(catalog, 10)
            sync_lab.wait_in_step()
    sync_lab.check()
    sync_lab.stop("relay")
    sync_lab.stop("consumer")
    days = {json.loads(line)["time"][:10] for line in sync_lab.log("consumer").splitlines()}
    assert len(days) > 1, "the clock did not jump"
