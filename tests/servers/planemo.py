"""planemo, in an environment of its own: `python -m tests.servers.planemo` installs it.

To move to a newer one: `pip install planemo` in an empty environment, then `pip freeze` into
planemo-requirements.lock.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.servers.cache import virtual_environment

_LOCK = Path(__file__).with_name("planemo-requirements.lock")


def planemo_environment() -> Path:
    """Return the virtual environment with planemo, installed on the first call (some minutes)."""
    return virtual_environment("planemo", _LOCK)


def planemo(*args: str, folder: Path, timeout_s: float = 800.0) -> subprocess.CompletedProcess[str]:
    """Run planemo in `folder`, which also is its home; standard output and error come as one."""
    program = planemo_environment() / "bin" / "planemo"
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(folder)}
    environment |= {"LANG": "C.UTF-8", "PLANEMO_GLOBAL_WORKSPACE": str(folder / ".planemo")}
    return subprocess.run(
        [str(program), *args],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )


if __name__ == "__main__":
    print(planemo_environment())
