"""Run with LaminDB's Python: `lamindb_actions.py ACTIONS` stores so many and prints the seconds.

It works in the empty folder that it is started in. A run with two input and two output artifacts;
their files lie in the storage already, so that none is copied.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path


def main(actions: int) -> None:
    """Each run takes what the one before it made."""
    with contextlib.redirect_stdout(sys.stderr):
        import lamindb_setup  # noqa: PLC0415  (makes the instance that lamindb then opens)

        lamindb_setup.init(storage="./store")
        import lamindb as ln  # noqa: PLC0415

        ln.settings.verbosity = "error"
        storage = Path("store").absolute()
        for number in range(-1, actions):
            for output in range(2):
                (storage / f"{number}-{output}.txt").write_text(f"{number} {output}")
        tool = ln.Transform(key="tool", kind="pipeline").save()

        def made(number: int, run: ln.Run | None) -> list[ln.Artifact]:
            return [
                ln.Artifact(storage / f"{number}-{output}.txt", run=run, description="out").save()
                for output in range(2)
            ]

        before = made(-1, None)
        begin = time.perf_counter()
        for number in range(actions):
            run = ln.Run(tool).save()
            run.input_artifacts.add(*before)
            before = made(number, run)
        took_s = time.perf_counter() - begin
    print(took_s)


if __name__ == "__main__":
    main(int(sys.argv[1]))
