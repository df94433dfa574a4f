"""Run with AiiDA's Python: `aiida_actions.py ACTIONS` stores so many and prints the seconds.

AIIDA_PATH names an empty folder. A calculation with two inputs and two outputs, each node stored as
AiiDA stores it while it works; `verdi presto` makes the profile (SQLite, files in a folder).
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from aiida import load_profile, orm
from aiida.common.links import LinkType


def main(actions: int) -> None:
    """Each action takes what the one before it made."""
    verdi = Path(sys.executable).with_name("verdi")
    subprocess.run([verdi, "presto", "--profile-name", "bench"], check=True, capture_output=True)
    load_profile("bench")
    before = [orm.Int(-1).store(), orm.Int(-2).store()]
    begin = time.perf_counter()
    for number in range(actions):
        action = orm.CalcFunctionNode()
        action.label = "tool"
        for position, node in enumerate(before):
            action.base.links.add_incoming(node, LinkType.INPUT_CALC, f"in{position}")
        action.store()
        before = [orm.Int(2 * number), orm.Int(2 * number + 1)]
        for position, node in enumerate(before):
            node.base.links.add_incoming(action, LinkType.CREATE, f"out{position}")
            node.store()
        action.set_exit_status(0)
        action.seal()
    print(time.perf_counter() - begin)


if __name__ == "__main__":
    main(int(sys.argv[1]))
