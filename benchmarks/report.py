"""Appends what a run found to RESULTS.md, with the machine and the versions it was found on."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

RESULTS: Final = Path(__file__).with_name("RESULTS.md")


def append(title: str, lines: Iterable[str]) -> None:
    """Add a section: title, time, machine, versions, then these lines of Markdown."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    with RESULTS.open("a", encoding="utf-8") as stream:
        stream.write(f"\n## {title}, {now}\n\n{machine()}\n\n")
        stream.writelines(f"{line}\n" for line in lines)


def machine() -> str:
    """Cores, processor, memory, load, and the versions that matter, in one line."""
    cores = len(os.sched_getaffinity(0))
    load, _, _ = os.getloadavg()
    return (
        f"{cores} cores of {_processor()}, {_memory_gb():.0f} GB, load {load:.1f} at the end; "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}{_commit()}"
    )


def _commit() -> str:
    """Which commit was measured; nothing where git can't tell."""
    try:
        name = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", "../biobank_core")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f", commit {name}{' with changes' if changed else ''}"


def _git(*args: str) -> str:
    command = ["git", *args]
    done = subprocess.run(command, cwd=RESULTS.parent, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
