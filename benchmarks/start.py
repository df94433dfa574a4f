"""How long `biobank --help` takes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Final

from benchmarks.workspace import Figure, Workspace, biobank, percentile, seconds, timed

MOST_S: Final = 0.3
_RUNS: Final = 15


def figures(work: Workspace) -> Iterator[Figure]:
    """The middle of some runs, beside a Python that does nothing."""
    ours_s = percentile([biobank(work.folder, "--help").seconds for _ in range(_RUNS)], 0.5)
    nothing = [sys.executable, "-c", "pass"]
    python_s = percentile([timed(subprocess.run, nothing, check=True) for _ in range(_RUNS)], 0.5)
    yield seconds("`biobank --help` (raw: Python alone)", ours_s, python_s, most_s=MOST_S)
