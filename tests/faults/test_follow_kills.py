"""`record --follow` killed with SIGKILL at any moment, while jobs go on ending, loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.compared import dump_and_digest
from tests.faults.galaxy_over_http import served
from tests.faults.killing import Killer, Lab
from tests.faults.test_kills import count_of
from tests.unit.scripted_galaxy import ScriptedGalaxy, end

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

JOBS = 120
PARTS = 3
# It may be waiting for more before it has used as much processor time as the moment wants.
WAITS_S = 4


def test_a_killed_follow(killer: Killer, tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    galaxy = ScriptedGalaxy()
    with served(galaxy) as url:
        lab = Lab(folder, {"GALAXY_URL": url, "GALAXY_API_KEY": "key"})
        record = ("record", "--galaxy-name", "galaxy")
        _end_jobs(galaxy, JOBS)
        undisturbed = lab.copy("undisturbed")
        killer.measure(undisturbed, *record)
        expected = dump_and_digest(undisturbed.folder)
        while not killer.done:
            mine = lab.copy("killed")
            galaxy.records.clear()
            before = 0
            for part in range(1, PARTS + 1):
                _end_jobs(galaxy, JOBS * part // PARTS)
                follow = (*record, "--follow", "--interval", "1")
                assert killer.kill(mine, *follow, within_s=WAITS_S)
                recorded = count_of(mine.folder, "Action")
                assert before <= recorded <= len(galaxy.records)
                before = recorded
            mine.run(*record)
            assert dump_and_digest(mine.folder) == expected


def _end_jobs(galaxy: ScriptedGalaxy, until: int) -> None:
    """Jobs that each take what the one before made."""
    for number in range(len(galaxy.records), until):
        galaxy.add(
            f"j{number}",
            number,
            parameters={"threshold": number % 5},
            inputs=(end("in", number - 1),) if number else (),
            outputs=(end("out", number),),
        )
