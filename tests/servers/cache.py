"""Virtual environments and files kept outside the checkout, so that a second run is fast."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_DONE = ".biobank-complete"
_TRIES = 3
_PAUSE_S = 5.0


def cache_folder() -> Path:
    """Return our cache folder: BIOBANK_CACHE_DIR, else the user's cache folder's biobank-dev."""
    named = os.environ.get("BIOBANK_CACHE_DIR")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "biobank-dev"


@contextlib.contextmanager
def exclusive(lock_file: Path) -> Iterator[None]:
    """Hold a lock between processes; the kernel frees it if the holder dies."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def virtual_environment(name: str, requirements: Path) -> Path:
    """Return an environment with exactly the locked requirements, installed if it is not there.

    The folder's name has the hash of the lock file and the Python version: a changed lock makes a
    new environment and never changes one in use. pip's own settings (PIP_FIND_LINKS, ...) apply.
    """
    content = requirements.read_bytes() + sys.version.encode()
    folder = cache_folder() / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    if (folder / _DONE).exists():
        return folder
    with exclusive(folder.with_suffix(".lock")):
        if (folder / _DONE).exists():
            return folder
        print(f"Installing {name} into {folder}", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted installation left
        _run([sys.executable, "-m", "venv", str(folder)])
        python = folder / "bin" / "python"
        run_pip(python, "install", "--no-deps", "--no-compile", "-r", requirements)
        (folder / _DONE).touch()
    return folder


def run_pip(python: Path, *arguments: str | Path) -> None:
    """Run this Python's pip, again where it fails: it does not mend a download that breaks off."""
    argv = [str(python), "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    for _ in range(_TRIES - 1):
        with contextlib.suppress(subprocess.CalledProcessError):
            return _run(argv)
        print("pip failed; it is tried again", file=sys.stderr, flush=True)
        time.sleep(_PAUSE_S)
    return _run(argv)


def _run(argv: list[str]) -> None:
    # Progress is a person's to read; standard output stays free for the caller's own answer.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(argv, check=True, stdout=sys.stderr, env=environment)
