"""For the administrator: tables that hold only what is published, a program that runs."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import venv
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

import pytest
from click.testing import CliRunner, Result

from biobank_core.cli import cli, galaxy_tables
from biobank_core.cli.common import open_output
from biobank_core.errors import ConfigurationError
from biobank_core.galaxy import tool_data
from tests.unit.selection_world import World

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("BIOBANK_", "GALAXY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BIOBANK_CATALOG", f"sqlite:///{tmp_path}/world.db")


def biobank(*args: str) -> Result:
    return CliRunner().invoke(cli, args)


def lines(name: str) -> list[str]:
    return Path(name).read_text().splitlines()


def test_only_published_studies_and_what_was_used_in_them_are_in_the_tables(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, study="KPN\t#1\n")
    world.study("SECRET")
    world.save()
    table = biobank("galaxy-tables", ".", "--catalog-id", "lab", "--publish", world.main)
    assert table.exit_code == 0, table.stderr
    assert lines("biobank_studies.loc") == [
        "#value\tname\tcatalog",
        f"{world.main}\tKPN #1\tlab",
    ]
    assert lines("biobank_devices.loc") == ["#value\tname\ttool\trelease\tcatalog"]
    assert "SECRET" not in Path("biobank_studies.loc").read_text()


def test_rows_of_another_catalog_stay_and_those_that_are_published_no_more_go(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    world.save()
    other = "V0" + "A" * 32 + "\tOTHER\tother"
    Path("biobank_studies.loc").write_text(f"#x\n{other}\n")
    assert biobank("galaxy-tables", ".", "--catalog-id", "lab", "--publish", "KPN").exit_code == 0
    assert len(lines("biobank_studies.loc")) == 3
    assert biobank("galaxy-tables", ".", "--catalog-id", "lab").exit_code == 0
    assert lines("biobank_studies.loc")[1:] == [other]


def test_two_catalogs_that_write_the_tables_at_once_keep_each_others_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(catalog: str) -> None:
        galaxy_tables.write(tmp_path, {tool_data.STUDIES: [("V0", catalog, catalog)]}, catalog)

    others, lock = galaxy_tables._others, fcntl.flock
    second = threading.Thread(target=write, args=("second",))
    came_far = threading.Event()

    def read(path: Path, catalog: str) -> list[list[str]]:
        rows = others(path, catalog)
        if catalog == "first":
            second.start()
            came_far.wait()
        return rows

    def flock(handle: int, operation: int) -> None:
        if threading.current_thread() is second:
            came_far.set()
        lock(handle, operation)

    def output(path: str) -> AbstractContextManager[TextIO]:
        if threading.current_thread() is second:
            came_far.set()
        return open_output(path)

    monkeypatch.setattr(galaxy_tables, "_others", read)
    monkeypatch.setattr(galaxy_tables, "open_output", output)
    monkeypatch.setattr(fcntl, "flock", flock)
    write("first")
    second.join()
    assert {line.split("\t")[2] for line in lines(tool_data.STUDIES)[1:]} == {"first", "second"}


def test_an_unknown_study_or_an_odd_id_writes_nothing(tmp_path: Path) -> None:
    World(tmp_path).save()
    unknown = biobank("galaxy-tables", ".", "--catalog-id", "lab", "--publish", "NONE")
    odd = biobank("galaxy-tables", ".", "--catalog-id", "a\tb")
    assert (unknown.exit_code, odd.exit_code) == (2, 2)
    assert not Path("biobank_studies.loc").exists()


def test_a_program_that_is_not_installed_is_no_dependency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_data, "PACKAGE", "galaxy-biobank-that-is-nowhere")
    with pytest.raises(ConfigurationError, match="is not installed"):
        tool_data.install_dependency(Path("deps"))
    assert not Path("deps").exists()


def test_a_program_that_stands_runs_on_while_another_is_tried_and_when_that_does_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = Path("deps", tool_data.PACKAGE, version(tool_data.PACKAGE), "bin", "biobank")
    program.parent.mkdir(parents=True)
    program.write_text("as it stood")
    seen: list[str] = []

    def tried(*_args: object, **_options: object) -> subprocess.CompletedProcess[str]:
        seen.append(program.read_text())
        return subprocess.CompletedProcess([], 1, "", "")

    monkeypatch.setattr(subprocess, "run", tried)
    with pytest.raises(ConfigurationError, match="does not find"):
        tool_data.install_dependency(Path("deps"))
    assert [*seen, program.read_text()] == ["as it stood"] * 2
    assert list(program.parent.iterdir()) == [program]


def test_the_dependency_runs_this_version_whatever_galaxy_sets(tmp_path: Path) -> None:
    """In an environment of its own, in a folder with an odd name."""
    home = tmp_path / "it's an $(environment)"
    venv.create(home, symlinks=True, with_pip=False)
    site = next(home.glob("lib/python*/site-packages"))
    (site / "dev.pth").write_text("\n".join([str(ROOT), *_site_packages()]))
    info = site / "galaxy_biobank-9.8.7.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: galaxy-biobank\nVersion: 9.8.7\n")
    done = subprocess.run(
        [home / "bin" / "python", "-m", "biobank_core.cli", "install-galaxy-dependency", "deps"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    script = Path("deps/galaxy-biobank/9.8.7/env.sh").absolute()
    assert done.stdout.strip() == str(script)
    Path("wrong").mkdir()
    Path("wrong/click.py").write_text("raise SystemExit('the wrong click')")
    said = subprocess.run(
        ["/bin/sh", "-c", '. "$1" && biobank --version', "sh", script],
        capture_output=True,
        text=True,
        check=False,
        cwd="wrong",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path("wrong").absolute())},
    )
    assert said.stdout == "biobank 9.8.7\n", said.stderr


def _site_packages() -> list[str]:
    return [path for path in sys.path if path.endswith("site-packages")]


def test_the_sample_tables_and_their_twins_for_tests_name_the_same_columns() -> None:
    folder = ROOT / "tool_data"
    sample = (folder / "tool_data_table_conf.xml.sample").read_text()
    twin = (folder / "tool_data_table_conf.xml.test").read_text()
    assert twin.replace("${__HERE__}/../test-data/", "tool-data/") == sample
    for name in ("biobank_catalogs", "biobank_studies", "biobank_devices"):
        assert f'path="tool-data/{name}.loc"' in sample
        assert (folder / f"{name}.loc.sample").exists()
        assert (ROOT / "test-data" / f"{name}.loc").exists()
    assert "value\tname\tcatalog" in (folder / tool_data_name("studies")).read_text()


def tool_data_name(table: str) -> str:
    return f"biobank_{table}.loc.sample"
