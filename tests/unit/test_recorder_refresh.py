"""Asking again about known data, while Galaxy and the catalog change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from biobank_core.catalog.port import Save
from biobank_core.catalog.sqlite import SqliteCatalog
from biobank_core.galaxy import identity, live
from biobank_core.galaxy.live import LiveSource
from biobank_core.galaxy.recorder import record
from biobank_core.galaxy.refresh import Refresher
from biobank_core.model.kinds import DataSample
from tests.unit.recorder_lab import catalog
from tests.unit.scripted_galaxy import START, ScriptedGalaxy, dataset_uuid, end

__all__ = ["catalog"]  # the fixture

ROWS = 7


@dataclass
class Contents:
    """A client of a Galaxy with one history; `meanwhile` happens before each page but the first."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    meanwhile: Callable[[], object] = lambda: None
    pages: int = 0

    def get(self, _path: str, asked: dict[str, Any]) -> list[dict[str, Any]]:
        if self.pages:
            self.meanwhile()
        self.pages += 1
        name, _, direction = asked["order"].partition("-")
        rows = sorted(self.rows, key=lambda row: row[name], reverse=direction == "dsc")
        return rows[asked["offset"] : asked["offset"] + asked["limit"]]

    def add(self, number: int) -> None:
        time = (START + timedelta(minutes=number)).replace(tzinfo=None).isoformat()
        row = {"id": f"{number:016x}", "uuid": dataset_uuid(number), "name": f"d{number}"}
        self.rows.append({**row, "create_time": time, "update_time": time})


@pytest.mark.parametrize("touched", range(ROWS))
def test_a_copy_that_changes_while_pages_are_read_is_not_missed(
    monkeypatch: pytest.MonkeyPatch, touched: int
) -> None:
    monkeypatch.setattr(live, "PAGE_ROWS", 3)
    client = Contents()
    for number in range(ROWS):
        client.add(number)

    def change() -> None:
        client.rows[touched]["update_time"] = "2030-01-01T00:00:00"
        client.add(ROWS + client.pages)

    client.meanwhile = change
    source = LiveSource(client)  # type: ignore[arg-type]
    found = [record.uuid for record in source.copies("h")]
    assert {dataset_uuid(number) for number in range(ROWS)} <= set(found)
    assert len(found) == len(set(found))
    assert client.pages > 2


def test_what_a_recorder_learnt_while_a_refresh_read_is_not_undone(catalog: SqliteCatalog) -> None:
    galaxy = ScriptedGalaxy()
    galaxy.add("j1", 1, outputs=(end("o", 1),))
    record(catalog, galaxy, server="g")  # type: ignore[arg-type]
    vid = identity.data_sample_vid(dataset_uuid(1))
    galaxy.copies = lambda _history: iter(  # type: ignore[attr-defined]
        [replace(galaxy.dataset("hda1"), deleted=True, as_of=START + timedelta(days=2))]
    )
    refresher = Refresher(catalog, galaxy, server="g", by="test")  # type: ignore[arg-type]
    found = refresher.copies(["h"])
    # Another one saw a living copy since.
    [known] = catalog.get([vid]).values()
    assert isinstance(known.object, DataSample)
    told = replace(known.object.galaxy, deleted=False, as_of=START + timedelta(days=3))  # type: ignore[type-var]
    catalog.commit(
        [Save(object=replace(known.object, galaxy=told), based_on=known.version)], by="other"
    )
    refresher.refresh(found)
    [after] = catalog.get([vid]).values()
    assert isinstance(after.object, DataSample)
    assert after.object.galaxy == told
