"""What the tests of the Galaxy tools share: the suite as a Tool Shed gets it, loaded by Galaxy."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from biobank_core.galaxy.tool_data import install_dependency
from tests.integration.tools.lab import Lab
from tests.servers import tool_catalogs
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_user import GalaxyUser
from tests.servers.missing import service_is_missing
from tests.servers.planemo import planemo, planemo_environment
from tests.servers.processes import MissingService

ROOT = Path(__file__).parents[3]
# What is needed beside the tools to make their archives.
_SHIPPED = (".shed.yml", "LICENSE", "galaxy_tools", "tool_data", "test-data")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that are shipped, alone in a folder."""
    try:
        planemo_environment()
    except (MissingService, subprocess.CalledProcessError) as error:
        service_is_missing(f"planemo can't be had here: {error}")
    folder = tmp_path_factory.mktemp("checkout")
    for name in _SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def archives(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each repository's archive, unpacked in a folder of its own."""
    # shed_build makes the same archives, but all under one name.
    done = planemo("shed_upload", "--tar_only", "--shed_target", "local", ".", folder=checkout)
    assert done.returncode == 0, done.stdout
    unpacked = {}
    for archive in sorted(checkout.glob("shed_upload_*.tar.gz")):
        name = archive.name.removeprefix("shed_upload_").removesuffix(".tar.gz")
        unpacked[name] = tmp_path_factory.mktemp(name)
        with tarfile.open(archive) as packed:
            packed.extractall(unpacked[name], filter="data")
    return unpacked


@pytest.fixture(scope="session")
def suite(galaxy: GalaxyServer, archives: dict[str, Path]) -> list[Path]:
    """The tools of all archives, loaded by Galaxy; their requirement; the tests' catalogs."""
    catalogs = tool_catalogs.folder_of(galaxy.folder)
    if catalogs is None:
        service_is_missing("this Galaxy was started without our data tables")
    tool_catalogs.prepare(catalogs)
    install_dependency(galaxy.dependencies)
    tools = [path for name in archives for path in sorted(archives[name].glob("biobank_*.xml"))]
    galaxy.add_tools(tools)
    return tools


@pytest.fixture
def lab(galaxy: GalaxyServer, galaxy_user: GalaxyUser, suite: list[Path]) -> Lab:
    """A user of the tools, and the command line on the same catalogs."""
    assert suite
    return Lab(galaxy, galaxy_user)
