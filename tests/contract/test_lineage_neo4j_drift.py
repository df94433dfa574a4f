"""verify and rebuild against Neo4j: drift both ways, mended where it is, in use all the while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from biobank_core.catalog.port import Catalog, Delete, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.cli import cli
from biobank_core.lineage import in_place, links
from biobank_core.lineage import verify as verifying
from biobank_core.lineage.follow import advance_checked, pending, rebuild
from biobank_core.lineage.neo4j import Neo4jLineage
from biobank_core.lineage.neo4j.connection import Connection
from biobank_core.lineage.projection import project
from biobank_core.lineage.registry import open_index
from biobank_core.lineage.verify import Finding, What, verify
from biobank_core.model.kinds import SoftwareProgram
from tests.contract.neo4j_lab import cypher, emptied, opened
from tests.unit.random_catalogs import catalogs
from tests.unit.test_verify import WORLD, data, edge, job, save, stores, vid


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with open_catalog(f"sqlite:///{tmp_path}/c.db", create=True) as catalog:
        save(catalog, *WORLD)
        yield catalog


@pytest.fixture
def index(neo4j, catalog: Catalog) -> Iterator[Neo4jLineage]:
    """An index in step with the catalog, as the sync service would leave it."""
    with emptied(neo4j) as index:
        rebuild(catalog, index)
        yield index


@pytest.fixture
def right(catalog: Catalog, tmp_path: Path) -> str:
    with open_index(f"sqlite:///{tmp_path}/c.db", catalog=catalog) as own:
        rebuild(catalog, own)
        return own.digest()


def test_a_rebuilt_index_has_the_digest_of_sqlite_and_nothing_pending(catalog, index, right):
    assert index.digest() == right
    assert index.checked() == catalog.head()
    assert pending(catalog, index).changes == 0
    assert list(verify(catalog, index)) == []


SABOTAGE = {
    "a node that is gone": (
        "MATCH (o:Object {vid: $b}) DETACH DELETE o",
        {
            (What.MISSING, "b", "DataSample", "node 'b'"),
            (What.MISSING, "job", "Action", edge("PRODUCED", "b", "c")),
            (What.MISSING, "job", "Action", edge("PRODUCED", "b", "d")),
        },
    ),
    "a label": (
        "MATCH (o:Object {vid: $a}) SET o.label = 'x'",
        {(What.STALE, "a", "DataSample", "node 'a': label 'x' instead of 'a'")},
    ),
    "groups": (
        "MATCH (o:Object {vid: $a}) SET o.groups = ['others']",
        {(What.STALE, "a", "DataSample", None)},
    ),
    "a node too many": (
        "CREATE (o:Object:Tube {vid: $ghost, kind: 'Tube', label: 'ghost', groups: ['x'], "
        "deleted: false, version: 1})",
        {(What.EXTRA, "ghost", "Tube", "node 'ghost'")},
    ),
    "an edge too many": (
        "MATCH (s:Object {vid: $e}), (t:Object {vid: $c}) CREATE (s)-[:PRODUCED {action: $job, "
        "category: 'PROCESSING', status: 'ok', source_roles: [], target_roles: []}]->(t)",
        {(What.EXTRA, "job", "Action", edge("PRODUCED", "e", "c"))},
    ),
    "an edge that is gone": (
        "MATCH (:Object {vid: $a})-[e:PRODUCED]->(:Object {vid: $d}) DELETE e",
        {(What.MISSING, "job", "Action", edge("PRODUCED", "a", "d"))},
    ),
    "a member that is gone": (
        "MATCH ()-[e:COLLECTED_IN]->(:Object {vid: $list}) DELETE e",
        {(What.MISSING, "list", "DataCollection", edge("COLLECTED_IN", "c", "list"))},
    ),
    "a use that is gone": (
        "MATCH ()-[e:USED]->() DELETE e",
        {(What.MISSING, "use", "Action", f"use of {vid('e')} as 'in e'")},
    ),
    "a status": (
        "MATCH ()-[e:USED]->() SET e.status = 'error'",
        {
            (
                What.STALE,
                "use",
                "Action",
                f"use of {vid('e')} as 'in e': maker.status 'error' instead of 'ok'",
            )
        },
    ),
    "a supersession that is gone": (
        "MATCH ()-[e:SUPERSEDES]->() DELETE e",
        {(What.MISSING, "newer", "Supersession", edge("SUPERSEDES", "e", "d"))},
    ),
    "a supersession too many": (
        "MATCH (s:Object {vid: $a}), (t:Object {vid: $b}) "
        "CREATE (s)-[:SUPERSEDES {supersession: 'x'}]->(t)",
        {(What.EXTRA, "", "Supersession", edge("SUPERSEDES", "a", "b"))},
    ),
    "a version from the future": (
        "MATCH (o:Object {vid: $list}) SET o.version = 9",
        {(What.STALE, "list", "DataCollection", "the index holds version 9, the catalog 1")},
    ),
    "a record that is gone": ("MATCH (r:Record {vid: $job}) DETACH DELETE r", set()),
}
_NAMES = ("a", "b", "c", "d", "e", "job", "list", "ghost")


def sabotage(index: Neo4jLineage, statement: str) -> None:
    cypher(index, statement, **{name: vid(name) for name in _NAMES})


@pytest.mark.parametrize("name", SABOTAGE)
def test_drift_is_found_and_just_that_is_mended(name, catalog, index, right, monkeypatch):
    statement, expected = SABOTAGE[name]
    sabotage(index, statement)
    found = list(verify(catalog, index, repair=True))
    assert {(item.what, item.vid, item.kind) for item in found} == {
        (what, vid(owner) if owner else "", kind) for what, owner, kind, _ in expected
    }
    details = {detail for *_, detail in expected if detail is not None}
    assert details <= {item.detail for item in found}
    assert index.digest() == right
    assert list(verify(catalog, index)) == []


def test_what_repair_mends_needs_no_rebuild(catalog, index, right, monkeypatch):
    sabotage(index, SABOTAGE["a node that is gone"][0])
    sabotage(index, SABOTAGE["a status"][0])
    monkeypatch.setattr(verifying, "rebuild", None)
    assert len(list(verify(catalog, index, repair=True))) == 4
    assert index.digest() == right


def test_what_is_on_its_way_is_no_finding_but_what_never_came_is(catalog, index, monkeypatch):
    save(catalog, data("f"), job("late", "f", "e"))
    assert list(verify(catalog, index)) == []
    monkeypatch.setattr(verifying, "GRACE_S", -1.0)
    found = list(verify(catalog, index, repair=True))
    assert Finding(What.MISSING, vid("f"), "DataSample", "node 'f'") in found
    assert list(verify(catalog, index)) == []
    assert advance_checked(catalog, index).changes == 0


def test_a_rebuild_removes_all_that_is_stale(catalog, index, right):
    for statement, _ in SABOTAGE.values():
        sabotage(index, statement)
    cypher(index, "MATCH (s:Object {vid: $a}) CREATE (s)-[:PRODUCED]->(s)", a=vid("a"))
    cypher(index, "MATCH (s:Object {vid: $a}) CREATE (s)-[:COLLECTED_IN]->(s)", a=vid("a"))
    cypher(index, "CREATE (:Object {vid: 'V0'})")
    cypher(index, "CREATE (:Record:Action {vid: 'V1', version: 3, groups: ['x']})")
    assert index.digest() != right
    rebuild(catalog, index)
    assert index.digest() == right
    assert list(verify(catalog, index)) == []
    assert cypher(index, "MATCH (n:Object|Record) WHERE n.vid IN ['V0', 'V1'] RETURN n") == []
    doubles = "MATCH (s)-[e]->(t) WITH s, t, type(e) AS kind, count(*) AS n WHERE n > 1 RETURN n"
    assert cypher(index, doubles) == []


def test_a_rebuild_of_a_large_action_leaves_one_implicit_collection(catalog, index, monkeypatch):
    monkeypatch.setattr(links, "MAX_EDGES_OF_ACTION", 2)
    rebuild(catalog, index)
    assert index.count() == {"nodes": 7, "PRODUCED": 2, "COLLECTED_IN": 3, "SUPERSEDES": 1}
    assert list(verify(catalog, index)) == []
    monkeypatch.undo()
    rebuild(catalog, index)
    assert index.count() == {"nodes": 6, "PRODUCED": 4, "COLLECTED_IN": 1, "SUPERSEDES": 1}


def test_a_killed_rebuild_goes_on_where_it_was(catalog, index, right, monkeypatch):
    monkeypatch.setattr(in_place, "BATCH", 2)
    sabotage(index, SABOTAGE["a label"][0])
    sabotage(index, SABOTAGE["a node too many"][0])
    take_in, done = index.take_in_anew, []

    def dies(batch, *, progress):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append([event.vid for event in batch])
        return take_in(batch, progress=progress)

    monkeypatch.setattr(index, "take_in_anew", dies)
    with pytest.raises(KeyboardInterrupt):
        rebuild(catalog, index)
    first = [one for batch in done for one in batch]
    number = index.rebuild_in_progress().number
    assert first
    done.clear()
    again: list[str] = []

    def counts(batch, *, progress):
        again.extend(event.vid for event in batch)
        assert progress.number == number
        return take_in(batch, progress=progress)

    monkeypatch.setattr(index, "take_in_anew", counts)
    rebuild(catalog, index)
    assert not set(first) & set(again)
    assert index.rebuild_in_progress() is None
    assert index.digest() == right


def test_a_rebuild_killed_after_any_of_its_transactions_is_completed(
    catalog, index, right, monkeypatch
):
    monkeypatch.setattr(in_place, "BATCH", 2)
    write, write_alone, left = Connection.write, Connection.write_alone, [0]

    def dies(transaction):
        def counted(*args):
            done = transaction(*args)
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return done

        return counted

    kills = 0
    while True:
        kills += 1
        spoil(catalog, index)
        left[0] = kills
        with monkeypatch.context() as patch:
            patch.setattr(Connection, "write", dies(write))
            patch.setattr(Connection, "write_alone", dies(write_alone))
            with suppress(KeyboardInterrupt):
                rebuild(catalog, index)
        rebuild(catalog, index)
        assert list(verify(catalog, index)) == [], f"killed after transaction {kills}"
        assert index.digest() == right
        if left[0] > 0:
            break
    assert kills > 15


def spoil(catalog: Catalog, index: Neo4jLineage) -> None:
    """Objects of each kind from a catalog that was ahead, and some that are gone or too many."""
    (log,) = catalog.head()
    for name in ("a", "list", "job", "newer", "tool"):
        (held,) = catalog.get([vid(name)]).values()
        index.apply([project(held.object, version=held.version + 7, log=log)])
    sabotage(index, "MATCH (o:Object {vid: $a}) SET o.label = 'later'")
    sabotage(index, SABOTAGE["a node that is gone"][0])
    sabotage(index, SABOTAGE["a node too many"][0])


def test_what_is_fed_while_it_is_rebuilt_stays(catalog, index, monkeypatch):
    take_in, fed = index.take_in_anew, []
    (log,) = catalog.head()

    def meanwhile(batch, *, progress):
        if not fed:
            fed.append(1)
            old = catalog.get([vid("a")])[vid("a")]
            renamed = data("a")
            renamed = type(renamed)(vid=renamed.vid, label="renamed", study=renamed.study)
            catalog.commit([Save(object=renamed, based_on=old.version)], by="tester")
            save(catalog, data("f"), job("late", "f", "e"))
            catalog.commit([Delete(vid=vid("newer"), based_on=1)], by="tester")
            found = catalog.get([vid(name) for name in ("a", "f", "late", "newer")]).values()
            index.apply([project(item.object, version=item.version, log=log) for item in found])
        return take_in(batch, progress=progress)

    monkeypatch.setattr(index, "take_in_anew", meanwhile)
    rebuild(catalog, index)
    assert list(verify(catalog, index)) == []
    assert "renamed" in {node.label for node in index.nodes()}
    assert "SUPERSEDES" not in index.count()
    assert pending(catalog, index).changes == 0


def test_a_catalog_put_back_in_time_rules(catalog, index, right):
    (log,) = catalog.head()
    later = data("a")
    later = type(later)(vid=later.vid, label="from the future", study=later.study)
    index.apply([project(later, version=7, log=log)])
    tool = SoftwareProgram(vid=vid("tool"), label="other", release="9")
    index.apply([project(tool, version=4, log=log)])
    assert index.digest() != right
    rebuild(catalog, index)
    assert index.digest() == right
    assert index.versions([vid("a"), vid("tool")]) == {vid("a"): 1, vid("tool"): 1}


@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(objects=catalogs(), small=st.booleans())
def test_an_index_of_any_other_catalog_is_made_that_of_this_one(neo4j, objects, small):
    # The index is not emptied in between: each catalog finds that of the one before.
    with (
        pytest.MonkeyPatch.context() as patch,
        stores() as (catalog, own),
        opened(neo4j) as index,
    ):
        if small:
            patch.setattr(links, "MAX_EDGES_OF_ACTION", 2)
        save(catalog, *objects)
        rebuild(catalog, index)
        assert index.digest() == own.digest()
        assert list(verify(catalog, index)) == []
        assert dict(index.count()) == dict(own.count())


# The commands


def biobank(*args: str) -> Result:
    return CliRunner().invoke(cli, args)


def test_the_commands_work_on_neo4j(catalog, index, right, neo4j, monkeypatch, tmp_path):
    for name, value in neo4j.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BIOBANK_CATALOG", catalog.url)
    monkeypatch.setenv("BIOBANK_INDEX", neo4j.url)
    sabotage(index, SABOTAGE["a label"][0])
    done = biobank("verify")
    assert (done.exit_code, done.stdout.count("\n")) == (1, 2), done.stderr
    assert biobank("verify", "--repair").exit_code == 0
    done = biobank("verify")
    assert (done.exit_code, done.stderr) == (0, "nothing found\n")
    done = biobank("rebuild")
    assert done.exit_code == 0
    assert "the index holds 6 nodes, edges: 1 COLLECTED_IN, 4 PRODUCED, 1 SUPERSEDES" in done.stderr
    assert index.digest() == right
    done = biobank("status")
    assert "in step with the catalog" in done.stdout
    assert neo4j.password not in done.stdout + done.stderr
    save(catalog, data("f"))
    done = biobank("verify")
    assert (done.exit_code, done.stderr) == (
        0,
        "1 changes have not reached the index yet\nnothing found\n",
    )
    done = biobank("lineage", vid("a"), "--format", "json")
    assert done.exit_code == 0
    assert '"pending_changes": 1' in done.stdout
    assert "lacks 1 changes" in done.stderr
    done = biobank("lineage", vid("a"), "--freshness", "wait", "--timeout", "0.1")
    assert done.exit_code == 3
    monkeypatch.setenv("NEO4J_PASSWORD", "wrong-canary")
    done = biobank("lineage", vid("a"))
    assert done.exit_code == 4
    assert "canary" not in done.output + done.stderr


def test_times_of_actions_are_kept_whatever_their_zone(index):
    at = datetime.fromisoformat("2026-03-01T10:00:00.5+02:00")
    made = project(job("zoned", "a", "b"), version=1, log="x")
    made = type(made)(
        **{name: getattr(made, name) for name in made.__struct_fields__ if name != "end"}, end=at
    )
    index.apply([made])
    ends = {e.maker.end for e in index.edges() if e.action == vid("zoned")}
    assert ends == {at.astimezone(UTC)}
