"""`biobank select`: its table, its JSON, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from biobank_core.cli.select import command
from biobank_core.model.kinds import ConsentStatus
from tests.unit.selection_world import TOOL, World, vid

ASK = ["--study", "KPN", "--tool", "kleborate_typing", "--release", "<3"]


@pytest.fixture
def catalog(tmp_path: Path) -> str:
    world = World(tmp_path)
    for name, consent in (("01", ConsentStatus.GIVEN), ("02", ConsentStatus.WITHDRAWN)):
        world.typing(f"typing {name}", world.isolate(name, consent), day=3)
    world.typing("=1+1", world.reads("<b>", world.tube("=2+2", world.donor("KP\t3"))), day=4)
    world.save()
    world.catalog.close()
    return f"sqlite:///{tmp_path}/world.db"


def run(catalog: str, *options: str) -> Result:
    return CliRunner().invoke(command, [*options, "--catalog", catalog])


def test_the_table_has_a_row_a_sample_and_nothing_else(catalog: str) -> None:
    result = run(catalog, *ASK)
    assert result.exit_code == 0, result.output
    header, *rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert header == (
        ["sample", "label", "study", "donor", "reason", "tool", "release", "results", "sources"]
    )
    assert [row[1] for row in rows] == ["'=2+2", "T-01"]
    assert rows[0][3] == "KP\\t3"
    assert rows[1] == [
        vid(f"tube T-01 {vid('study KPN')}"),
        "T-01",
        "KPN",
        "KP-01",
        "kleborate_typing 2.2.0 made typing 01 (2026-01-03); wanted: <3",
        TOOL,
        "2.2.0",
        vid("data typing 01"),
        vid("data R-01"),
    ]
    assert result.stderr == "2 selected, 1 left out (1 consent-withdrawn)\n"


def test_all_shows_what_is_left_out_with_state_and_code(catalog: str) -> None:
    result = run(catalog, *ASK, "--all")
    header, *rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert header[-2:] == ["state", "code"]
    assert [(row[1], row[-2], row[-1]) for row in rows] == [
        ("'=2+2", "selected", "match"),
        ("T-01", "selected", "match"),
        ("T-02", "excluded", "consent-withdrawn"),
    ]


def test_json_has_the_same_rows(catalog: str) -> None:
    document = json.loads(run(catalog, *ASK, "--format", "json", "--all").stdout)
    assert [row["label"] for row in document["selected"]] == ["=2+2", "T-01"]
    assert document["selected"][1]["results"] == [
        {
            "vid": vid("data typing 01"),
            "label": "typing 01",
            "role": "out0",
            "action": document["selected"][1]["results"][0]["action"],
            "tool": TOOL,
            "release": "2.2.0",
        }
    ]
    assert [row["code"] for row in document["excluded"]] == ["consent-withdrawn"]
    assert document["left_out"] == {"consent-withdrawn": 1}
    assert "excluded" not in json.loads(run(catalog, *ASK, "--format", "json").stdout)


def test_require_makes_nothing_selected_exit_1(catalog: str) -> None:
    nothing = ["--study", "KPN", "--tool", "abricate"]
    assert run(catalog, *nothing).exit_code == 0
    result = run(catalog, *nothing, "--require")
    assert result.exit_code == 1
    assert result.stderr == "0 selected, 0 left out\n"
    assert run(catalog, *ASK, "--require").exit_code == 0


def test_a_day_given_as_until_is_taken_whole(catalog: str) -> None:
    def labels(*options: str) -> list[str]:
        document = json.loads(run(catalog, *ASK, "--format", "json", *options).stdout)
        return [row["label"] for row in document["selected"]]

    assert labels("--until", "2026-01-03") == ["T-01"]
    assert labels("--since", "2026-01-04") == ["=2+2"]
    assert labels("--since", "2026-01-03T01:00:00+01:00", "--until", "2026-01-03T00:59:59Z") == []


@pytest.mark.parametrize(
    "options",
    [["--since", "yesterday"], ["--until", "2026-01-01T00:00:00"], ["--since", "2026-13-01"]],
)
def test_a_time_that_is_none_is_refused(catalog: str, options: list[str]) -> None:
    result = run(catalog, *ASK, *options)
    assert result.exit_code == 2
    assert options[1] in result.stderr
    assert result.stdout == ""


def test_output_goes_to_a_file(catalog: str, tmp_path: Path) -> None:
    target = tmp_path / "selected.tsv"
    result = run(catalog, *ASK, "--output", str(target))
    assert result.stdout == ""
    assert target.read_text(encoding="utf-8") == run(catalog, *ASK).stdout
