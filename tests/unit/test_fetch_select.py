"""`biobank select --to`: the selected samples' data; `summarize --html`: a page of counts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from biobank_core.cli import cli
from tests.servers import tool_catalogs

ODD = 'EMPTY "<b>&'


@pytest.fixture(scope="module")
def catalogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalogs")
    tool_catalogs.prepare(folder)
    return folder


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalogs: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("BIOBANK_", "GALAXY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BIOBANK_CATALOG", f"sqlite:///{catalogs}/test.db")


def biobank(*args: str) -> Result:
    return CliRunner().invoke(cli, args)


def select(*args: str) -> Result:
    return biobank("select", "--study", "KPN", "--tool", "kleborate_typing", *args)


def test_the_selected_samples_data_come_under_their_labels() -> None:
    done = select("--release", "<3", "--to", "out", "--galaxy-json", "g.json")
    assert done.exit_code == 0, done.stderr
    entries = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
    assert [entry["identifiers"] for entry in entries] == [["T 3 'x'"], ["T1"]]
    assert all(entry["verified"] == "sha256" for entry in entries)
    assert Path("out/T1.fasta").read_text().startswith(">T1")
    elements = json.loads(Path("g.json").read_text())["files"]["elements"]
    assert [element["name"] for element in elements] == ["T 3 'x'", "T1"]
    # The table is the same as without the data, and fetching by it gives the same files.
    Path("t.tsv").write_text(select("--release", "<3").stdout)
    assert done.stdout == Path("t.tsv").read_text()
    again = biobank("fetch", "--from", "t.tsv", "--to", "out")
    assert again.exit_code == 0, again.stderr
    assert again.stdout.count("unchanged") == 2


def test_when_nothing_is_selected_nothing_is_fetched() -> None:
    done = select("--release", "<1", "--to", "out", "--require")
    assert done.exit_code == 1
    assert Path("out/manifest.jsonl").read_text() == ""


def test_results_that_have_no_file_are_an_error_that_names_them() -> None:
    done = select("--release", "<3", "--to", "out", "--data", "results")
    assert done.exit_code == 2
    assert "the catalog knows no file of it" in done.stderr


def test_the_page_of_a_study_shows_its_counts_and_its_label_as_text() -> None:
    for study, shown in (("KPN", "<td>Tube</td>"), (ODD, "EMPTY &#34;&lt;b&gt;&amp;")):
        done = biobank("summarize", "--study", study, "--html", "page.html")
        assert done.exit_code == 0, done.stderr
        page = Path("page.html").read_text(encoding="utf-8")
        assert shown in page
        assert "<b>" not in page
        assert "<script" not in page
