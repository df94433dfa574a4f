"""The sync service on a catalog in OMERO: its feed, several groups, and the watcher."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from biobank_core.catalog.port import Catalog, Delete, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionStatus,
    DataSample,
    Port,
    SoftwareProgram,
    Study,
    Tube,
)
from tests.contract.catalog_world import BEGIN
from tests.faults.sync_lab import SyncLab, wait_until
from tests.servers.neo4j import Neo4jServer
from tests.servers.processes import free_port
from tests.servers.rabbitmq import RabbitMQServer

if TYPE_CHECKING:
    from tests.contract.omero_groups import OwnGroup
    from tests.servers.omero.lab import OmeroLab

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def groups(omero_lab: OmeroLab, monkeypatch: pytest.MonkeyPatch) -> tuple[OwnGroup, OwnGroup]:
    """Two groups with an empty catalog each, and one account that owns both."""
    from tests.contract.omero_groups import join, make_group

    one, two = make_group(omero_lab), make_group(omero_lab)
    join(two, one.members[0], owner=True)
    for name, value in one.members[0].environment.items():
        monkeypatch.setenv(name, value)
    for group in (one, two):
        open_catalog(group.url, create=True).close()
    return one, two


@pytest.fixture
def lab(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    rabbitmq: RabbitMQServer,
    neo4j: Neo4jServer,
    groups: tuple[OwnGroup, OwnGroup],
) -> Iterator[SyncLab]:
    one, two = groups
    made = SyncLab(
        tmp_path,
        rabbitmq,
        neo4j=neo4j,
        name=request.node.name,
        catalog=f"{one.url}&group={two.name}",
        account=one.members[0].environment,
    )
    try:
        yield made
    finally:
        made.close()


def run(lab: SyncLab, module: str, *arguments: str) -> str:
    """What one of the lab's commands prints; it must end well."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=lab.folder,
        env=lab.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def typed(catalog: Catalog, study: Study, tool: SoftwareProgram, label: str) -> Action:
    """A tube and what a tool made of it, saved in two units."""
    tube = Tube(vid=new_vid(), label=label, study=study.vid)
    made = DataSample(vid=new_vid(), label=f"{label}.txt", study=study.vid)
    done = Action(
        vid=new_vid(),
        category=ActionCategory.PROCESSING,
        study=study.vid,
        device=tool.vid,
        status=ActionStatus.OK,
        begin=BEGIN,
        inputs=(Port(role="in", object=tube.vid),),
        outputs=(Port(role="out", object=made.vid),),
    )
    catalog.commit([Save(object=tube)], by="test")
    catalog.commit([Save(object=made), Save(object=done)], by="test")
    return done


def test_one_daemon_keeps_the_index_in_step_with_the_catalogs_of_several_groups(
    lab: SyncLab, groups: tuple[OwnGroup, OwnGroup]
) -> None:
    catalog = lab.catalog
    lab.start("all")
    studies = []
    for group in groups:  # a study begins in the group that is named for it
        with open_catalog(group.url) as own:
            studies.append(Study(vid=new_vid(), label=f"study of {group.name}"))
            own.commit([Save(object=studies[-1])], by="test")
    tool = SoftwareProgram(vid=new_vid(), label="kleborate", release="1")
    catalog.commit([Save(object=tool)], by="test")
    done = [typed(catalog, study, tool, f"T{n}") for n in range(3) for study in studies]
    newer = msgspec.structs.replace(tool, maker="somebody")
    receipt = catalog.commit([Save(object=newer, based_on=1)], by="test")
    more = typed(catalog, studies[1], tool, "T9")  # takes the device along, as it is now
    gone = done[0].outputs[0].object
    receipt = catalog.commit([Delete(vid=gone, based_on=1, cascade=True)], by="test")
    lab.wait_in_step()
    lab.check()
    with lab.index() as index:
        index.wait(receipt, timeout_s=60)
        by_log = {unit.log for unit in catalog.changes({})}
        assert len(by_log) == 2
        seen = {node.vid: node for node in index.nodes()}
        assert seen[gone].deleted
        first, second = (seen[one.inputs[0].object] for one in (done[0], done[1]))
        assert len(first.groups) == len(second.groups) == 1
        assert first.groups != second.groups
        # What was moved lives in the other group alone, also for the index.
        moved = more.inputs[0].object
        from tests.integration.test_omero_groups import moved as move

        move(groups[0], groups[0].members[0], moved, groups[0].id)
        list(catalog.drift(repair=True))
        lab.wait_in_step()
        now = {node.vid: node for node in index.nodes()}[moved]
        assert (now.deleted, now.groups) == (False, first.groups)
    lab.check()
    lab.stop("all")


def test_who_waits_for_a_deletion_waits_for_the_copies_in_other_groups(
    lab: SyncLab, groups: tuple[OwnGroup, OwnGroup]
) -> None:
    catalog = lab.catalog
    with open_catalog(groups[1].url) as own:
        study = Study(vid=new_vid(), label="KPN")
        own.commit([Save(object=study)], by="test")
    tool = SoftwareProgram(vid=new_vid(), label="kleborate", release="1")
    catalog.commit([Save(object=tool)], by="test")  # in the first group
    done = typed(catalog, study, tool, "T")  # takes a copy of it into the second
    catalog.commit([Delete(vid=done.vid, based_on=1)], by="test")
    receipt = catalog.commit([Delete(vid=tool.vid, based_on=1)], by="test")
    logs = {receipt.log, *(one.log for one in receipt.others)}
    assert logs == {unit.log for unit in catalog.changes({})}


def test_the_service_tells_what_other_clients_did_until_it_is_mended(
    lab: SyncLab, groups: tuple[OwnGroup, OwnGroup]
) -> None:
    from omero.cmd import Delete2

    catalog, group = lab.catalog, groups[0]
    study = Study(vid=new_vid(), label="KPN")
    catalog.commit([Save(object=study)], by="test")
    tube = Tube(vid=new_vid(), label="T1", study=study.vid)
    catalog.commit([Save(object=tube)], by="test")
    catalog.commit([Save(object=msgspec.structs.replace(tube, label="T2"), based_on=1)], by="test")
    port = free_port()
    lab.start("all", "--listen", f"127.0.0.1:{port}")

    def foreign() -> float | None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return None
        values = {line.split()[0]: float(line.split()[1]) for line in lines if line[0] != "#"}
        if values["biobank_sync_reconciled_timestamp_seconds"] == 0:
            return None
        return values["biobank_sync_foreign_changes"]

    def status() -> dict[str, object]:
        told: dict[str, object] = json.loads(run(lab, "sync_service", "status", "--format", "json"))
        return told

    wait_until(lambda: foreign() == 0)
    wait_until(lambda: status().get("foreign_changes") == 0)
    with group.login() as client:
        [number] = client.ids(
            "select a.id from MapAnnotation a where a.name = :name", name=tube.vid
        )
        client.submit(Delete2(targetObjects={"Annotation": [number]}))
    wait_until(lambda: foreign() == 1)
    wait_until(lambda: status()["foreign_changes"] == 1)
    assert f"Tube {tube.vid}: its annotation was deleted in OMERO" in lab.log("all")
    run(lab, "biobank_core.cli", "verify", "--repair")
    wait_until(lambda: foreign() == 0)
    wait_until(lambda: status()["foreign_changes"] == 0)
    assert catalog.get([tube.vid])[tube.vid].object == tube
    lab.wait_in_step()
    lab.check()
    password = group.members[0].password
    assert password not in lab.log("all")
    lab.stop("all")


def test_an_object_that_another_client_made_unreadable_holds_nothing_up(
    lab: SyncLab, groups: tuple[OwnGroup, OwnGroup]
) -> None:
    catalog, group = lab.catalog, groups[0]
    study = Study(vid=new_vid(), label="KPN")
    catalog.commit([Save(object=study)], by="test")
    tubes = [Tube(vid=new_vid(), label=f"T{n}", study=study.vid) for n in range(5)]
    catalog.commit([Save(object=tube) for tube in tubes], by="test")
    broken = tubes[2]
    with group.gateway() as gateway:
        [found] = gateway.getObjects("MapAnnotation", attributes={"name": broken.vid})
        found.setValue([["note", "my favourite tube"]])
        found.save()
    lab.start("all")

    def index_has(wanted: set[str]) -> bool:
        with lab.index() as index:
            return wanted <= {node.vid for node in index.nodes()}

    wait_until(lambda: index_has({tube.vid for tube in tubes} - {broken.vid}))
    wait_until(lambda: len(lab.dead_letters()) == 1)
    [letter] = lab.dead_letters()
    assert (letter.vid, letter.version) == (broken.vid, 1)
    assert f"{broken.vid}: its pairs do not begin with the kind" in letter.reason
    assert not index_has({broken.vid})
    # What comes of mending it is a newer state: the letter is of no use any more.
    run(lab, "biobank_core.cli", "verify", "--repair")
    wait_until(lambda: index_has({broken.vid}))
    book = ("--log", str(lab.folder / "discards.jsonl"))
    run(lab, "sync_service", "dead-letters", "discard", letter.id, "--why", "mended", *book)
    lab.wait_in_step()
    lab.check()
    lab.stop("all")
