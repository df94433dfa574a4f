"""Every tool's own tests, run by planemo on a real Galaxy from the unpacked archives."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.servers.galaxy import GalaxyServer
from tests.servers.planemo import planemo

# planemo runs one test after the other and mostly waits for Galaxy, which has two job workers.
_SIDE_BY_SIDE = 2
_PATIENCE_S = 1400.0


def planemo_test(
    galaxy: GalaxyServer, key: str, paths: list[Path], folder: Path
) -> list[dict[str, Any]]:
    """Run the tests of tools or workflows on this Galaxy; what planemo reports of each."""
    folder.mkdir()
    done = planemo(
        "test",
        *("--engine", "external_galaxy", "--no_shed_install"),
        *("--galaxy_url", galaxy.url),
        *("--galaxy_admin_key", galaxy.admin_key, "--galaxy_user_key", key),
        *("--test_output", "report.html", "--test_output_json", "report.json"),
        *map(str, paths),
        folder=folder,
        timeout_s=_PATIENCE_S,
    )
    report = folder / "report.json"
    assert report.exists(), done.stdout
    tests: list[dict[str, Any]] = json.loads(report.read_text())["tests"]
    return tests


def failures(tests: list[dict[str, Any]]) -> dict[str, Any]:
    """What went wrong, by the test's name."""
    return {
        test["id"]: test["data"].get("execution_problem") or test["data"].get("output_problems")
        for test in tests
        if test["data"]["status"] != "success"
    }


@pytest.mark.timeout(1500)
def test_every_tool_passes_its_tests_on_a_real_galaxy(
    galaxy: GalaxyServer, suite: list[Path], tmp_path: Path
) -> None:
    defined = {path: len(list(ElementTree.parse(path).iter("test"))) for path in suite}
    # The one with the most tests to whoever has the least to do.
    shares: list[list[Path]] = [[] for _ in range(_SIDE_BY_SIDE)]
    for path in sorted(suite, key=lambda path: (-defined[path], path.name)):
        min(shares, key=lambda share: sum(defined[one] for one in share)).append(path)
    keys = [galaxy.create_user(f"planemo{n}@biobank.example") for n in range(_SIDE_BY_SIDE)]
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        runs = [
            pool.submit(planemo_test, galaxy, key, share, tmp_path / f"share{n}")
            for n, (key, share) in enumerate(zip(keys, shares, strict=True))
        ]
        tests = [test for run in runs for test in run.result()]
    assert not failures(tests)
    assert len(tests) == sum(defined.values())
