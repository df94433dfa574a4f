"""Files that several subjects share, commands with their time and memory, and figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, ParamSpec

from benchmarks import raw, world
from biobank_core.model.base import Object

P = ParamSpec("P")

ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the results. `raw`: with sqlite3 alone; `met` None: nothing was aimed at."""

    what: str
    ours: str
    raw: str = ""
    ratio: float | None = None
    aim: str = ""
    met: bool | None = None

    def cells(self) -> list[str]:
        """The cells of its line in the table."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return [self.what, self.ours, self.raw, ratio, self.aim, _verdict(self.met)]


def rate(what: str, count: int, ours_s: float, raw_s: float, *, least: float) -> Figure:
    """A figure in objects a second; `ratio` is our speed over that of sqlite3 alone."""
    ours = count / ours_s
    return Figure(
        what=what,
        ours=f"{ours:,.0f}/s",
        raw=f"{count / raw_s:,.0f}/s",
        ratio=raw_s / ours_s,
        aim=f"{least:,.0f}/s",
        met=ours >= least,
    )


def seconds(
    what: str, ours_s: float, raw_s: float | None = None, *, most_s: float | None = None
) -> Figure:
    """A figure in seconds or milliseconds; `ratio` is the speed of ours over the raw one's."""
    return Figure(
        what=what,
        ours=_time(ours_s),
        raw="" if raw_s is None else _time(raw_s),
        ratio=None if raw_s is None else raw_s / ours_s,
        aim="" if most_s is None else f"< {_time(most_s)}",
        met=None if most_s is None else ours_s < most_s,
    )


def memory(what: str, peak_mb: float, *, most_mb: float) -> Figure:
    """A figure of peak memory."""
    met = peak_mb < most_mb
    return Figure(what=what, ours=f"{peak_mb:,.0f} MB", aim=f"< {most_mb:,.0f} MB", met=met)


# Linux counts as a program's peak also that of the process it was started from. This one is small,
# and does nothing but start a command and tell what wait4(2) says of it.
_MEASURED: Final = """
import json, os, subprocess, sys, time
begin = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
took_s = time.perf_counter() - begin
status = os.waitstatus_to_exitcode(status)
print(json.dumps([status, took_s, usage.ru_maxrss / 1000]), file=sys.stderr)
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took."""

    seconds: float
    peak_mb: float


def biobank(folder: Path, *args: str, output: Path | None = None) -> Cost:
    """Run a command on the catalog c.db of this folder; it must end well."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BIOBANK_", "GALAXY_", "XDG_"))
    }
    environment |= {
        "HOME": str(folder),
        "BIOBANK_CATALOG": f"sqlite:///{folder}/c.db",
        "PYTHONPATH": str(ROOT),
    }
    target = output or Path(os.devnull)
    command = [sys.executable, "-m", "biobank_core.cli", *args]
    with target.open("wb") as stdout:
        ended = subprocess.run(
            [sys.executable, "-c", _MEASURED, *command],
            cwd=folder,
            env=environment,
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=True,
        )
    status, took_s, peak_mb = json.loads(ended.stderr.splitlines()[-1])
    if status:
        raise RuntimeError(f"biobank {' '.join(args)} ended with {status}")
    return Cost(took_s, peak_mb)


def timed(do: Callable[P, object], *args: P.args, **named: P.kwargs) -> float:
    """How many seconds a call of it takes."""
    begin = time.perf_counter()
    do(*args, **named)
    return time.perf_counter() - begin


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which this share of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass
class Store:
    """The same objects in a catalog of ours (c.db) and with sqlite3 alone (raw.db)."""

    folder: Path
    count: int
    ours: Cost
    raw_s: float


@dataclass
class Workspace:
    """Where a run works; with `full` it takes the sizes of the aims, which takes half an hour."""

    folder: Path
    full: bool = False
    _stores: dict[str, Store] = field(default_factory=dict)

    def store(self, name: str, objects: Callable[[], Iterable[Object]]) -> Store:
        """The loaded store of this name, made when it is first asked for."""
        if name not in self._stores:
            self._stores[name] = self._made(self.folder / name, objects())
        return self._stores[name]

    def mixed(self, count: int) -> Store:
        """So many objects as a recorder makes them."""
        return self.store(f"mixed {count}", lambda: world.mixed(count))

    def _made(self, folder: Path, objects: Iterable[Object]) -> Store:
        folder.mkdir()
        file, count = folder / "objects.jsonl", 0
        with file.open("wb") as stream:
            for line in world.lines(objects):
                stream.write(line)
                count += 1
        ours = biobank(folder, "load", str(file))
        connection = raw.opened(folder / "raw.db")
        raw_s = timed(raw.load, connection, file)
        connection.close()
        file.unlink()
        return Store(folder, count, ours, raw_s)


def _verdict(met: bool | None) -> str:
    return "" if met is None else "met" if met else "**missed**"


def _time(value_s: float) -> str:
    return f"{value_s:.2f} s" if value_s >= 1 else f"{value_s * 1000:.1f} ms"
