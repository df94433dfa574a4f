"""Neo4j killed, read-only, short of memory, cut off in the middle of a commit."""

from __future__ import annotations

import time

import pytest

from biobank_core.catalog.port import Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import DataCollection, DataMember, DataSample
from tests.faults.cutting_proxy import CuttingProxy
from tests.faults.sync_lab import ROUNDS, STUDY, SyncLab, wait_until

CUTS = 10


@pytest.mark.timeout(1800)
def test_a_killed_neo4j_is_waited_for(sync_lab: SyncLab) -> None:
    assert sync_lab.neo4j
    sync_lab.start("relay")
    sync_lab.start("consumer", "--batch", "200")
    for _ in range(ROUNDS):
        with sync_lab.under_load():
            sync_lab.wait_for_moment(5.0)
            sync_lab.neo4j.kill()
            time.sleep(sync_lab.chance.uniform(0.0, 2.0))
        sync_lab.neo4j.start()
    sync_lab.wait_in_step()
    sync_lab.check()


@pytest.mark.timeout(900)
def test_a_neo4j_that_takes_no_writes_blames_no_message(sync_lab: SyncLab) -> None:
    neo4j = sync_lab.neo4j
    assert neo4j
    sync_lab.start("relay")
    sync_lab.start("consumer")
    with open_catalog(sync_lab.settings.catalog) as catalog:
        sync_lab.changes.commit(catalog, 5)
        sync_lab.wait_in_step()
        try:
            neo4j.pause()
            neo4j.settings["server.databases.read_only"] = "neo4j"
            neo4j.start()
            sync_lab.changes.commit(catalog, 20)
            wait_until(lambda: "read-only" in sync_lab.log("consumer"))
            # Long enough for it to suspect the messages, and to find that they are not to blame.
            time.sleep(15)
        finally:
            neo4j.pause()
            del neo4j.settings["server.databases.read_only"]
            neo4j.start()
    sync_lab.wait_in_step()
    sync_lab.check()
    assert "of message" not in sync_lab.log("consumer")


@pytest.mark.timeout(900)
def test_a_neo4j_short_of_memory_gets_everything_in_smaller_pieces(sync_lab: SyncLab) -> None:
    neo4j = sync_lab.neo4j
    assert neo4j
    members = [DataSample(vid=new_vid(), label=f"m{n}", study=STUDY) for n in range(300)]
    items = tuple(DataMember(role=f"r{n}", object=each.vid) for n, each in enumerate(members))
    large = DataCollection(vid=new_vid(), label="large", study=STUDY, items=items)
    try:
        neo4j.pause()
        neo4j.settings["db.memory.transaction.max"] = "16m"
        neo4j.start()
        with open_catalog(sync_lab.settings.catalog) as catalog:
            sync_lab.changes.commit(catalog, 30)
            catalog.commit([Save(object=each) for each in (*members, large)], by="test")
        sync_lab.start("relay")
        sync_lab.start("consumer")
        sync_lab.wait_in_step()
    finally:
        neo4j.pause()
        del neo4j.settings["db.memory.transaction.max"]
        neo4j.start()
    sync_lab.check()


@pytest.mark.timeout(900)
def test_a_connection_cut_in_the_middle_of_a_commit_does_no_harm(sync_lab: SyncLab) -> None:
    assert sync_lab.neo4j
    port = sync_lab.neo4j.port
    with CuttingProxy(port, chance=sync_lab.chance, most_bytes=6_000) as proxy:
        # bolt:// and not neo4j://, whose routing table would lead round the proxy.
        sync_lab.use_index(f"bolt://127.0.0.1:{proxy.port}")
        sync_lab.start("relay")
        sync_lab.start("consumer", "--batch", "20")
        proxy.cutting.set()
        with sync_lab.under_load(units_a_second=20):
            wait_until(lambda: proxy.cuts >= CUTS, timeout_s=600)
        proxy.cutting.clear()
        sync_lab.wait_in_step()
    sync_lab.check()
