"""However a selection reads the catalog, all at once or piece by piece, it says the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from biobank_core.model.kinds import ConsentStatus
from biobank_core.selection import loading, permission
from tests.unit.selection_world import TOOL, World, codes, labels


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.typing("typing 1", world.isolate("01"))
    world.typing("typing 2", world.isolate("02", ConsentStatus.WITHDRAWN))
    reads = world.isolate("03")
    world.typing("typing 3", world.collection("list", reads), day=20)
    world.typing("typing 3 again", reads, release="3.0", day=21)
    gone = world.typing("gone", world.isolate("04"))
    world.typing("typing 5", world.isolate("05"))
    world.delete(gone)
    world.isolate("06", None)
    return world


@pytest.mark.parametrize("studies", [1, 2])
def test_reading_everything_at_once_selects_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch, studies: int
) -> None:
    if studies == 2:
        other = world.study("OTHER")
        made = world.data("elsewhere", study=other)
        world.act([world.tube("T-X", study=other)], [made], tool=TOOL, release="1", study=other)
    few = world.select()
    monkeypatch.setattr(loading, "CHUNK", 2)
    monkeypatch.setattr(permission, "_MANY", 0)
    assert world.select() == few
    assert labels(few.rows) == ["T-01", "T-05"]
    assert codes(few) == {"T-02": "consent-withdrawn", "T-03": "already-done", "T-04": "deleted"}


def test_lines_of_kinds_are_those_of_the_living(world: World) -> None:
    world.save()
    found = list(world.catalog.lines_of(("DataSample", "Tube")))
    assert {kind for kind, _line in found} == {"DataSample", "Tube"}
    each = [*world.catalog.lines("DataSample"), *world.catalog.lines("Tube")]
    assert sorted(line for _kind, line in found) == sorted(each)
