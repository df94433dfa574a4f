"""Reanalysis campaigns on a real Galaxy server."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.campaign_lab import (
    NEW,
    OLD,
    PROJECT,
    RUN_TIMEOUT_S,
    STRICT,
    WITHOUT_LOG,
    WITHOUT_PREFIX,
    Lab,
    broken_line,
    new_lab,
)
from tests.integration.omero_settings import NewCatalog, on_both
from tests.servers.galaxy import LATER_TOOLS, GalaxyServer
from tests.servers.galaxy_user import GalaxyUser

pytestmark = pytest.mark.galaxy

LATER = {NEW: "2_0_0", WITHOUT_PREFIX: "3_0_0", WITHOUT_LOG: "4_0_0"}


@pytest.fixture
def lab(
    galaxy: GalaxyServer, galaxy_user: GalaxyUser, new_catalog: NewCatalog, tmp_path: Path
) -> Lab:
    for version, file in LATER.items():
        if version not in galaxy.tool_versions("versioned_tool"):
            galaxy.add_tool(LATER_TOOLS / f"versioned_tool_{file}.xml")
    return new_lab(galaxy_user, galaxy.url, new_catalog, tmp_path)


def to(version: str) -> tuple[str, str]:
    return "--tool-version", f"versioned_tool={version}"


def invoked_once(lab: Lab, campaign: str) -> None:
    """Galaxy counts exactly one invocation for each item, in the item's own history."""
    items = lab.status(campaign)
    histories = [item["history"] for item in items.values()]
    assert len(set(histories)) == len(items)
    counted = lab.invocations()
    assert {history: counted[history] for history in histories} == dict.fromkeys(histories, 1)
    # One made the old results.
    assert sum(counted.values()) == len(items) + 1


@on_both
def test_a_campaign_from_plan_to_report(lab: Lab) -> None:
    lab.type_samples(
        {"T1": "ACGT\nTT\n", "T2": "GGGG\n", "T3": "FAIL <b>\n", "T 4 “ü”": "AC\n", "T5": "CC\n"}
    )
    before = lab.user.client.workflows.export_workflow_dict(lab.workflow)
    assert lab.selected() == ["T 4 “ü”", "T1", "T2", "T3", "T5"]
    lab.biobank("consent", "withdraw", "KPN:I-T5")
    workflow = lab.file(STRICT)

    planned = lab.plan("first & <last>", *to(NEW), workflow=workflow)
    states = {row["label"]: row["state"] for row in planned.rows}
    assert states == {
        "T 4 “ü”": "planned", "T1": "planned", "T2": "planned", "T3": "planned", "T5": "excluded",
    }  # fmt: skip
    assert "versioned_tool goes from 1.2.0 to 2.0.0+galaxy1" in planned.err
    assert sum(lab.invocations().values()) == 1
    assert (
        "choose another name"
        in lab.plan("first & <last>", *to(NEW), workflow=workflow, expect=5).err
    )

    done = lab.biobank("reanalyse", "run", "first & <last>")
    items = lab.status("first & <last>")
    assert {label: item["state"] for label, item in items.items()} == {
        "T1": "ok", "T2": "ok", "T3": "failed", "T 4 “ü”": "ok",
    }  # fmt: skip
    assert "the input asks to fail" in items["T3"]["error"]
    assert "fail_if_asked ended as error, exit code 3" in items["T3"]["error"]
    assert "3 ok, 1 failed" in done.err
    invoked_once(lab, "first & <last>")
    assert lab.user.client.workflows.export_workflow_dict(lab.workflow) == before

    # Two direct results of the tool and one made of them, for each of three samples.
    links = lab.lines("Supersession")
    assert len(links) == 9
    samples = {line["vid"]: line["label"] for line in lab.lines("DataSample")}
    assert {link["new"] for link in links} <= set(samples)
    assert lab.selected() == ["T3"]

    again = lab.biobank("reanalyse", "run", "first & <last>")
    assert again.rows == done.rows
    invoked_once(lab, "first & <last>")

    html, tsv = lab.folder / "report.html", lab.folder / "report.tsv"
    lab.biobank("reanalyse", "report", "first & <last>", "--html", str(html), "--tsv", str(tsv))
    page = html.read_text(encoding="utf-8")
    assert not [secret for secret in lab.secrets if secret in page + lab.biobank("dump").out]
    assert "first &amp; &lt;last&gt;" in page
    assert "the input asks to fail" in page
    header, *lines = (line.split("\t") for line in tsv.read_text(encoding="utf-8").splitlines())
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    came = {
        (row["label"], row["result"], row["column"])
        for row in rows
        if row["change"] == "column-new"
    }
    assert ("T1", "output", "twice") in came
    assert {row["label"] for row in rows if row["change"] == "failed"} == {"T3"}
    assert {row["label"] for row in rows if row["change"] == "left-out"} == {"T5"}
    assert not [row for row in rows if row["change"] == "cell" and row["column"] == "length"]


def test_what_the_new_release_lacks_is_an_error_of_plan_and_nothing_is_saved(lab: Lab) -> None:
    lab.type_samples({"T1": "ACGT\n"})
    vanished = lab.plan("c", *to(WITHOUT_PREFIX), expect=2)
    assert "step 'typing': parameter 'prefix' is gone in versioned_tool 3.0.0" in vanished.err
    output = lab.plan("c", *to(WITHOUT_LOG), expect=2)
    assert "output 'log' is gone in versioned_tool 4.0.0" in output.err
    ignored = lab.plan(
        "c", *to(NEW), "--set", "typing.prefx=1", "--set", "Typing.mode=loud", expect=2
    )
    assert "versioned_tool 2.0.0+galaxy1 has no parameter 'prefx'" in ignored.err
    assert "no such step" in ignored.err
    assert "comes from another step" in lab.plan("c", "--set", "typing.input=1", expect=2).err
    assert not lab.lines("Campaign")
    assert sum(lab.invocations().values()) == 1


def test_settings_reach_galaxy(lab: Lab) -> None:
    lab.type_samples({"T1": "ACGT\n"})
    lab.plan("c", *to(NEW), "--set", "typing.prefix=“ö”", "--set", "typing.mode=loud")
    lab.biobank("reanalyse", "run", "c")
    setups = [line["parameters"] for line in lab.lines("ActionSetup")]
    assert [one for one in setups if one.get("prefix") == "“ö”" and one.get("mode") == "loud"]


def test_of_two_runs_at_once_one_does_the_work_and_one_stops_politely(lab: Lab) -> None:
    lab.type_samples({"T1": "A\n", "T2": "C\n", "T3": "G\n"})
    lab.plan("c", *to(NEW))
    processes = [lab.start("reanalyse", "run", "c", "--jobs", "1") for _ in range(2)]
    answers = [process.communicate(timeout=RUN_TIMEOUT_S) for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 5], answers
    loser = answers[[process.returncode for process in processes].index(5)]
    assert "another run of the campaign 'c' is at work" in loser[1]
    assert {item["state"] for item in lab.status("c").values()} == {"ok"}
    invoked_once(lab, "c")


_WITHOUT_LOCK = """
import os, sys
from biobank_core.cli import cli
from biobank_core.galaxy.reanalysis import run
from contextlib import nullcontext
run.only_run = lambda campaign: nullcontext()
cli.main(["reanalyse", "run", "c", "--jobs", "2"])
"""


def test_runs_on_several_machines_are_decided_by_the_versions_in_the_catalog(lab: Lab) -> None:
    lab.type_samples({f"T{number}": "ACGT\n" * number for number in range(1, 5)})
    lab.plan("c", *to(NEW))
    processes = []
    for pause_s in (0.0, 0.0, 2.0):
        time.sleep(pause_s)
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", _WITHOUT_LOCK],
                env=lab.environment,
                cwd=PROJECT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    answers = [process.communicate(timeout=RUN_TIMEOUT_S) for process in processes]
    codes = [process.returncode for process in processes]
    assert set(codes) <= {0, 5}, answers
    assert 5 in codes
    lab.biobank("reanalyse", "run", "c")
    assert {item["state"] for item in lab.status("c").values()} == {"ok"}
    invoked_once(lab, "c")


@pytest.mark.parametrize("how", ["answer-lost", "request-lost", "late"])
def test_a_line_that_breaks_while_galaxy_is_asked_to_run_makes_no_second_invocation(
    lab: Lab, how: str
) -> None:
    lab.type_samples({"T1": "A\n", "T2": "C\n"})
    lab.plan("c", *to(NEW))
    with broken_line(lab.url, how=how) as url:
        lab.biobank("reanalyse", "run", "c", "--jobs", "1", GALAXY_URL=url)
    assert {item["state"] for item in lab.status("c").values()} == {"ok"}
    invoked_once(lab, "c")


def test_galaxy_going_away_is_said_and_the_campaign_can_be_resumed(lab: Lab) -> None:
    lab.type_samples({"T1": "A\n"})
    lab.plan("c", *to(NEW))
    gone = lab.biobank("reanalyse", "run", "c", GALAXY_URL="http://127.0.0.1:9", expect=3)
    assert "no Galaxy answers" in gone.err
    assert {item["state"] for item in lab.status("c").values()} == {"planned"}
    lab.biobank("reanalyse", "run", "c")
    invoked_once(lab, "c")


def test_cached_results_are_unchanged_and_supersede_nothing(lab: Lab) -> None:
    lab.type_samples({"T1": "ACGT\n", "T2": "GG\n"})
    planned = lab.plan("c", *to(OLD))
    assert "is itself in the range '<2'" in planned.err
    lab.biobank("reanalyse", "run", "c", "--use-cache")
    assert {item["state"] for item in lab.status("c").values()} == {"unchanged"}
    assert not lab.lines("Supersession")
    tsv = lab.biobank("reanalyse", "report", "c", "--tsv", "-")
    assert {row["column"] for row in tsv.rows} == {"same data"}
    assert lab.selected() == ["T1", "T2"]


def test_a_consent_that_goes_after_the_plan_keeps_the_sample_from_being_run(lab: Lab) -> None:
    lab.type_samples({"T1": "A\n", "T2": "C\n"})
    lab.plan("c", *to(NEW))
    lab.biobank("consent", "withdraw", "KPN:I-T1")
    lab.biobank("reanalyse", "run", "c")
    items = lab.status("c")
    assert (items["T1"]["state"], items["T1"]["invocation"]) == ("failed", "")
    assert "not run: consent of I-T1" in items["T1"]["error"]
    assert items["T2"]["state"] == "ok"
    assert sum(lab.invocations().values()) == 2


def test_another_account_can_not_go_on_with_a_campaign(lab: Lab, galaxy: GalaxyServer) -> None:
    lab.type_samples({"T1": "A\n"})
    lab.plan("c", *to(NEW))
    lab.biobank("reanalyse", "run", "c")
    stranger = galaxy.create_user(f"stranger-{lab.user.email}")
    told = lab.biobank("reanalyse", "run", "c", GALAXY_API_KEY=stranger, expect=5)
    assert "begun with another Galaxy account" in told.err
