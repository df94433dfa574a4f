"""`biobank rebuild` into Neo4j, killed with SIGKILL at random moments and run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import world
from biobank_core.catalog.registry import open_catalog
from biobank_core.lineage.events import ActionEvent, Member, NodeEvent
from biobank_core.lineage.port import LineageIndex
from tests.contract.neo4j_lab import opened
from tests.faults.compared import dump_and_digest
from tests.faults.killing import Killer, Lab
from tests.faults.sync_lab import ROUNDS
from tests.servers.neo4j import Neo4jServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

# More than one batch of nodes (of in_place.BATCH each), then one of actions.
OBJECTS = 15_000
# Most of the time the command waits for its server, and uses no processor.
LINGER_S = 1.0


@pytest.fixture
def lab(tmp_path: Path, neo4j: Neo4jServer) -> Lab:
    """A catalog of OBJECTS objects, and an index in Neo4j that holds none of them."""
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "objects.jsonl").write_bytes(b"".join(world.lines(world.mixed(OBJECTS))))
    Lab(folder).run("load", "objects.jsonl")
    with opened(neo4j) as index:
        index.clear()
    return Lab(folder, {"BIOBANK_INDEX": neo4j.url, **neo4j.environment})


def spoil(index: LineageIndex, log: str, number: int) -> None:
    """Let the index hold what no catalog says, and lack what it does say."""
    stale = [world.vid("stale", number, n) for n in range(300)]
    known = [world.vid("data", n) for n in range(300)]
    index.apply([NodeEvent(log=log, vid=vid, version=1, kind="Tube", label="x") for vid in stale])
    index.apply(
        [
            ActionEvent(
                log=log,
                vid=world.vid("stale action", number, n),
                version=1,
                category="PROCESSING",
                status="ok",
                inputs=(Member(role="in", node=source),),
                outputs=(Member(role="out", node=target),),
            )
            for n, (source, target) in enumerate(zip(known, stale, strict=True))
        ]
    )
    # Of another time: the index is ahead of a catalog that was put back.
    ahead = [world.vid("data", n) for n in range(300, 400)]
    index.apply(
        [NodeEvent(log=log, vid=vid, version=99, kind="Tube", label="later") for vid in ahead]
    )
    index.forget(world.vid("data", n) for n in range(400, 500))


def test_a_killed_rebuild_in_neo4j(killer: Killer, lab: Lab, neo4j: Neo4jServer) -> None:
    _, expected = dump_and_digest(lab.folder)
    with open_catalog(f"sqlite:///{lab.folder}/c.db") as catalog:
        (log,) = catalog.head()
    idle = lab.folder.parent / "idle"
    idle.mkdir()
    Lab(idle).run("init")
    killer.measure(lab, "rebuild", idle=Lab(idle, lab.settings))
    with opened(neo4j) as index:
        assert index.digest() == expected
        index.clear()  # the first one is of an empty index, the others of one that is wrong
        while len(killer.moments_s) < ROUNDS:
            killer.kill(lab, "rebuild", linger_s=LINGER_S)
            if len(killer.moments_s) % 3 == 2:
                killer.kill(lab, "rebuild", linger_s=LINGER_S)  # what goes on is killed, too
            lab.run("rebuild")
            assert index.rebuild_in_progress() is None
            lab.run("verify")  # says what is wrong, where something is
            assert index.digest() == expected
            spoil(index, log, len(killer.moments_s))
