"""SIGKILL of each part and server at random moments under load: nothing is lost or doubled."""

from __future__ import annotations

import time

import pytest

from tests.faults.sync_lab import ROUNDS, SyncLab


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", ["relay", "consumer"])
def test_a_killed_part_goes_on_where_it_was(sync_lab: SyncLab, part: str) -> None:
    for name in ("relay", "consumer"):
        sync_lab.start(name, "--batch", "200")
    for _ in range(ROUNDS):
        with sync_lab.under_load(units_a_second=40):
            sync_lab.wait_for_moment(4.0)
            sync_lab.kill(part)
            time.sleep(sync_lab.chance.uniform(0.0, 1.0))
            sync_lab.start(part, "--batch", "200")
    sync_lab.wait_in_step()
    sync_lab.check()


@pytest.mark.timeout(900)
def test_a_killed_rabbitmq_has_kept_what_it_confirmed(sync_lab: SyncLab) -> None:
    sync_lab.make_queues()
    for name in ("relay", "consumer"):
        sync_lab.start(name, "--batch", "200")
    for _ in range(ROUNDS):
        with sync_lab.under_load(units_a_second=40):
            sync_lab.wait_for_moment(4.0)
            sync_lab.rabbitmq.kill()
            time.sleep(sync_lab.chance.uniform(0.0, 2.0))
            sync_lab.rabbitmq.start()
    sync_lab.wait_in_step()
    sync_lab.check()
