"""Commands killed with SIGKILL while they work, then run again.

BIOBANK_FAULT_SEED: the seed of the moments (printed; a random one without it).
BIOBANK_FAULT_ROUNDS: how many kills that hit each test wants (default 3).
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROUNDS: Final = int(os.environ.get("BIOBANK_FAULT_ROUNDS", "3"))
SEED: Final = int(os.environ.get("BIOBANK_FAULT_SEED") or random.randrange(10**6))

# A command that needs less now than when it was measured ends before it is killed.
_MISSES_A_ROUND: Final = 4
_LOOK_EVERY_S: Final = 0.001
_TIMEOUT_S: Final = 120
# Work that is not killed may take as long as a busy machine needs.
_RUN_TIMEOUT_S: Final = 900


@dataclass
class Lab:
    """Runs `biobank` in folders of its own, away from the settings of who tests."""

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    def start(self, *args: str) -> subprocess.Popen[str]:
        """A command as a process of its own; its folder has the catalog c.db."""
        return subprocess.Popen(
            [sys.executable, "-m", "biobank_core.cli", *args],
            cwd=self.folder,
            env=environment(self.folder) | self.settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *args: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """The same, waited for; it must end with this exit code."""
        process = self.start(*args)
        out, err = process.communicate(timeout=_RUN_TIMEOUT_S)
        said = f"{err}\n{out[:2000]}"
        assert process.returncode == expect, f"{args}: exit code {process.returncode}\n{said}"
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def copy(self, name: str) -> Lab:
        """The same files in a folder beside this one."""
        target = self.folder.parent / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.folder, target)
        return Lab(target, self.settings)


def environment(home: Path) -> dict[str, str]:
    """The environment of a command that knows nothing of this account's settings."""
    root = Path(__file__).parents[2]
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BIOBANK_", "GALAXY_", "XDG_"))
    }
    paths = os.pathsep.join(filter(None, (str(root), kept.get("PYTHONPATH"))))
    # `PYTHONPATH` because the commands run in other folders than this checkout.
    return kept | {"HOME": str(home), "BIOBANK_CATALOG": "sqlite:///c.db", "PYTHONPATH": paths}


class Killer:
    """Kills commands at moments between the start of their own work and their end.

    A moment is an amount of processor time that the command has used: how far it has come by then
    does not depend on what else the machine does, as it would for a moment of the clock.
    """

    def __init__(self, name: str) -> None:
        print(f"BIOBANK_FAULT_SEED={SEED}")
        self._name = name
        # Each test has its own moments, whatever other tests ran before it.
        self._chance = random.Random(f"{SEED} {name}")
        self._begin_s = self._end_s = 0.0
        self.moments_s: list[float] = []
        self.misses = 0

    def measure(self, lab: Lab, *args: str, idle: Lab | None = None) -> None:
        """Run the command undisturbed, to know when it works.

        `idle`: a lab whose catalog is made and empty, where that is not a file.
        """
        with tempfile.TemporaryDirectory() as folder:
            empty = idle or Lab(Path(folder))
            if idle is None:
                empty.run("init")
            # The start of Python and its imports: killed there, no command has done anything yet.
            self._begin_s = _processor_s(empty, "status")
        self._end_s = _processor_s(lab, *args)
        assert self._end_s > self._begin_s, "no work that could be measured"

    def kill(
        self, lab: Lab, *args: str, within_s: float = _TIMEOUT_S, linger_s: float = 0.0
    ) -> bool:
        """Start the command and kill it somewhere on its way; False when it had ended by then.

        One that waits for others, and so uses no processor, is killed after `within_s` seconds.
        With `linger_s` the kill comes up to so many seconds later: so it also hits while the
        command waits for its server.
        """
        moment_s = self._chance.uniform(self._begin_s, self._end_s)
        linger_s = self._chance.uniform(0, linger_s)
        process = lab.start(*args)
        latest = time.monotonic() + within_s
        reached = False
        assert process.stdout is not None
        assert process.stderr is not None
        with ThreadPoolExecutor(2) as pool:
            # Else a full pipe would hold the command up.
            pool.submit(process.stdout.read)
            said = pool.submit(process.stderr.read)
            while process.poll() is None:
                if _used_s(process) >= moment_s or time.monotonic() >= latest:
                    reached = True
                    time.sleep(linger_s)
                    process.kill()
                    break
                time.sleep(_LOOK_EVERY_S)
            process.wait(timeout=_TIMEOUT_S)
            err = said.result(timeout=_TIMEOUT_S)
        if process.returncode == 0:
            self.misses += 1
            if not reached:
                # It needs less than was measured: no later moment would hit either.
                self._end_s = moment_s
            assert self.misses <= _MISSES_A_ROUND * ROUNDS, f"{self}: hardly a kill hits"
            return False
        assert process.returncode == -9, f"{args}: exit code {process.returncode}\n{err}"
        self.moments_s.append(moment_s)
        return True

    @property
    def done(self) -> bool:
        """Whether as many kills hit as the rounds want."""
        return len(self.moments_s) >= ROUNDS

    def __str__(self) -> str:
        moments = " ".join(f"{moment:.2f}" for moment in sorted(self.moments_s))
        return (
            f"{self._name}: {len(self.moments_s)} kills before the end, {self.misses} too late; "
            f"seed {SEED}; at {moments or '-'} s of processor time, "
            f"work from {self._begin_s:.2f} to {self._end_s:.2f} s"
        )


def _processor_s(lab: Lab, *args: str) -> float:
    """The processor time that a command takes; no other child may end meanwhile."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    lab.run(*args)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _used_s(process: subprocess.Popen[str]) -> float:
    """The processor time that a child, not yet waited for, has used so far, in all its threads."""
    # What clock_getcpuclockid(3) gives on Linux; Python has it for threads only.
    return time.clock_gettime((~process.pid << 3) | 2)
