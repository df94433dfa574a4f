"""README's tour is run command by command; what it shows is what comes back.

`python -m tests.unit.test_readme_tour` writes what comes back now into README.md.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from biobank_core.cli import COMMANDS
from biobank_core.cli.reference import reference

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
FENCE = "```console\n"
VID = re.compile(r"V0[0-9A-F]{32}")


class Player:
    """Runs the commands of the tour in a copy of the clone's `examples`, without a shell."""

    def __init__(self, root: Path) -> None:
        # Somebody may have followed the tour in this clone.
        made = shutil.ignore_patterns("*.db*", "*.svg", "everything.jsonl", "selected.json")
        shutil.copytree(ROOT / "examples" / "tour", root / "examples" / "tour", ignore=made)
        self._folder = root
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("BIOBANK_", "GALAXY_"))}
        own = str(root / "home")
        self._environment = {
            **kept,
            **dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"), own),
            "PYTHONPATH": str(ROOT),
            "PYTHONUTF8": "1",
        }

    def played(self, text: str) -> str:
        """The text, with what comes back after each command of its console blocks."""
        parts = text.split(FENCE)
        out = [parts[0]]
        for part in parts[1:]:
            block, fence, rest = part.partition("```\n")
            commands = [line for line in block.splitlines() if line.startswith("$ ")]
            assert commands, f"a console block without a command: {block!r}"
            shown = "".join(f"{line}\n{self._run(line[2:])}" for line in commands)
            out.append(f"{FENCE}{shown}{fence}{rest}")
        return "".join(out)

    def _run(self, line: str) -> str:
        match shlex.split(line):
            case ["cd", folder]:
                self._folder /= folder
                assert self._folder.is_dir(), line
                return ""
            case ["export", setting]:
                name, _, value = setting.partition("=")
                self._environment[name] = value
                return ""
            case ["biobank", *arguments]:
                done = subprocess.run(
                    [sys.executable, "-m", "biobank_core.cli", *arguments],
                    cwd=self._folder,
                    env=self._environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    encoding="utf-8",
                    timeout=120,
                    check=False,
                )
                assert done.returncode == 0, f"{line}\n{done.stdout}"
                lines = VID.sub("V0…", done.stdout).splitlines()
                # Empty cells at the end of a row would be trailing space in README.
                return "".join(f"{line.rstrip()}\n" for line in lines)
        raise AssertionError(f"the tour can't do this without a shell: {line}")


def section(text: str, title: str) -> str:
    found = re.search(rf"^## {title}.*?\n(.*?)(?=^## )", text, re.DOTALL | re.MULTILINE)
    assert found, f"README has no section {title}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_tour_gives_what_readme_shows(tmp_path: Path) -> None:
    text = README.read_text(encoding="utf-8")
    played = Player(tmp_path).played(text)
    assert played == text, "see the docstring of this file"
    picture = (tmp_path / "examples/tour/KP-01.svg").read_text(encoding="utf-8")
    assert "T1 typing" in picture


def test_the_tour_needs_no_server_and_begins_with_a_file_of_its_own() -> None:
    tour = section(README.read_text(encoding="utf-8"), "A ten-minute tour")
    assert "$ export BIOBANK_CATALOG=" in tour
    assert "--galaxy" not in tour


def test_readme_lists_every_command_with_what_its_help_says() -> None:
    table = rows(section(README.read_text(encoding="utf-8"), "Commands"))
    listed = {row[0].strip("`"): row[1] for row in table if row[0].startswith("`")}
    assert listed == COMMANDS


def test_readme_lists_the_exit_codes() -> None:
    table = rows(section(README.read_text(encoding="utf-8"), "Commands"))
    codes = [int(row[0]) for row in table if row[0].isdigit()]
    assert codes == [0, 1, 2, 3, 4, 5, 70, 130, 141]


def test_the_reference_holds_every_command_and_option_as_they_are_now() -> None:
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == reference(), "run: python -m biobank_core.cli.reference > docs/cli.md"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        now = Player(Path(folder)).played(README.read_text(encoding="utf-8"))
    README.write_text(now, encoding="utf-8")
