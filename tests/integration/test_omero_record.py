"""A recording into OMERO that loses its session again and again: nothing lost, nothing doubled."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from biobank_core.catalog.port import Catalog, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.galaxy.client import GalaxyClient
from biobank_core.galaxy.live import LiveSource
from biobank_core.galaxy.recorder import record
from biobank_core.galaxy.records import DatasetRecord, HistoryRecord
from biobank_core.galaxy.rules import load_rules
from biobank_core.interchange import dump
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import Action, Study
from tests.faults.galaxy_over_http import served
from tests.unit.scripted_galaxy import ScriptedGalaxy, chained, end

if TYPE_CHECKING:
    from tests.contract.omero_groups import OwnGroup
    from tests.servers.omero.lab import OmeroLab
    from tests.servers.omero.standin import OmeroStandIn

# Several units of the recorder.
JOBS = 130


def dumped(catalog: Catalog) -> bytes:
    out = io.BytesIO()
    dump(catalog, out)
    return re.sub(rb'"as_of":"[^"]*"', b'"as_of":"then"', out.getvalue())


def told(catalog: Catalog) -> list[tuple[str, int]]:
    """Every version of every object that the feed tells of."""
    units = catalog.changes({})
    return sorted((change.vid, change.version) for unit in units for change in unit.changes)


@pytest.fixture
def group(omero_stand_in: OmeroStandIn, monkeypatch: pytest.MonkeyPatch) -> OwnGroup:
    from tests.contract.omero_groups import make_group
    from tests.servers.omero.lab import Address, OmeroLab

    server = omero_stand_in
    lab = OmeroLab(Address(server.host, server.port, server.root_user, server.root_password))
    made = make_group(lab)
    for name, value in made.members[0].environment.items():
        monkeypatch.setenv(name, value)
    return made


@pytest.mark.parametrize("kind", ["remove-session", "drop-after-commit"])
def test_a_record_that_loses_its_session_several_times_gives_what_an_undisturbed_one_gives(
    group: OwnGroup, omero_stand_in: OmeroStandIn, tmp_path: Path, kind: str
) -> None:
    from tests.servers.omero.faults import Fault

    with served(chained(JOBS)) as url:
        source = LiveSource(GalaxyClient.connect(url, "key"))
        with open_catalog(f"sqlite:///{tmp_path}/c.db", create=True) as undisturbed:
            assert record(undisturbed, source, server="galaxy").recorded == JOBS
            expected, in_file = dumped(undisturbed), told(undisturbed)
        source = LiveSource(GalaxyClient.connect(url, "key"))
        with open_catalog(group.url, create=True) as catalog:
            # Reads lose their session as well as writes.
            lost = [Fault(kind, call="IUpdate.saveArray", skip=skip) for skip in range(2)] + [
                Fault("remove-session", call="IQuery.*", skip=skip) for skip in (2, 9, 17)
            ]
            with omero_stand_in.faults(*lost):
                summary = record(catalog, source, server="galaxy")
            assert (summary.recorded, summary.failed) == (JOBS, {})
            assert dumped(catalog) == expected
            assert {found.version for found in catalog.iterate(["Action"])} == {1}
            assert told(catalog) == in_file
            numbers = [unit.number for unit in catalog.changes({})]
            assert numbers == list(range(1, len(numbers) + 1))
            assert list(catalog.damage()) == []
            assert list(catalog.drift()) == []
            assert record(catalog, source, server="galaxy").recorded == 0
    # The lost sessions are over, and so is the last one.
    assert group.members[0].name not in omero_stand_in.sessions().values()


class TwoHistories(ScriptedGalaxy):
    """Each history has data of its own."""

    def dataset(self, hda_id: str) -> DatasetRecord:
        place = "AB"[int(hda_id.removeprefix("hda")) % 2]
        return msgspec.structs.replace(super().dataset(hda_id), history_id=place)


def test_jobs_of_two_studies_are_recorded_into_the_group_of_each(
    omero_lab: OmeroLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.contract.omero_groups import join, make_group

    first, second = make_group(omero_lab), make_group(omero_lab)
    join(second, first.members[0], owner=True)
    for name, value in first.members[0].environment.items():
        monkeypatch.setenv(name, value)
    studies = [Study(vid=new_vid(), label=label) for label in ("A", "B")]
    places = dict(zip((first.url, second.url), studies, strict=True))
    for url, study in places.items():
        with open_catalog(url, create=True) as catalog:
            catalog.commit([Save(object=study)], by="test")
    galaxy = TwoHistories(
        histories={name: HistoryRecord(id=name, name=name, tags=(name,)) for name in "AB"}
    )
    for number in range(60):
        galaxy.add(f"j{number}", number, history_id="AB"[number % 2], outputs=(end("out", number),))
    rules = tmp_path / "rules.yml"
    rules.write_text('version: 1\nstudies:\n  - history_tag: "{study}"\n')
    both = f"{first.url}&group={second.name}"
    with open_catalog(both) as catalog:
        done = record(catalog, galaxy, server="galaxy", rules=load_rules(str(rules)))
        assert (done.recorded, done.failed) == (60, {})
        assert record(catalog, galaxy, server="galaxy", rules=load_rules(str(rules))).recorded == 0
    for url, study in places.items():
        with open_catalog(url) as catalog:
            actions = [item.object for item in catalog.find("Action")]
            assert len(actions) == 30
            # The study, and a unit for each batch of 40 jobs: not one for each job.
            assert len(list(catalog.changes({}))) == 3
            assert {action.study for action in actions if isinstance(action, Action)} == {study.vid}
            assert list(catalog.drift()) == []
