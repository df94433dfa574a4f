"""Other programs that keep provenance, beside us: an action with two inputs and two outputs.

Each is installed into an environment of its own in the cache folder, and stores as it does while it
works. They do other things with it than we do, and keep other things safe: this is for scale.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import commit
from benchmarks.workspace import Figure, Workspace
from tests.servers.cache import cache_folder, exclusive

ACTIONS: Final = 100
_HERE: Final = Path(__file__).parent
_DONE: Final = ".biobank-complete"


@dataclass(frozen=True, slots=True)
class Peer:
    """A program, what pip installs of it, and the script that stores with it."""

    name: str
    requirement: str
    script: str


PEERS: Final = (
    Peer("AiiDA 2.9 (SQLite)", "aiida-core==2.9.*", "aiida_actions.py"),
    Peer("LaminDB 2.12 (SQLite)", "lamindb==2.12.*", "lamindb_actions.py"),
)


def figures(work: Workspace) -> Iterator[Figure]:
    """Ours, then theirs."""
    yield from commit.figures(work)
    for peer in PEERS:
        folder = work.folder / peer.script.partition(".")[0]
        took_s = _stored(peer, _python(peer), folder)
        what = f"the same with {peer.name}, as it stores by itself"
        yield Figure(what=what, ours=f"{ACTIONS / took_s:,.1f}/s")


def _python(peer: Peer) -> Path:
    """Python of the peer's environment, installed where it is not there yet."""
    version = ".".join(map(str, sys.version_info[:2]))
    folder = cache_folder() / f"peer-{peer.requirement.replace('.*', '')}-py{version}"
    python = folder / "bin" / "python"
    with exclusive(folder.with_name(f"{folder.name}.lock")):
        if not (folder / _DONE).exists():
            print(f"Installing {peer.requirement} into {folder}", file=sys.stderr, flush=True)
            shutil.rmtree(folder, ignore_errors=True)  # what an interrupted installation left
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install"]
            subprocess.run([*pip, "--quiet", peer.requirement], check=True, stdout=sys.stderr)
            (folder / _DONE).touch()
    return python


def _stored(peer: Peer, python: Path, folder: Path) -> float:
    """The seconds that its script says it took."""
    home, place = folder / "home", folder / "work"
    home.mkdir(parents=True)
    place.mkdir()
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(home),
        "AIIDA_PATH": str(home),
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [python, _HERE / peer.script, str(ACTIONS)],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return float(done.stdout.split()[-1])
