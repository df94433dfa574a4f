"""The Galaxy tools as a Tool Shed gets them: linted, packed, nothing missing, nothing too much."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from tests.servers.planemo import planemo

ROOT = Path(__file__).parents[3]
TOOLS = sorted((ROOT / "galaxy_tools").glob("biobank_*.xml"))
# biotools: no entry in that registry; version_bumped: asks a Tool Shed.
_SKIP = ("--skip", "BioToolsValid,version_bumped")

pytestmark = pytest.mark.timeout(1000)


def test_planemo_finds_nothing_to_complain_of(checkout: Path) -> None:
    done = planemo("lint", "--fail_level", "warn", *_SKIP, "galaxy_tools", folder=checkout)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("Linting tool") == len(TOOLS)


def test_a_tool_shed_would_take_every_repository(checkout: Path) -> None:
    done = planemo("shed_lint", "--tools", *_SKIP, ".", folder=checkout)
    assert done.returncode == 0, done.stdout
    built = planemo("shed_build", ".", folder=checkout)
    assert built.returncode == 0, built.stdout


def test_every_tool_is_a_repository_and_the_suite_names_them_all(
    archives: dict[str, Path],
) -> None:
    names = {path.stem for path in TOOLS}
    assert set(archives) == names | {"suite_biobank"}
    suite = ElementTree.parse(archives["suite_biobank"] / "repository_dependencies.xml")
    assert {entry.attrib["name"] for entry in suite.iter("repository")} == names
    described = yaml.safe_load((ROOT / ".shed.yml").read_text())["repositories"]
    assert set(described) == names


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_an_archive_holds_one_tool_and_all_that_it_needs(
    archives: dict[str, Path], tool: Path
) -> None:
    folder = archives[tool.stem]
    assert [path.stem for path in folder.glob("biobank_*.xml")] == [tool.stem]
    assert (folder / "macros.xml").exists()
    assert (folder / "tool_data_table_conf.xml.sample").exists()
    for test in ElementTree.parse(tool).iter("test"):
        for param in test.iter("param"):
            if "ftype" in param.attrib:
                assert (folder / "test-data" / param.attrib["value"]).exists()
