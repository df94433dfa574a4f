"""biobank completion: the scripts, and what they ask biobank for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from biobank_core.cli import COMMANDS, cli

SHELLS = ("bash", "zsh", "fish")
ROOT = Path(__file__).parents[2]


def script(shell: str) -> str:
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0
    return done.stdout


def completed(*words: str) -> list[str]:
    """What the script of bash is given for these words, the last one not yet complete."""
    done = subprocess.run(
        [sys.executable, "-m", "biobank_core.cli"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "_BIOBANK_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["biobank", *words]),
            "COMP_CWORD": str(len(words)),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_asks_biobank_itself(shell: str) -> None:
    text = script(shell)
    assert f"_BIOBANK_COMPLETE={shell}_complete" in text
    assert "biobank" in text


@pytest.mark.parametrize("shell", [name for name in SHELLS if shutil.which(name)])
def test_a_shell_that_is_here_can_read_its_script(shell: str) -> None:
    done = subprocess.run([shell, "-n"], input=script(shell), text=True, check=False, timeout=60)
    assert done.returncode == 0


def test_commands_options_and_choices_are_completed() -> None:
    assert completed("") == list(COMMANDS)
    assert completed("re") == [name for name in COMMANDS if name.startswith("re")]
    assert completed("verify", "--re") == ["--repair"]
    assert completed("status", "--format", "") == ["text", "json"]
    assert completed("completion", "z") == ["zsh"]


def test_an_unknown_shell_exits_2() -> None:
    assert CliRunner().invoke(cli, ["completion", "tcsh"]).exit_code == 2
