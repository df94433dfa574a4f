"""Neo4j rebuilt and asked while others write it: each interleaving step by step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from neo4j import ManagedTransaction

from biobank_core.catalog.port import Catalog, CommittedUnit, Position, Save, Versioned
from biobank_core.catalog.registry import open_catalog
from biobank_core.lineage import in_place
from biobank_core.lineage.events import ActionEvent
from biobank_core.lineage.follow import pending, rebuild
from biobank_core.lineage.neo4j import Neo4jLineage, read, write
from biobank_core.lineage.port import Direction, Question, Relation
from biobank_core.lineage.projection import project, project_all
from biobank_core.lineage.verify import verify
from biobank_core.model.kinds import DataSample, Gender, Individual
from tests.contract.neo4j_lab import cypher, emptied, opened
from tests.faults.sync_lab import wait_until
from tests.servers.neo4j import Neo4jServer
from tests.unit.test_verify import WORLD, data, save, vid

JOBS = ("job", "use")


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with open_catalog(f"sqlite:///{tmp_path}/c.db", create=True) as catalog:
        save(catalog, *WORLD)
        yield catalog


@pytest.fixture
def index(neo4j: Neo4jServer) -> Iterator[Neo4jLineage]:
    with emptied(neo4j) as index:
        yield index


def before(
    index: Neo4jLineage, number: int, act: Callable[[], None], patch: pytest.MonkeyPatch
) -> None:
    """Let `act` happen just before the index takes in this batch of a rebuild, counted from 1."""
    take_in, calls = index.take_in_anew, []

    def after_act(*args: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            act()
        return take_in(*args, **named)

    patch.setattr(index, "take_in_anew", after_act)


def test_of_two_rebuilds_at_once_the_one_that_ends_later_may_be_killed(
    catalog: Catalog, index: Neo4jLineage, neo4j: Neo4jServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_place, "BATCH", 2)

    def another_rebuild() -> None:
        with opened(neo4j) as other:
            rebuild(catalog, other)

    def killed() -> None:
        raise KeyboardInterrupt

    before(index, 3, another_rebuild, monkeypatch)
    before(index, 4, killed, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        rebuild(catalog, index)
    assert index.rebuild_in_progress() is None
    monkeypatch.undo()
    rebuild(catalog, index)
    assert list(verify(catalog, index)) == []


def test_a_rebuild_that_ends_leaves_the_progress_of_the_next_one(
    catalog: Catalog, index: Neo4jLineage
) -> None:
    first = index.begin_rebuild(catalog.head())
    second = index.begin_rebuild(catalog.head())
    index.take_in_anew([], progress=first)
    index.end_rebuild(first)
    assert index.rebuild_in_progress() == second
    index.end_rebuild(second)


# A catalog of two logs


class Joined:
    """Two catalogs as one with a log of each, as one on OMERO with two groups is."""

    def __init__(self, *catalogs: Catalog) -> None:
        self.by_log = {log: each for each in catalogs for log in each.head()}

    def head(self) -> Position:
        return {log: number for each in self.by_log.values() for log, number in each.head().items()}

    def changes(self, since: Position) -> Iterator[CommittedUnit]:
        for each in self.by_log.values():
            yield from each.changes(since)

    def get_in(self, log: str, vids: Iterable[str]) -> dict[str, Versioned]:
        return self.by_log[log].get(vids)


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[list[Catalog]]:
    """Two catalogs that share a person; each has data of its own."""
    with (
        open_catalog(f"sqlite:///{tmp_path}/1.db", create=True) as one,
        open_catalog(f"sqlite:///{tmp_path}/2.db", create=True) as two,
    ):
        for each, name in ((one, "a"), (two, "b")):
            save(each, WORLD[0], Individual(vid=vid("person")), data(name))
        yield [one, two]


def feed(catalog: Catalog, index: Neo4jLineage) -> None:
    """What the sync service would do with all of this log."""
    [log] = catalog.head()
    vids = [change.vid for unit in catalog.changes({}) for change in unit.changes]
    index.apply(list(project_all(catalog, [(log, one) for one in vids])))


def changed(catalog: Catalog, obj: Individual | DataSample) -> None:
    based_on = catalog.get([obj.vid])[obj.vid].version
    catalog.commit([Save(object=obj, based_on=based_on)], by="tester")


def groups_of(index: Neo4jLineage) -> dict[str, set[str]]:
    return {node.vid: set(node.groups) for node in index.nodes()}


def test_what_one_log_is_fed_while_a_rebuild_reads_another_stays_in_both(
    logs: list[Catalog], index: Neo4jLineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = logs
    joined = cast(Catalog, Joined(one, two))
    monkeypatch.setattr(in_place, "BATCH", 3)  # the first batch is of the one log

    def the_other_changes() -> None:
        changed(two, Individual(vid=vid("person"), gender=Gender.FEMALE))
        feed(two, index)

    before(index, 2, the_other_changes, monkeypatch)
    rebuild(joined, index)
    assert groups_of(index)[vid("person")] == set(joined.head())
    assert pending(joined, index).changes == 0


def test_what_several_logs_are_fed_while_a_rebuild_reads_them_is_not_swept_away(
    logs: list[Catalog], index: Neo4jLineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = logs
    joined = cast(Catalog, Joined(one, two))
    feed(one, index)  # not of an empty index, so that it ends with a sweep
    unseen = index.unseen

    def after_a_writer(*args: Any, **named: Any) -> list[str]:
        if not two.get([vid("c")]):
            save(two, data("c"))
            feed(two, index)
        return unseen(*args, **named)

    monkeypatch.setattr(index, "unseen", after_a_writer)
    rebuild(joined, index)
    assert vid("c") in groups_of(index)
    assert pending(joined, index).changes == 0


def test_a_rebuild_takes_out_what_only_a_log_of_another_catalog_holds(
    logs: list[Catalog], index: Neo4jLineage
) -> None:
    one, two = logs
    joined = cast(Catalog, Joined(one, two))
    feed(one, index)
    feed(two, index)
    cypher(index, "MATCH (o:Object {vid: $vid}) SET o.groups = ['x']", vid=vid("a"))
    [log] = one.head()
    index.apply([project(data("z"), version=1, log="strange")])  # type: ignore[list-item]
    rebuild(joined, index)
    assert vid("z") not in groups_of(index)
    assert groups_of(index)[vid("a")] == {log}


def test_a_node_that_is_told_of_while_it_is_swept_away_as_a_placeholder_stays(
    catalog: Catalog, index: Neo4jLineage, neo4j: Neo4jServer
) -> None:
    cypher(index, "CREATE (:Object:Placeholder {vid: $vid})", vid=vid("late"))
    progress = index.begin_rebuild(catalog.head())
    assert not progress.fresh
    late = project(data("late"), version=1, log="L")
    assert late
    sweep = threading.Thread(target=index.end_rebuild, args=(progress,))

    def is_held_up() -> bool:
        told = cypher(index, "SHOW TRANSACTIONS YIELD status RETURN status")
        return any("Blocked" in status for [status] in told)

    with opened(neo4j) as consumer:

        def told_of(tx: ManagedTransaction) -> None:
            write.take_in(tx, [late])
            sweep.start()
            wait_until(is_held_up, timeout_s=120)

        consumer._connection.write(told_of)
    sweep.join()
    assert vid("late") in groups_of(index)


@pytest.mark.parametrize("direction", Direction)
def test_a_question_asked_while_an_action_is_deleted_is_answered(
    catalog: Catalog, index: Neo4jLineage, monkeypatch: pytest.MonkeyPatch, direction: Direction
) -> None:
    rebuild(catalog, index)
    read_rows = read.chunked
    [log] = catalog.head()

    def deleted_in_between(*args: Any) -> list[Any]:
        # Neo4j reads what is committed: nodes with their edges first, then what actions say.
        first = read_rows(*args)
        gone = [ActionEvent(log=log, vid=vid(name), version=9, deleted=True) for name in JOBS]
        index.apply(gone)
        makers = read_rows(*args)
        return [row for row in first if len(row) == 9] + [row for row in makers if len(row) == 8]

    monkeypatch.setattr(read, "chunked", deleted_in_between)
    starts = tuple(map(vid, "acde"))
    answer = index.connected(Question(starts=starts, direction=direction))
    assert {node.label for node in answer.nodes} >= set("acde")
    assert {edge.relation for edge in answer.edges} <= {Relation.COLLECTED_IN, Relation.SUPERSEDES}
    assert answer.uses == ()
