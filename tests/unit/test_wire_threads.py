"""Galaxy's answers are read in several threads from the first one on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# In a process of its own: only the first use of a struct was ever in danger. Before the structs
# were prepared, about three of four such processes ended with a segmentation fault.
_READERS = """
import sys, threading
from biobank_core.errors import BiobankError
from biobank_core.galaxy import wire

sys.setswitchinterval(1e-6)
together = threading.Barrier(8)
answer = {
    "id": "1", "state": "ok", "tool_id": "cat", "uuid": "u", "params": {},
    "create_time": "2026-01-01T00:00:00", "update_time": "2026-01-01T00:00:00",
    "inputs": {"input": {"id": "1"}}, "collection_type": "list",
    "elements": [{"element_identifier": "a", "object": {"id": "1"}}],
}

def read_all():
    together.wait()
    for kind in (wire.JobDetail, wire.Dataset, wire.Hdca, wire.Invocation):
        try:
            wire.read(answer, kind, "an answer")
        except BiobankError:
            pass

threads = [threading.Thread(target=read_all) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.parametrize("attempt", range(6))
def test_threads_that_read_their_first_answers_at_once_all_end(attempt: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _READERS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
