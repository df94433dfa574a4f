"""The workflows of examples/workflows on a real Galaxy: by planemo, and by the script for cron."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.integration.tools.lab import PATIENCE_S, Lab
from tests.integration.tools.test_tools_planemo import failures, planemo_test
from tests.servers.galaxy import GalaxyServer
from tests.servers.planemo import planemo

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "examples" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.gxwf.yml"))
SELECT = FOLDER / "select-and-reanalyse.gxwf.yml"
TYPING = FOLDER / "example_typing.xml"

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def typing(galaxy: GalaxyServer, suite: list[Path]) -> None:
    """The tool that stands for a laboratory's own, beside the suite."""
    assert suite
    galaxy.add_tools([TYPING])


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_planemo_finds_no_fault_in_a_workflow_and_its_test(workflow: Path, tmp_path: Path) -> None:
    done = planemo("workflow_lint", "--fail_level", "error", str(workflow), folder=tmp_path)
    assert done.returncode == 0, done.stdout


@pytest.mark.usefixtures("typing")
def test_every_workflow_passes_its_tests_on_a_real_galaxy(
    galaxy: GalaxyServer, tmp_path: Path
) -> None:
    key = galaxy.create_user("planemo-workflows@biobank.example")
    # planemo puts files of its own beside what it tests.
    shutil.copytree(FOLDER, tmp_path / "workflows")
    copies = [tmp_path / "workflows" / path.name for path in WORKFLOWS]
    tests = planemo_test(galaxy, key, copies, tmp_path / "planemo")
    assert not failures(tests)
    defined = sum(
        len(yaml.safe_load(path.with_name(f"{path.stem}-tests.yml").read_text()))
        for path in WORKFLOWS
    )
    assert len(tests) == defined


def test_the_script_for_cron_types_what_is_due_and_the_next_night_nothing(
    galaxy: GalaxyServer, lab: Lab, tmp_path: Path
) -> None:
    # As the workflow's text says: a laboratory's own tool in the place of the example.
    tool = tmp_path / "kleborate_typing.xml"
    text = TYPING.read_text().replace('id="biobank_example_typing"', 'id="kleborate_typing"')
    tool.write_text(text.replace('version="1.0"', 'version="3.0.1"'))
    galaxy.add_tools([tool])
    workflow = tmp_path / "own.gxwf.yml"
    workflow.write_text(SELECT.read_text().replace("biobank_example_typing", "kleborate_typing"))

    def night() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, FOLDER / "reanalyse.py", "--workflow", workflow),
                *("--catalog", "cron", "--study", "KPN", "--poll-s", "0.5"),
                *("--tool", "kleborate_typing", "--release", "<3"),
            ],
            env=os.environ | {"GALAXY_URL": galaxy.url, "GALAXY_API_KEY": lab.user.key},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    first = night()
    assert first.returncode == 0, first.stderr
    assert "failed to record\t0" in first.stdout
    assert "\tT1\tKPN\t" in first.stdout
    (history,) = lab.user.client.histories.get_histories()
    found = lab.user.client.histories.show_history(history["id"], contents=True)
    (typed,) = [
        item["id"]
        for item in found
        if item["history_content_type"] == "dataset_collection" and "Typing" in item["name"]
    ]
    results = lab.user.elements(typed)
    assert {name: lab.user.content(data) for name, data in results.items()} == {
        "T 3 'x'": "length_bp\tgc_percent\n4\t50.0\n",
        "T1": "length_bp\tgc_percent\n4\t50.0\n",
    }
    # The job that records does not see its own workflow's last job: itself. All others it did.
    assert lab.tubes(results["T1"], catalog="cron") == {"T1"}
    second = night()
    assert second.returncode == 0, second.stderr
    assert second.stdout == "nothing to do\n"
    assert len(lab.user.client.histories.get_histories()) == 1
