"""Jobs that failed, were cancelled or wait; cached jobs; copies; data that are deleted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from biobank_core.model.kinds import ActionStatus
from tests.integration.galaxy_cases import Lab, lab_of, ports
from tests.integration.omero_settings import NewCatalog
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_user import GalaxyUser, hda

pytestmark = pytest.mark.galaxy


@pytest.fixture
def lab(
    galaxy: GalaxyServer, galaxy_user: GalaxyUser, new_catalog: NewCatalog, tmp_path: Path
) -> Iterator[Lab]:
    with lab_of(galaxy_user, galaxy.url, new_catalog, tmp_path) as opened:
        yield opened


def test_failed_and_cancelled_jobs_are_actions_and_a_paused_one_waits_until_it_ends(
    lab: Lab, tmp_path: Path
) -> None:
    data = lab.user.upload(lab.history, "one\n")
    hold = tmp_path / "hold"
    hold.touch()
    failing = lab.user.run(
        lab.history, "failing", {"input": hda(data), "hold": str(hold)}, expect=None
    )
    # Submitted before its input fails, so that Galaxy pauses it.
    paused = lab.user.run(
        lab.history, "one_to_one", {"input": hda(failing.outputs["output"])}, expect=None
    )
    slow = lab.user.run(lab.history, "slow_sleep", {"seconds": "300"}, expect=None)
    hold.unlink()
    lab.user.wait_for_jobs(failing.job_ids, expect="error")
    lab.user.wait_for_jobs(paused.job_ids, expect="paused")
    summary = lab.record()
    assert (summary.waiting, summary.failed) == (2, {})
    failed = lab.action(failing.job_ids[0])
    assert failed.status is ActionStatus.ERROR
    assert failed.galaxy
    assert (failed.galaxy.exit_code, failed.galaxy.state) == (1, "error")
    assert ports(failed, "outputs") == [("output", lab.vid(failing.outputs["output"]))]
    recorded = {action.galaxy.job_id for action in lab.actions() if action.galaxy}
    assert not recorded & {*paused.job_ids, *slow.job_ids}

    lab.user.client.jobs.cancel_job(slow.job_ids[0])
    lab.user.client.jobs.cancel_job(paused.job_ids[0])
    lab.user.wait_for_jobs([*slow.job_ids, *paused.job_ids], expect="deleted")
    summary = lab.record()
    assert (summary.recorded, summary.waiting) == (2, 0)
    for run in (slow, paused):
        cancelled = lab.action(run.job_ids[0])
        assert cancelled.status is ActionStatus.DELETED
        assert cancelled.galaxy
        assert cancelled.galaxy.exit_code is None


def test_a_cached_job_makes_no_edge(lab: Lab) -> None:
    data = lab.user.upload(lab.history, "one\n")
    first = lab.user.run(lab.history, "one_to_one", {"input": hda(data)})
    answer = lab.user.client.make_post_request(
        f"{lab.user.client.url}/tools",
        payload={
            "history_id": lab.history,
            "tool_id": "one_to_one",
            "inputs": {"input": hda(data)},
            "use_cached_job": True,
        },
    )
    job, output = answer["jobs"][0]["id"], answer["outputs"][0]["id"]
    lab.user.wait_for_jobs([job])
    lab.record()
    cached = lab.action(job)
    assert cached.galaxy
    assert cached.galaxy.cached_from == first.job_ids[0]
    made = lab.vid(first.outputs["output"])
    assert lab.vid(output) == made
    assert cached.outputs == ()
    assert ports(cached, "without_edge") == [("output", made)]
    answers = lab.index.connected(question_of(made))
    assert {edge.action for edge in answers.edges} == {lab.action(first.job_ids[0]).vid}


def test_a_dataset_copied_from_another_history_is_the_same_data(lab: Lab) -> None:
    data = lab.user.upload(lab.history, "one\n", name="original")
    other = lab.user.new_history("other")
    copied = lab.user.client.histories.copy_dataset(other, data)["id"]
    lab.user.client.histories.update_dataset(other, copied, name="copy")
    run = lab.user.run(other, "one_to_one", {"input": hda(copied)})
    # The other history first: then the data are known from their copy only.
    lab.record(history_id=other)
    assert ports(lab.action(run.job_ids[0]), "inputs") == [("input", lab.vid(data))]
    assert lab.sample(data).label == "copy"
    lab.record()
    assert lab.upstream(lab.vid(run.outputs["output"])) == {lab.vid(data)}
    assert lab.sample(data).label == "original"


def test_deleted_and_purged_data_stay_and_say_so(lab: Lab) -> None:
    data = lab.user.upload(lab.history, "one\n")
    run = lab.user.run(lab.history, "two_to_two", {"first": hda(data), "second": hda(data)})
    deleted, purged = run.outputs["joined"], run.outputs["reversed"]
    lab.user.client.histories.delete_dataset(lab.history, deleted)
    lab.user.client.histories.delete_dataset(lab.history, purged, purge=True)
    lab.user.wait_for(
        lambda: lab.user.client.datasets.show_dataset(purged)["purged"], what="purging"
    )
    lab.record()
    gone = lab.sample(purged).galaxy
    assert gone
    assert (gone.deleted, gone.purged) == (True, True)
    assert gone.as_of is not None
    kept = lab.sample(deleted).galaxy
    assert kept
    assert (kept.deleted, kept.purged) == (True, False)
    assert lab.upstream(lab.vid(purged)) == {lab.vid(data)}


def test_what_people_set_survives_another_recording(lab: Lab) -> None:
    from msgspec.structs import replace

    from biobank_core.catalog.port import Save
    from biobank_core.model.kinds import DataStatus

    data = lab.user.upload(lab.history, "one\n", name="as Galaxy has it")
    lab.record()
    standing = lab.stores.catalog.get([lab.vid(data)])[lab.vid(data)]
    mine = replace(standing.object, label="as I say", status=DataStatus.CORRUPTED)
    lab.stores.catalog.commit([Save(object=mine, based_on=standing.version)], by="ada")
    time.sleep(0.1)
    lab.record(history_id=lab.history)
    assert lab.sample(data).label == "as I say"
    assert lab.sample(data).status is DataStatus.CORRUPTED


def question_of(vid: str):  # type: ignore[no-untyped-def]
    from biobank_core.lineage.port import Direction, Question

    return Question(starts=(vid,), direction=Direction.UPSTREAM)
