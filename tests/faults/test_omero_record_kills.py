"""`biobank record` into OMERO, killed with SIGKILL at random moments and run again."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from biobank_core.config import load_settings
from biobank_core.interchange import dump
from biobank_core.lineage.verify import verify
from biobank_core.stores import open_stores
from tests.faults.galaxy_over_http import served
from tests.faults.killing import Killer, Lab
from tests.integration.omero_settings import settings_on_omero
from tests.unit.scripted_galaxy import chained

if TYPE_CHECKING:
    from tests.servers.omero.lab import OmeroLab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# Four units of the recorder.
JOBS = 150
# About as long as the server takes for one of them: kills hit in the middle of its calls, too.
CALL_S = 0.3
COMMAND = ("record", "--galaxy-name", "galaxy")


def new_lab(omero: OmeroLab, folder: Path, galaxy_url: str) -> Lab:
    """A lab with an empty catalog on OMERO and an index in a file of `folder`."""
    folder.mkdir()
    settings = settings_on_omero(omero, folder)
    lab = Lab(folder, {**settings, "GALAXY_URL": galaxy_url, "GALAXY_API_KEY": "key"})
    lab.run("init")
    return lab


def known(lab: Lab) -> tuple[bytes, str, list[tuple[str, int]]]:
    """The dump without the times of asking, the index's digest, each version in the feed.

    The log must be without a gap, its objects as it says, and the index what the catalog says.
    """
    settings = load_settings(
        catalog=lab.settings["BIOBANK_CATALOG"],
        index=lab.settings["BIOBANK_INDEX"],
        environment=dict(lab.settings),
    )
    out = io.BytesIO()
    with open_stores(settings, write=False) as stores:
        catalog = stores.catalog
        assert list(catalog.damage()) == []
        assert list(catalog.drift()) == []
        assert list(verify(catalog, stores.index)) == []
        units = list(catalog.changes({}))
        assert [unit.number for unit in units] == list(range(1, len(units) + 1))
        told = sorted((change.vid, change.version) for unit in units for change in unit.changes)
        dump(catalog, out)
        text = re.sub(rb'"as_of":"[^"]*"', b'"as_of":"then"', out.getvalue())
        return text, stores.index.digest(), told


def test_a_killed_record_into_omero(killer: Killer, omero_lab: OmeroLab, tmp_path: Path) -> None:
    with served(chained(JOBS)) as url:
        idle = new_lab(omero_lab, tmp_path / "idle", url)
        undisturbed = new_lab(omero_lab, tmp_path / "undisturbed", url)
        killer.measure(undisturbed, *COMMAND, idle=idle)
        expected = known(undisturbed)
        assert expected[0].count(b'"kind":"Action"') == JOBS
        rounds = 0
        while not killer.done:
            rounds += 1
            mine = new_lab(omero_lab, tmp_path / f"killed{rounds}", url)
            # Twice, for a resumed run is killed as well as a first one.
            for _ in range(2):
                killer.kill(mine, *COMMAND, linger_s=CALL_S)
            mine.run(*COMMAND)
            assert known(mine) == expected
