"""Reanalysis without a person: runs the workflow of this folder on a Galaxy, for cron.

    GALAXY_URL=https://galaxy.example.org GALAXY_API_KEY=... python reanalyse.py \\
        --catalog lab --study KPN --tool kleborate_typing --release '<3'

It runs in a new history, waits for the end, and prints what was selected and recorded. What was
done by the new release is not selected again, so that it may run every night. A history in which
nothing was selected is deleted. Exit codes: 0 all went well, 1 a job failed, 3 Galaxy is away.
It needs bioblend and PyYAML, and of biobank only the tools in that Galaxy.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import requests
import yaml
from bioblend import ConnectionError as GalaxyError
from bioblend.galaxy import GalaxyInstance

WORKFLOW = Path(__file__).with_name("select-and-reanalyse.gxwf.yml")
EXIT_FAILED, EXIT_AWAY = 1, 3
_POLL_S = 5.0
_SCHEDULED = frozenset({"scheduled", "completed"})
_ENDED = frozenset({"ok", "error", "deleted", "stopped", "skipped", "paused"})
_GOOD = frozenset({"ok", "skipped"})


def main() -> int:
    """Run the workflow once; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--catalog", required=True, help="its value in biobank_catalogs.loc")
    parser.add_argument("--study", required=True)
    parser.add_argument("--tool", required=True, help="what made the old results")
    parser.add_argument("--release", required=True, help="the releases to replace, such as <3")
    parser.add_argument("--workflow", type=Path, default=WORKFLOW)
    parser.add_argument("--poll-s", type=float, default=_POLL_S, help=argparse.SUPPRESS)
    options = parser.parse_args()
    # The key comes from the environment: everybody can read a command line.
    galaxy = GalaxyInstance(os.environ["GALAXY_URL"], key=os.environ["GALAXY_API_KEY"])
    inputs = {name: getattr(options, name) for name in ("catalog", "study", "tool", "release")}
    try:
        return reanalyse(galaxy, options.workflow, inputs, poll_s=options.poll_s)
    except (requests.ConnectionError, requests.Timeout) as error:
        print(f"Galaxy can't be reached: {error}", file=sys.stderr)
        return EXIT_AWAY


def reanalyse(
    galaxy: GalaxyInstance,
    workflow_file: Path,
    inputs: dict[str, str],
    *,
    poll_s: float,
    say: Callable[[str], object] = print,
) -> int:
    """Run the workflow of a file with these texts, wait for all of its jobs; the exit code."""
    document = yaml.safe_load(workflow_file.read_text(encoding="utf-8"))
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    history = galaxy.histories.create_history(f"{document['label']}: {inputs['study']}, {today}")
    workflow = galaxy.workflows.import_workflow_dict(document)["id"]
    try:
        invocation = galaxy.workflows.invoke_workflow(
            workflow, inputs=inputs, inputs_by="name", history_id=history["id"]
        )["id"]
        states = ended(galaxy, invocation, poll_s=poll_s)
    finally:
        galaxy.workflows.delete_workflow(workflow)
    if not states.keys() <= _GOOD:
        print(f"history {history['id']}: {states}", file=sys.stderr)
        return EXIT_FAILED
    outputs = galaxy.invocations.show_invocation(invocation)["outputs"]
    tables = {
        name: galaxy.datasets.download_dataset(outputs[name]["id"]).decode()
        for name in ("selected", "recorded")
    }
    if len(tables["selected"].splitlines()) == 1:  # the header
        galaxy.histories.delete_history(history["id"])
        say("nothing to do")
        return 0
    for name, table in tables.items():
        say(f"# {name}, history {history['id']}\n{table}")
    return 0


def ended(galaxy: GalaxyInstance, invocation: str, *, poll_s: float) -> dict[str, int]:
    """Wait until all jobs of an invocation have ended; how many in which state."""
    while True:
        state = galaxy.invocations.show_invocation(invocation)["state"]
        if state in ("cancelled", "cancelling", "failed"):
            return {state: 1}
        try:
            jobs: dict[str, int] = galaxy.invocations.get_invocation_summary(invocation)["states"]
        except GalaxyError as error:
            if error.status_code not in (502, 503, 504):
                raise
            jobs = {}
        # One that waits for a failed one would wait for ever: it is "paused".
        if state in _SCHEDULED and jobs and jobs.keys() <= _ENDED:
            return jobs
        time.sleep(poll_s)


if __name__ == "__main__":
    sys.exit(main())
