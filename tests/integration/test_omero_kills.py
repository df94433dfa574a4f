"""`biobank load` into OMERO, killed at random moments and run again: everything is there once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from biobank_core.catalog.registry import open_catalog
from biobank_core.model import codec
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import Study, Tube

if TYPE_CHECKING:
    from tests.servers.omero.lab import OmeroLab

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("OMERO_KILLS", "3"))


@pytest.mark.timeout(900)
def test_a_load_that_is_killed_and_run_again_saves_every_object_once(
    omero_lab: OmeroLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.contract.omero_groups import make_group

    seed = random.randrange(10**6)
    print(f"seed {seed}")
    moments = random.Random(seed)
    group = make_group(omero_lab)
    for name, value in group.members[0].environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BIOBANK_CATALOG", group.url)
    monkeypatch.setenv("BIOBANK_INDEX", f"sqlite:///{tmp_path}/index.db")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with open_catalog(group.url, create=True):
        pass
    study = Study(vid=new_vid(), label="KPN")
    tubes = [Tube(vid=new_vid(), label=f"T{n}", study=study.vid) for n in range(2500)]
    lines = sorted(codec.encode(one) for one in (study, *tubes))
    file = tmp_path / "objects.jsonl"
    file.write_bytes(b"\n".join(lines) + b"\n")
    command = [sys.executable, "-m", "biobank_core.cli", "load", str(file)]
    for _ in range(KILLS):
        running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.5, 6.0))
        running.kill()
        running.wait()
    subprocess.run(command, check=True)
    with open_catalog(group.url) as catalog:
        assert sorted(codec.encode(found.object) for found in catalog.iterate()) == lines
        assert {found.version for found in catalog.iterate()} == {1}
        told = [change.vid for unit in catalog.changes({}) for change in unit.changes]
        assert len(told) == len(set(told)) == len(lines)
        numbers = [unit.number for unit in catalog.changes({})]
        assert numbers == list(range(1, len(numbers) + 1))
        assert list(catalog.damage()) == []
        assert list(catalog.drift()) == []
