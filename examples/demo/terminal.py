"""What the demo shows: numbered steps with their times, commands as a user would type them."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

# Enough to see what a command answers; the rest is counted.
_SHOWN_LINES = 14
_MAX_CELL_CHARS = 58
_MAX_LINE_CHARS = 180
_VID = re.compile(r"V0[0-9A-F]{32}")


class Terminal:
    """Prints the demo's progress and runs `biobank` with the demo's environment."""

    def __init__(self, environment: Mapping[str, str], *, steps: int) -> None:
        self._environment = dict(os.environ, **environment)
        self._steps = steps
        self._number = 0
        self._begun = time.monotonic()
        beside = Path(sys.executable).with_name("biobank")
        self._program = [beside] if beside.exists() else [sys.executable, "-m", "biobank_core.cli"]

    def set(self, name: str, value: str) -> None:
        """Put one more variable into the environment of the commands that follow."""
        self._environment[name] = value

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the commands that follow."""
        return dict(self._environment)

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step; say at its end how long it took."""
        self._number += 1
        begun = time.monotonic()
        mark = "\033[1m{}\033[0m" if sys.stdout.isatty() else "{}"
        print("\n" + mark.format(f"[{self._number}/{self._steps}] {title}"), flush=True)
        yield
        self.say(f"done in {time.monotonic() - begun:.0f} s ({self.elapsed()} in all)")

    def elapsed(self) -> str:
        """How long the demo has been running, as minutes and seconds."""
        minutes, seconds = divmod(round(time.monotonic() - self._begun), 60)
        return f"{minutes}:{seconds:02}"

    def say(self, text: str) -> None:
        """Print a line of our own."""
        print(f"    {text}", flush=True)

    def biobank(self, *arguments: str | Path, live: bool = False) -> str:
        """Run `biobank ARGUMENTS`, showing the command and the beginning of what it prints.

        `live`: what it says on stderr (a progress bar) is seen at once, else after the result.
        Returns what it wrote to stdout. Raises subprocess.CalledProcessError unless it ends well.
        """
        process = self.start(*arguments, live=live)
        try:
            output, told = process.communicate()
        finally:
            end(process)
        lines = output.splitlines()
        for line in _aligned(lines[:_SHOWN_LINES]):
            self.say(f"  {line}")
        if len(lines) > _SHOWN_LINES:
            self.say(f"  ... {len(lines) - _SHOWN_LINES} more lines")
        for line in (told or "").splitlines():
            self.say(f"  {line}")
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, process.args, output)
        return output

    def start(self, *arguments: str | Path, live: bool = True) -> subprocess.Popen[str]:
        """Show and start `biobank ARGUMENTS` without waiting; the caller ends it (`end`)."""
        shown = shlex.join(["biobank", *(_short(argument) for argument in arguments)])
        self.say(f"$ {shown}")
        return subprocess.Popen(
            [*self._program, *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=None if live else subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )


def end(process: subprocess.Popen[str]) -> None:
    """Make sure that a process which we started is gone."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def table(tsv: str) -> list[dict[str, str]]:
    """The rows of a TSV answer, by column."""
    header, *rows = (line.split("\t") for line in tsv.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def _short(argument: str | Path) -> str:
    """A path as seen from here, when that is shorter."""
    text = str(argument)
    with contextlib.suppress(ValueError):
        if isinstance(argument, Path):
            text = str(argument.relative_to(Path.cwd()))
    return text


def _aligned(lines: list[str]) -> list[str]:
    """Tab-separated lines as columns, long cells cut short; other lines as they are, cut short."""
    rows = [line.split("\t") for line in lines]
    if max(map(len, rows), default=0) <= 1:
        return [_cut(line, _MAX_LINE_CHARS) for line in lines]
    cells = [[_cut(cell, _MAX_CELL_CHARS) for cell in row] for row in rows]
    wide = max(map(len, cells))
    widths = [max(len(row[place]) for row in cells if place < len(row)) for place in range(wide)]
    return [
        _cut(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip(),
            _MAX_LINE_CHARS,
        )
        for row in cells
    ]


def _cut(text: str, width: int) -> str:
    if _VID.fullmatch(text):
        return f"{text[:8]}…"
    return text if len(text) <= width else f"{text[: width - 1]}…"
