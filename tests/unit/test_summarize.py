"""biobank summarize: counts of one study, and of nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from biobank_core.cli import cli

TOUR = Path(__file__).parents[2] / "examples" / "tour"


@pytest.fixture(autouse=True)
def _world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("BIOBANK_", "GALAXY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BIOBANK_CATALOG", "sqlite:///c.db")
    Path("other.tsv").write_text("label\n=OTHER\n", encoding="utf-8")
    Path("o.tsv").write_text("label\nT1\n", encoding="utf-8")
    study = ("--study", "KPN")
    for args in (
        ("register", "Study", str(TOUR / "studies.tsv")),
        ("register", "Individual", str(TOUR / "individuals.tsv"), *study),
        ("register", "Tube", str(TOUR / "tubes.tsv"), *study),
        ("load", str(TOUR / "analyses.jsonl")),
        ("register", "Study", "other.tsv"),
        ("register", "Tube", "o.tsv", "--study", "=OTHER"),
    ):
        done = biobank(*args)
        assert done.exit_code == 0, done.stderr


def biobank(*args: str) -> Result:
    return CliRunner().invoke(cli, args)


def test_everything_of_the_study_is_counted() -> None:
    done = biobank("summarize", "--study", "KPN")
    assert done.exit_code == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    assert header == "by\tvalue\trelease\tcount"
    rows = [tuple(line.split("\t")) for line in lines]
    assert rows[:6] == [
        ("kind", "Action", "", "13"),
        ("kind", "Assembly", "", "4"),
        ("kind", "Enrollment", "", "3"),
        ("kind", "Individual", "", "3"),
        ("kind", "Tube", "", "4"),
        ("kind", "TypingResult", "", "5"),
    ]
    assert [row for row in rows if row[0] == "tool"] == [
        ("tool", "kleborate_typing", "2.2.0", "4"),
        ("tool", "kleborate_typing", "3.2.4", "1"),
    ]
    assert ("status", "ok", "", "13") in rows
    assert ("category", "MEASUREMENT", "", "4") in rows
    for by in ("status", "category", "month"):
        assert sum(int(row[3]) for row in rows if row[0] == by) == 13
    assert ("month", "2024-02", "", "8") in rows


def test_json_says_the_same() -> None:
    document = json.loads(biobank("summarize", "--study", "KPN", "--format", "json").stdout)
    assert document["study"]["label"] == "KPN"
    assert document["kinds"]["TypingResult"] == 5
    assert document["tools"][0] == {"tool": "kleborate_typing", "release": "2.2.0", "count": 4}
    assert sum(document["months"].values()) == 13


def test_another_study_holds_only_its_own() -> None:
    document = json.loads(biobank("summarize", "--study", "=OTHER", "--format", "json").stdout)
    assert document["kinds"] == {"Tube": 1}
    assert document["tools"] == []


def test_an_unknown_study_is_bad_input() -> None:
    assert biobank("summarize", "--study", "NOPE").exit_code == 2
    assert biobank("summarize").exit_code == 2
