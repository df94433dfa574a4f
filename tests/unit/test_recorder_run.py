"""The recorder's run: cursor, waiting jobs, odd jobs, kills, merging with what people set."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from biobank_core.catalog.port import Change, Delete, Receipt, Save
from biobank_core.catalog.sqlite import SqliteCatalog
from biobank_core.errors import NotFoundError, StaleVersionError
from biobank_core.galaxy import identity, recorder
from biobank_core.galaxy.linking import link, unlinked
from biobank_core.galaxy.merge import merged
from biobank_core.galaxy.recorder import Summary, record
from biobank_core.galaxy.records import (
    CollectionEnd,
    CollectionRecord,
    ElementRecord,
    HistoryRecord,
)
from biobank_core.galaxy.rules import Choice, Rules, SampleRule, StudyRule, ToolRule
from biobank_core.galaxy.unrecorded import unrecorded
from biobank_core.model.galaxy import GalaxyDataset
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import Cursor, DataSample, SoftwareProgram, Tube
from tests.unit.recorder_lab import action, catalog, recorder_of, study_of
from tests.unit.scripted_galaxy import START, ScriptedGalaxy, dataset_uuid, end

__all__ = ["catalog"]  # the fixture


def vid(number: int) -> str:
    return identity.data_sample_vid(dataset_uuid(number))


@pytest.fixture
def galaxy() -> ScriptedGalaxy:
    return ScriptedGalaxy()


def run(catalog: SqliteCatalog, galaxy: ScriptedGalaxy, **options: Any) -> Summary:
    galaxy.asked.clear()
    return record(catalog, galaxy, server="g", **options)  # type: ignore[arg-type]


def sample(catalog: SqliteCatalog, number: int) -> DataSample:
    found = catalog.get([vid(number)])[vid(number)].object
    assert isinstance(found, DataSample)
    return found


def tube_of(catalog: SqliteCatalog, study: str, label: str) -> str:
    tube = Tube(vid=new_vid(), label=label, study=study)
    catalog.commit([Save(object=tube)], by="test")
    return tube.vid


def test_a_second_run_asks_only_the_list(catalog: SqliteCatalog, galaxy: ScriptedGalaxy) -> None:
    for number in range(5):
        galaxy.add(f"j{number}", number, outputs=(end("o", number),))
    assert run(catalog, galaxy).recorded == 5
    assert len(galaxy.asked) == 1 + 5 + 5
    assert run(catalog, galaxy).recorded == 0
    assert galaxy.asked == ["jobs"]


def test_a_paused_job_is_recorded_when_it_ends_however_late_and_whatever_its_time(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    galaxy.add("paused", 0, state="paused", outputs=(end("o", 1),))
    galaxy.add("later", 600, outputs=(end("o", 2),))
    summary = run(catalog, galaxy)
    assert (summary.recorded, summary.waiting) == (1, 1)
    assert run(catalog, galaxy).waiting == 1
    # It ends without its update time moving past the cursor.
    galaxy.records["paused"] = replace(galaxy.records["paused"], state="ok")
    summary = run(catalog, galaxy)
    assert (summary.recorded, summary.waiting) == (1, 0)
    assert action(catalog, "paused").outputs[0].object == vid(1)
    run(catalog, galaxy)
    assert galaxy.asked == ["jobs"]


def test_a_job_whose_transaction_ended_late_is_not_missed(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    galaxy.add("j1", 60)
    run(catalog, galaxy)
    galaxy.add("j2", 55)
    assert run(catalog, galaxy).recorded == 1


def test_an_odd_job_is_told_and_tried_again_and_stops_nothing(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    galaxy.add("good", 0)
    galaxy.add("odd", 1)
    galaxy.add("last", 100)
    galaxy.faults.add("odd")
    summary = run(catalog, galaxy)
    assert (summary.recorded, list(summary.failed)) == (2, ["odd"])
    assert list(run(catalog, galaxy).failed) == ["odd"]
    galaxy.faults.clear()
    assert run(catalog, galaxy).recorded == 1


def test_a_kill_between_two_units_loses_nothing_and_doubles_nothing(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "JOBS_A_UNIT", 2)
    for number in range(7):
        galaxy.add(f"j{number}", number * 20, outputs=(end("o", number),))
    real = SqliteCatalog.commit
    allowed = [2]

    def killed(self: SqliteCatalog, changes: Sequence[Change], *, by: str) -> Receipt:
        if not allowed[0]:
            raise KeyboardInterrupt
        allowed[0] -= 1
        return real(self, changes, by=by)

    with monkeypatch.context() as patched:
        patched.setattr(SqliteCatalog, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            run(catalog, galaxy)
    assert catalog.count()["Action"] == 4
    assert run(catalog, galaxy).recorded == 3
    assert not {"job j0", "job j1", "job j2"} & set(galaxy.asked)
    assert catalog.count()["Action"] == 7


def test_many_jobs_of_one_moment_are_all_recorded(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    for number in range(100):
        galaxy.add(f"j{number}", 0)
    assert run(catalog, galaxy).recorded == 100
    assert run(catalog, galaxy).recorded == 0


def test_jobs_made_in_the_same_microsecond_are_told_apart(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    for number in (1, 2):
        galaxy.add(f"j{number}", 0, create_time=START, outputs=(end("o", number),))
    run(catalog, galaxy)
    assert {action(catalog, f"j{n}").flags for n in (1, 2)} == {("ambiguous-identity",)}


def test_a_job_that_would_close_a_cycle_is_recorded_without_that_edge(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    galaxy.add("forth", 0, inputs=(end("x", 1),), outputs=(end("o", 2),))
    galaxy.add("back", 1, inputs=(end("x", 2),), outputs=(end("o", 1), end("p", 3)))
    summary = run(catalog, galaxy)
    assert (summary.recorded, summary.failed) == (2, {})
    back = action(catalog, "back")
    assert back.flags == ("cycle",)
    assert [port.object for port in back.outputs] == [vid(3)]
    assert [port.object for port in back.without_edge] == [vid(1)]


def test_what_people_set_stays(catalog: SqliteCatalog, galaxy: ScriptedGalaxy) -> None:
    galaxy.add("j", 0, outputs=(end("o", 1),))
    run(catalog, galaxy)
    standing = catalog.get([vid(1)])[vid(1)]
    mine = replace(standing.object, label="mine")
    catalog.commit([Save(object=mine, based_on=standing.version)], by="ada")
    galaxy.names["hda1"] = "other"
    run(catalog, galaxy, history_id="h1")
    assert sample(catalog, 1).label == "mine"


def test_what_people_deleted_is_not_made_again(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    galaxy.add("j1", 0, outputs=(end("o", 1),))
    run(catalog, galaxy)
    catalog.commit(
        [Delete(vid=vid(1), based_on=catalog.get([vid(1)])[vid(1)].version, cascade=True)],
        by="ada",
    )
    galaxy.add("j2", 60, inputs=(end("x", 1),), outputs=(end("o", 2),))
    assert run(catalog, galaxy).failed == {}
    assert catalog.get([vid(1)])[vid(1)].object.kind == "Tombstone"
    later = action(catalog, "j2")
    assert (later.inputs, later.flags) == ((), ("partial",))


def test_the_label_is_that_of_the_copy_which_the_making_job_put_out(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    galaxy.names["hda1"] = "original"
    galaxy.names["hda1-copy"] = "copy"
    copied = replace(end("x", 1), id="hda1-copy")
    galaxy.add("use", 60, inputs=(copied,), outputs=(end("o", 2),), history_id="h2")
    run(catalog, galaxy, history_id="h2")
    assert sample(catalog, 1).label == "copy"
    galaxy.add("make", 0, outputs=(end("o", 1),))
    run(catalog, galaxy)
    assert sample(catalog, 1).label == "original"


def test_two_recorders_at_once_lose_nothing(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    galaxy.add("j1", 0, outputs=(end("o", 1),))
    galaxy.add("paused", 1, state="paused")
    real = SqliteCatalog.commit
    first = [True]

    def raced(self: SqliteCatalog, changes: Sequence[Change], *, by: str) -> Receipt:
        if first[0]:
            first[0] = False
            # Paused after our list was read: only the other recorder knows of it.
            galaxy.add("later", 2, state="paused")
            record(catalog, galaxy, server="g")  # type: ignore[arg-type]
            raise StaleVersionError("somebody was faster")
        return real(self, changes, by=by)

    with monkeypatch.context() as patched:
        patched.setattr(SqliteCatalog, "commit", raced)
        assert run(catalog, galaxy).failed == {}
    assert catalog.count()["Action"] == 1
    [cursor] = catalog.find("Cursor")
    assert isinstance(cursor.object, Cursor)
    assert set(cursor.object.waiting_job_ids) == {"paused", "later"}


def test_a_registered_device_is_used(catalog: SqliteCatalog, galaxy: ScriptedGalaxy) -> None:
    mine = SoftwareProgram(vid=new_vid(), label="tool", release="1.0", maker="us")
    catalog.commit([Save(object=mine)], by="test")
    galaxy.add("j1", 0)
    galaxy.add("j2", 1, tool_version="2.0")
    run(catalog, galaxy)
    assert action(catalog, "j1").device == mine.vid
    assert action(catalog, "j2").device == identity.device_vid("tool", "2.0")


def test_without_a_rule_data_are_unassigned_until_one_says(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    galaxy.add("j", 0, outputs=(end("o", 1),))
    run(catalog, galaxy)
    [unassigned] = catalog.find("Study", {"label": "unassigned"})
    assert sample(catalog, 1).study == unassigned.object.vid
    study = study_of(catalog, "KPN")
    run(catalog, galaxy, study=study)
    assert sample(catalog, 1).study == study
    assert action(catalog, "j").study == study
    run(catalog, galaxy, study=study_of(catalog, "other"))
    assert sample(catalog, 1).study == study


def test_only_uploads_are_linked_by_element_identifier(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    study = study_of(catalog, "KPN")
    tube = tube_of(catalog, study, "T1")
    for key, number in (("c1", 1), ("c2", 2)):
        galaxy.collections[key] = CollectionRecord(
            id=key,
            name=key,
            collection_type="list",
            history_id="h1",
            elements=(
                ElementRecord(
                    identifier="T1", dataset_uuid=dataset_uuid(number), dataset_id=f"hda{number}"
                ),
            ),
        )
    galaxy.add(
        "up",
        0,
        tool_id="__DATA_FETCH__",
        outputs=(end("o", 1),),
        output_collections=(CollectionEnd(role="o", key="c1"),),
    )
    galaxy.add(
        "mapped",
        1,
        inputs=(end("x", 1),),
        outputs=(end("o", 2),),
        output_collections=(CollectionEnd(role="o", key="c2"),),
        element_identifiers={"x": "T1"},
    )
    summary = run(catalog, galaxy, study=study)
    assert (summary.linked, summary.unlinked) == (1, set())
    made = catalog.get([identity.link_vid(tube, vid(1))])
    assert len(made) == 1
    assert list(unlinked(catalog)) == []


def test_data_in_a_list_built_later_are_linked_then(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    study = study_of(catalog, "KPN")
    tube = tube_of(catalog, study, "T1")
    galaxy.add("up", 0, tool_id="upload1", outputs=(end("o", 1),))
    assert run(catalog, galaxy, study=study).unlinked == {vid(1)}
    galaxy.add(
        "mapped",
        60,
        inputs=(end("x", 1),),
        outputs=(end("o", 2),),
        element_identifiers={"x": "T1"},
    )
    assert run(catalog, galaxy, study=study).linked == 1
    assert identity.link_vid(tube, vid(1)) in catalog.get([identity.link_vid(tube, vid(1))])


@pytest.mark.parametrize(
    ("tags", "label"),
    [
        (("biobank:T1",), "T1"),
        (("biobank:T2", "name:x"), "T2"),
        (("biobank:T1", "biobank:T2"), None),
        (("biobank:T9",), None),
        (("biobank:T1", "biobank:T9"), None),
        (("T1",), None),
    ],
)
def test_a_tag_links_to_exactly_one_registered_vessel_or_to_none(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy, tags: tuple[str, ...], label: str | None
) -> None:
    study = study_of(catalog, "KPN")
    tubes = {name: tube_of(catalog, study, name) for name in ("T1", "T2")}
    tube_of(catalog, study_of(catalog, "other"), "T9")
    galaxy.tags["hda1"] = tags
    galaxy.add("up", 0, tool_id="upload1", outputs=(end("o", 1),))
    summary = run(catalog, galaxy, study=study)
    if label is None:
        assert (summary.linked, summary.unlinked) == (0, {vid(1)})
    else:
        assert identity.link_vid(tubes[label], vid(1)) in catalog.get(
            [identity.link_vid(tubes[label], vid(1))]
        )


def test_a_link_of_a_person_is_never_added_to(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    study = study_of(catalog, "KPN")
    mine, other = tube_of(catalog, study, "mine"), tube_of(catalog, study, "T1")
    galaxy.add("up", 0, tool_id="upload1", outputs=(end("o", 1),))
    run(catalog, galaxy, study=study)
    assert [data.vid for data in unlinked(catalog)] == [vid(1)]
    made, new = link(catalog, data=vid(1), sample=mine, by="ada")
    assert new
    assert link(catalog, data=vid(1), sample=mine, by="ada") == (made, False)
    galaxy.add("use", 60, inputs=(end("x", 1),), element_identifiers={"x": "T1"})
    run(catalog, galaxy, study=study)
    assert identity.link_vid(other, vid(1)) not in catalog.get([identity.link_vid(other, vid(1))])
    assert list(unlinked(catalog)) == []


def test_a_link_that_another_makes_at_once_is_one(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(catalog, "KPN")
    tube = tube_of(catalog, study, "T1")
    galaxy.add("up", 0, tool_id="upload1", outputs=(end("o", 1),))
    run(catalog, galaxy, study=study)
    real = SqliteCatalog.commit

    def overtaken(self: SqliteCatalog, changes: Sequence[Change], *, by: str) -> Receipt:
        monkeypatch.setattr(SqliteCatalog, "commit", real)
        link(catalog, data=vid(1), sample=tube, by="bob")
        return real(self, changes, by=by)

    monkeypatch.setattr(SqliteCatalog, "commit", overtaken)
    made, new = link(catalog, data=vid(1), sample=tube, by="ada")
    assert (made.operator, new) == ("bob", False)


def test_rules_give_study_category_and_kind_and_leave_out(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    from biobank_core.model.kinds import ActionCategory

    study = study_of(catalog, "KPN")
    galaxy.histories["h1"] = HistoryRecord(id="h1", name="x", tags=("study:KPN",))
    galaxy.histories["h2"] = HistoryRecord(id="h2", name="x", tags=("no-biobank",))
    galaxy.add("typed", 0, tool_id="kleborate_typing", outputs=(end("o", 1),))
    galaxy.add("out", 1, history_id="h2")
    galaxy.add("tool", 2, tool_id="boring")
    rules = Rules(
        studies=(StudyRule(history_tag="study:{study}"),),
        samples=(SampleRule(tag="x:{sample}"),),
        tools=(
            ToolRule(
                tool="kleborate_typing",
                category=ActionCategory.MEASUREMENT,
                outputs={"*": "TypingResult"},
            ),
        ),
        exclude=Choice(tag="no-biobank", tools=("boring",)),
    )
    summary = run(catalog, galaxy, rules=rules)
    assert (summary.recorded, summary.left_out) == (1, 2)
    typed = action(catalog, "typed")
    assert (typed.category, typed.study) == (ActionCategory.MEASUREMENT, study)
    assert (sample(catalog, 1).kind, sample(catalog, 1).study) == ("TypingResult", study)


def test_a_job_that_grew_its_collection_later_is_recorded_with_all_of_it(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    growing = CollectionRecord(id="c", name="c", collection_type="list", populated=False)
    galaxy.collections["c"] = growing
    out = (CollectionEnd(role="o", key="c"),)
    galaxy.add("first", 0, outputs=(end("o", 1),), output_collections=out)
    assert run(catalog, galaxy).recorded == 1
    assert catalog.count().get("DataCollection", 0) == 0
    elements = tuple(
        ElementRecord(identifier=f"e{n}", dataset_uuid=dataset_uuid(n), dataset_id=f"hda{n}")
        for n in (1, 2)
    )
    galaxy.collections["c"] = replace(growing, populated=True, elements=elements)
    galaxy.add("second", 1, outputs=(end("o", 2),), output_collections=out)
    run(catalog, galaxy)
    [found] = catalog.find("DataCollection")
    assert [item.role for item in found.object.items] == ["e1", "e2"]  # type: ignore[attr-defined]


def test_a_collection_that_galaxy_fills_late_is_looked_at_again(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    growing = CollectionRecord(id="c", name="c", collection_type="list", populated=False)
    galaxy.collections["c"] = growing
    out = (CollectionEnd(role="o", key="c"),)
    galaxy.add("job", 0, outputs=(end("o", 1),), output_collections=out)
    assert run(catalog, galaxy).recorded == 1
    element = ElementRecord(identifier="e", dataset_uuid=dataset_uuid(1), dataset_id="hda1")
    galaxy.collections["c"] = replace(growing, populated=True, elements=(element,))
    galaxy.add("other", 600)
    run(catalog, galaxy)
    assert len(list(catalog.find("DataCollection"))) == 1
    run(catalog, galaxy)
    assert galaxy.asked == ["jobs"]


def test_a_history_that_galaxy_does_not_know_is_an_error(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    with pytest.raises(NotFoundError, match="history h9"):
        run(catalog, galaxy, history_id="h9")
    galaxy.histories["h9"] = HistoryRecord(id="h9")
    assert run(catalog, galaxy, history_id="h9").seen == 0


def test_since_leaves_out_what_is_older(catalog: SqliteCatalog, galaxy: ScriptedGalaxy) -> None:
    galaxy.add("old", 0)
    galaxy.add("new", 60)
    assert run(catalog, galaxy, since=START + timedelta(minutes=30)).recorded == 1


def test_jobs_without_an_action_are_found_whatever_the_cursor_says(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy
) -> None:
    galaxy.add("known", 0, outputs=(end("o", 1),))
    for number in (2, 3):
        galaxy.add(
            f"twin{number}",
            1,
            create_time=START + timedelta(minutes=1),
            outputs=(end("o", number),),
        )
    run(catalog, galaxy)
    galaxy.add("running", 2, state="running")
    galaxy.add("left out", 3, tool_id="other")
    galaxy.add("lost", 4, outputs=(end("o", 4),))
    rules = Rules(exclude=Choice(tools=("other",)))
    # Galaxy is asked the list, and the histories that rules need.
    galaxy.asked.clear()
    missed = list(unrecorded(catalog, galaxy, server="g", rules=rules))  # type: ignore[arg-type]
    assert set(galaxy.asked) == {"jobs", "history h1"}
    assert [row.id for _, row in missed] == ["lost"]
    # What an archive told of has no id, and is known by its VID.
    standing = catalog.get([action(catalog, "known").vid])
    [found] = standing.values()
    told = replace(found.object, galaxy=replace(found.object.galaxy, job_id=None))  # type: ignore[attr-defined]
    catalog.commit([Save(object=told, based_on=found.version)], by="test")
    again = unrecorded(catalog, galaxy, server="g", rules=rules)  # type: ignore[arg-type]
    assert [row.id for _, row in again] == ["lost"]
    # Twins that are both lost are told apart, as ever.
    galaxy.records.clear()
    for number in (5, 6):
        galaxy.add(f"new twin{number}", 9, create_time=START, outputs=(end("o", number),))
    lost = [row for _, row in unrecorded(catalog, galaxy, server="g", rules=rules)]  # type: ignore[arg-type]
    made = recorder_of(catalog, galaxy, rules=rules)
    assert made.run(made.these(lost)).recorded == 2
    assert list(unrecorded(catalog, galaxy, server="g", rules=rules)) == []  # type: ignore[arg-type]


def test_one_copy_tells_that_data_are_there_and_never_that_they_are_gone() -> None:
    def told(*, deleted: bool | None, as_of: timedelta | None) -> DataSample:
        time = START + as_of if as_of is not None else None
        galaxy = GalaxyDataset(server="g", deleted=deleted, purged=deleted, as_of=time)
        return DataSample(vid=vid(1), label="x", study=study, galaxy=galaxy)

    study, day = new_vid(), timedelta(days=1)
    for old, new, expected in (
        (told(deleted=False, as_of=day), told(deleted=True, as_of=2 * day), False),
        (told(deleted=True, as_of=day), told(deleted=False, as_of=2 * day), False),
        (told(deleted=True, as_of=2 * day), told(deleted=False, as_of=day), True),
        (told(deleted=None, as_of=day), told(deleted=True, as_of=2 * day), True),
        # An archive does not say of which day it is.
        (told(deleted=False, as_of=None), told(deleted=True, as_of=day), True),
        (told(deleted=True, as_of=day), told(deleted=None, as_of=2 * day), True),
    ):
        after = merged(old, new, unassigned=new_vid(), history=lambda _vid: [])
        assert isinstance(after, DataSample)
        assert after.galaxy
        assert (after.galaxy.deleted, after.galaxy.purged) == (expected, expected)
