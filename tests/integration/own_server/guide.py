"""docs/galaxy-administrator.md as something to follow: its blocks and commands, elsewhere."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.servers.setup_galaxy import galaxy_environment

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "galaxy-administrator.md"
OMERO = "omero://omero.example.org:4064/?group=lab"
# What a clone holds that the program is made of.
_SOURCES = ("biobank_core", "sync_service", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


class Site:
    """The guide's paths, somewhere else."""

    def __init__(self, folder: Path) -> None:
        self.program = folder / "opt"
        self.config = folder / "config"
        self.dependencies = folder / "dependencies"
        self.tool_data = folder / "tool-data"
        self.files = folder / "biobank"
        for made in (self.config, self.dependencies, self.tool_data, self.files):
            made.mkdir()
        self.tables = self.tool_data / "tool_data_table_conf.xml"
        sample = ROOT / "tool_data" / "tool_data_table_conf.xml.sample"
        self.tables.write_text(sample.read_text().replace("tool-data/", f"{self.tool_data}/"))
        for loc in (ROOT / "tool_data").glob("*.loc.sample"):
            (self.tool_data / loc.stem).write_text(loc.read_text())
        self.elsewhere = {
            "/opt/biobank": str(self.program),
            "/srv/galaxy/dependencies": str(self.dependencies),
            "/srv/galaxy/tool-data": str(self.tool_data),
            "/srv/galaxy/config": str(self.config),
            "/srv/galaxy/.venv": str(galaxy_environment()),
            "/srv/biobank": str(self.files),
        }

    def blocks(self, language: str) -> list[str]:
        """The guide's blocks in this language, with the paths of this site."""
        found = re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(), re.S | re.M)
        return [self._here(block) for block in found]

    def settings(self, key: str) -> dict[str, Any]:
        """The one YAML block that has this key."""
        read: list[dict[str, Any]] = [yaml.safe_load(block) for block in self.blocks("yaml")]
        (found,) = [one for one in read if key in one]
        return found

    def command(self, part: str) -> list[str]:
        """The one command of the guide that holds this text."""
        lines = [line for block in self.blocks("sh") for line in block.splitlines()]
        (found,) = [line for line in lines if self._here(part) in line]
        return shlex.split(found)

    def run(self, part: str, **environment: str) -> str:
        """Run the one command of the guide that holds this text; its standard output."""
        return self._run(self.command(part), self.files, environment)

    def install(self) -> None:
        """Install the program as the guide says, but with what this Python has already."""
        clone = self.program.with_name("clone")
        clone.mkdir()
        for name in _SOURCES:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, clone / name, ignore=ignored)
            else:
                shutil.copy(ROOT / name, clone / name)
        _, *arguments = self.command("python3 -m venv")
        self._run([sys.executable, *arguments], clone, {})
        site_packages = next(self.program.glob("lib/python*/site-packages"))
        # A folder named there is not searched for .pth files: this checkout is not found by it.
        already = [path for path in sys.path if path.endswith("site-packages")]
        (site_packages / "already.pth").write_text("\n".join(already))
        self._run([*self.command("/pip install"), "--no-deps", "--quiet"], clone, {})

    def _run(self, command: Sequence[str], folder: Path, environment: dict[str, str]) -> str:
        pip = {name: text for name, text in os.environ.items() if name.startswith("PIP_")}
        done = subprocess.run(
            command,
            env={"PATH": os.environ["PATH"], "HOME": str(self.files), **pip, **environment},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _here(self, text: str) -> str:
        for there, here in self.elsewhere.items():
            text = text.replace(there, here)
        return text
