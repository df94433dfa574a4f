"""The same commands on a file and on OMERO say the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.servers.omero.lab import OmeroLab

ROOT = Path(__file__).parents[2]
TOUR = ROOT / "examples" / "tour"
TABLES = {
    "root.tsv": "label\nROOT\n",
    "leaf.tsv": "label\tsource\tcategory\nLEAF\tROOT\tALIQUOTING\n",
    "circle.tsv": "label\tsource\tcategory\nROOT\tLEAF\tALIQUOTING\n",
}
COMMANDS = (
    ("init",),
    ("register", "Study", "studies.tsv"),
    ("register", "Individual", "individuals.tsv", "--study", "KPN"),
    ("register", "Consent", "consents.tsv", "--study", "KPN"),
    ("register", "Tube", "tubes.tsv", "--study", "KPN", "--dry-run"),
    ("register", "Tube", "tubes.tsv", "--study", "KPN"),
    ("register", "Tube", "tubes.tsv", "--study", "KPN"),
    # Would make a tube from what was made of it.
    ("register", "Tube", "root.tsv", "--study", "KPN"),
    ("register", "Tube", "leaf.tsv", "--study", "KPN"),
    ("register", "Tube", "circle.tsv", "--study", "KPN", "--dry-run"),
    ("register", "Tube", "circle.tsv", "--study", "KPN"),
    ("load", "analyses.jsonl"),
    ("load", "analyses.jsonl"),
    ("lineage", "KPN:KP-01"),
    ("lineage", "KPN:MIX", "--direction", "upstream"),
    ("select", "--study", "KPN", "--tool", "kleborate_typing", "--release", "<3"),
    ("consent", "withdraw", "KPN:KP-02"),
    ("select", "--study", "KPN", "--tool", "kleborate_typing", "--release", "<3", "--all"),
    ("summarize", "--study", "KPN"),
    ("delete", "KPN:T1"),
    ("delete", "KPN:T1", "--cascade"),
    ("history", "KPN:T2"),
    ("map-ids", "KPN:T2", "KPN:nobody"),
    ("verify",),
    ("dump",),
)


def told(command: tuple[str, ...], environment: dict[str, str], folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "biobank_core.cli", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 70, done.stderr
    text = f"{done.stdout}{done.stderr}rc {done.returncode}"
    text = re.sub(r"V0[0-9A-F]{32}", "V0", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?", "now", text)
    lines = re.sub(r"(omero|sqlite)://\S*", "catalog", text).splitlines()
    # Which of several referrers an error names first is not fixed.
    return sorted(
        " ".join(sorted(line.replace(",", "").split())) if "error:" in line else line
        for line in lines
    )


@pytest.mark.timeout(1800)
def test_the_commands_of_the_tour_say_the_same_on_omero(
    omero_lab: OmeroLab, tmp_path: Path
) -> None:
    from tests.contract.omero_groups import make_group

    shutil.copytree(TOUR, tmp_path / "tour")
    for name, text in TABLES.items():
        (tmp_path / "tour" / name).write_text(text)
    group = make_group(omero_lab)
    common = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BIOBANK_", "OMERO_"))
    }
    common |= {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "BIOBANK_OPERATOR": "ada"}
    file = {**common, "BIOBANK_CATALOG": f"sqlite:///{tmp_path}/lab.db"}
    server = {
        **common,
        **group.members[0].environment,
        "BIOBANK_CATALOG": group.url,
        "BIOBANK_INDEX": f"sqlite:///{tmp_path}/index.db",
    }
    for command in COMMANDS:
        expected = told(command, file, tmp_path / "tour")
        got = told(command, server, tmp_path / "tour")
        assert got == expected, command
        password = group.members[0].password
        assert not any(password in line for line in got)
