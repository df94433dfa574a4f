"""A campaign killed with SIGKILL at random moments: one invocation an item, counted by Galaxy.

BIOBANK_FAULT_ROUNDS and BIOBANK_FAULT_SEED are those of `tests/faults`; with BIOBANK_FAULT_KEEP=1
the figures go into benchmarks/RESULTS.md.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks.report import append
from tests.faults.killing import ROUNDS, SEED
from tests.integration.campaign_lab import NEW, OLD, Lab, new_lab
from tests.integration.omero_settings import NewCatalog
from tests.servers.galaxy import LATER_TOOLS, GalaxyServer
from tests.servers.galaxy_user import GalaxyUser

pytestmark = [pytest.mark.galaxy, pytest.mark.timeout(1800)]

SAMPLES = 5
# As long as two samples under way at a time take, after the start of the program.
_WORK_S = 6.0
# On a busy machine one campaign would live through them all.
_KILLS_A_CAMPAIGN = 5


@pytest.fixture
def lab(
    galaxy: GalaxyServer, galaxy_user: GalaxyUser, new_catalog: NewCatalog, tmp_path: Path
) -> Lab:
    if NEW not in galaxy.tool_versions("versioned_tool"):
        galaxy.add_tool(LATER_TOOLS / "versioned_tool_2_0_0.xml")
    return new_lab(galaxy_user, galaxy.url, new_catalog, tmp_path)


def test_killed_at_random_moments_and_resumed_nothing_runs_twice(lab: Lab) -> None:
    print(f"BIOBANK_FAULT_SEED={SEED}")
    chance = random.Random(f"{SEED} campaign")
    lab.type_samples({f"T{number}": "ACGT\n" * number for number in range(1, SAMPLES + 1)})
    moments: list[float] = []
    campaigns = under_way = 0
    while len(moments) < ROUNDS:
        campaigns += 1
        name = f"c{campaigns}"
        # There and back again: what one campaign made is what the next one replaces.
        wanted, version = ("<2", NEW) if campaigns % 2 else (">=2", OLD)
        lab.biobank(
            *("reanalyse", "plan", "--study", "KPN", "--tool", "versioned_tool"),
            *("--release", wanted, "--workflow", lab.workflow, "--name", name),
            *("--tool-version", f"versioned_tool={version}"),
        )
        for _ in range(min(_KILLS_A_CAMPAIGN, ROUNDS - len(moments))):
            # Measured each time: killed before it is there, a program has done nothing yet.
            begin_s = time.monotonic()
            lab.status(name)
            begin_s = time.monotonic() - begin_s
            moment_s = chance.uniform(0, _WORK_S)
            if not killed(lab, name, after_s=begin_s + moment_s):
                break
            moments.append(moment_s)
            states = {item["state"] for item in lab.status(name).values()}
            under_way += bool(states & {"submitting", "running"})
        lab.biobank("reanalyse", "run", name, "--jobs", "2")
        check(lab, name, campaigns)
    items = campaigns * SAMPLES
    told = (
        f"- a killed campaign: {len(moments)} kills before the end, {under_way} of them with "
        f"samples under way; {items} items of {campaigns} campaigns, {items} invocations on the "
        f"server; seed {SEED}; at {' '.join(f'{one:.2f}' for one in sorted(moments))} s after the "
        "start of the program"
    )
    print(told)
    if os.environ.get("BIOBANK_FAULT_KEEP") == "1":
        append("Killed and run again on a real Galaxy (make faults)", [told])


def killed(lab: Lab, name: str, *, after_s: float) -> bool:
    """Whether the run was killed; it may have ended before."""
    process = lab.start("reanalyse", "run", name, "--jobs", "2")
    try:
        process.wait(timeout=after_s)
    except subprocess.TimeoutExpired:
        process.kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, -9), err
    return process.returncode != 0


def check(lab: Lab, name: str, campaigns: int) -> None:
    """All items went well, each with one invocation in a history of its own."""
    items = lab.status(name)
    assert len(items) == SAMPLES
    assert {item["state"] for item in items.values()} == {"ok"}
    histories = {item["history"] for item in items.values()}
    assert len(histories) == SAMPLES
    counted = lab.invocations()
    assert {counted[history] for history in histories} == {1}
    # One made the first results; any other invocation would be one too many.
    assert sum(counted.values()) == campaigns * SAMPLES + 1
    assert len(lab.lines("Supersession")) == 3 * SAMPLES * campaigns
