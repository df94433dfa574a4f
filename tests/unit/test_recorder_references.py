"""Parameters that name reference data: an input where exactly one is registered, else told."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from biobank_core.catalog.port import Save
from biobank_core.catalog.sqlite import SqliteCatalog
from biobank_core.galaxy import identity
from biobank_core.galaxy.recorder import Summary, record
from biobank_core.galaxy.records import CollectionEnd, CollectionRecord, ElementRecord
from biobank_core.galaxy.references import Missing, missing
from biobank_core.galaxy.rules import ReferenceRule, Rules, SampleRule
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionStatus,
    DataSample,
    Port,
    Tube,
)
from biobank_core.selection.criteria import Criteria
from biobank_core.selection.select import select
from tests.unit.recorder_lab import action, catalog, study_of
from tests.unit.scripted_galaxy import ScriptedGalaxy, dataset_uuid, end

__all__ = ["catalog"]  # the fixture

RULES = Rules(references=(ReferenceRule(parameter="genome", study="references"),))


@pytest.fixture
def galaxy() -> ScriptedGalaxy:
    made = ScriptedGalaxy()
    made.add(
        "upload",
        0,
        tool_id="__DATA_FETCH__",
        outputs=(end("o", 0),),
        parameters={"genome": "hg19"},
    )
    for number, genome in enumerate(("hg19", "hg38"), start=1):
        made.add(
            f"j{number}",
            number,
            tool_id="align",
            inputs=(end("reads", 0),),
            outputs=(end("o", number),),
            parameters={"genome": genome},
        )
    return made


def run(catalog: SqliteCatalog, galaxy: ScriptedGalaxy, **options: Any) -> Summary:
    galaxy.asked.clear()
    return record(catalog, galaxy, server="g", **{"rules": RULES, **options})  # type: ignore[arg-type]


def reference(catalog: SqliteCatalog, study: str, label: str) -> str:
    made = DataSample(vid=new_vid(), label=label, study=study)
    catalog.commit([Save(object=made)], by="test")
    return made.vid


def inputs(catalog: SqliteCatalog, job_id: str) -> dict[str, str]:
    return {port.role: port.object for port in action(catalog, job_id).inputs}


def test_what_a_parameter_names_is_an_input_and_selected_by(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    study = study_of(catalog, "KPN")
    hg19 = reference(catalog, study_of(catalog, "references"), "hg19")
    tube = Tube(vid=new_vid(), label="T1", study=study)
    catalog.commit([Save(object=tube)], by="test")
    galaxy.tags["hda0"] = ("biobank:T1",)
    summary = run(catalog, galaxy, study=study)
    assert (summary.recorded, summary.unknown_references) == (3, 1)
    assert inputs(catalog, "j1")["genome"] == hg19
    assert (list(inputs(catalog, "j2")), action(catalog, "j2").flags) == (
        ["reads"],
        ("unknown-reference",),
    )
    # Nobody consented: it is found, and left out.
    [row] = select(catalog, Criteria(study=study, reference=hg19)).excluded
    made = identity.data_sample_vid(dataset_uuid(1))
    assert (row.label, [result.vid for result in row.results]) == ("T1", [made])
    # The reference of a job is no origin of what was uploaded.
    assert "genome" not in inputs(catalog, "upload")


def test_what_is_registered_later_is_tied_without_asking_galaxy(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    run(catalog, galaxy)
    assert missing(catalog, RULES) == [
        Missing(label, "references", "genome", "align", actions=1, found=0)
        for label in ("hg19", "hg38")
    ]
    references = study_of(catalog, "references")
    hg38 = reference(catalog, references, "hg38")
    assert run(catalog, galaxy).referenced == 1
    assert galaxy.asked == ["jobs"]
    assert inputs(catalog, "j2")["genome"] == hg38
    assert action(catalog, "j2").flags == ()
    assert [row.label for row in missing(catalog, RULES)] == ["hg19"]
    assert run(catalog, galaxy).referenced == 0


def test_a_rule_that_came_later_is_applied_to_what_was_recorded_before(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    run(catalog, galaxy, rules=Rules())
    hg19 = reference(catalog, study_of(catalog, "references"), "hg19")
    run(catalog, galaxy)
    assert inputs(catalog, "j1")["genome"] == hg19
    # And other rules take nothing away.
    run(catalog, galaxy, rules=Rules(), history_id="h1")
    assert inputs(catalog, "j1")["genome"] == hg19
    assert action(catalog, "j2").flags == ("unknown-reference",)


def test_two_objects_of_one_label_are_not_guessed_between(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    references = study_of(catalog, "references")
    for _ in range(2):
        reference(catalog, references, "hg19")
    run(catalog, galaxy)
    assert "genome" not in inputs(catalog, "j1")
    [row, _] = missing(catalog, RULES)
    assert (row.label, row.found) == ("hg19", 2)


@pytest.mark.parametrize("later", [False, True])
def test_a_reference_that_came_from_the_result_itself_is_left_out(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy, later: bool
) -> None:
    """Such a label is a mistake; the job and its edges must not be lost by it."""
    references = study_of(catalog, "references")
    hg19 = reference(catalog, references, "hg19" if not later else "not yet")
    result = identity.data_sample_vid(dataset_uuid(1))
    if later:
        run(catalog, galaxy)
    else:
        catalog.commit([Save(object=DataSample(vid=result, label="r", study=references))], by="t")
    made = Action(
        vid=new_vid(),
        category=ActionCategory.PROCESSING,
        study=references,
        status=ActionStatus.OK,
        begin=galaxy.records["j1"].create_time,
        inputs=(Port(role="x", object=result),),
        outputs=(Port(role="y", object=hg19),),
    )
    catalog.commit([Save(object=made)], by="test")
    if later:
        standing = catalog.get([hg19])[hg19]
        named = replace(standing.object, label="hg19")
        catalog.commit([Save(object=named, based_on=standing.version)], by="test")
    assert run(catalog, galaxy).failed == {}
    found = action(catalog, "j1")
    assert [port.object for port in found.outputs] == [result]
    assert "genome" not in inputs(catalog, "j1")
    assert found.flags == ("unknown-reference",)


def sheet(*rows: tuple[str, int, str]) -> CollectionRecord:
    return CollectionRecord(
        id="sheet",
        name="sheet",
        collection_type="sample_sheet",
        elements=tuple(
            ElementRecord(
                identifier=identifier,
                dataset_uuid=dataset_uuid(number),
                dataset_id=f"hda{number}",
                columns=(("tube", label),),
            )
            for identifier, number, label in rows
        ),
    )


def test_a_sample_sheets_column_ties_data_also_with_rules_that_came_later(
    catalog: SqliteCatalog,
) -> None:
    study = study_of(catalog, "KPN")
    tubes = {}
    for label in ("T1", "T2"):
        tube = Tube(vid=new_vid(), label=label, study=study)
        catalog.commit([Save(object=tube)], by="test")
        tubes[label] = tube.vid
    galaxy = ScriptedGalaxy()
    galaxy.collections["sheet"] = sheet(("a", 1, "T1"), ("T2", 2, "nobody"), ("c", 3, "T2"))
    galaxy.add(
        "upload",
        0,
        tool_id="__DATA_FETCH__",
        output_collections=(CollectionEnd(role="out", key="sheet"),),
    )
    assert run(catalog, galaxy, rules=Rules(samples=()), study=study).linked == 0
    rules = Rules(
        samples=(SampleRule(sample_sheet="tube"), SampleRule(element_identifier="{sample}"))
    )
    summary = run(catalog, galaxy, rules=rules, study=study)
    assert summary.linked == 2
    # What the sheet says was meant: that another rule would fit does not matter.
    assert summary.unlinked == {identity.data_sample_vid(dataset_uuid(2))}
    for number, label in ((1, "T1"), (3, "T2")):
        vid = identity.data_sample_vid(dataset_uuid(number))
        link = catalog.get([identity.link_vid(tubes[label], vid)])
        assert len(link) == 1
