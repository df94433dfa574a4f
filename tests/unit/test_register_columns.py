"""`biobank register --column`: tables whose header names other things; all wrong rows in a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from biobank_core.cli import cli
from biobank_core.register.service import MAX_REPORTED


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("BIOBANK_", "GALAXY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BIOBANK_CATALOG", "sqlite:///c.db")


def register(text: str, *args: str, kind: str = "Study") -> Result:
    Path("t.tsv").write_text(text, encoding="utf-8")
    return CliRunner().invoke(cli, ["register", kind, "t.tsv", *args])


@pytest.mark.parametrize("column", ["name of it", "2"])
def test_a_field_is_read_from_a_column_by_name_or_number_and_the_others_are_left_out(
    column: str,
) -> None:
    done = register("\tname of it\t\nx\tKPN\ty\n", "--column", f"label={column}")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[1].split("\t")[3:] == ["KPN", "created"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["label=nowhere"], "no such column for 'label'"),
        (["label=0"], "no such column"),
        (["label=3"], "no such column"),
        (["label=twice"], "twice; give its number"),
        (["wrong=1"], "wrong"),
        (["label=1", "label=2"], "given twice"),
        (["label"], "is not FIELD=COLUMN"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused(columns: list[str], said: str) -> None:
    header = "twice\ttwice\n" if "label=twice" in columns else "a\tb\n"
    done = register(f"{header}x\ty\n", *(part for c in columns for part in ("--column", c)))
    assert done.exit_code == 2
    assert said in done.stderr


def test_two_fields_may_come_from_one_column() -> None:
    done = register("n\nKPN\n", "--column", "label=n", "--column", "description=n")
    assert done.exit_code == 0, done.stderr


def test_every_wrong_row_is_in_the_file_of_problems_dry_run_or_not() -> None:
    rows = "label\tdescription\n" + "\tx\n" * (MAX_REPORTED + 10)
    for more in ([], ["--dry-run"]):
        done = register(rows, "--problems", "wrong.tsv", *more)
        assert done.exit_code == 2
        lines = Path("wrong.tsv").read_text().splitlines()
        assert lines[0] == "line\tproblem"
        assert [line.split("\t")[0] for line in lines[1:]] == [
            str(number) for number in range(2, MAX_REPORTED + 12)
        ]


def test_a_table_without_a_wrong_row_gives_an_empty_file_of_problems() -> None:
    assert register("label\nKPN\n", "--problems", "wrong.tsv").exit_code == 0
    assert Path("wrong.tsv").read_text() == "line\tproblem\n"
