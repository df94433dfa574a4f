"""The example plug-in, installed as its README says, and a catalog whose plug-in is gone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the example was installed, entry points and all."""
    folder = tmp_path_factory.mktemp("plugin")
    source = folder / "source"
    shutil.copytree(ROOT / "examples" / "plugin", source)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--no-index", "--target", folder / "site", source),
        ],
        check=True,
        timeout=120,
    )
    return folder / "site"


class Lab:
    """The command line over one catalog, with the plug-in or without."""

    def __init__(self, folder: Path, plugin: Path) -> None:
        self.folder = folder
        self._plugin = plugin

    def file(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def run(
        self, *arguments: str, installed: bool = True, exit_code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        paths = [str(self._plugin)] if installed else []
        done = subprocess.run(
            [sys.executable, "-m", "biobank_core.cli", *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "PYTHONPATH": os.pathsep.join([*paths, str(ROOT)]),
                "BIOBANK_CATALOG": f"sqlite:///{self.folder}/catalog.db",
            },
        )
        assert done.returncode == exit_code, done.stderr
        return done


@pytest.fixture
def lab(tmp_path: Path, plugin: Path) -> Lab:
    lab = Lab(tmp_path, plugin)
    lab.run("init")
    lab.run("register", "Study", lab.file("studies.tsv", "label\nS\n"))
    return lab


def _registered(lab: Lab) -> None:
    vials = "label\ttemperature_c\nC1\t-196\n"
    lab.run("register", "CryoVial", lab.file("vials.tsv", vials), "--study", "S")


def test_the_schema_knows_the_fields_of_a_plugged_in_kind(lab: Lab) -> None:
    schema = lab.run("schema").stdout
    assert "event_count" in schema
    assert "event_count" not in lab.run("schema", installed=False).stdout


def test_a_plugged_in_vessel_is_registered_with_its_own_typed_field(lab: Lab) -> None:
    _registered(lab)
    vial = next(json.loads(line) for line in lab.run("dump").stdout.splitlines() if "Cryo" in line)
    assert vial["temperature_c"] == -196


def test_a_value_that_the_plug_in_forbids_names_line_field_and_value(lab: Lab) -> None:
    wrong = lab.file("vials.tsv", "label\ttemperature_c\nC1\t-300\n")
    said = lab.run("register", "CryoVial", wrong, "--study", "S", exit_code=2).stderr
    assert "line 2" in said
    assert "temperature_c" in said
    assert "-300" in said


def test_lineage_filters_by_a_plugged_in_kind_and_by_its_base(lab: Lab) -> None:
    _registered(lab)
    source = "label\tsource\tcategory\nT1\tS:C1\tALIQUOTING\n"
    lab.run("register", "Tube", lab.file("tubes.tsv", source), "--study", "S")
    for kind in ("CryoVial", "Vessel"):
        found = lab.run("lineage", "S:T1", "--kind", kind, "--format", "json").stdout
        assert "C1" in {node["label"] for node in json.loads(found)["nodes"]}


def test_select_finds_data_of_a_plugged_in_kind_taken_from_a_plugged_in_vessel(lab: Lab) -> None:
    _registered(lab)
    people = lab.file("people.tsv", "code\nD1\n")
    lab.run("register", "Individual", people, "--study", "S")
    lab.run("consent", "give", "S:D1", "--date", "2026-01-01")
    objects = [json.loads(line) for line in lab.run("dump").stdout.splitlines()]
    by_kind = {obj["kind"]: obj["vid"] for obj in objects}
    study, vial, donor = by_kind["Study"], by_kind["CryoVial"], by_kind["Individual"]
    run, result, device = (f"V0{n:032X}" for n in (1, 2, 3))

    def action(
        number: int, category: str, given: str, made: str, by: str | None
    ) -> dict[str, object]:
        return {
            "kind": "Action",
            "vid": f"V0{number:032X}",
            "category": category,
            "study": study,
            "device": by,
            "status": "ok",
            "begin": "2026-01-02T00:00:00Z",
            "inputs": [{"role": "in", "object": given}],
            "outputs": [{"role": "out", "object": made}],
        }

    lines = [
        {"kind": "Cytometer", "vid": device, "label": "gating", "release": "1.0"},
        {"kind": "CytometryRun", "vid": run, "label": "r", "study": study, "event_count": 5},
        {"kind": "DataSample", "vid": result, "label": "gates", "study": study},
        action(11, "EXTRACTION", donor, vial, None),
        action(12, "MEASUREMENT", vial, run, None),
        action(13, "PROCESSING", run, result, device),
    ]
    lab.run("load", lab.file("more.jsonl", "".join(json.dumps(line) + "\n" for line in lines)))
    table = lab.run("select", "--study", "S", "--tool", "gating", "--release", "<2").stdout
    assert "C1" in table
    assert run in table


def test_without_its_plug_in_a_catalog_stays_readable_and_names_the_kind(lab: Lab) -> None:
    _registered(lab)
    with_it = lab.run("dump").stdout
    assert lab.run("dump", installed=False).stdout == with_it
    status = lab.run("status", installed=False)
    assert "CryoVial" in status.stdout + status.stderr
    nodes = json.loads(lab.run("lineage", "S:C1", "--format", "json", installed=False).stdout)
    assert [node["label"] for node in nodes["nodes"]] == ["C1"]
