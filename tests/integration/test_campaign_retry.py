"""Failed samples of a campaign tried again, on a real Galaxy: one new invocation each."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.integration.campaign_lab import NEW, STRICT, Lab, new_lab
from tests.integration.omero_settings import NewCatalog
from tests.servers.galaxy import LATER_TOOLS, GalaxyServer
from tests.servers.galaxy_user import GalaxyUser

pytestmark = [pytest.mark.galaxy, pytest.mark.timeout(900)]

TO_NEW = ("--tool-version", f"versioned_tool={NEW}")


@pytest.fixture
def lab(
    galaxy: GalaxyServer, galaxy_user: GalaxyUser, new_catalog: NewCatalog, tmp_path: Path
) -> Lab:
    if NEW not in galaxy.tool_versions("versioned_tool"):
        galaxy.add_tool(LATER_TOOLS / "versioned_tool_2_0_0.xml")
    return new_lab(galaxy_user, galaxy.url, new_catalog, tmp_path)


def items(lab: Lab) -> dict[str, dict[str, Any]]:
    return {line["sample_label"]: line for line in lab.lines("CampaignItem")}


def invoked(lab: Lab, item: dict[str, Any]) -> list[int]:
    """How many invocations Galaxy counts in each history of an item, the first try first."""
    counted = lab.invocations()
    tries = [*item["attempts"], item]
    return [counted[one["history_id"]] for one in tries if one["history_id"]]


def wait_for_one_under_way(lab: Lab) -> None:
    until = time.monotonic() + 300
    while not {"submitting", "running"} & {item["state"] for item in items(lab).values()}:
        assert time.monotonic() < until, "no sample is run"


def test_failed_samples_are_run_once_more_and_the_old_try_is_kept(lab: Lab) -> None:
    lab.type_samples({"T1": "ACGT\n", "T2": "FAIL\n", "T3": "GG\n"})
    lab.plan("c", *TO_NEW, workflow=lab.file(STRICT))
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    lab.biobank("consent", "withdraw", "KPN:I-T3", "--date", str(yesterday))
    first = lab.biobank("reanalyse", "run", "c")
    assert "1 ok, 2 failed" in first.err
    assert "--retry" in first.err
    before = items(lab)

    lab.biobank("reanalyse", "run", "c")  # without --retry nothing is run again
    assert items(lab) == before

    lab.biobank("consent", "give", "KPN:I-T3")
    second = lab.biobank("reanalyse", "run", "c", "--retry")
    assert "2 ok, 1 failed" in second.err
    after = items(lab)
    assert after["T1"] == before["T1"]
    (kept,) = after["T2"]["attempts"]
    assert {name: before["T2"][name] for name in kept if name != "round"} == {
        name: kept[name] for name in kept if name != "round"
    }
    assert after["T2"]["history_id"] != before["T2"]["history_id"]
    assert "the input asks to fail" in kept["error"]
    assert (after["T3"]["state"], after["T3"]["attempts"][0]["history_id"]) == ("ok", None)
    assert [invoked(lab, after[tube]) for tube in ("T1", "T2", "T3")] == [[1], [1, 1], [1]]
    assert {tube: row["attempts"] for tube, row in lab.status("c").items()} == {
        "T1": "1", "T2": "2", "T3": "2",
    }  # fmt: skip

    lab.biobank("reanalyse", "run", "c", "--retry")
    assert [one["round"] for one in items(lab)["T2"]["attempts"]] == [0, 1]
    assert invoked(lab, items(lab)["T2"]) == [1, 1, 1]


def test_a_retry_that_is_killed_at_random_moments_goes_on_and_starts_no_other(lab: Lab) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    lab.type_samples({f"T{number}": f"FAIL {number}\n" for number in range(1, 5)})
    lab.plan("c", *TO_NEW, workflow=lab.file(STRICT))
    lab.biobank("reanalyse", "run", "c")
    assert {row["state"] for row in lab.status("c").values()} == {"failed"}
    killed = 0
    for _ in range(3):
        process = lab.start("reanalyse", "run", "c", "--retry", "--jobs", "2")
        if killed:
            time.sleep(chance.uniform(0.8, 5.0))
        else:
            # The first kill always hits, however quick the machine: two samples wait for two.
            wait_for_one_under_way(lab)
        killed += process.poll() is None
        process.kill()
        process.communicate()
        (campaign,) = lab.lines("Campaign")
        if campaign["state"] == "finished":
            break  # the round had ended; the next one would be another
    assert killed, "it was over before it was killed even once"
    (campaign,) = lab.lines("Campaign")
    if campaign["state"] != "finished":
        lab.biobank("reanalyse", "run", "c", "--retry", "--jobs", "2")
    for item in items(lab).values():
        assert (item["state"], len(item["attempts"])) == ("failed", 1)
        assert invoked(lab, item) == [1, 1]
    # One made the old results.
    assert sum(lab.invocations().values()) == 2 * 4 + 1
