"""Questions asked of a catalog and its index: the two agree, whoever keeps up with whom."""

from __future__ import annotations

import contextlib
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biobank_core.catalog.port import Delete, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.errors import (
    BiobankError,
    ConfigurationError,
    InputError,
    RefusedError,
    TimeoutExceededError,
    UnreachableError,
)
from biobank_core.lineage import follow, links
from biobank_core.lineage import verify as verifying
from biobank_core.lineage.follow import (
    advance_checked,
    advance_to_gap,
    catch_up,
    pending,
    rebuild,
)
from biobank_core.lineage.port import Direction, Question, Refusal, Relation
from biobank_core.lineage.projection import project
from biobank_core.lineage.registry import open_index
from biobank_core.lineage.service import Freshness, Lineage
from biobank_core.lineage.sqlite import SqliteLineage
from biobank_core.lineage.verify import verify
from biobank_core.model.ids import derived_vid
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionStatus,
    Assembly,
    Campaign,
    DataCollection,
    DataMember,
    DataObject,
    DataSample,
    Enrollment,
    Individual,
    Port,
    SoftwareProgram,
    Study,
    Supersession,
    Tube,
)
from biobank_core.sqlite_file import SqliteFile, url_of_path

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def vid(*parts: object) -> str:
    return derived_vid("Test", *(str(part) for part in parts))


STUDY = Study(vid=vid("study"), label="KPN")
OLD_TOOL = SoftwareProgram(vid=vid("tool", 1), label="shed/repos/o/r/kleborate", release="2.2.0")
NEW_TOOL = SoftwareProgram(vid=vid("tool", 2), label="shed/repos/o/r/kleborate", release="3.2.4")


def data(number: int) -> DataSample:
    kind = Assembly if number % 3 == 0 else DataSample
    return kind(vid=vid("data", number), label=f"data {number}", study=STUDY.vid)


def job(number: int, inputs, outputs, *, tool=OLD_TOOL, status=ActionStatus.OK) -> Action:
    return Action(
        vid=vid("job", number),
        category=ActionCategory.PROCESSING,
        study=STUDY.vid,
        device=tool and tool.vid,
        status=status,
        begin=BEGIN,
        end=BEGIN + timedelta(hours=number),
        inputs=tuple(Port(role=f"in {index}", object=item) for index, item in enumerate(inputs)),
        outputs=tuple(Port(role="out", object=item) for item in outputs),
    )


@contextlib.contextmanager
def stores(*, own_file: bool = True):
    """A catalog with its index in the same file, or in another one."""
    with tempfile.TemporaryDirectory() as folder:
        url = url_of_path(Path(folder) / "catalog.db")
        index_url = url if own_file else url_of_path(Path(folder) / "index.db")
        with (
            open_catalog(url, create=True) as catalog,
            open_index(index_url, catalog=catalog) as index,
        ):
            yield catalog, index


def save(catalog, *objects) -> None:
    catalog.commit([Save(object=obj) for obj in objects], by="tester")


@pytest.fixture
def opened():
    with stores() as (catalog, index):
        save(catalog, STUDY, OLD_TOOL, NEW_TOOL)
        yield catalog, index, Lineage(catalog, index)


# Random catalogs

_SIZE = 9


@st.composite
def units(draw: st.DrawFn) -> list[list[object]]:
    """Units of changes: nodes 0..8 in order, edges only from lower to higher, then deletions."""
    nodes: list[object] = []
    for number in range(_SIZE):
        if number and draw(st.integers(0, 3)) == 0:
            members = draw(st.lists(st.integers(0, number - 1), max_size=3, unique=True))
            nodes.append(
                DataCollection(
                    vid=vid("data", number),
                    label=f"list {number}",
                    study=STUDY.vid,
                    items=tuple(
                        DataMember(role=f"m{index}", object=vid("data", member))
                        for index, member in enumerate(members)
                    ),
                )
            )
        else:
            nodes.append(data(number))
    jobs: list[object] = []
    for number in range(draw(st.integers(0, 7))):
        cut = draw(st.integers(0, _SIZE))
        ends = st.lists(st.integers(0, _SIZE - 1), max_size=3, unique=True)
        inputs = [item for item in draw(ends) if item < cut]
        outputs = [item for item in draw(ends) if item >= cut]
        jobs.append(
            job(
                number,
                [vid("data", item) for item in inputs],
                [vid("data", item) for item in outputs],
                tool=draw(st.sampled_from([None, OLD_TOOL, NEW_TOOL])),
                status=draw(st.sampled_from([ActionStatus.OK, ActionStatus.ERROR])),
            )
        )
    newer = [
        Supersession(vid=vid("newer", a, b), new=vid("data", a), old=vid("data", b))
        for a, b in draw(st.lists(st.tuples(*[st.integers(0, _SIZE - 1)] * 2), max_size=2))
        if a != b
    ]
    unique_newer = list({item.vid: item for item in newer}.values())
    removed = draw(st.lists(st.sampled_from([*nodes, *jobs]), max_size=2, unique_by=id))
    return [[STUDY, OLD_TOOL, NEW_TOOL, *nodes], [*jobs, *unique_newer], removed]


questions = st.builds(
    Question,
    starts=st.lists(st.integers(0, _SIZE), min_size=1, max_size=2, unique=True).map(
        lambda numbers: tuple(vid("data", number) for number in numbers)
    ),
    direction=st.sampled_from(Direction),
    depth=st.one_of(st.none(), st.integers(0, 4)),
    kinds=st.sampled_from([frozenset(), frozenset({"Assembly"}), frozenset({"Collection"})]),
    tool=st.sampled_from([None, "kleborate", "nothing"]),
    release=st.sampled_from([None, "<3"]),
    via_tool=st.sampled_from([None, "kleborate"]),
    since=st.sampled_from([None, BEGIN + timedelta(hours=2)]),
    study=st.sampled_from([None, STUDY.vid]),
)

_quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _fill(catalog, drawn) -> None:
    first, second, removed = drawn
    save(catalog, *first)
    if second:
        save(catalog, *second)
    for obj in removed:
        based_on = catalog.get([obj.vid])[obj.vid].version
        # Refused where a rule of the catalog says so; then it simply stays.
        with contextlib.suppress(BiobankError):
            catalog.commit([Delete(vid=obj.vid, based_on=based_on, cascade=True)], by="tester")


@_quick
@given(drawn=units(), several=st.lists(questions, min_size=4, max_size=12), small=st.booleans())
def test_walking_the_catalog_gives_the_answer_of_the_index(drawn, several, small):
    with pytest.MonkeyPatch.context() as patch, stores() as (catalog, index):
        if small:
            # So that implicit collections come in without actions of 10,000 edges.
            patch.setattr(links, "MAX_EDGES_OF_ACTION", 2)
        _fill(catalog, drawn)
        lineage = Lineage(catalog, index)
        for question in several:
            answer = lineage.ask(question)
            assert lineage.ask(question, freshness=Freshness.SOURCE) == answer


@_quick
@given(drawn=units())
def test_an_index_that_follows_or_is_rebuilt_has_the_digest_of_one_in_step(drawn):
    with stores() as (catalog, index), tempfile.TemporaryDirectory() as folder:
        _fill(catalog, drawn)
        digest = index.digest()
        with open_index(url_of_path(Path(folder) / "other.db"), catalog=catalog) as other:
            catch_up(catalog, other)
            assert other.digest() == digest
            rebuild(catalog, other)
            assert other.digest() == digest
            assert other.position() == catalog.head()
        rebuild(catalog, index)
        assert index.digest() == digest


@_quick
@given(drawn=units(), ends=st.tuples(*[st.integers(0, _SIZE - 1)] * 2))
def test_between_gives_what_is_on_a_path_and_nothing_else(drawn, ends):
    start, end = (vid("data", number) for number in ends)
    with stores() as (catalog, index):
        _fill(catalog, drawn)
        lineage = Lineage(catalog, index)
        answer = lineage.between(Question(starts=(start,)), end)
        all_edges = [
            (edge.source, edge.target)
            for edge in index.edges()
            if edge.relation is not Relation.SUPERSEDES
        ]
        expected = {start}
        for first, last in ((start, end), (end, start)):
            after, before = _reached(all_edges, first), _reached([e[::-1] for e in all_edges], last)
            expected |= after & before
        assert {node.vid for node in answer.nodes} == expected
        assert all({edge.source, edge.target} <= expected for edge in answer.edges)


def _reached(edges, start):
    found, todo = {start}, [start]
    while todo:
        here = todo.pop()
        for source, target in edges:
            if source == here and target not in found:
                found.add(target)
                todo.append(target)
    return found


def test_walking_the_catalog_to_a_depth_gives_the_last_level_too(opened):
    catalog, _, lineage = opened
    members = (DataMember(role="m", object=vid("data", 1)),)
    listed = DataCollection(vid=vid("list"), label="l", study=STUDY.vid, items=members)
    save(catalog, data(1), data(2), listed, job(1, [vid("data", 1)], [vid("data", 2)]))
    for start in (listed.vid, vid("data", 1)):
        question = Question(starts=(start,), depth=1)
        answer = lineage.ask(question, freshness=Freshness.SOURCE)
        assert len(answer.nodes) > 1
        assert answer == lineage.ask(question)


# Following


def test_an_index_in_the_same_file_is_always_in_step(opened):
    catalog, _, lineage = opened
    save(catalog, data(1), data(2), job(1, [vid("data", 1)], [vid("data", 2)]))
    assert lineage.how_fresh().in_step
    answer = lineage.ask(Question(starts=(vid("data", 1),)))
    assert [node.label for node in answer.nodes] == ["data 1", "data 2"]


def test_a_unit_that_fails_leaves_no_trace_in_the_index(opened):
    catalog, index, _ = opened
    before = index.digest()
    with pytest.raises(BiobankError):
        save(catalog, data(1), job(1, [vid("data", 1)], [vid("unknown")]))
    assert index.digest() == before


def test_an_index_in_another_file_says_how_far_it_is_behind_and_catches_up():
    with stores(own_file=False) as (catalog, index):
        lineage = Lineage(catalog, index)
        save(catalog, STUDY, data(1))
        save(catalog, data(2))
        report = lineage.how_fresh()
        assert (report.in_step, report.behind_units) == (False, 2)
        assert report.as_of is not None
        question = Question(starts=(vid("data", 1),))
        assert lineage.ask(question).nodes == ()
        assert len(lineage.ask(question, freshness=Freshness.WAIT).nodes) == 1
        assert lineage.how_fresh().in_step
        assert catch_up(catalog, index) == 0


def test_a_catch_up_killed_between_batches_goes_on_where_it_was(monkeypatch):
    with stores(own_file=False) as (catalog, index):
        save(catalog, STUDY)
        for number in range(6):
            save(catalog, data(number))
        monkeypatch.setattr("biobank_core.lineage.follow.BATCH", 2)
        apply, calls = index.apply, []

        def dies(batch):
            calls.append(len(batch))
            if len(calls) == 2:
                raise KeyboardInterrupt
            apply(batch)

        monkeypatch.setattr(index, "apply", dies)
        with pytest.raises(KeyboardInterrupt):
            catch_up(catalog, index)
        done = len(list(index.nodes()))
        assert 0 < done < 6
        catch_up(catalog, index)
        assert len(list(index.nodes())) == 6
        assert index.position() == catalog.head()


def test_a_catch_up_beside_a_rebuild_leaves_the_position_that_the_rebuild_gave_it(monkeypatch):
    with stores(own_file=False) as (catalog, index):
        save(catalog, STUDY, data(1))
        (log,) = catalog.head()
        index.set_position({log: 3})  # from before the catalog was put back
        changes = catalog.changes

        def rebuilt_meanwhile(since):
            monkeypatch.undo()
            rebuild(catalog, index)
            return changes(since)

        monkeypatch.setattr(catalog, "changes", rebuilt_meanwhile)
        catch_up(catalog, index)
        assert index.position() == catalog.head() == {log: 1}
        for number in (2, 3, 4):
            save(catalog, data(number))
        catch_up(catalog, index)
        assert pending(catalog, index).changes == 0
        assert len(list(index.nodes())) == 4


def test_an_own_index_that_missed_units_is_brought_up_to_date_on_the_next_catch_up(tmp_path):
    url, elsewhere = (url_of_path(tmp_path / name) for name in ("catalog.db", "elsewhere.db"))
    with open_catalog(url, create=True) as catalog, open_index(url, catalog=catalog) as index:
        save(catalog, STUDY, data(1))
        assert index.position() == catalog.head()
    with open_catalog(url, create=False) as catalog, open_index(elsewhere, catalog=catalog):
        save(catalog, data(2))
    with open_catalog(url, create=False) as catalog, open_index(url, catalog=catalog) as index:
        save(catalog, data(3))
        assert index.position() != catalog.head()
        catch_up(catalog, index)
        assert {node.label for node in index.nodes()} == {"data 1", "data 2", "data 3"}
        assert index.position() == catalog.head()


def test_a_rebuild_removes_what_is_stale_and_leaves_the_old_graph_when_it_fails(
    opened, monkeypatch
):
    catalog, index, _ = opened
    save(catalog, data(1), data(2), job(1, [vid("data", 1)], [vid("data", 2)]))
    right = index.digest()
    with index._file.transaction() as connection:
        connection.execute("UPDATE lineage_node SET label = 'wrong'")
        connection.execute("DELETE FROM lineage_input")
    wrong = index.digest()
    assert wrong != right

    def fails(_batch):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(index, "apply", fails)
        with pytest.raises(KeyboardInterrupt):
            rebuild(catalog, index)
    assert index.digest() == wrong
    done = []
    rebuild(catalog, index, advance=done.append)
    assert index.digest() == right


def test_a_campaign_leaves_the_index_in_step(opened):
    catalog, _, lineage = opened
    campaign = Campaign(
        vid=vid("campaign"),
        label="again",
        study=STUDY.vid,
        created=BEGIN,
        criteria={},
        workflow={},
        galaxy_server="g",
    )
    save(catalog, campaign)
    assert lineage.how_fresh().in_step


# An index that others feed


class FedByOthers(SqliteLineage):
    """An index as the sync service feeds one: who asks does not feed it, and it may be down."""

    transaction = None
    down = False

    def connected(self, question):
        self.must_be_up()
        return super().connected(question)

    def versions(self, vids, *, log=None):
        self.must_be_up()
        return super().versions(vids, log=log)

    def must_be_up(self):
        if self.down:
            raise UnreachableError("the lineage index can't be reached")


@pytest.fixture
def fed(tmp_path):
    url = url_of_path(tmp_path / "catalog.db")
    with (
        open_catalog(url, create=True) as catalog,
        FedByOthers(SqliteFile(tmp_path / "index.db", create=True), owns_file=True) as index,
    ):
        index.migrate()
        save(catalog, STUDY, OLD_TOOL, NEW_TOOL)
        save(catalog, data(1))
        save(catalog, data(2), data(3))
        yield catalog, index, Lineage(catalog, index)


def tell(catalog, index, *objects) -> None:
    (log,) = catalog.head()
    found = catalog.get([item.vid for item in objects])
    index.apply([project(item.object, version=item.version, log=log) for item in found.values()])


def refuse(catalog, index, obj, **more) -> Refusal:
    (log,) = catalog.head()
    refusal = Refusal(log=log, vid=obj.vid, version=1, reason="bad", time=BEGIN, **more)
    index.refuse([refusal])
    return refusal


def test_what_an_index_lacks_is_counted_from_the_feed_and_the_mark_moves_over_the_rest(fed):
    catalog, index, lineage = fed
    (log,) = catalog.head()
    # The Study has no place in the graph; the two tools do.
    assert pending(catalog, index).changes == 5
    tell(catalog, index, OLD_TOOL, NEW_TOOL, data(2), data(3))
    found = advance_checked(catalog, index)
    assert (found.changes, found.units, found.settled) == (1, 1, {log: 1})
    assert index.checked() == {log: 1}
    report = lineage.how_fresh()
    assert (report.in_step, report.pending_changes, report.behind_units) == (False, 1, 1)
    assert report.as_of == found.oldest
    assert 0 <= report.age_s < 60
    tell(catalog, index, data(1))
    assert advance_checked(catalog, index).changes == 0
    assert index.checked() == catalog.head()
    report = lineage.how_fresh()
    assert (report.in_step, report.age_s, report.pending_changes) == (True, 0.0, 0)


def test_a_refused_change_is_told_until_somebody_discards_it(fed):
    catalog, index, lineage = fed
    tell(catalog, index, OLD_TOOL, NEW_TOOL, data(2), data(3))
    refuse(catalog, index, data(1))
    found = advance_checked(catalog, index)
    assert (found.changes, len(found.refused)) == (0, 1)
    assert index.checked() == catalog.head()
    report = lineage.how_fresh()
    assert (report.in_step, report.refused_changes, report.as_of) == (False, 1, BEGIN)
    question = Question(starts=(vid("data", 2),))
    with pytest.raises(RefusedError):
        lineage.ask(question, freshness=Freshness.WAIT, timeout_s=60)
    refuse(catalog, index, data(1), discarded=True)
    assert lineage.how_fresh().in_step
    assert len(lineage.ask(question, freshness=Freshness.WAIT, timeout_s=0).nodes) == 1


@pytest.mark.parametrize("sent_again", [False, True])
def test_a_refusal_that_comes_after_a_later_version_was_applied_counts_for_nothing(fed, sent_again):
    catalog, index, lineage = fed
    renamed = DataSample(vid=vid("data", 1), label="x", study=STUDY.vid)
    catalog.commit([Save(object=renamed, based_on=1)], by="tester")
    tell(catalog, index, OLD_TOOL, NEW_TOOL, data(1), data(2), data(3))
    refuse(catalog, index, data(1), sent_again=sent_again)
    found = advance_checked(catalog, index)
    assert (found.changes, found.refused) == (0, ())
    assert lineage.how_fresh().in_step
    index.forget([vid("data", 1)])
    assert not lineage.how_fresh().in_step


@pytest.mark.parametrize("sent_again", [False, True])
def test_what_is_refused_of_a_log_that_the_catalog_does_not_read_is_no_matter_of_its_users(
    fed, sent_again
):
    catalog, index, lineage = fed
    tell(catalog, index, OLD_TOOL, NEW_TOOL, data(1), data(2), data(3))
    theirs = refuse(catalog, index, data(9), sent_again=sent_again)
    index.forget_refusals([theirs])
    index.refuse([msgspec.structs.replace(theirs, log="another group's")])
    report = lineage.how_fresh()
    assert (report.in_step, report.refused_changes, report.pending_changes) == (True, 0, 0)
    question = Question(starts=(vid("data", 2),))
    assert lineage.ask(question, freshness=Freshness.WAIT, timeout_s=0).nodes


def test_who_waits_is_not_told_of_a_refusal_that_a_later_version_overtook(fed, monkeypatch):
    catalog, index, _ = fed
    tell(catalog, index, OLD_TOOL, NEW_TOOL, data(2), data(3))
    refused = index.refused

    def after_the_batch(vids=None):
        # The consumer applies what is good of a batch, then sets aside what is not.
        if vids is not None and vid("data", 1) not in index.versions([vid("data", 1)]):
            renamed = DataSample(vid=vid("data", 1), label="x", study=STUDY.vid)
            catalog.commit([Save(object=renamed, based_on=1)], by="tester")
            tell(catalog, index, renamed)
            refuse(catalog, index, data(1))
        return refused(vids)

    (log,) = catalog.head()
    needed = {(log, vid("data", 1)): 1}
    monkeypatch.setattr(index, "refused", after_the_batch)
    index.wait_for(needed, timeout_s=60)


def test_who_waits_for_everything_is_told_of_what_is_refused_and_passed_meanwhile(fed, monkeypatch):
    catalog, index, lineage = fed
    tell(catalog, index, OLD_TOOL, NEW_TOOL, data(2), data(3))
    for name in ("refused", "checked"):
        really = getattr(index, name)

        def after_the_consumer(*args, really=really):
            found = really(*args)
            monkeypatch.undo()
            refuse(catalog, index, data(1))
            advance_checked(catalog, index)
            return found

        monkeypatch.setattr(index, name, after_the_consumer)
    question = Question(starts=(vid("data", 2),))
    with pytest.raises(RefusedError):
        lineage.ask(question, freshness=Freshness.WAIT, timeout_s=60)


@pytest.mark.parametrize(
    ("advance", "number"), [(advance_checked, 9), (advance_checked, 2), (advance_to_gap, 2)]
)
def test_a_mark_that_a_rebuild_took_back_is_not_moved_over_what_was_not_looked_at(
    fed, monkeypatch, advance, number
):
    catalog, index, _ = fed
    tell(catalog, index, OLD_TOOL, NEW_TOOL, data(1), data(2), data(3))
    (log,) = catalog.head()
    index.set_checked({log: number, "other": 9})  # 9: from before the catalog was put back
    changes = catalog.changes

    def rebuilt_meanwhile(since):
        index.set_checked(catalog.head(), exactly=True)
        return changes(since)

    monkeypatch.setattr(catalog, "changes", rebuilt_meanwhile)
    advance(catalog, index)
    assert index.checked() == catalog.head()


def test_a_discarded_change_does_not_keep_the_mark_or_a_waiter(fed):
    catalog, index, lineage = fed
    tell(catalog, index, OLD_TOOL, NEW_TOOL, data(2), data(3))
    kept = refuse(catalog, index, data(1), discarded=True)
    question = Question(starts=(vid("data", 2),))
    assert lineage.ask(question, freshness=Freshness.WAIT, timeout_s=0).nodes
    assert advance_checked(catalog, index).settled == catalog.head()
    index.forget_refusals([kept])
    assert index.refused() == {}


def test_what_arrives_after_verify_read_the_index_is_no_finding(fed, monkeypatch):
    catalog, index, _ = fed
    tell(catalog, index, OLD_TOOL, NEW_TOOL, data(1), data(2))  # data(3) is on its way
    held, looks = verifying.rows.held, []

    def applied_afterwards(*args):
        looks.append(1)
        yield from held(*args)
        if len(looks) == 3:
            tell(catalog, index, data(3))

    monkeypatch.setattr(verifying.rows, "held", applied_afterwards)
    assert list(verify(catalog, index)) == []
    assert len(looks) == 3


def test_an_edge_to_a_node_that_is_on_its_way_is_no_finding(fed, monkeypatch):
    catalog, index, _ = fed
    done, used = job(1, [vid("data", 1)], [vid("data", 2)]), job(2, [vid("data", 2)], [])
    save(catalog, done, used)
    # Two consumers: one has taken in the actions, the other has yet to take in the node.
    tell(catalog, index, OLD_TOOL, NEW_TOOL, data(1), data(3), done, used)
    assert list(verify(catalog, index)) == []
    monkeypatch.setattr(verifying, "GRACE_S", -1.0)
    found = {(finding.kind, finding.vid) for finding in verify(catalog, index)}
    assert found == {("DataSample", vid("data", 2)), ("Action", done.vid), ("Action", used.vid)}


def test_an_edge_of_a_supersession_whose_deletion_is_on_its_way_is_no_finding(fed, monkeypatch):
    catalog, index, _ = fed
    newer = Supersession(vid=vid("newer"), new=vid("data", 1), old=vid("data", 2))
    save(catalog, newer)
    tell(catalog, index, OLD_TOOL, NEW_TOOL, data(1), data(2), data(3), newer)
    assert list(verify(catalog, index)) == []
    catalog.commit([Delete(vid=newer.vid, based_on=1)], by="tester")
    assert list(verify(catalog, index)) == []
    monkeypatch.setattr(verifying, "GRACE_S", -1.0)
    assert [finding.kind for finding in verify(catalog, index)] == ["Supersession"]


def test_a_repair_keeps_a_supersession_that_arrives_while_it_mends_the_node(fed, monkeypatch):
    catalog, index, _ = fed
    tell(catalog, index, OLD_TOOL, NEW_TOOL, data(1), data(2), data(3))
    with index._file.transaction() as connection:
        connection.execute("UPDATE lineage_node SET label = 'wrong' WHERE label = 'data 1'")
    newer = Supersession(vid=vid("newer"), new=vid("data", 1), old=vid("data", 2))
    forget = index.forget

    def after_it_arrived(vids):
        if vid("newer") not in catalog.get([vid("newer")]):
            save(catalog, newer)
            tell(catalog, index, newer)
        forget(vids)

    monkeypatch.setattr(index, "forget", after_it_arrived)
    assert len(list(verify(catalog, index, repair=True))) == 1
    assert pending(catalog, index).changes == 0
    assert index.count()["SUPERSEDES"] == 1


def test_the_mark_moves_to_the_first_gap_without_counting_what_is_behind_it(fed, monkeypatch):
    catalog, index, _ = fed
    (log,) = catalog.head()
    tell(catalog, index, OLD_TOOL, NEW_TOOL, data(2), data(3))
    for number in range(4, 8):
        save(catalog, data(number))
    tell(catalog, index, data(1), data(4), data(6), data(7))
    looked: list[int] = []
    monkeypatch.setattr(follow, "BATCH", 1)  # a look at each unit
    lacking = follow.lacking
    monkeypatch.setattr(
        follow, "lacking", lambda *args: looked.append(len(args[1])) or lacking(*args)
    )
    assert not advance_to_gap(catalog, index)
    gap = index.checked()[log] + 1
    assert next(unit.number for unit in catalog.changes({log: gap - 1})) == gap
    assert gap == catalog.head()[log] - 2
    assert len(looked) == gap
    tell(catalog, index, data(5))
    assert advance_to_gap(catalog, index)
    assert index.checked() == catalog.head()
    assert advance_to_gap(catalog, index)


def test_a_refused_change_that_is_sent_again_is_pending_though_the_mark_has_passed_it(fed):
    catalog, index, lineage = fed
    tell(catalog, index, OLD_TOOL, NEW_TOOL, data(2), data(3))
    refuse(catalog, index, data(1))
    assert advance_checked(catalog, index).settled == catalog.head()
    refuse(catalog, index, data(1), sent_again=True)
    report = lineage.how_fresh()
    assert (report.in_step, report.pending_changes, report.refused_changes) == (False, 1, 0)
    assert report.as_of == BEGIN
    question = Question(starts=(vid("data", 2),))
    with pytest.raises(TimeoutExceededError):
        lineage.ask(question, freshness=Freshness.WAIT, timeout_s=0.05)
    # Before the mark has passed it, it is counted once, and the mark stays where it is.
    index.set_checked({}, exactly=True)
    found = advance_checked(catalog, index)
    assert (found.changes, found.settled == catalog.head()) == (1, False)
    tell(catalog, index, data(1))
    assert lineage.how_fresh().in_step
    assert lineage.ask(question, freshness=Freshness.WAIT, timeout_s=0).nodes


def test_waiting_without_a_receipt_waits_for_all_that_the_catalog_holds_now(fed):
    catalog, index, lineage = fed
    question = Question(starts=(vid("data", 1),))
    with pytest.raises(TimeoutExceededError):
        lineage.ask(question, freshness=Freshness.WAIT, timeout_s=0.05)
    tell(catalog, index, OLD_TOOL, NEW_TOOL, data(1), data(2), data(3))
    answer, report = lineage.inquire(question, freshness=Freshness.WAIT, timeout_s=0)
    assert len(answer.nodes) == 1
    assert (report.freshness, report.in_step) == (Freshness.WAIT, True)
    receipt = catalog.commit([Save(object=data(4))], by="tester")
    with pytest.raises(TimeoutExceededError):
        lineage.ask(question, freshness=Freshness.WAIT, receipt=receipt, timeout_s=0)
    tell(catalog, index, data(4))
    lineage.ask(question, freshness=Freshness.WAIT, receipt=receipt, timeout_s=0)


@pytest.mark.parametrize("freshness", [Freshness.ANY, Freshness.WAIT])
def test_an_index_that_is_down_is_answered_from_the_catalog_with_a_warning(fed, freshness):
    catalog, index, lineage = fed
    save(catalog, job(1, [vid("data", 1)], [vid("data", 2)]))
    index.down = True
    question = Question(starts=(vid("data", 1),))
    answer, report = lineage.inquire(question, freshness=freshness, timeout_s=1)
    assert [node.label for node in answer.nodes] == ["data 1", "data 2"]
    assert report.freshness is Freshness.SOURCE
    assert report.in_step
    assert "can't be reached; answered from the catalog" in report.warning
    assert lineage.ask(question, freshness=freshness) == answer
    assert lineage.how_fresh(freshness).warning == report.warning
    both, _ = lineage.inquire(question, to=vid("data", 2), freshness=freshness)
    assert len(both.nodes) == 2


# Starts


def test_actions_data_objects_and_enrollments_stand_for_their_nodes(opened):
    catalog, _, lineage = opened
    person = Individual(vid=vid("person"))
    enrolled = Enrollment(vid=vid("e"), individual=person.vid, study=STUDY.vid, code="KP-01")
    file = DataObject(vid=vid("file"), sample=vid("data", 1), uri="file:///x")
    save(catalog, person, enrolled, data(1), data(2), file)
    save(catalog, job(1, [vid("data", 1)], [vid("data", 2)]))

    def starts(*vids):
        return lineage.ask(Question(starts=vids)).starts

    assert starts(vid("job", 1)) == (vid("data", 2),)
    assert starts(file.vid, vid("data", 1)) == (vid("data", 1),)
    assert starts(enrolled.vid) == (person.vid,)
    assert starts(vid("nobody")) == ()
    with pytest.raises(InputError, match="Study"):
        starts(STUDY.vid)


def test_an_answer_becomes_real_objects_and_names(opened):
    catalog, _, lineage = opened
    person = Individual(vid=vid("person"))
    enrolled = Enrollment(vid=vid("e"), individual=person.vid, study=STUDY.vid, code="KP-01")
    tube = Tube(vid=vid("tube"), label="T1", study=STUDY.vid)
    save(catalog, person, enrolled, tube, job(1, [person.vid], [tube.vid], tool=None))
    answer = lineage.ask(Question(starts=(tube.vid,)))
    assert {found.object for found in lineage.objects(answer).values()} == {person, tube}
    names = lineage.names(answer)
    assert names.codes == {person.vid: ("KPN:KP-01",)}
    assert names.studies == {STUDY.vid: "KPN"}


def test_an_index_of_an_unknown_kind_names_those_that_are_there():
    with pytest.raises(ConfigurationError, match="sqlite"):
        open_index("carrier-pigeon://roof")
    with pytest.raises(ConfigurationError, match="sqlite:///"):
        open_index("index.db")
