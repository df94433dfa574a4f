"""Data of a Galaxy history tied to samples: which sample is meant, and nothing by halves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from biobank_core.catalog.port import Save
from biobank_core.catalog.sqlite import SqliteCatalog, open_catalog
from biobank_core.errors import AmbiguousError, InputError, NotFoundError
from biobank_core.galaxy import identity
from biobank_core.galaxy.recorder import record
from biobank_core.galaxy.records import CollectionEnd, CollectionRecord, ElementRecord, JobRecord
from biobank_core.galaxy.tying import Tie, job_with_output, tie_inputs
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    DataSample,
    Enrollment,
    Individual,
    Study,
    Tube,
)
from tests.unit.scripted_galaxy import ScriptedGalaxy, dataset_uuid, end

SERVER = "galaxy.example"


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqliteCatalog]:
    """A study with the tubes T1 and T2, and an individual who is called T2, too, and KP-01."""
    with open_catalog(f"sqlite:///{tmp_path}/lab.db", create=True) as opened:
        study, person = Study(vid=new_vid(), label="KPN"), Individual(vid=new_vid())
        objects = [study, person]
        objects += [Tube(vid=new_vid(), label=label, study=study.vid) for label in ("T1", "T2")]
        objects += [
            Enrollment(vid=new_vid(), individual=person.vid, study=study.vid, code=code)
            for code in ("KP-01", "T2")
        ]
        opened.commit([Save(object=obj) for obj in objects], by="test")
        yield opened


def study_of(catalog: SqliteCatalog) -> str:
    (study,) = catalog.find("Study", {"label": "KPN"})
    return study.object.vid


def vid_of(catalog: SqliteCatalog, label: str) -> str:
    (tube,) = catalog.find("Tube", {"label": label})
    return tube.object.vid


def with_list(galaxy: ScriptedGalaxy, *identifiers: str) -> JobRecord:
    """A running job that was given a list with a dataset for each identifier."""
    elements = tuple(
        ElementRecord(identifier=name, dataset_uuid=dataset_uuid(n), dataset_id=f"hda{n}")
        for n, name in enumerate(identifiers, start=1)
    )
    galaxy.collections["list"] = CollectionRecord(
        id="list", name="genomes", collection_type="list", elements=elements, history_id="h1"
    )
    role = "choose_data|items"
    return galaxy.add(
        "tie",
        5,
        state="running",
        inputs=tuple(end(role, n) for n in range(1, len(identifiers) + 1)),
        input_collections=(CollectionEnd(role=role, key="list"),),
        outputs=(end("registered", 99),),
    )


def tied(catalog: SqliteCatalog, galaxy: ScriptedGalaxy, job: JobRecord, **asked: Any) -> list[Tie]:
    options = {"study": study_of(catalog), "sample": None, **asked}
    return tie_inputs(
        catalog,
        galaxy,
        job,
        server=SERVER,
        parameter="items",
        category=ActionCategory.MEASUREMENT,
        by="ada",
        **options,
    )


def test_each_element_is_tied_to_the_tube_that_it_is_called_by(catalog: SqliteCatalog) -> None:
    galaxy = ScriptedGalaxy()
    job = with_list(galaxy, "T1", "KP-01")
    first, second = tied(catalog, galaxy, job)
    assert (first.sample, first.identifiers, first.new) == (vid_of(catalog, "T1"), ("T1",), True)
    (enrolled,) = catalog.find("Enrollment", {"code": "KP-01"})
    assert isinstance(enrolled.object, Enrollment)
    assert second.sample == enrolled.object.individual
    link = catalog.get([first.action])[first.action].object
    assert isinstance(link, Action)
    assert [port.object for port in link.outputs] == [identity.data_sample_vid(dataset_uuid(1))]
    assert [tie.new for tie in tied(catalog, galaxy, job)] == [False, False]


def test_a_name_of_two_samples_is_refused_unless_the_kind_is_said(catalog: SqliteCatalog) -> None:
    galaxy = ScriptedGalaxy()
    job = with_list(galaxy, "T1", "T2")
    with pytest.raises(AmbiguousError, match="T2"):
        tied(catalog, galaxy, job)
    assert not list(catalog.find("DataSample"))
    ties = tied(catalog, galaxy, job, kinds=("Vessel",))
    assert [tie.sample for tie in ties] == [vid_of(catalog, "T1"), vid_of(catalog, "T2")]


def test_one_unknown_name_leaves_the_catalog_as_it_was(catalog: SqliteCatalog) -> None:
    galaxy = ScriptedGalaxy()
    job = with_list(galaxy, "T1", "T9")
    with pytest.raises(NotFoundError, match="'T9'"):
        tied(catalog, galaxy, job)
    assert not list(catalog.find("DataSample"))
    assert not list(catalog.find("Action"))


def test_the_same_data_under_the_names_of_two_tubes_are_refused(catalog: SqliteCatalog) -> None:
    galaxy = ScriptedGalaxy()
    job = with_list(galaxy, "T1", "T2")
    same = galaxy.collections["list"].elements[0].dataset_uuid
    elements = tuple(
        ElementRecord(identifier=name, dataset_uuid=same, dataset_id="hda1")
        for name in ("T1", "T2")
    )
    galaxy.collections["list"] = CollectionRecord(
        id="list", collection_type="list", elements=elements, history_id="h1"
    )
    with pytest.raises(AmbiguousError):
        tied(catalog, galaxy, job, kinds=("Vessel",))


def test_a_dataset_by_itself_goes_by_its_name_and_all_may_come_from_one_tube(
    catalog: SqliteCatalog,
) -> None:
    galaxy = ScriptedGalaxy(names={"hda1": "T1"})
    role = "choose_data|items"
    job = galaxy.add("tie", 5, state="running", inputs=(end(role, 1),))
    (tie,) = tied(catalog, galaxy, job)
    assert (tie.label, tie.sample) == ("T1", vid_of(catalog, "T1"))
    job = galaxy.add("again", 6, state="running", inputs=(end(role, 2), end("other", 3)))
    (tie,) = tied(catalog, galaxy, job, study=None, sample="KPN:T1")
    assert tie.sample == vid_of(catalog, "T1")
    (data,) = catalog.get([tie.data]).values()
    assert isinstance(data.object, DataSample)
    assert data.object.study == study_of(catalog)


def test_an_individual_has_no_study_so_that_one_must_be_named(catalog: SqliteCatalog) -> None:
    galaxy = ScriptedGalaxy()
    job = with_list(galaxy, "T1")
    with pytest.raises(InputError, match="which study"):
        tied(catalog, galaxy, job, study=None, sample="KPN:KP-01")


def test_what_was_recorded_without_a_study_moves_into_that_of_its_sample(
    catalog: SqliteCatalog,
) -> None:
    galaxy = ScriptedGalaxy()
    galaxy.add("made", 1, outputs=(end("out", 1),))
    record(catalog, galaxy, server=SERVER)
    job = with_list(galaxy, "T1")
    tied(catalog, galaxy, job)
    vid = identity.data_sample_vid(dataset_uuid(1))
    (data,) = catalog.get([vid]).values()
    assert isinstance(data.object, DataSample)
    assert data.object.study == study_of(catalog)


def test_the_job_is_found_by_what_it_is_to_fill(catalog: SqliteCatalog) -> None:
    galaxy = ScriptedGalaxy()
    galaxy.add("other", 4, state="running", outputs=(end("registered", 98),))
    job = with_list(galaxy, "T1")
    assert job_with_output(galaxy, history_id="h1", uuid=dataset_uuid(99)) is job
    with pytest.raises(InputError, match="no uuid"):
        job_with_output(galaxy, history_id="h1", uuid="x")
