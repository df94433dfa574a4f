"""What every catalog driver does. A driver's test gives the fixture `url` of a new, empty one."""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from catalog_world import (
    action,
    collection,
    delete,
    file_of,
    individual,
    plate,
    program,
    sample,
    save,
    study,
    tube,
)

from biobank_core.catalog.port import Catalog, ChangeKind, Delete, Referrer, Save, Versioned
from biobank_core.catalog.registry import open_catalog
from biobank_core.errors import (
    ConfigurationError,
    ConflictError,
    CycleError,
    DuplicateError,
    InputError,
    NotFoundError,
    StaleVersionError,
)
from biobank_core.model.base import Object
from biobank_core.model.galaxy import GalaxyDataset, GalaxyJob
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import (
    ActionSetup,
    ActionStatus,
    Campaign,
    CampaignItem,
    Consent,
    ConsentStatus,
    Cursor,
    DataSample,
    Enrollment,
    Gender,
    Individual,
    Study,
    Supersession,
    Tombstone,
    Tube,
)

# Everything that a label may hold: quotes, markup, right-to-left, beyond the basic plane,
# combining marks, line ends.
HOSTILE_LABELS = (
    "'; DROP TABLE object; --",
    '"quoted" \\ back\\slash',
    "<script>alert(1)</script>&amp;",
    "=cmd|'/c calc'!A1",
    "ключ 株 مفتاح \u202eright",
    "\U0001f9ec\U0001f468‍\U0001f52c",
    "e\u0301 is not \u00e9",
    "tab\tnew\nline\r\x01\x7f\ufeff",
    "%s {0} $1 ?1 :x",
    " " * 3,
)


def increment(url: str, vid: str, times: int) -> int:
    """Add one to the number in the description, so many times; gives how often it had to retry."""
    retries = 0
    with open_catalog(url) as catalog:
        for _ in range(times):
            while True:
                known = catalog.get([vid])[vid]
                assert isinstance(known.object, Study)
                number = int(known.object.description or 0) + 1
                new = msgspec.structs.replace(known.object, description=str(number))
                try:
                    catalog.commit([Save(object=new, based_on=known.version)], by="racer")
                except StaleVersionError:
                    retries += 1
                else:
                    break
    return retries


def take_label(url: str, study_vid: str, label: str) -> bool:
    """Try to save a tube of this label; whether it was the first."""
    with open_catalog(url) as catalog:
        new = Tube(vid=new_vid(), label=label, study=study_vid)
        try:
            catalog.commit([Save(object=new)], by="racer")
        except DuplicateError:
            return False
    return True


class CatalogContract:
    @pytest.fixture
    def catalog(self, url: str) -> Iterator[Catalog]:
        with open_catalog(url, create=True) as opened:
            yield opened

    @pytest.fixture
    def kpn(self, catalog: Catalog) -> Study:
        made = study()
        save(catalog, made)
        return made

    # What is saved

    def test_a_saved_object_comes_back_equal_with_version_one(self, catalog: Catalog) -> None:
        made = study()
        receipt = save(catalog, made)
        assert receipt.versions == {made.vid: 1}
        assert catalog.get([made.vid]) == {made.vid: Versioned(made, 1)}

    def test_what_was_saved_is_there_for_the_next_one_who_opens_it(
        self, catalog: Catalog, kpn: Study, url: str
    ) -> None:
        catalog.close()
        with open_catalog(url) as again:
            assert again.get([kpn.vid])[kpn.vid].object == kpn

    def test_the_order_of_changes_in_a_unit_does_not_matter(self, catalog: Catalog) -> None:
        made = study()
        data = sample(made)
        held = file_of(data)
        receipt = save(catalog, held, data, made)
        assert list(receipt.versions) == [held.vid, data.vid, made.vid]
        assert len(catalog.get(receipt.versions)) == 3

    def test_an_unknown_vid_is_left_out_of_the_answer(self, catalog: Catalog, kpn: Study) -> None:
        assert set(catalog.get([new_vid(), kpn.vid, "no vid at all", "\x00", "\ud800"])) == {
            kpn.vid
        }

    def test_nothing_in_gives_nothing_out(self, catalog: Catalog) -> None:
        assert catalog.commit([], by="test").versions == {}
        assert catalog.get([]) == {}
        assert list(catalog.iterate()) == []
        assert catalog.count() == {}
        assert catalog.history(new_vid()) == []
        assert list(catalog.changes({})) == []

    def test_equal_content_may_be_saved_again_and_is_a_new_version(
        self, catalog: Catalog, kpn: Study
    ) -> None:
        assert save(catalog, kpn, based_on=1).versions == {kpn.vid: 2}

    @pytest.mark.parametrize("label", HOSTILE_LABELS)
    def test_any_text_comes_back_as_it_was(self, catalog: Catalog, kpn: Study, label: str) -> None:
        made = tube(kpn, label)
        setup = ActionSetup(vid=new_vid(), parameters={label: [label, {"x": None, "y": 1.5}]})
        save(catalog, made, setup)
        assert catalog.get([made.vid])[made.vid].object == made
        assert catalog.get([setup.vid])[setup.vid].object == setup
        assert [found.object for found in catalog.find("Tube", {"label": label})] == [made]

    def test_times_come_back_in_utc(self, catalog: Catalog, kpn: Study) -> None:
        local = datetime(2026, 3, 4, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5)))
        done = msgspec.structs.replace(action(kpn), begin=local)
        save(catalog, done)
        [found] = catalog.find("Action", {"begin": local})
        assert found.object.begin == local  # type: ignore[attr-defined]
        assert found.object.begin.tzinfo is UTC  # type: ignore[attr-defined]

    def test_every_kind_can_be_kept(self, catalog: Catalog, kpn: Study) -> None:
        who = individual()
        enrolled = Enrollment(vid=new_vid(), individual=who.vid, study=kpn.vid, code="KP-01")
        consent = Consent(vid=new_vid(), enrollment=enrolled.vid, status=ConsentStatus.GIVEN)
        old, new = sample(kpn), sample(kpn)
        campaign = Campaign(
            vid=new_vid(),
            label="again",
            study=kpn.vid,
            created=datetime.now(UTC),
            criteria={},
            workflow={},
            galaxy_server="g",
        )
        item = CampaignItem(
            vid=new_vid(), campaign=campaign.vid, sample=old.vid, sample_label="T", reason="old"
        )
        cursor = Cursor(vid=new_vid(), name="g", position=datetime.now(UTC))
        replaced = Supersession(vid=new_vid(), new=new.vid, old=old.vid, campaign=campaign.vid)
        objects: list[Object] = [who, enrolled, consent, old, new, campaign, item, cursor, replaced]
        save(catalog, *objects)
        found = catalog.get(obj.vid for obj in objects)
        assert [found[obj.vid].object for obj in objects] == objects

    # All or nothing

    def test_a_unit_that_fails_leaves_nothing(self, catalog: Catalog, kpn: Study) -> None:
        first = tube(kpn, "T1")
        before = list(catalog.changes({}))
        with pytest.raises(InputError):
            save(catalog, first, Tube(vid=new_vid(), label="T2", study=new_vid()))
        assert catalog.get([first.vid]) == {}
        assert catalog.history(first.vid) == []
        assert list(catalog.changes({})) == before
        save(catalog, first)

    def test_a_unit_that_fails_for_a_duplicate_leaves_its_updates_undone(
        self, catalog: Catalog, kpn: Study
    ) -> None:
        first, second = tube(kpn, "T1"), tube(kpn, "T2")
        save(catalog, first, second)
        moved = msgspec.structs.replace(first, label="T3")
        with pytest.raises(DuplicateError):
            catalog.commit(
                [Save(object=moved, based_on=1), Save(object=tube(kpn, "T2"))], by="test"
            )
        assert catalog.get([first.vid]) == {first.vid: Versioned(first, 1)}
        assert [f.object.vid for f in catalog.find("Tube", {"label": "T1"})] == [first.vid]

    # Versions

    def test_saving_over_a_newer_version_is_refused(self, catalog: Catalog, kpn: Study) -> None:
        save(catalog, msgspec.structs.replace(kpn, description="new"), based_on=1)
        with pytest.raises(StaleVersionError, match=kpn.vid):
            save(catalog, msgspec.structs.replace(kpn, description="lost?"), based_on=1)
        assert catalog.get([kpn.vid])[kpn.vid].object.description == "new"  # type: ignore[attr-defined]

    @pytest.mark.parametrize("based_on", [0, 2, 99])
    def test_a_save_must_know_the_newest_version(
        self, catalog: Catalog, kpn: Study, based_on: int
    ) -> None:
        with pytest.raises(StaleVersionError):
            save(catalog, kpn, based_on=based_on)

    def test_a_version_of_what_was_never_there_is_refused(self, catalog: Catalog) -> None:
        with pytest.raises(StaleVersionError):
            save(catalog, study(), based_on=1)

    def test_one_vid_twice_in_a_unit_is_refused(self, catalog: Catalog) -> None:
        made = study()
        with pytest.raises(InputError, match=made.vid):
            save(catalog, made, made)

    def test_racing_processes_lose_no_update(self, catalog: Catalog, kpn: Study, url: str) -> None:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(4, mp_context=spawn) as pool:
            for future in [pool.submit(increment, url, kpn.vid, 40) for _ in range(4)]:
                future.result(timeout=240)
        known = catalog.get([kpn.vid])[kpn.vid]
        assert known.object.description == "160"  # type: ignore[attr-defined]
        assert known.version == 161
        assert [entry.version for entry in catalog.history(kpn.vid)] == list(range(1, 162))

    def test_of_racing_processes_one_gets_a_unique_label(
        self, catalog: Catalog, kpn: Study, url: str
    ) -> None:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(3, mp_context=spawn) as pool:
            tries = [pool.submit(take_label, url, kpn.vid, "T1") for _ in range(6)]
            assert sum(future.result(timeout=240) for future in tries) == 1
        assert catalog.count()["Tube"] == 1

    # Unique keys

    def test_a_study_label_is_unique(self, catalog: Catalog, kpn: Study) -> None:
        with pytest.raises(DuplicateError, match=kpn.vid):
            save(catalog, study(kpn.label))

    def test_a_code_is_unique_in_its_study_only(self, catalog: Catalog, kpn: Study) -> None:
        other, who = study("other"), individual()
        enrolled = Enrollment(vid=new_vid(), individual=who.vid, study=kpn.vid, code="C")
        save(catalog, other, who, enrolled)
        save(catalog, msgspec.structs.replace(enrolled, vid=new_vid(), study=other.vid))
        with pytest.raises(DuplicateError, match="'C'"):
            save(catalog, msgspec.structs.replace(enrolled, vid=new_vid()))

    def test_a_vessel_label_is_unique_in_its_study_whatever_the_vessel(
        self, catalog: Catalog, kpn: Study
    ) -> None:
        other = study("other")
        save(catalog, other, tube(kpn, "V"), tube(other, "V"))
        with pytest.raises(DuplicateError, match="'V'"):
            save(catalog, plate(kpn, "V"))

    def test_a_barcode_is_unique_everywhere(self, catalog: Catalog, kpn: Study) -> None:
        other = study("other")
        save(catalog, other, tube(kpn, "A", barcode="0001"))
        with pytest.raises(DuplicateError, match="barcode '0001'"):
            save(catalog, tube(other, "B", barcode="0001"))

    @pytest.mark.parametrize("release", ["2.2.0", None])
    def test_a_device_is_unique_by_label_and_release(
        self, catalog: Catalog, release: str | None
    ) -> None:
        save(catalog, program(release=release), program(release="3.2.4"))
        with pytest.raises(DuplicateError, match="kleborate"):
            save(catalog, program(release=release))

    def test_two_of_one_label_in_a_unit_are_refused(self, catalog: Catalog, kpn: Study) -> None:
        with pytest.raises(DuplicateError):
            save(catalog, tube(kpn, "same"), tube(kpn, "same"))
        assert "Tube" not in catalog.count()

    def test_data_samples_may_share_a_label(self, catalog: Catalog, kpn: Study) -> None:
        save(catalog, sample(kpn, "same"), sample(kpn, "same"))
        assert len(list(catalog.find("DataSample", {"label": "same"}))) == 2

    def test_labels_can_be_swapped_in_one_unit(self, catalog: Catalog, kpn: Study) -> None:
        first, second = tube(kpn, "A"), tube(kpn, "B")
        save(catalog, first, second)
        save(
            catalog,
            msgspec.structs.replace(first, label="B"),
            msgspec.structs.replace(second, label="A"),
            based_on=1,
        )
        assert [f.object.vid for f in catalog.find("Tube", {"label": "A"})] == [second.vid]

    def test_a_label_is_free_again_after_a_change_or_a_delete(
        self, catalog: Catalog, kpn: Study
    ) -> None:
        first, second = tube(kpn, "A"), tube(kpn, "B")
        save(catalog, first, second)
        save(catalog, msgspec.structs.replace(first, label="C"), based_on=1)
        delete(catalog, second)
        save(catalog, tube(kpn, "A"), tube(kpn, "B"))

    # References and cycles

    def test_a_dangling_reference_is_refused(self, catalog: Catalog) -> None:
        nowhere = study()
        with pytest.raises(InputError) as caught:
            save(catalog, tube(nowhere))
        assert caught.value.field == "study"
        assert caught.value.value == nowhere.vid

    def test_a_reference_to_a_wrong_kind_is_refused(self, catalog: Catalog, kpn: Study) -> None:
        who = individual()
        save(catalog, who)
        with pytest.raises(InputError, match="Individual") as caught:
            save(catalog, Tube(vid=new_vid(), label="T", study=who.vid))
        assert caught.value.field == "study"

    def test_an_object_never_changes_its_kind(self, catalog: Catalog, kpn: Study) -> None:
        first = tube(kpn)
        save(catalog, first)
        other = msgspec.structs.replace(plate(kpn, "P"), vid=first.vid)
        with pytest.raises(InputError, match="TiterPlate"):
            save(catalog, other, based_on=1)
        delete(catalog, first)
        with pytest.raises(InputError, match="TiterPlate"):
            save(catalog, other, based_on=2)

    def test_content_that_breaks_its_type_is_refused(self, catalog: Catalog, kpn: Study) -> None:
        for wrong in (
            Tube(vid=new_vid(), label="", study=kpn.vid),
            Tube(vid=new_vid(), label=5, study=kpn.vid),  # type: ignore[arg-type]
            Tube(vid="V0", label="T", study=kpn.vid),
            Tube(vid=new_vid(), label="nul\x00", study=kpn.vid),
            Tube(vid=new_vid(), label="lone\ud800", study=kpn.vid),
            Tube(vid=new_vid(), label="T", study=kpn.vid, volume_ul=float("nan")),
            ActionSetup(vid=new_vid(), parameters={"x": [float("inf")]}),
            ActionSetup(vid=new_vid(), parameters={"x": object()}),
        ):
            with pytest.raises(InputError):
                save(catalog, wrong)

    def test_too_deep_parameters_are_refused(self, catalog: Catalog) -> None:
        deep: list[object] = []
        for _ in range(1000):
            deep = [deep]
        with pytest.raises(InputError, match="100 levels"):
            save(catalog, ActionSetup(vid=new_vid(), parameters={"x": deep}))

    def test_a_cycle_of_two_actions_in_one_unit_is_refused(
        self, catalog: Catalog, kpn: Study
    ) -> None:
        a, b = sample(kpn), sample(kpn)
        with pytest.raises(CycleError):
            save(catalog, a, b, action(kpn, (a,), (b,)), action(kpn, (b,), (a,)))

    def test_a_cycle_over_several_units_is_refused(self, catalog: Catalog, kpn: Study) -> None:
        chain = [sample(kpn) for _ in range(5)]
        save(catalog, *chain)
        for first, second in itertools.pairwise(chain):
            save(catalog, action(kpn, (first,), (second,)))
        with pytest.raises(CycleError):
            save(catalog, action(kpn, (chain[-1],), (chain[0],)))
        save(catalog, action(kpn, (chain[0],), (chain[-1],)))

    def test_a_cycle_through_a_collection_is_refused(self, catalog: Catalog, kpn: Study) -> None:
        a, b = sample(kpn), sample(kpn)
        batch = collection(kpn, a)
        save(catalog, a, b, batch, action(kpn, (batch,), (b,)))
        with pytest.raises(CycleError):
            save(catalog, action(kpn, (b,), (a,)))

    def test_a_cycle_through_the_unit_and_the_catalog_in_turns_is_refused(
        self, catalog: Catalog, kpn: Study
    ) -> None:
        a, b, c, d = (sample(kpn) for _ in range(4))
        save(catalog, a, b, c, d, action(kpn, (a,), (b,)), action(kpn, (c,), (d,)))
        between = sample(kpn)
        with pytest.raises(CycleError):
            save(
                catalog,
                between,
                action(kpn, (b,), (between,)),
                action(kpn, (between,), (c,)),
                action(kpn, (d,), (a,)),
            )

    def test_an_update_that_closes_a_cycle_is_refused(self, catalog: Catalog, kpn: Study) -> None:
        a, b, c = (sample(kpn) for _ in range(3))
        first, second = action(kpn, (a,), (b,)), action(kpn, (b,), (c,))
        save(catalog, a, b, c, first, second)
        looped = msgspec.structs.replace(first, inputs=second.outputs)
        with pytest.raises(CycleError):
            save(catalog, looped, based_on=1)

    def test_an_update_that_turns_a_chain_round_is_no_cycle(
        self, catalog: Catalog, kpn: Study
    ) -> None:
        a, b = sample(kpn), sample(kpn)
        done = action(kpn, (a,), (b,))
        save(catalog, a, b, done)
        turned = msgspec.structs.replace(done, inputs=done.outputs, outputs=done.inputs)
        save(catalog, turned, based_on=1)

    def test_a_cycle_through_the_first_action_of_another_process_is_refused(
        self, catalog: Catalog, kpn: Study, url: str
    ) -> None:
        a, b = sample(kpn), sample(kpn)
        save(catalog, a, b)
        with open_catalog(url) as other:
            save(other, action(kpn, (a,), (b,)))
        with pytest.raises(CycleError):
            save(catalog, action(kpn, (b,), (a,)))

    def test_nested_collections_must_not_hold_each_other(
        self, catalog: Catalog, kpn: Study
    ) -> None:
        inner = collection(kpn)
        outer = collection(kpn, inner)
        save(catalog, inner, outer)
        with pytest.raises(CycleError):
            save(
                catalog,
                msgspec.structs.replace(collection(kpn, outer), vid=inner.vid),
                based_on=1,
            )

    def test_a_vessel_must_not_stand_in_itself(self, catalog: Catalog, kpn: Study) -> None:
        outer = plate(kpn, "P1")
        middle = plate(kpn, "P2", container=outer.vid)
        inner = plate(kpn, "P3", container=middle.vid)
        save(catalog, inner, middle, outer)
        with pytest.raises(CycleError):
            save(catalog, msgspec.structs.replace(outer, container=inner.vid), based_on=1)
        first = plate(kpn, "P4")
        second = plate(kpn, "P5", container=first.vid)
        with pytest.raises(CycleError):
            save(catalog, msgspec.structs.replace(first, container=second.vid), second)

    # Deleting

    def test_a_deleted_object_leaves_a_tombstone(self, catalog: Catalog, kpn: Study) -> None:
        first = tube(kpn, "secret name")
        save(catalog, first)
        assert delete(catalog, first).versions == {first.vid: 2}
        known = catalog.get([first.vid])[first.vid]
        assert known.version == 2
        assert isinstance(known.object, Tombstone)
        assert known.object.of == "Tube"
        assert list(catalog.find("Tube")) == []
        assert [found.object for found in catalog.find("Tombstone")] == [known.object]
        assert catalog.count() == {"Study": 1, "Tombstone": 1}

    def test_nothing_personal_stays_in_the_history_of_what_was_deleted(
        self, catalog: Catalog, kpn: Study
    ) -> None:
        who = Individual(vid=new_vid(), gender=Gender.FEMALE)
        save(catalog, who)
        save(catalog, msgspec.structs.replace(who, gender=Gender.MALE), based_on=1)
        delete(catalog, who)
        entries = catalog.history(who.vid)
        assert [(entry.version, entry.change, entry.object) for entry in entries] == [
            (1, ChangeKind.SAVED, None),
            (2, ChangeKind.SAVED, None),
            (3, ChangeKind.DELETED, None),
        ]

    def test_a_created_again_object_goes_on_counting(self, catalog: Catalog, kpn: Study) -> None:
        first = tube(kpn)
        save(catalog, first)
        delete(catalog, first)
        with pytest.raises(StaleVersionError):
            save(catalog, first)
        assert save(catalog, first, based_on=2).versions == {first.vid: 3}
        assert [f.object for f in catalog.find("Tube", {"label": first.label})] == [first]
        assert [entry.version for entry in catalog.history(first.vid)] == [1, 2, 3]

    def test_deleting_what_is_not_there_is_refused(self, catalog: Catalog, kpn: Study) -> None:
        first = tube(kpn)
        with pytest.raises(NotFoundError, match=first.vid):
            catalog.commit([Delete(vid=first.vid, based_on=0)], by="test")
        save(catalog, first)
        delete(catalog, first)
        with pytest.raises(NotFoundError, match=first.vid):
            catalog.commit([Delete(vid=first.vid, based_on=2)], by="test")

    def test_deleting_over_a_newer_version_is_refused(self, catalog: Catalog, kpn: Study) -> None:
        save(catalog, kpn, based_on=1)
        with pytest.raises(StaleVersionError):
            catalog.commit([Delete(vid=kpn.vid, based_on=1)], by="test")

    def test_a_delete_that_would_leave_a_dangling_reference_is_refused(
        self, catalog: Catalog, kpn: Study
    ) -> None:
        data = sample(kpn)
        held = file_of(data)
        save(catalog, data, held)
        with pytest.raises(ConflictError, match=held.vid):
            delete(catalog, data)
        assert isinstance(catalog.get([data.vid])[data.vid].object, DataSample)

    def test_a_fact_stands_in_the_way_of_a_delete_that_does_not_cascade(
        self, catalog: Catalog, kpn: Study
    ) -> None:
        data = sample(kpn)
        done = action(kpn, (data,))
        save(catalog, data, done)
        with pytest.raises(ConflictError, match=done.vid):
            delete(catalog, data)
        told = msgspec.structs.replace(done, operator="ada")
        with pytest.raises(InputError, match="deleted"):
            catalog.commit(
                [Delete(vid=data.vid, based_on=1), Save(object=told, based_on=1)], by="test"
            )
        delete(catalog, data, cascade=True)

    def test_all_that_refer_can_be_deleted_in_the_same_unit(
        self, catalog: Catalog, kpn: Study
    ) -> None:
        data = sample(kpn)
        held = file_of(data)
        save(catalog, data, held)
        catalog.commit(
            [Delete(vid=data.vid, based_on=1), Delete(vid=held.vid, based_on=1)], by="test"
        )
        assert catalog.count() == {"Study": 1, "Tombstone": 2}

    def test_a_reference_can_be_moved_away_in_the_unit_of_the_delete(
        self, catalog: Catalog, kpn: Study
    ) -> None:
        old, new = sample(kpn, "old"), sample(kpn, "new")
        held = file_of(old)
        save(catalog, old, new, held)
        moved = msgspec.structs.replace(held, sample=new.vid)
        catalog.commit([Delete(vid=old.vid, based_on=1), Save(object=moved, based_on=1)], by="test")
        assert [r.vid for r in catalog.referring([new.vid])] == [held.vid]
        assert list(catalog.referring([old.vid])) == []

    def test_a_save_that_names_what_its_unit_deletes_is_refused(
        self, catalog: Catalog, kpn: Study
    ) -> None:
        data = sample(kpn)
        save(catalog, data)
        with pytest.raises(InputError, match="deleted"):
            catalog.commit(
                [Delete(vid=data.vid, based_on=1, cascade=True), Save(object=file_of(data))],
                by="test",
            )

    def test_a_cascade_takes_parts_along_and_leaves_facts(
        self, catalog: Catalog, kpn: Study
    ) -> None:
        who = individual()
        enrolled = Enrollment(vid=new_vid(), individual=who.vid, study=kpn.vid, code="C")
        consent = Consent(vid=new_vid(), enrollment=enrolled.vid, status=ConsentStatus.GIVEN)
        drawn = tube(kpn)
        taken = action(kpn, (who,), (drawn,))
        save(catalog, who, enrolled, consent, drawn, taken)
        receipt = delete(catalog, who, cascade=True)
        assert set(receipt.versions) == {who.vid, enrolled.vid, consent.vid}
        assert catalog.get([taken.vid])[taken.vid] == Versioned(taken, 1)
        assert catalog.count()["Tombstone"] == 3
        # The fact that names a tombstone can be saved again, and so can a new one.
        save(catalog, msgspec.structs.replace(taken, operator="ada"), based_on=1)

    def test_a_cascade_stops_at_what_must_not_go(self, catalog: Catalog, kpn: Study) -> None:
        tool, data = program(), sample(kpn)
        save(catalog, tool, data, action(kpn, (), (data,), device=tool.vid))
        for needed in (kpn, tool):
            with pytest.raises(ConflictError, match=needed.vid):
                delete(catalog, needed, cascade=True)
        assert "Tombstone" not in catalog.count()

    def test_a_reference_to_a_deleted_object_is_refused(self, catalog: Catalog, kpn: Study) -> None:
        data = sample(kpn)
        save(catalog, data)
        delete(catalog, data)
        with pytest.raises(InputError, match="deleted"):
            save(catalog, file_of(data))

    # Asking

    def test_find_answers_by_vid_and_with_subkinds(self, catalog: Catalog, kpn: Study) -> None:
        vessels = [tube(kpn, f"T{n}") for n in range(20)] + [plate(kpn, "P")]
        save(catalog, *vessels)
        found = [known.object.vid for known in catalog.find("Vessel")]
        assert found == sorted(vessel.vid for vessel in vessels)
        assert len(list(catalog.find("Tube"))) == 20
        assert len(list(catalog.find("Object"))) == 22

    def test_what_another_process_brings_of_a_new_kind_is_found(
        self, catalog: Catalog, kpn: Study, url: str
    ) -> None:
        save(catalog, tube(kpn))
        assert len(list(catalog.find("Vessel", {"study": kpn.vid}))) == 1
        with open_catalog(url) as other:
            save(other, plate(kpn))
        assert len(list(catalog.find("Vessel", {"study": kpn.vid}))) == 2
        assert len(list(catalog.lines("Vessel", {"study": kpn.vid}))) == 2

    def test_find_by_any_plain_field(self, catalog: Catalog, kpn: Study) -> None:
        other, tool = study("other"), program()
        who = individual()
        enrolled = Enrollment(vid=new_vid(), individual=who.vid, study=kpn.vid, code="C-1")
        consent = Consent(vid=new_vid(), enrollment=enrolled.vid, status=ConsentStatus.WITHDRAWN)
        box = plate(kpn, "box")
        inside = Tube(
            vid=new_vid(), label="T", study=kpn.vid, barcode="b1", container=box.vid, volume_ul=2.5
        )
        data = DataSample(
            vid=new_vid(),
            label="d",
            study=kpn.vid,
            galaxy=GalaxyDataset(server="g", dataset_uuid="u-1", purged=True),
        )
        job = msgspec.structs.replace(
            action(kpn, (), (data,), device=tool.vid),
            galaxy=GalaxyJob(server="g", job_id="j1", exit_code=0),
            status=ActionStatus.ERROR,
        )
        objects = (other, tool, who, enrolled, consent, box, inside, data, job)
        save(catalog, *objects, tube(other, "T"), sample(kpn, "x"), action(kpn))

        def vids(kind: str, **where: object) -> set[str]:
            renamed = {name.replace("__", "."): value for name, value in where.items()}
            return {known.object.vid for known in catalog.find(kind, renamed)}

        assert vids("Study", label="other") == {other.vid}
        assert vids("Enrollment", study=kpn.vid, code="C-1") == {enrolled.vid}
        assert vids("Enrollment", individual=who.vid) == {enrolled.vid}
        assert vids("Consent", enrollment=enrolled.vid, status="withdrawn") == {consent.vid}
        assert vids("Consent", status=ConsentStatus.WITHDRAWN) == {consent.vid}
        assert vids("Vessel", barcode="b1") == {inside.vid}
        assert vids("Vessel", label="T", study=kpn.vid) == {inside.vid}
        assert vids("Vessel", container=box.vid) == {inside.vid}
        assert vids("Tube", volume_ul=2.5) == {inside.vid}
        assert vids("Tube", barcode=None, study=kpn.vid) == set()
        assert vids("Device", label="kleborate", release="2.2.0") == {tool.vid}
        assert vids("DataSample", galaxy__dataset_uuid="u-1") == {data.vid}
        assert vids("DataSample", galaxy__purged=True) == {data.vid}
        assert vids("DataSample", galaxy__purged=None) != set()
        assert vids("Action", galaxy__job_id="j1") == {job.vid}
        assert vids("Action", galaxy__job_id=("j1", "j2"), galaxy__server="g") == {job.vid}
        assert vids("Action", galaxy__exit_code=0) == {job.vid}
        assert vids("Action", device=tool.vid, status="error") == {job.vid}
        assert vids("Action", device=tool.vid, status="ok") == set()
        assert vids("Object", vid=(job.vid, data.vid)) == {job.vid, data.vid}
        assert vids("Study", label="' OR 1=1 --") == set()
        assert vids("Study", label=()) == set()

    @pytest.mark.parametrize(
        ("kind", "field"),
        [
            ("Study", "colour"),
            ("Study", "code"),
            ("Vessel", "rows"),
            ("Action", "inputs"),
            ("Action", "galaxy"),
            ("Action", "galaxy.colour"),
            ("Action", "galaxy.job_id.x"),
            ("ActionSetup", "parameters"),
            ("Study", "label') OR 1=1 --"),
            ("Nonsense", "label"),
        ],
    )
    def test_an_unknown_field_or_kind_is_an_error(
        self, catalog: Catalog, kpn: Study, kind: str, field: str
    ) -> None:
        with pytest.raises(InputError):
            list(catalog.find(kind, {field: "x"}))

    def test_iterate_gives_all_by_vid_tombstones_too(self, catalog: Catalog, kpn: Study) -> None:
        first, second = tube(kpn, "A"), tube(kpn, "B")
        box = plate(kpn, "P")
        save(catalog, first, second, box)
        delete(catalog, second)
        everything = [known.object.vid for known in catalog.iterate()]
        assert everything == sorted([kpn.vid, first.vid, second.vid, box.vid])
        assert [k.object.vid for k in catalog.iterate(["Tube"])] == [first.vid]
        some = [k.object.vid for k in catalog.iterate(["Tombstone", "TiterPlate"])]
        assert some == sorted([second.vid, box.vid])
        assert list(catalog.iterate(["Vessel"])) == []
        with pytest.raises(InputError):
            list(catalog.iterate(["Nonsense"]))

    def test_a_stream_shows_one_state_while_others_write(
        self, catalog: Catalog, kpn: Study, url: str
    ) -> None:
        save(catalog, *(tube(kpn, f"T{n}") for n in range(1500)))
        stream = catalog.find("Tube")
        seen = [next(stream)]
        with open_catalog(url) as other:
            save(other, *(tube(kpn, f"U{n}") for n in range(10)))
        save(catalog, tube(kpn, "own"))
        seen.extend(stream)
        assert len(seen) == 1500
        assert catalog.count()["Tube"] == 1511

    def test_referring_names_the_living_and_their_fields(
        self, catalog: Catalog, kpn: Study
    ) -> None:
        a, b, gone = sample(kpn, "a"), sample(kpn, "b"), sample(kpn, "gone")
        done = action(kpn, (a, b), (gone,))
        save(catalog, a, b, gone, done)
        delete(catalog, gone, cascade=True)
        assert set(catalog.referring([a.vid, b.vid])) == {
            Referrer(done.vid, "Action", "inputs", a.vid),
            Referrer(done.vid, "Action", "inputs", b.vid),
        }
        assert {r.vid for r in catalog.referring([kpn.vid], ["DataSample"])} == {a.vid, b.vid}
        assert {r.vid for r in catalog.referring([gone.vid])} == {done.vid}
        assert list(catalog.referring([a.vid], ["Vessel"])) == []
        assert list(catalog.referring([new_vid()])) == []

    def test_more_than_a_thousand_at_once(self, catalog: Catalog, kpn: Study) -> None:
        tubes = [tube(kpn, f"T{n}") for n in range(2500)]
        receipt = save(catalog, *tubes)
        assert len(receipt.versions) == 2500
        assert len(catalog.get(obj.vid for obj in tubes)) == 2500
        labels = tuple(obj.label for obj in tubes)
        assert len(list(catalog.find("Tube", {"label": labels}))) == 2500
        assert len(list(catalog.referring([kpn.vid]))) == 2500
        assert len(list(catalog.referring([obj.vid for obj in tubes]))) == 0
        pooled = action(kpn, tuple(tubes))
        save(catalog, pooled)
        assert len(list(catalog.referring([obj.vid for obj in tubes]))) == 2500
        [unit] = list(catalog.changes(receipt.position))
        assert [change.vid for change in unit.changes] == [pooled.vid]
        catalog.commit([Delete(vid=obj.vid, based_on=1) for obj in (*tubes, pooled)], by="test")
        assert catalog.count() == {"Study": 1, "Tombstone": 2501}

    # Feed and history

    def test_the_feed_tells_every_unit_in_order(self, catalog: Catalog) -> None:
        made = study()
        first = tube(made)
        receipts = [
            save(catalog, made, first),
            save(catalog, msgspec.structs.replace(first, label="T2"), based_on=1),
            delete(catalog, first),
            save(catalog, first, based_on=3),
        ]
        units = list(catalog.changes({}))
        assert [
            [(change.vid, change.version, change.kind, change.change.value) for change in u.changes]
            for u in units
        ] == [
            [(made.vid, 1, "Study", "saved"), (first.vid, 1, "Tube", "saved")],
            [(first.vid, 2, "Tube", "saved")],
            [(first.vid, 3, "Tube", "deleted")],
            [(first.vid, 4, "Tube", "saved")],
        ]
        assert [unit.position for unit in units] == [receipt.position for receipt in receipts]
        assert {unit.by for unit in units} == {"test"}
        assert units[0].time <= units[-1].time <= datetime.now(UTC)
        assert catalog.head() == receipts[-1].position

    def test_the_feed_goes_on_from_any_position(self, catalog: Catalog, kpn: Study) -> None:
        for n in range(120):
            save(catalog, tube(kpn, f"T{n}"))
        units = list(catalog.changes({}))
        assert len(units) == 121
        for position in (0, 60, 119):
            rest = list(catalog.changes(units[position].position))
            assert rest == units[position + 1 :]
        assert list(catalog.changes(catalog.head())) == []

    def test_the_feed_leaves_our_own_bookkeeping_out(self, catalog: Catalog, kpn: Study) -> None:
        head = catalog.head()
        cursor = Cursor(vid=new_vid(), name="g", position=datetime.now(UTC))
        receipt = save(catalog, cursor)
        assert receipt.position == head
        assert catalog.head() == head
        first = tube(kpn)
        catalog.commit([Save(object=cursor, based_on=1), Save(object=first)], by="test")
        [unit] = list(catalog.changes(head))
        assert [change.vid for change in unit.changes] == [first.vid]
        assert unit.position == catalog.head()

    def test_history_tells_who_changed_what(self, catalog: Catalog, kpn: Study) -> None:
        later = msgspec.structs.replace(kpn, description="later")
        catalog.commit([Save(object=later, based_on=1)], by="Grace <g@x> 'ü'")
        first, second = catalog.history(kpn.vid)
        assert (first.version, first.by, first.change, first.object) == (
            1,
            "test",
            ChangeKind.SAVED,
            kpn,
        )
        assert (second.version, second.by, second.object) == (2, "Grace <g@x> 'ü'", later)
        assert first.time <= second.time

    # Life

    def test_nothing_works_after_close(self, catalog: Catalog, kpn: Study) -> None:
        catalog.close()
        catalog.close()
        for call in (
            lambda: save(catalog, study("after")),
            lambda: catalog.get([kpn.vid]),
            lambda: list(catalog.find("Study")),
            lambda: list(catalog.find("Study", {"label": "x"})),
            lambda: list(catalog.iterate()),
            lambda: list(catalog.referring([kpn.vid])),
            lambda: list(catalog.changes({})),
            catalog.count,
            catalog.head,
            lambda: catalog.history(kpn.vid),
            catalog.schema_version,
            catalog.migrate,
        ):
            with pytest.raises(ConfigurationError):
                call()

    def test_migrating_again_changes_nothing(self, catalog: Catalog, kpn: Study) -> None:
        version = catalog.schema_version()
        assert version > 0
        catalog.migrate()
        assert catalog.schema_version() == version
        assert catalog.get([kpn.vid])[kpn.vid].version == 1

    def test_a_commit_that_fails_inside_a_transaction_undoes_only_itself(
        self, catalog: Catalog, kpn: Study
    ) -> None:
        first = tube(kpn, "A")
        with catalog.transaction():
            save(catalog, first)
            with pytest.raises(DuplicateError):
                save(catalog, tube(kpn, "A"))
        assert catalog.count()["Tube"] == 1
