"""Measure ourselves beside sqlite3 alone: `python -m benchmarks [--full] [SUBJECT ...]`.

Each subject is a module here. Everything is measured in one run on the same rows; what it finds is
printed and kept in RESULTS.md. The subject `peers` (AiiDA, LaminDB) installs some hundred megabytes
and is only run when named.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.report import append
from benchmarks.workspace import Figure, Workspace

SUBJECTS: Final = (
    "start",
    "commit",
    "load",
    "keeping",
    "lineage",
    "selecting",
    "recording",
    "neo4j",
    "sync",
    "omero",
)
WHEN_NAMED: Final = ("peers",)
_HEADER: Final = (
    "| what | ours | raw sqlite3 | ratio | aim | |",
    "|---|---:|---:|---:|---:|---|",
)


def main() -> None:
    """Run the subjects that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = (*SUBJECTS, *WHEN_NAMED)
    parser.add_argument("subject", nargs="*", help=f"some of: {', '.join(known)}; default: most")
    parser.add_argument("--full", action="store_true", help="with the sizes of the aims")
    parser.add_argument("--no-record", action="store_true", help="only print")
    chosen = parser.parse_args()
    if unknown := set(chosen.subject) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    found: list[Figure] = []
    begin = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="biobank-bench-") as folder:
            work = Workspace(Path(folder), full=chosen.full)
            for name in chosen.subject or SUBJECTS:
                for figure in importlib.import_module(f"benchmarks.{name}").figures(work):
                    found.append(figure)
                    print(" | ".join(cell for cell in figure.cells() if cell), flush=True)
    finally:
        # Also what was found before something failed, or Ctrl-C: a full run takes a quarter hour.
        if found and not chosen.no_record:
            lines = [f"| {' | '.join(figure.cells())} |" for figure in found]
            took = f"Took {(time.monotonic() - begin) / 60:.0f} minutes."
            title = "Speed (make bench)" + (" --full" * chosen.full)
            append(title, [*_HEADER, *lines, "", took])


if __name__ == "__main__":
    main()
