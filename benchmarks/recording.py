"""What recording a job costs us in CPU time, Galaxy's own and the waiting for it left out."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks import galaxy_answers
from benchmarks.workspace import ROOT, Figure, Workspace, seconds
from biobank_core.config import load_settings
from biobank_core.galaxy.client import GalaxyClient
from biobank_core.galaxy.live import LiveSource
from biobank_core.galaxy.recorder import record
from biobank_core.stores import open_stores

JOBS: Final = 1_000
MOST_S: Final = 0.010


def figures(work: Workspace) -> Iterator[Figure]:
    """Jobs of two inputs and two outputs, each with two new data."""
    settings = load_settings(catalog=f"sqlite:///{work.folder}/recorded.db", environment={})
    with galaxy(JOBS) as url, open_stores(settings, write=True) as stores:
        client = GalaxyClient.connect(url, "no-secret")
        asking_s = _cpu(lambda: _ask(client)) / JOBS
        before = client.request_count

        def recorded() -> int:
            return record(stores.catalog, LiveSource(client), server="bench").recorded

        first_s = _cpu(lambda: _expect(recorded(), JOBS)) / JOBS
        requests = client.request_count - before
        before = client.request_count
        again_s = _cpu(lambda: _expect(recorded(), 0))
        asked_again = client.request_count - before
    yield seconds(
        f"record a job, CPU, {requests / JOBS:.2f} requests each (raw: the same requests alone)",
        first_s,
        asking_s,
        most_s=MOST_S,
    )
    yield seconds(f"record again with nothing new, CPU, {asked_again} request", again_s)


def _ask(client: GalaxyClient) -> None:
    """Ask all that a recording asks, and read nothing of it."""
    client.get("jobs", {"limit": 500})
    paths = [
        f"jobs/{galaxy_answers.job_id(number)}{end}"
        for number in range(JOBS)
        for end in ("?full=true", "/build_for_rerun")
    ]
    count = 1 + galaxy_answers.DATASETS_A_JOB * JOBS
    paths += [f"datasets/{galaxy_answers.job_id(number)}" for number in range(1, count)]
    for _, answer in client.each(paths, client.get):
        if isinstance(answer, Exception):
            raise answer


def _cpu(do: Callable[[], object]) -> float:
    """The CPU seconds that all threads of this process take for it."""
    begin = time.process_time()
    do()
    return time.process_time() - begin


def _expect(found: int, expected: int) -> None:
    if found != expected:
        raise RuntimeError(f"{found} jobs recorded, not {expected}")


@contextmanager
def galaxy(jobs: int) -> Iterator[str]:
    """The URL of a Galaxy with so many jobs, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.galaxy_answers", str(jobs)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("no pipes")
        yield process.stdout.readline().strip()
        process.stdin.close()
