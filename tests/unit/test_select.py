"""Which samples are selected, which are left out, and what the reasons say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from biobank_core.errors import InputError
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import ActionCategory, ActionStatus, ConsentStatus
from biobank_core.selection import loading
from biobank_core.selection.criteria import ReasonCode, Selection
from biobank_core.selection.loading import load_graph
from biobank_core.selection.withheld import withheld
from tests.unit.selection_world import TODAY, TOOL, World, codes, labels

WITHDRAWN = ConsentStatus.WITHDRAWN


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.catalog.close()


def test_an_empty_study_selects_nothing(world: World) -> None:
    assert world.select() == Selection()


def test_a_result_of_an_old_release_selects_its_tube_with_a_reason(world: World) -> None:
    reads = world.isolate("01")
    result = world.typing("typing of T1", reads, day=3)
    selection = world.select()
    (row,) = selection.rows
    assert (row.label, row.kind, row.study_label, row.donors) == ("T-01", "Tube", "KPN", ("KP-01",))
    assert row.reason == "kleborate_typing 2.2.0 made typing of T1 (2026-01-03); wanted: <3"
    assert row.code is ReasonCode.MATCH
    assert row.sources == (reads,)
    (old,) = row.results
    assert (old.vid, old.label, old.role) == (result, "typing of T1", "out0")
    assert (old.tool, old.release) == (TOOL, "2.2.0")
    assert selection.excluded == ()


@pytest.mark.parametrize("release", ["3.2.4", None, "3.0rc1"])
def test_a_release_outside_the_range_is_not_selected(world: World, release: str | None) -> None:
    world.typing("typing", world.isolate("01"), release=release)
    assert world.select() == Selection()


def test_another_tool_is_not_selected(world: World) -> None:
    reads = world.isolate("01")
    world.act([reads], [world.data("other")], tool="shed.example.org/repos/lab/x/abricate")
    world.act([reads], [world.data("unknown")])
    assert world.select(world.criteria(release=None)) == Selection()


@pytest.mark.parametrize("wanted", ["kleborate_typing", TOOL, f"{TOOL}/2.2.0"])
def test_a_tool_is_named_by_its_full_id_without_version_or_last_part(
    world: World, wanted: str
) -> None:
    world.typing("typing", world.isolate("01"))
    assert labels(world.select(world.criteria(tool=wanted, release=None)).rows) == ["T-01"]


def test_a_full_tool_id_means_its_own_version_only(world: World) -> None:
    world.typing("typing", world.isolate("01"), release="2.1.0")
    assert world.select(world.criteria(tool=f"{TOOL}/2.2.0", release=None)) == Selection()


def test_a_matching_action_that_is_not_the_last_selects_too(world: World) -> None:
    typed = world.typing("typed", world.isolate("01"))
    summary = world.data("summary")
    world.act([typed], [summary], tool="summarise", release="9")
    (row,) = world.select().rows
    assert [result.vid for result in row.results] == [typed]


def test_several_matching_actions_in_a_chain_are_one_sample(world: World) -> None:
    first = world.typing("first", world.isolate("01"), day=10)
    second = world.typing("second", first, release="2.3", day=11)
    (row,) = world.select().rows
    assert [result.vid for result in row.results] == [second, first]
    assert row.reason == (
        "kleborate_typing 2.3 made second (2026-01-11), "
        "kleborate_typing 2.2.0 made first (2026-01-10); wanted: <3"
    )


def test_failed_actions_never_match(world: World) -> None:
    for status in ActionStatus:
        if status is not ActionStatus.OK:
            reads = world.isolate(status.value)
            world.act([reads], [world.data(status.value)], tool=TOOL, release="2", status=status)
    assert world.select() == Selection()


def test_a_failed_newer_run_is_mentioned_and_does_not_count_as_done(world: World) -> None:
    reads = world.isolate("01")
    world.typing("old", reads, day=3)
    bad = world.data("bad")
    world.act([reads], [bad], tool=TOOL, release="3.2.4", status=ActionStatus.ERROR, day=4)
    (row,) = world.select().rows
    assert row.reason.endswith("; kleborate_typing 3.2.4 was tried on 2026-01-04 and failed")


def test_an_action_without_outputs_does_not_match(world: World) -> None:
    world.act([world.isolate("01")], [], tool=TOOL, release="2.2.0")
    assert world.select() == Selection()


def test_since_and_until_bound_the_end_and_include_it(world: World) -> None:
    for number in (1, 2, 3):
        world.typing(f"typing {number}", world.isolate(f"0{number}"), day=number)
    end = datetime(2026, 1, 2, 1, tzinfo=UTC)
    assert labels(world.select(world.criteria(since=end)).rows) == ["T-02", "T-03"]
    assert labels(world.select(world.criteria(until=end)).rows) == ["T-01", "T-02"]
    assert labels(world.select(world.criteria(since=end, until=end)).rows) == ["T-02"]


def test_criteria_refuse_what_can_not_be_meant(world: World) -> None:
    late, early = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(InputError, match="until"):
        world.criteria(since=late, until=early)
    with pytest.raises(InputError, match="time zone"):
        world.criteria(since=datetime(2026, 1, 1))
    with pytest.raises(InputError, match="release"):
        world.criteria(release="<")


def test_without_a_tool_every_analysis_counts_but_not_what_brought_data_in(world: World) -> None:
    reads = world.isolate("01")
    world.act([], [reads], tool="upload1", release="1", category=ActionCategory.IMPORT)
    result = world.data("result")
    world.act([reads], [result], tool="x", release="1")
    (row,) = world.select(world.criteria(tool=None, release=None)).rows
    assert {old.vid for old in row.results} == {reads, result}
    assert {old.tool for old in row.results} == {"sequencer", "x"}


def test_rows_come_in_order_of_sample_label(world: World) -> None:
    for name in ("10", "9", "ä", "A"):
        world.typing(f"typing {name}", world.isolate(name))
    assert labels(world.select().rows) == ["T-10", "T-9", "T-A", "T-ä"]


# Samples


def test_the_nearest_vessel_is_the_sample_not_those_above_it(world: World) -> None:
    blood = world.tube("blood", world.donor("KP-01"))
    dna = world.tube("dna", blood)
    world.typing("typing", world.reads("reads", dna))
    assert labels(world.select().rows) == ["dna"]


def test_an_individual_is_the_sample_where_there_is_no_vessel(world: World) -> None:
    world.typing("typing", world.reads("reads", world.donor("KP-01")))
    (row,) = world.select().rows
    assert (row.label, row.kind) == ("KP-01", "Individual")


def test_a_vessel_given_to_the_tool_itself_is_the_sample_without_sources(world: World) -> None:
    world.typing("typing", world.tube("T1", world.donor("KP-01")))
    (row,) = world.select().rows
    assert (row.label, row.sources) == ("T1", ())


def test_a_link_of_the_result_itself_makes_it_a_samples(world: World) -> None:
    unlinked = world.data("uploaded")
    result = world.typing("typing", unlinked)
    tube = world.tube("T1", world.donor("KP-01"))
    world.act([tube], [result], category=ActionCategory.MEASUREMENT)
    (row,) = world.select().rows
    assert (row.label, row.sources) == ("T1", ())


def test_a_link_of_uploaded_data_makes_them_the_source(world: World) -> None:
    uploaded = world.data("uploaded")
    world.act([], [uploaded], tool="upload1", release="1", category=ActionCategory.IMPORT)
    world.act(
        [world.tube("T1", world.donor("KP-01"))], [uploaded], category=ActionCategory.MEASUREMENT
    )
    trimmed = world.data("trimmed")
    world.act([uploaded], [trimmed], tool="trim", release="1")
    world.typing("typing", trimmed)
    (row,) = world.select().rows
    assert row.sources == (uploaded,)


def test_a_reduction_over_four_isolates_belongs_to_four_samples(world: World) -> None:
    reads = [world.isolate(f"0{n}") for n in range(1, 5)]
    result = world.typing("all", world.collection("batch", *reads))
    selection = world.select()
    assert labels(selection.rows) == ["T-01", "T-02", "T-03", "T-04"]
    assert [row.sources for row in selection.rows] == [(one,) for one in reads]
    assert {row.results[0].vid for row in selection.rows} == {result}


def test_a_nested_collection_is_seen_through(world: World) -> None:
    reads = [world.isolate(f"0{n}") for n in range(1, 4)]
    inner = world.collection("inner", *reads[:2])
    world.typing("all", world.collection("outer", inner, reads[2]))
    assert labels(world.select().rows) == ["T-01", "T-02", "T-03"]


def test_an_element_reaches_its_sample_through_its_own_making_action(world: World) -> None:
    one, two = (world.typing(f"typing {n}", world.isolate(n)) for n in ("01", "02"))
    world.collection("implicit", one, two)
    first, second = world.select().rows
    assert [old.vid for old in first.results] == [one]
    assert [old.vid for old in second.results] == [two]


def test_a_collection_of_tubes_is_all_its_tubes(world: World) -> None:
    tubes = [world.tube(f"T{n}", world.donor(f"KP-{n}")) for n in (1, 2)]
    world.typing("typing", world.reads("reads", world.vessels("box", *tubes)))
    assert labels(world.select().rows) == ["T1", "T2"]


def test_mapped_over_jobs_are_not_each_others_samples(world: World) -> None:
    for name in ("01", "02"):
        world.typing(f"typing {name}", world.isolate(name))
    assert [row.donors for row in world.select().rows] == [("KP-01",), ("KP-02",)]


def test_a_diamond_is_one_sample_with_one_source(world: World) -> None:
    reads = world.isolate("01")
    left, right = world.data("left"), world.data("right")
    world.act([reads], [left], tool="left", release="1")
    world.act([reads], [right], tool="right", release="1")
    world.typing("typing", left, right)
    (row,) = world.select().rows
    assert row.sources == (reads,)


def test_a_thousand_diamonds_and_a_deep_chain_are_no_trouble(world: World) -> None:
    node = world.isolate("01")
    for number in range(1000):
        left, right, below = (world.data(f"{side}{number}") for side in ("left", "right", "below"))
        world.act([node], [left, right], tool="split", release="1")
        world.act([left, right], [below], tool="join", release="1")
        node = below
    for number in range(3000):
        below = world.data(f"chain{number}")
        world.act([node], [below], tool="step", release="1")
        node = below
    result = world.typing("typing", node)
    (row,) = world.select().rows
    assert row.results[0].vid == result


def test_results_of_no_sample_are_left_out_as_unlinked(world: World) -> None:
    result = world.typing("typing", world.data("uploaded"))
    (row,) = world.select().excluded
    assert (row.sample, row.label, row.code) == (None, "typing", ReasonCode.UNLINKED)
    assert [old.vid for old in row.results] == [result]
    assert "biobank link" in row.reason


# Superseded and done


def test_superseded_results_are_left_out(world: World) -> None:
    reads = world.isolate("01")
    old = world.typing("old", reads)
    new = world.data("new")
    world.act([reads], [new], tool="another", release="1")
    world.supersede(old, new)
    selection = world.select()
    assert selection.rows == ()
    (row,) = selection.excluded
    assert (row.code, row.reason) == (ReasonCode.SUPERSEDED, "superseded: old by new")


def test_a_sample_with_one_result_that_stands_is_selected_by_it(world: World) -> None:
    reads = world.isolate("01")
    old = world.typing("old", reads)
    other = world.typing("other", reads)
    world.supersede(old, other)
    (row,) = world.select().rows
    assert [result.vid for result in row.results] == [other]


def test_sources_are_those_of_the_results_that_stand(world: World) -> None:
    tube = world.tube("T1", world.donor("KP-01"))
    early, late = world.reads("early", tube), world.reads("late", tube)
    old = world.typing("old", early)
    world.supersede(old, world.typing("new", late))
    (row,) = world.select().rows
    assert row.sources == (late,)


def test_an_action_of_which_one_output_is_superseded_keeps_the_other(world: World) -> None:
    reads = world.isolate("01")
    one, two, new = world.data("one"), world.data("two"), world.data("new")
    world.act([reads], [one, two], tool=TOOL, release="2.2.0")
    world.supersede(one, new)
    (row,) = world.select().rows
    assert [(old.vid, old.role) for old in row.results] == [(two, "out1")]


def test_already_done_with_a_release_outside_the_range_is_left_out(world: World) -> None:
    reads = world.isolate("01")
    world.typing("old", reads, day=3)
    world.typing("new", reads, release="3.2.4", day=40)
    selection = world.select()
    assert selection.rows == ()
    (row,) = selection.excluded
    assert row.code is ReasonCode.ALREADY_DONE
    assert row.reason == "already done with kleborate_typing 3.2.4 on 2026-02-09"


def test_done_on_another_sample_does_not_count(world: World) -> None:
    world.typing("old", world.isolate("01"))
    world.typing("new", world.isolate("02"), release="3.2.4")
    assert labels(world.select().rows) == ["T-01"]


def test_a_run_of_an_unknown_release_does_not_count_as_done(world: World) -> None:
    reads = world.isolate("01")
    world.typing("old", reads)
    world.typing("new", reads, release=None)
    assert labels(world.select().rows) == ["T-01"]


def test_what_was_done_before_everything_that_matches_is_not_already_done(world: World) -> None:
    reads = world.isolate("01")
    world.typing("old", reads, day=3)
    world.typing("new", reads, release="3.2.4", day=40)
    assert labels(world.select(world.criteria(release=">=3")).rows) == ["T-01"]


def test_an_analysis_that_was_itself_superseded_does_not_count_as_done(world: World) -> None:
    reads = world.isolate("01")
    old = world.typing("old", reads, day=50)
    new = world.typing("new", reads, release="3.2.4", day=50)
    world.supersede(new, old)
    assert labels(world.select().rows) == ["T-01"]


def test_without_a_tool_only_the_same_tool_counts_as_done(world: World) -> None:
    reads = world.isolate("01")
    world.typing("old", reads)
    world.act([reads], [world.data("x")], tool="x", release="5")
    assert labels(world.select(world.criteria(tool=None, release="==2.2.0")).rows) == ["T-01"]
    world.typing("new", reads, release="3.2.4")
    assert codes(world.select(world.criteria(tool=None, release="==2.2.0"))) == {
        "T-01": "already-done"
    }


def test_a_deleted_result_is_nothing_to_do_again(world: World) -> None:
    result = world.typing("typing", world.isolate("01"))
    world.delete(result)
    assert codes(world.select()) == {"T-01": "deleted"}


# Consent


def test_withdrawn_consent_is_left_out_with_its_day(world: World) -> None:
    world.typing("typing", world.isolate("01"))
    person = world.donor("KP-02", WITHDRAWN, since=date(2026, 2, 1))
    world.typing("typing 2", world.reads("reads", world.tube("T-02", person)))
    selection = world.select()
    assert labels(selection.rows) == ["T-01"]
    (row,) = selection.excluded
    assert row.code is ReasonCode.CONSENT_WITHDRAWN
    assert row.reason == "consent for research withdrawn on 2026-02-01"


def test_a_withdrawal_counts_from_its_day_on(world: World) -> None:
    person = world.donor("KP-01", WITHDRAWN, since=date(2026, 2, 1))
    enrolled = next(o.vid for o in world.objects.values() if o.kind == "Enrollment")
    world.consent(enrolled, ConsentStatus.GIVEN, since=date(2026, 1, 1))
    world.typing("typing", world.reads("reads", world.tube("T1", person)))
    assert labels(world.select(today=date(2026, 1, 31)).rows) == ["T1"]
    assert codes(world.select(today=date(2026, 2, 1))) == {"T1": "consent-withdrawn"}
    assert codes(world.select(today=date(2025, 12, 31))) == {"T1": "consent-not-yet"}


def test_expired_consent_is_left_out(world: World) -> None:
    person = world.donor("KP-01", since=date(2026, 1, 1), until=date(2026, 5, 31))
    world.typing("typing", world.reads("reads", world.tube("T1", person)))
    assert labels(world.select(today=date(2026, 5, 31)).rows) == ["T1"]
    (row,) = world.select().excluded
    assert row.code is ReasonCode.CONSENT_EXPIRED
    assert row.reason == "consent for research ran out after 2026-05-31"


def test_consent_for_another_scope_only_is_left_out(world: World) -> None:
    person = world.donor("KP-01", scope="diagnostics")
    world.typing("typing", world.reads("reads", world.tube("T1", person)))
    (row,) = world.select().excluded
    assert row.code is ReasonCode.CONSENT_OTHER_SCOPE
    assert row.reason == "consent for research is missing (there is one for: diagnostics)"
    assert labels(world.select(world.criteria(scope="diagnostics")).rows) == ["T1"]


def test_an_individual_without_consent_or_enrollment_is_left_out(world: World) -> None:
    world.typing("typing 1", world.isolate("01", None))
    nobody = world.donor("KP-02")
    world.typing("typing 2", world.reads("reads", world.tube("T-02", nobody)))
    world.save()
    (enrolled,) = world.catalog.find("Enrollment", {"code": "KP-02"})
    world.delete(enrolled.object.vid)
    assert codes(world.select()) == {"T-01": "consent-missing", "T-02": "consent-missing"}


def test_material_of_no_known_individual_is_left_out(world: World) -> None:
    world.typing("typing", world.reads("reads", world.tube("T1")))
    (row,) = world.select().excluded
    assert row.code is ReasonCode.NO_INDIVIDUAL
    assert row.reason == "no individual is known upstream, hence no consent"


def test_a_pool_with_one_withdrawn_consent_is_left_out(world: World) -> None:
    one = world.tube("T1", world.donor("KP-01"))
    two = world.tube("T2", world.donor("KP-02", WITHDRAWN, since=date(2026, 2, 1)))
    world.typing("typing", world.reads("reads", world.tube("pool", world.tube("A", one), two)))
    (row,) = world.select().excluded
    assert (row.label, row.code) == ("pool", ReasonCode.CONSENT_WITHDRAWN)
    assert row.donors == ("KP-01", "KP-02")
    assert row.reason == (
        "pooled with KP-02, whose consent for research was withdrawn on 2026-02-01"
    )


def test_a_pool_with_material_of_no_known_individual_is_left_out(world: World) -> None:
    one, two = world.tube("T1", world.donor("KP-01")), world.tube("T2")
    world.typing("typing", world.reads("reads", world.tube("pool", one, two)))
    (row,) = world.select().excluded
    assert row.code is ReasonCode.NO_INDIVIDUAL
    assert row.reason == "pooled with T2, of which no individual is known, hence no consent"


def test_data_taken_from_two_tubes_at_once_need_both_consents(world: World) -> None:
    one = world.tube("T1", world.donor("KP-01"))
    two = world.tube("T2", world.donor("KP-02", WITHDRAWN, since=date(2026, 2, 1)))
    world.typing("typing", world.reads("reads", one, two))
    selection = world.select()
    assert selection.rows == ()
    assert codes(selection) == {"T1": "consent-withdrawn", "T2": "consent-withdrawn"}


def test_in_a_reduction_each_sample_answers_for_its_own_individual(world: World) -> None:
    reads = [world.isolate("01"), world.isolate("02", WITHDRAWN), world.isolate("03")]
    world.typing("all", world.collection("batch", *reads))
    selection = world.select()
    assert labels(selection.rows) == ["T-01", "T-03"]
    assert codes(selection) == {"T-02": "consent-withdrawn"}


# Other studies


@pytest.mark.parametrize("others", [0, 60])
def test_inputs_of_another_study_keep_their_sample_and_its_consent(
    world: World, others: int
) -> None:
    lent = world.study("LENT")
    one = world.tube("T1", world.donor("L-1", study=lent), study=lent)
    two = world.tube("T2", world.donor("L-2", WITHDRAWN, study=lent), study=lent)
    for number, tube in enumerate((one, two)):
        reads = world.data(f"reads {number}", study=lent)
        world.act([tube], [reads], study=lent)
        world.typing(f"typing {number}", reads)
    for number in range(others):
        world.act([one], [world.data(f"other {number}", study=lent)], study=lent)
    selection = world.select()
    assert [(row.label, row.study_label, row.donors) for row in selection.rows] == [
        ("T1", "LENT", ("L-1",))
    ]
    assert codes(selection) == {"T2": "consent-withdrawn"}


@pytest.mark.parametrize("others", [0, 60])
def test_a_matching_action_of_another_study_upstream_of_ours_counts(
    world: World, others: int
) -> None:
    lent = world.study("LENT")
    reads = world.isolate("01")
    typed, unused = world.data("typed", study=lent), world.data("unused", study=lent)
    world.act([reads], [typed], tool=TOOL, release="2.2.0", study=lent)
    world.act([world.isolate("02")], [unused], tool=TOOL, release="2.2.0", study=lent)
    world.act([typed], [world.data("summary")], tool="summarise", release="1")
    for number in range(others):
        world.act([reads], [world.data(f"other {number}", study=lent)], study=lent)
    assert labels(world.select().rows) == ["T-01"]


def test_however_actions_of_other_studies_are_found_the_graph_is_the_same(world: World) -> None:
    lent = world.study("LENT")
    node = world.isolate("01")
    for number in range(12):
        batch = world.collection(f"batch {number}", node)
        below = world.data(f"data {number}", study=lent if number % 3 else world.main)
        study = lent if number % 2 else world.main
        world.act([batch], [below, world.data(f"side {number}")], study=study, tool="x")
        node = below
    world.save()
    asked, read = (load_graph(world.catalog, world.main, foreign_per_own=n) for n in (0, 10**9))
    assert {action.vid for action in asked.actions} == {action.vid for action in read.actions}
    assert asked.nodes.keys() == read.nodes.keys()


def test_withdrawal_in_the_samples_own_study_holds_for_borrowers(world: World) -> None:
    lent = world.study("LENT")
    person = world.donor("L-1", WITHDRAWN, study=lent)
    world.enroll(person, "KP-1")
    tube = world.tube("T1", person, study=lent)
    world.typing("typing", world.reads("reads", tube))
    assert codes(world.select()) == {"T1": "consent-withdrawn"}


def test_withdrawal_in_a_study_that_has_no_part_does_not_matter(world: World) -> None:
    person = world.donor("X-1", WITHDRAWN, study=world.study("ELSEWHERE"))
    world.enroll(person, "KP-1")
    world.typing("typing", world.reads("reads", world.tube("T1", person)))
    assert labels(world.select().rows) == ["T1"]


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (ConsentStatus.GIVEN, None, None),
        (ConsentStatus.GIVEN, WITHDRAWN, "consent-withdrawn"),
        (None, None, "consent-missing"),
    ],
)
def test_an_individual_enrolled_elsewhere_only_is_judged_by_all_of_it(
    world: World, first: ConsentStatus | None, second: ConsentStatus | None, code: str | None
) -> None:
    person = world.donor("A-1", first, study=world.study("A"))
    world.enroll(person, "B-1", second, study=world.study("B"))
    world.typing("typing", world.reads("reads", world.tube("T1", person)))
    assert codes(world.select()) == ({} if code is None else {"T1": code})


def test_results_of_another_study_alone_are_not_selected(world: World) -> None:
    lent = world.study("LENT")
    world.act([world.isolate("01")], [world.data("x", study=lent)], tool=TOOL, study=lent)
    assert world.select(world.criteria(release=None)) == Selection()
    assert labels(world.select(world.criteria(release=None, study=lent)).rows) == ["T-01"]


def test_more_objects_than_one_chunk_give_the_same_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = [world.isolate(f"0{number}") for number in range(7)]
    for number in range(5):
        world.typing(f"typing {number}", reads[number])
    # Its elements are inputs of no action themselves.
    lists = [world.collection(f"list {n}", reads[n]) for n in (5, 6)]
    world.typing("nested", world.collection("outer", *lists))
    whole = world.select()
    assert len(whole.rows) == 7
    monkeypatch.setattr(loading, "CHUNK", 2)
    assert world.select() == whole


def test_an_unknown_study_has_no_samples(world: World) -> None:
    assert world.select(world.criteria(study=new_vid()), today=TODAY) == Selection()


def test_what_consent_withholds_can_be_asked_again_later(world: World) -> None:
    person = world.donor("KP-02", WITHDRAWN, since=date(2026, 2, 1))
    enrolled = next(o.vid for o in world.objects.values() if o.kind == "Enrollment")
    world.consent(enrolled, ConsentStatus.GIVEN, since=date(2026, 1, 1))
    lent = world.reads("reads", world.tube("T-02", person))
    world.typing("typing 1", world.isolate("01"))
    world.typing("typing 2", lent)
    rows = {row.sample: row.sources for row in world.select(today=date(2026, 1, 31)).rows}
    assert len(rows) == 2

    def asked(day: date, samples: dict[str, tuple[str, ...]]) -> dict[str, tuple[ReasonCode, str]]:
        return withheld(world.catalog, samples, study=world.main, scope="research", today=day)

    assert asked(date(2026, 1, 31), rows) == {}
    (reason,) = asked(date(2026, 2, 1), rows).values()
    assert reason == (
        ReasonCode.CONSENT_WITHDRAWN,
        "consent for research withdrawn on 2026-02-01",
    )
    own = next(sample for sample in rows if sample not in asked(date(2026, 2, 1), rows))
    assert asked(date(2026, 2, 1), {own: (lent,)})[own][0] is ReasonCode.CONSENT_WITHDRAWN
    unknown = new_vid()
    assert asked(TODAY, {unknown: ()})[unknown][0] is ReasonCode.NO_INDIVIDUAL
    assert asked(TODAY, {own: (unknown,)})[own][0] is ReasonCode.NO_INDIVIDUAL
