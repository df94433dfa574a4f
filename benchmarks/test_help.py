"""How long `biobank --help` takes; the aim is under 0.3 s (run: pytest benchmarks)."""

from __future__ import annotations

import subprocess
import sys

from pytest_benchmark.fixture import BenchmarkFixture


def test_help(benchmark: BenchmarkFixture) -> None:
    command = [sys.executable, "-m", "biobank_core.cli", "--help"]
    benchmark.pedantic(
        subprocess.run, args=(command,), kwargs={"check": True, "capture_output": True}, rounds=20
    )
