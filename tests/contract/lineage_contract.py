"""What every lineage index does. A driver's test subclasses this and gives `open_index`."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biobank_core.catalog.port import Receipt
from biobank_core.errors import (
    ConfigurationError,
    InputError,
    RefusedError,
    TimeoutExceededError,
)
from biobank_core.lineage.links import implicit_vid
from biobank_core.lineage.port import (
    IMPLICIT_COLLECTION,
    MAX_REASON_CHARS,
    Direction,
    LineageIndex,
    Question,
    Refusal,
    Relation,
)
from tests.contract.lineage_world import (
    BEGIN,
    LOG,
    action,
    collection,
    deliveries,
    device,
    gone,
    histories,
    ladder,
    node,
    plain,
    starts,
    supersession,
    vid,
)

UP, DOWN, BOTH = Direction.UPSTREAM, Direction.DOWNSTREAM, Direction.BOTH
OTHER_LOG = "log-b"

_quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.differing_executors,
        HealthCheck.too_slow,
    ],
)


def labels(answer) -> dict[str, int]:
    return {node.label: node.depth for node in answer.nodes}


def triples(edges) -> set[tuple[str, str, str]]:
    return {(edge.source, edge.target, edge.relation.value) for edge in edges}


def refusal(name: str, version: int, *, log: str = LOG, reason: str = "bad", **more: bool):
    return Refusal(log=log, vid=vid(name), version=version, reason=reason, time=BEGIN, **more)


class LineageContract(ABC):
    """Subclass it, give `open_index`, and every rule of the port is tested."""

    @abstractmethod
    def open_index(self) -> LineageIndex:
        """A new, migrated, empty index."""

    @abstractmethod
    def a_second_of(self, index: LineageIndex):
        """Context manager: one more opened index over the same storage, for another thread."""

    @pytest.fixture
    def index(self):
        with self.open_index() as index:
            yield index

    @contextmanager
    def another(self, index: LineageIndex):
        """Another empty index, to compare with."""
        with self.open_index() as other:
            yield other

    def ask(self, index, *names: str, direction: Direction = BOTH, **more):
        return index.connected(
            Question(starts=tuple(vid(name) for name in names), direction=direction, **more)
        )

    # The graph

    def test_an_action_joins_every_input_with_every_output(self, index):
        index.apply([node("a"), node("b"), node("x"), node("y"), action("job", "ab", "xy")])
        answer = self.ask(index, "a", direction=DOWN)
        assert labels(answer) == {"a": 0, "x": 1, "y": 1}
        edges = self.ask(index, "a", "b", direction=DOWN).edges
        assert triples(edges) == {(vid(i), vid(o), "PRODUCED") for i in "ab" for o in "xy"}
        assert {edge.action for edge in edges} == {vid("job")}
        assert edges[0].source_roles in {("in a",), ("in b",)}

    def test_both_directions_leave_out_siblings(self, index):
        index.apply([node("a"), node("x"), node("y"), action("1", "a", "x"), action("2", "a", "y")])
        assert labels(self.ask(index, "x")) == {"x": 0, "a": 1}

    def test_an_edge_that_passes_by_the_start_is_returned_too(self, index):
        index.apply(
            [
                *(node(name) for name in "asz"),
                action("1", "a", "s"),
                action("2", "sa", "z"),
            ]
        )
        answer = self.ask(index, "s")
        assert triples(answer.edges) == {
            (vid("a"), vid("s"), "PRODUCED"),
            (vid("s"), vid("z"), "PRODUCED"),
            (vid("a"), vid("z"), "PRODUCED"),
        }

    def test_members_lead_to_their_collection_and_collections_nest(self, index):
        index.apply(
            [node("a"), node("b"), collection("inner", "a", "b"), collection("outer", "inner")]
        )
        answer = self.ask(index, "b", direction=DOWN)
        assert labels(answer) == {"b": 0, "inner": 1, "outer": 2}
        assert answer.edges[0].relation is Relation.COLLECTED_IN
        assert answer.edges[0].action is None
        roles = {edge.source_roles for edge in answer.edges if edge.source == vid("b")}
        assert roles == {("member 1",)}

    def test_several_roles_of_one_input_make_one_edge(self, index):
        twice = action("job", ["a"], ["x"])
        port = twice.inputs[0]
        twice = type(twice)(
            **{name: getattr(twice, name) for name in twice.__struct_fields__ if name != "inputs"},
            inputs=(port, type(port)("another", port.node), port),
        )
        index.apply([node("a"), node("x"), twice])
        (edge,) = index.edges()
        assert edge.source_roles == ("another", "in a")

    def test_depth_is_the_shortest_number_of_edges(self, index):
        index.apply(
            [
                *(node(name) for name in "abcd"),
                action("1", "a", "b"),
                action("2", "b", "c"),
                action("3", "c", "d"),
                action("4", "a", "d"),
            ]
        )
        assert labels(self.ask(index, "a", direction=DOWN)) == {"a": 0, "b": 1, "c": 2, "d": 1}
        assert labels(self.ask(index, "a", direction=DOWN, depth=1)) == {"a": 0, "b": 1, "d": 1}
        assert labels(self.ask(index, "a", depth=0)) == {"a": 0}

    def test_a_start_that_is_unknown_is_left_out(self, index):
        index.apply([node("a")])
        answer = self.ask(index, "nobody", "a")
        assert answer.starts == (vid("a"),)
        assert labels(answer) == {"a": 0}

    def test_nodes_come_by_depth_then_vid_and_edges_sorted(self, index):
        names = [f"x{number}" for number in range(20)]
        index.apply([node("a"), *(node(name) for name in names), action("job", "a", names)])
        answer = self.ask(index, "a")
        order = [(found.depth, found.vid) for found in answer.nodes]
        assert order == sorted(order)
        ends = [(edge.source, edge.target) for edge in answer.edges]
        assert ends == sorted(ends)

    def test_an_action_without_inputs_makes_no_edge_but_its_output_names_it(self, index):
        index.apply([node("x"), device("d", "fetch", "1.0"), action("job", "", "x", device="d")])
        assert list(index.edges()) == []
        (found,) = index.nodes()
        (maker,) = found.makers
        assert (maker.action, maker.tool, maker.release) == (vid("job"), "fetch", "1.0")

    def test_an_action_without_outputs_is_a_use(self, index):
        index.apply([node("a"), action("sent", "a", "", status="error")])
        (use,) = index.uses()
        assert (use.action, use.node, use.role) == (vid("sent"), vid("a"), "in a")
        assert use.maker.status == "error"
        assert self.ask(index, "a").uses == (use,)

    def test_a_node_names_all_actions_that_made_it(self, index):
        index.apply([*(node(n) for n in "abx"), action("1", "a", "x"), action("2", "b", "x")])
        (found,) = [found for found in index.nodes() if found.vid == vid("x")]
        assert {maker.action for maker in found.makers} == {vid("1"), vid("2")}

    def test_supersession_is_an_edge_that_is_never_walked(self, index):
        index.apply(
            [
                *(node(n) for n in ("a", "old", "new")),
                action("1", "a", ["old"]),
                action("2", "a", ["new"]),
                supersession("s", "new", "old"),
            ]
        )
        assert labels(self.ask(index, "new")) == {"new": 0, "a": 1}
        answer = self.ask(index, "a")
        assert (vid("new"), vid("old"), "SUPERSEDES") in triples(answer.edges)
        assert answer.superseded == {vid("old")}
        assert self.ask(index, "old").superseded == {vid("old")}

    def test_a_newer_result_that_was_deleted_supersedes_nothing(self, index):
        index.apply([node("old"), node("new"), supersession("s", "new", "old")])
        index.apply([gone(node("new", version=2))])
        assert self.ask(index, "old").superseded == frozenset()

    def test_two_supersessions_of_the_same_two_are_one_edge(self, index):
        index.apply(
            [node("a"), node("b"), supersession("1", "a", "b"), supersession("2", "a", "b")]
        )
        assert len(list(index.edges())) == 1
        assert len(self.ask(index, "a", "b").edges) == 1
        assert index.count() == {"nodes": 2, "SUPERSEDES": 1}

    # An action with very many edges

    def test_an_action_of_too_many_edges_gets_an_implicit_collection(self, index):
        inputs = [f"i{number}" for number in range(101)]
        outputs = [f"o{number}" for number in range(100)]
        big = action("big", inputs, outputs)
        index.apply([*(node(name) for name in (*inputs, *outputs)), big])
        middle = implicit_vid(vid("big"))
        answer = self.ask(index, "i7", direction=DOWN)
        depths = {found.vid: found.depth for found in answer.nodes}
        assert depths == {vid("i7"): 0, middle: 1, **{vid(name): 2 for name in outputs}}
        (kind,) = {found.kind for found in answer.nodes if found.vid == middle}
        assert kind == IMPLICIT_COLLECTION
        counted = {"nodes": 202, "COLLECTED_IN": 101, "PRODUCED": 100}
        assert dict(index.count()) == counted
        assert len(list(index.edges())) == 201
        assert len(self.ask(index, "o3", direction=UP).nodes) == 103
        # One output fewer in a later version: exactly 10,100 - 101 = 9,999 edges, none implicit.
        index.apply([action("big", inputs, outputs[:99], version=2)])
        assert middle not in {found.vid for found in index.nodes()}
        assert index.count()["PRODUCED"] == 101 * 99

    # Order, repeats, versions

    @_quick
    @given(data=st.data())
    def test_any_order_and_repeats_give_the_graph_of_a_plain_search(self, data):
        self.any_order_gives_the_graph_of_a_plain_search(data)

    def any_order_gives_the_graph_of_a_plain_search(self, data):
        events = data.draw(histories())
        expected = plain(events)
        with self.open_index() as index:
            for batch in data.draw(deliveries(events)):
                index.apply(batch)
            assert {found.vid for found in index.nodes()} == expected.nodes
            edges = {
                (e.source, e.target) for e in index.edges() if e.relation.value != "SUPERSEDES"
            }
            known = {(s, t) for s, t in expected.edges if {s, t} <= expected.nodes}
            assert edges == known
            assert index.count()["nodes"] == len(expected.nodes)
            for direction in Direction:
                start = data.draw(starts)
                answer = index.connected(Question(starts=start, direction=direction))
                depths = expected.depths(start, direction)
                assert {found.vid: found.depth for found in answer.nodes} == depths
                walked = {
                    (e.source, e.target) for e in answer.edges if e.relation.value != "SUPERSEDES"
                }
                assert walked == {(s, t) for s, t in known if s in depths and t in depths}

    @_quick
    @given(data=st.data())
    def test_any_order_and_repeats_give_the_same_digest(self, data):
        self.any_order_gives_the_same_digest(data)

    def any_order_gives_the_same_digest(self, data):
        events = data.draw(histories())
        with self.open_index() as first, self.another(first) as second:
            first.apply(events)
            for batch in data.draw(deliveries(events)):
                second.apply(batch)
            assert first.digest() == second.digest()
            assert dict(first.count()) == dict(second.count())

    def test_the_digest_tells_different_graphs_apart(self, index):
        index.apply([node("a"), node("b"), action("job", "a", "b")])
        before = index.digest()
        index.apply([action("job", "a", "b", version=2, status="error")])
        changed = index.digest()
        index.apply([action("job", "a", "b", version=3)])
        assert before != changed
        assert index.digest() == before

    def test_the_greater_version_wins_and_on_a_tie_the_deletion(self, index):
        index.apply([node("a", version=3, label="new"), node("a", version=2, label="old")])
        assert [found.label for found in index.nodes()] == ["new"]
        index.apply([gone(node("a", version=3))])
        index.apply([node("a", version=3, label="new")])
        (found,) = index.nodes()
        assert (found.deleted, found.label, found.kind) == (True, "", "DataSample")
        index.apply([node("a", version=4, label="again")])
        assert [found.deleted for found in index.nodes()] == [False]
        assert index.versions([vid("a"), vid("nobody")]) == {vid("a"): 4}

    def test_lineage_goes_on_through_a_tombstone(self, index):
        index.apply([*(node(n) for n in "abc"), action("1", "a", "b"), action("2", "b", "c")])
        index.apply([gone(node("b", version=2))])
        answer = self.ask(index, "a", direction=DOWN)
        assert {found.vid: (found.depth, found.deleted) for found in answer.nodes} == {
            vid("a"): (0, False),
            vid("b"): (1, True),
            vid("c"): (2, False),
        }

    def test_a_deleted_action_takes_its_edges_and_makers_with_it(self, index):
        job = action("job", "a", "b")
        index.apply([node("a"), node("b"), job])
        index.apply([gone(job, version=2)])
        assert list(index.edges()) == []
        assert all(not found.makers for found in index.nodes())
        index.apply([action("job", "a", "b", version=3)])
        assert len(list(index.edges())) == 1

    def test_an_edge_that_comes_early_makes_a_placeholder_that_nobody_sees(self, index):
        index.apply([node("a"), action("job", "a", "b"), collection("c", "b")])
        assert labels(self.ask(index, "a", direction=DOWN)) == {"a": 0, "c": 2}
        assert {found.label for found in index.nodes()} == {"a", "c"}
        assert list(index.edges()) == []
        assert self.ask(index, "b").starts == ()
        assert index.count() == {"nodes": 2}
        index.apply([node("b")])
        assert labels(self.ask(index, "a", direction=DOWN)) == {"a": 0, "b": 1, "c": 2}

    def test_a_device_that_comes_later_or_changes_shows_on_every_edge(self, index):
        index.apply([node("a"), node("b"), action("job", "a", "b", device="d")])
        (edge,) = index.edges()
        assert (edge.maker.device, edge.maker.tool) == (vid("d"), None)
        index.apply([device("d", "kleborate", "2.2.0")])
        index.apply([device("d", "kleborate", "2.2.1", version=2)])
        (edge,) = index.edges()
        assert (edge.maker.tool, edge.maker.release) == ("kleborate", "2.2.1")
        (made,) = [found for found in index.nodes() if found.vid == vid("b")]
        assert made.makers[0].release == "2.2.1"

    def test_a_batch_with_a_bad_event_changes_nothing(self, index):
        bad = type(node("a"))(log=LOG, vid="not a vid", version=1, kind="DataSample")
        with pytest.raises(InputError):
            index.apply([node("a"), bad])
        assert list(index.nodes()) == []

    def test_clear_empties_it(self, index):
        empty = index.digest()
        index.apply([node("a"), node("b"), action("job", "a", "b"), action("use", "a", "")])
        assert index.digest() != empty
        index.clear()
        assert index.digest() == empty
        assert index.versions([vid("a")]) == {}

    def test_what_is_forgotten_is_taken_in_again_at_any_version(self, index):
        job = action("job", "a", "b")
        everything = [node("a"), node("b"), node("c"), job, supersession("s", "b", "c")]
        index.apply(everything)
        before = index.digest()
        index.forget([vid("a"), vid("job"), vid("unknown")])
        assert {item.vid for item in index.nodes()} == {vid("b"), vid("c")}
        assert index.versions([vid("a"), vid("b"), vid("job")]) == {vid("b"): 1}
        index.apply(everything)
        assert index.digest() == before

    def test_edges_that_others_give_outlast_a_forgotten_node_but_supersessions_do_not(self, index):
        index.apply([node("a"), node("b"), node("c"), action("job", "a", "b")])
        before = index.digest()
        index.apply([supersession("s", "b", "c")])
        index.forget([vid("b")])
        assert list(index.edges()) == []
        index.apply([node("b")])
        assert index.digest() == before
        assert index.versions([vid("s")]) == {}

    # Several logs (groups)

    def test_a_node_lives_while_it_lives_in_any_log(self, index):
        index.apply([node("p", "Individual"), node("p", "Individual", log=OTHER_LOG)])
        (found,) = index.nodes()
        assert found.groups == {LOG, OTHER_LOG}
        index.apply([gone(node("p", "Individual", version=2))])
        (found,) = index.nodes()
        assert (found.deleted, found.groups) == (False, {OTHER_LOG})
        index.apply([gone(node("p", "Individual", log=OTHER_LOG))])
        (found,) = index.nodes()
        assert found.deleted

    def test_versions_of_several_logs_do_not_compete(self, index):
        index.apply([node("a", version=9, log=OTHER_LOG, label="b's"), node("a", label="a's")])
        (found,) = index.nodes()
        assert found.label == "a's"
        index.apply([gone(node("a", version=2))])
        (found,) = index.nodes()
        assert found.label == "b's"

    # Filters

    @pytest.fixture
    def typed(self, index):
        """tube -> reads -> assembly -> two results; one more result of another tool and study."""
        index.apply(
            [
                node("tube", "Tube"),
                node("reads", "SequencingReads"),
                node("assembly", "Assembly"),
                node("result 2", "TypingResult"),
                node("result 3", "TypingResult", study="other"),
                device("seq", "sequencer", None),
                device("asm", "shed/repos/iuc/shovill/shovill", "1.1.0+galaxy2"),
                device("k2", "shed/repos/iuc/kleborate/kleborate", "2.2.0"),
                device("k3", "shed/repos/iuc/kleborate/kleborate", "3.2.4"),
                action("m", ["tube"], ["reads"], device="seq", category="MEASUREMENT", days=1),
                action("s", ["reads"], ["assembly"], device="asm", days=2),
                action("2", ["assembly"], ["result 2"], device="k2", days=3),
                action("3", ["assembly"], ["result 3"], device="k3", days=4),
            ]
        )
        return index

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ({"kinds": frozenset({"DataSample"})}, {"reads", "assembly", "result 2", "result 3"}),
            ({"kinds": frozenset({"TypingResult", "Tube"})}, {"result 2", "result 3"}),
            ({"study": vid("other")}, {"result 3"}),
            ({"categories": frozenset({"MEASUREMENT"})}, {"reads"}),
            ({"tool": "kleborate"}, {"result 2", "result 3"}),
            ({"tool": "shed/repos/iuc/kleborate/kleborate/2.2.0"}, {"result 2", "result 3"}),
            ({"tool": "kleborate", "release": "<3"}, {"result 2"}),
            ({"release": ">=1,<2"}, {"assembly"}),
            ({"since": BEGIN + timedelta(days=3)}, {"result 2", "result 3"}),
            ({"until": BEGIN + timedelta(days=2)}, {"reads", "assembly"}),
            ({"via_tool": "shovill"}, {"assembly", "result 2", "result 3"}),
            ({"via_tool": "shovill", "depth": 2}, {"assembly"}),
            ({"via_tool": "nothing"}, set()),
        ],
    )
    def test_filters_choose_what_is_returned_not_where_the_walk_goes(
        self, typed, filters, expected
    ):
        answer = self.ask(typed, "tube", direction=DOWN, **filters)
        found = labels(answer)
        assert found.keys() == {"tube", *expected}
        depths = {"tube": 0, "reads": 1, "assembly": 2, "result 2": 3, "result 3": 3}
        assert found == {label: depths[label] for label in found}
        for edge in answer.edges:
            assert {edge.source, edge.target} <= {node.vid for node in answer.nodes}

    def test_via_tool_looks_along_the_walk_upstream_too(self, typed):
        answer = self.ask(typed, "result 2", "result 3", direction=UP, via_tool="shovill")
        assert labels(answer).keys() == {"result 2", "result 3", "reads", "tube"}

    def test_via_tool_finds_a_path_that_is_not_the_shortest(self, index):
        index.apply(
            [
                *(node(n) for n in "abcd"),
                device("t", "trim", "1"),
                action("short", "a", "d"),
                action("1", "a", "b"),
                action("2", "b", "c", device="t"),
                action("3", "c", "d"),
            ]
        )
        answer = self.ask(index, "a", direction=DOWN, via_tool="trim", depth=1)
        assert labels(answer) == {"a": 0, "d": 1}

    def test_an_unknown_kind_or_release_range_is_an_input_error(self, typed):
        with pytest.raises(InputError, match="Nonsense"):
            self.ask(typed, "tube", kinds=frozenset({"Nonsense"}))
        with pytest.raises(InputError):
            self.ask(typed, "tube", release="<<<")

    # Who may read what

    def test_the_walk_passes_through_what_the_user_may_not_read(self, index):
        index.apply(
            [
                node("a"),
                node("hidden", log=OTHER_LOG),
                node("c"),
                action("1", ["a"], ["hidden"], log=OTHER_LOG),
                action("2", ["hidden"], ["c"], log=OTHER_LOG),
                action("left", ["hidden"], [], log=OTHER_LOG),
                supersession("s", "hidden", "a", log=OTHER_LOG),
            ]
        )
        answer = self.ask(index, "a", direction=DOWN, groups=frozenset({LOG}))
        assert labels(answer) == {"a": 0, "c": 2}
        assert answer.edges == ()
        assert answer.uses == ()
        assert answer.superseded == frozenset()
        assert vid("hidden") not in repr([found.vid for found in answer.nodes])
        both = self.ask(index, "a", direction=DOWN, groups=frozenset({LOG, OTHER_LOG}))
        assert labels(both) == {"a": 0, "hidden": 1, "c": 2}

    def test_a_start_that_may_not_be_read_is_as_unknown(self, index):
        index.apply([node("a", log=OTHER_LOG), node("b"), action("1", "a", "b")])
        answer = self.ask(index, "a", groups=frozenset({LOG}))
        assert answer == self.ask(index, "nobody", groups=frozenset({LOG}))

    # Size, waiting, life

    def test_a_ladder_of_a_thousand_diamonds_is_walked_at_once(self, index):
        index.apply(ladder(1000))
        # 2**1000 paths: who enumerates them never comes back. The real figure is in benchmarks/.
        answer = self.ask(index, "d0", direction=DOWN)
        assert labels(answer)["d1000"] == 2000
        assert len(answer.nodes) == 3001
        assert len(answer.edges) == 4000

    def test_waiting_ends_when_the_versions_are_there(self, index):
        index.apply([node("a", version=2)])
        index.wait(Receipt({vid("a"): 2}, {LOG: 1}), timeout_s=0)
        with pytest.raises(TimeoutExceededError, match=vid("a")):
            index.wait(Receipt({vid("a"): 3}, {LOG: 2}), timeout_s=0.05)

    def test_waiting_ends_as_soon_as_another_writer_applied_it(self, index):
        with self.a_second_of(index) as writer:
            later = threading.Timer(0.2, writer.apply, [[node("a", version=2)]])
            later.start()
            index.wait(Receipt({vid("a"): 2}, {LOG: 1}), timeout_s=240)
            later.join()

    def test_versions_count_in_their_own_log(self, index):
        index.apply([node("a", version=7), node("a", version=2, log=OTHER_LOG)])
        both = {vid("a"): 7}
        assert index.versions([vid("a"), "not a vid"]) == both
        assert index.versions([vid("a")], log=LOG) == both
        assert index.versions([vid("a")], log=OTHER_LOG) == {vid("a"): 2}
        assert index.versions([vid("a")], log="nobody's") == {}
        with pytest.raises(TimeoutExceededError):
            index.wait(Receipt({vid("a"): 3}, {OTHER_LOG: 1}), timeout_s=0)
        index.wait(Receipt({vid("a"): 3}, {LOG: 4, OTHER_LOG: 1}), timeout_s=0)

    def test_a_receipt_names_its_log_and_brings_those_of_others(self, index):
        index.apply([node("a", version=7), node("a", version=2, log=OTHER_LOG)])
        everywhere = {LOG: 4, OTHER_LOG: 1}
        here = Receipt({vid("a"): 7}, everywhere, LOG)
        index.wait(here, timeout_s=0)
        there = Receipt({vid("a"): 3}, everywhere, OTHER_LOG)
        for receipt in (there, replace(here, others=(there,))):
            with pytest.raises(TimeoutExceededError, match=vid("a")):
                index.wait(receipt, timeout_s=0)
        index.apply([node("a", version=3, log=OTHER_LOG)])
        index.wait(replace(here, others=(there,)), timeout_s=0)

    # How far the feed was taken in, and what could not be

    def test_the_checked_mark_only_moves_forward_unless_told_exactly(self, index):
        assert index.checked() == {}
        index.set_checked({LOG: 5})
        index.set_checked({LOG: 3, OTHER_LOG: 1})
        assert index.checked() == {LOG: 5, OTHER_LOG: 1}
        index.set_checked({OTHER_LOG: 2})
        assert index.checked() == {LOG: 5, OTHER_LOG: 2}
        index.set_checked({LOG: 1}, exactly=True)
        assert index.checked() == {LOG: 1}
        index.clear()
        assert index.checked() == {}

    def test_who_waits_for_a_refused_change_is_told_at_once(self, index):
        index.refuse([refusal("a", 2, reason="kind 'Ghost' is unknown")])
        with pytest.raises(RefusedError, match="Ghost") as caught:
            index.wait(Receipt({vid("a"): 2}, {LOG: 1}), timeout_s=60)
        assert not caught.value.retryable
        index.refuse([refusal("a", 2, discarded=True)])
        with pytest.raises(RefusedError):
            index.wait(Receipt({vid("a"): 1}, {LOG: 1}), timeout_s=60)
        with pytest.raises(TimeoutExceededError):
            index.wait(Receipt({vid("a"): 3}, {LOG: 1}), timeout_s=0)
        with pytest.raises(TimeoutExceededError):
            index.wait(Receipt({vid("a"): 2}, {OTHER_LOG: 1}), timeout_s=0)

    def test_who_waits_for_a_refused_change_that_was_sent_again_waits_again(self, index):
        index.refuse([refusal("a", 2)])
        index.refuse([refusal("a", 2, sent_again=True)])
        (again,) = index.refused().values()
        assert (again.sent_again, again.discarded) == (True, False)
        with pytest.raises(TimeoutExceededError):
            index.wait(Receipt({vid("a"): 2}, {LOG: 1}), timeout_s=0)
        index.refuse([refusal("a", 2)])
        with pytest.raises(RefusedError):
            index.wait(Receipt({vid("a"): 2}, {LOG: 1}), timeout_s=60)
        index.refuse([refusal("a", 2, sent_again=True)])
        index.apply([node("a", version=2)])
        assert index.refused() == {}
        index.wait(Receipt({vid("a"): 2}, {LOG: 1}), timeout_s=60)

    def test_a_refusal_ends_when_that_version_or_a_later_one_is_applied(self, index):
        one, other = refusal("a", 2), refusal("a", 9, log=OTHER_LOG)
        empty = index.digest()
        index.refuse([one, other])
        assert index.digest() == empty
        assert index.refused([vid("a"), vid("b")]) == {
            (LOG, vid("a")): one,
            (OTHER_LOG, vid("a")): other,
        }
        index.apply([node("a", version=1)])
        assert len(index.refused()) == 2
        index.apply([node("a", version=3)])
        assert index.refused() == {(OTHER_LOG, vid("a")): other}
        # Known already, told again: that ends one too.
        index.refuse([refusal("a", 3)])
        index.apply([node("a", version=3)])
        assert index.refused() == {(OTHER_LOG, vid("a")): other}
        assert index.refused([]) == {}
        index.clear()
        assert index.refused() == {}

    def test_of_several_refusals_the_greatest_version_stays_and_the_later_call_counts(self, index):
        index.refuse([refusal("a", 3), refusal("a", 2, reason="older")])
        index.refuse([refusal("a", 1, reason="oldest")])
        assert index.refused() == {(LOG, vid("a")): refusal("a", 3)}
        index.refuse([refusal("a", 3, discarded=True, reason="x" * 10_000)])
        (kept,) = index.refused().values()
        assert kept.discarded
        assert len(kept.reason) == MAX_REASON_CHARS
        index.forget_refusals([refusal("a", 2), refusal("b", 9)])
        assert len(index.refused()) == 1
        index.forget_refusals([refusal("a", 3)])
        assert index.refused() == {}
        with pytest.raises(InputError):
            index.refuse([type(kept)(log=LOG, vid="'); --", version=1, reason="", time=BEGIN)])

    def test_an_index_that_was_closed_says_so(self):
        index = self.open_index()
        index.close()
        index.close()
        with pytest.raises(ConfigurationError):
            index.apply([node("a")])
        with pytest.raises(ConfigurationError):
            index.connected(Question(starts=(vid("a"),)))

    def test_migrating_again_changes_nothing(self, index):
        index.apply([node("a")])
        before = index.digest()
        index.migrate()
        assert index.schema_version() >= 1
        assert index.digest() == before
