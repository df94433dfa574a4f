"""What the Neo4j index does beyond the contract: plans, writers at once, a server that fails."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from biobank_core.catalog.port import Receipt, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.config import Secret, Settings
from biobank_core.errors import (
    ConfigurationError,
    InputError,
    NotPermittedError,
    StorageError,
    TimeoutExceededError,
    UnreachableError,
)
from biobank_core.lineage.neo4j import cypher as statements_of
from biobank_core.lineage.neo4j import read, schema, streams
from biobank_core.lineage.neo4j.connection import Connection, ConstraintError, parse
from biobank_core.lineage.port import Direction, Question
from biobank_core.lineage.registry import open_index
from biobank_core.lineage.service import Freshness
from biobank_core.lineage.sqlite import open_index as open_sqlite
from biobank_core.model.kinds import DataSample, Study
from biobank_core.sqlite_file import url_of_path
from biobank_core.stores import open_stores, status_of
from tests.contract.lineage_world import (
    LOG,
    action,
    collection,
    device,
    gone,
    ladder,
    node,
    supersession,
    vid,
)
from tests.contract.neo4j_lab import cypher, emptied, opened, plan
from tests.servers.neo4j import Neo4jServer
from tests.servers.processes import free_port

ARCHITECTURE = Path(__file__).parents[2] / "ARCHITECTURE.md"


@pytest.fixture
def index(neo4j):
    with emptied(neo4j) as index:
        yield index


def of_sqlite(events) -> str:
    with (
        tempfile.TemporaryDirectory() as folder,
        open_sqlite(url_of_path(Path(folder) / "i.db"), create=True) as other,
    ):
        other.apply(events)
        return other.digest()


# Plans


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"depth": 3},
        {"via_tool": "kleborate"},
        {"kinds": frozenset({"DataSample"}), "study": vid("study"), "groups": frozenset({LOG})},
    ],
    ids=["plain", "depth", "via", "filtered"],
)
def test_a_question_is_one_query_that_is_planned_as_breadth_first_pruning(
    index, direction, filters, monkeypatch
):
    index.apply(ladder(3))
    question = Question(starts=(vid("d0"),), direction=direction, **filters)
    operators = plan(index, read.question_text(question), read.parameters_of(question))
    walks = [name for name in operators if name.startswith("VarLengthExpand")]
    assert set(walks) == {"VarLengthExpand(Pruning,BFS,All)"}
    assert len(walks) == (2 if direction is Direction.BOTH else 1)
    assert "NodeUniqueIndexSeek" in operators
    assert not any("AllNodesScan" in name or "Cartesian" in name for name in operators)
    asked = []
    rows = Connection.rows
    monkeypatch.setattr(Connection, "rows", lambda *args: (asked.append(args[1]), rows(*args))[1])
    index.connected(question)
    assert asked == [read.question_text(question)]


def test_depth_is_an_integer_in_the_text_and_all_else_a_parameter():
    hostile = "x'}) DETACH DELETE n //"
    question = Question(
        starts=(hostile,),
        depth=2,
        kinds=frozenset({hostile}),
        study=hostile,
        tool=hostile,
        release=hostile,
        groups=frozenset({hostile}),
    )
    assert "DETACH" not in read.question_text(question)
    assert "*0..2]" in read.question_text(question)


# Writers


def test_several_writers_at_once_give_the_graph_of_one(neo4j, index):
    seed = random.randrange(2**32)
    print("seed", seed)
    events = [
        *ladder(20),
        *(node(f"d{number}", version=2, label=f"again {number}") for number in range(0, 20, 3)),
        *(device(f"tool {number}", "kleborate", "2.2.0") for number in range(2)),
        *(device(f"tool {number}", "kleborate", "3.0.0", version=2) for number in range(2)),
        *(
            action(f"typed {number}", [f"d{number}"], [f"right {number}"], device="tool 1")
            for number in range(20)
        ),
        *(collection(f"list {number}", "d1", "d2", f"d{number}") for number in range(5)),
        collection("list 1", "d9", version=2),
        supersession("s", "d3", "d4"),
        gone(action("split 4", ["d4"], ["left 4"], version=2)),
        action("use", ["d5"], []),
        action("made", [], ["d6"], device="tool 0"),
    ]
    failures: list[BaseException] = []

    def write(number: int) -> None:
        own = random.Random(seed + number)
        mine = [*events, *own.sample(events, len(events) // 2)]
        own.shuffle(mine)
        try:
            with opened(neo4j) as writer:
                while mine:
                    size = own.randrange(1, 40)
                    writer.apply(mine[:size])
                    del mine[:size]
        except Exception as exc:  # noqa: BLE001  # it is the test's to judge
            failures.append(exc)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    assert index.digest() == of_sqlite(events)
    doubles = "MATCH (s)-[e]->(t) WITH s, t, type(e) AS k, e.action AS a, count(*) AS n WHERE n > 1"
    assert cypher(index, f"{doubles} RETURN count(*)") == [[0]]


def test_an_object_that_somebody_took_out_by_hand_does_not_stop_the_feed(index):
    events = [node("a"), node("b"), action("job", "a", "b"), collection("c", "a", "b")]
    index.apply(events)
    before = index.digest()
    cypher(index, "MATCH (r:Record {vid: $vid}) DELETE r", vid=vid("job"))
    index.apply(events)
    assert index.digest() == before


def test_what_no_graph_can_hold_is_refused_before_anything_is_written(index):
    for bad in (
        node("x", kind="Object"),
        node("x", kind="A`) DETACH DELETE (n"),
        node("x", version=2**63),
        type(action("x", "", ""))(log=LOG, vid=vid("x"), version=1, inputs=(("r", "V0"),)),
    ):
        with pytest.raises((InputError, AttributeError)):
            index.apply([node("a"), bad])
    assert index.count() == {"nodes": 0}


# Access


def test_who_asks_as_a_user_gets_nothing_of_other_groups_by_any_way(index):
    other = "log-b"
    index.apply(
        [
            node("a"),
            node("secret", "Tube", log=other, label="SECRET"),
            node("c"),
            node("d"),
            action("1", ["a"], ["secret"], log=other),
            action("2", ["secret"], ["c"], log=other),
            action("left", ["secret"], [], log=other),
            supersession("s", "secret", "a", log=other),
            collection("list", "secret", "d"),
        ]
    )
    mine = frozenset({LOG})
    for direction in Direction:
        for start in ("a", "c", "d", "list", "secret"):
            for more in ({}, {"via_tool": "x"}, {"kinds": frozenset({"Tube"})}):
                question = Question(starts=(vid(start),), direction=direction, groups=mine, **more)
                answer = index.connected(question)
                assert vid("secret") not in repr(answer)
                assert "SECRET" not in repr(answer)
                # The server itself does not send what the user may not read.
                if "via_tool" not in more:
                    text, parameters = read.question_text(question), read.parameters_of(question)
                    rows = read.chunked(index._connection, text, parameters)
                    assert rows or start == "secret"
                    assert vid("secret") not in [row[0] for row in rows]
    assert {
        n.label: n.depth for n in index.connected(Question(starts=(vid("a"),), groups=mine)).nodes
    } == {
        "a": 0,
        "c": 2,
        "list": 2,
    }


# The graph as people read it


def test_the_queries_that_architecture_shows_give_what_they_say(index):
    index.apply(
        [
            node("P1", "Individual"),
            node("T1", "Tube"),
            node("T1.fna", "Assembly"),
            node("T1.typed", "TypingResult"),
            node("T1.again", "TypingResult"),
            device("k2", "kleborate", "2.2.0"),
            device("k3", "kleborate", "3.2.4"),
            action("taken", ["P1"], ["T1"]),
            action("measured", ["T1"], ["T1.fna"]),
            action("old", ["T1.fna"], ["T1.typed"], device="k2"),
            action("new", ["T1.fna"], ["T1.again"], device="k3"),
            supersession("s", "T1.again", "T1.typed"),
            action("sent", ["T1.typed"], []),
        ]
    )
    text = ARCHITECTURE.read_text(encoding="utf-8")
    queries = re.findall(r"```cypher\n(.*?)```", text, re.DOTALL)
    answers = [
        cypher(index, query, vid=vid("T1"), tool="kleborate", release="2.2.0") for query in queries
    ]
    results = sorted([vid(name), "TypingResult", name, 2] for name in ("T1.typed", "T1.again"))
    assert answers == [
        [[vid("T1.fna"), "Assembly", "T1.fna", 1], *results],
        [[vid("P1"), 1]],
        [[vid("T1.typed"), vid("T1"), "T1"]],
        [[vid("T1.again"), "3.2.4", vid("T1.typed"), "2.2.0"]],
        [[vid("T1.typed"), vid("sent"), "ok"]],
    ]


def test_objects_have_the_label_of_their_kind_and_actions_are_edges_with_all_they_say(index):
    index.apply(
        [node("a", "Tube"), node("b"), device("d", "asm", "1"), action("j", "a", "b", device="d")]
    )
    ((labels, edge, kind),) = cypher(
        index, "MATCH (a:Tube)-[e:PRODUCED]->(b) RETURN labels(a), properties(e), b.kind"
    )
    assert sorted(labels) == ["Object", "Tube"]
    assert kind == "DataSample"
    assert {
        name: edge[name] for name in ("action", "tool", "release", "status", "source_roles")
    } == {
        "action": vid("j"),
        "tool": "asm",
        "release": "1",
        "status": "ok",
        "source_roles": ["in a"],
    }


def test_the_migration_makes_what_is_unique_and_what_is_looked_up(neo4j, index):
    index.migrate()
    index.migrate()
    unique = {
        (row[0][0], tuple(row[1]))
        for row in cypher(index, "SHOW CONSTRAINTS YIELD labelsOrTypes, properties")
    }
    assert {("Object", ("vid",)), ("Record", ("vid",)), ("PRODUCED", ("key",))} <= unique
    indexed = {
        (row[0][0], tuple(row[1]))
        for row in cypher(
            index,
            "SHOW INDEXES YIELD labelsOrTypes, properties, state "
            "WHERE state = 'ONLINE' AND labelsOrTypes IS NOT NULL",
        )
    }
    assert {("PRODUCED", ("action",)), ("Action", ("device",))} <= indexed
    index.apply([node("a"), node("b"), action("j", "a", "b")])
    with pytest.raises(ConstraintError):
        cypher(index, "CREATE (:Object {vid: $vid})", vid=vid("a"))
    assert index.schema_version() == schema.VERSION
    cypher(index, "MATCH (i:BiobankIndex) SET i.schema = 99")
    try:
        with opened(neo4j) as other, pytest.raises(StorageError, match="newer release"):
            other.count()
    finally:
        cypher(index, "MATCH (i:BiobankIndex) SET i.schema = $now", now=schema.VERSION)


def test_what_writes_finds_objects_and_edges_by_their_indexes(index):
    given = {"rows": [{}], "vids": [vid("a")], "links": [], "label": "Action"}
    statements = {name: text for name, text in vars(statements_of).items() if name.isupper()}
    statements |= {f"UNMAKE[{n}]": text for n, text in enumerate(statements.pop("UNMAKE"))}
    assert len(statements) > 15
    for name, text in statements.items():
        operators = plan(index, text, given)
        if name == "ANY_REFUSAL":
            assert "NodeCountFromCountStore" in operators
        else:
            assert not any("Scan" in operator for operator in operators), name


def test_a_graph_is_counted_without_looking_at_each_node_and_edge(neo4j, index):
    index.apply([node("a"), node("b"), action("j", ["a", "early"], ["b", "other early"])])
    assert index.count() == {"nodes": 2, "PRODUCED": 1}
    labels = "MATCH (o:Object) WHERE o.kind IS NULL RETURN DISTINCT labels(o)"
    assert [sorted(row[0]) for row in cypher(index, labels)] == [["Object", "Placeholder"]]
    for text in streams.COUNTS.values():
        assert {name.partition("@")[0] for name in plan(index, text, {})} <= {
            "ProduceResults",
            "NodeCountFromCountStore",
            "RelationshipCountFromCountStore",
        }
    for text in streams.HIDDEN.values():
        assert {"NodeByLabelScan", "NodeCountFromCountStore"} & set(plan(index, text, {}))
    index.apply([node("early"), node("other early", "Tube")])
    assert index.count() == {"nodes": 4, "PRODUCED": 4}
    assert cypher(index, "MATCH (p:Placeholder) RETURN count(p)") == [[0]]
    index.forget([vid("early")])
    assert index.count() == {"nodes": 3, "PRODUCED": 2}
    # Made by a release that did not label them.
    cypher(index, "MATCH (p:Placeholder) REMOVE p:Placeholder")
    cypher(index, "MATCH (i:BiobankIndex) SET i.schema = 1")
    with opened(neo4j) as other:
        assert other.count() == {"nodes": 3, "PRODUCED": 2}


# Addresses, accounts, servers that fail


@pytest.mark.parametrize(
    ("url", "uri", "database"),
    [
        ("neo4j://host", "neo4j://host:7687", None),
        ("bolt+s://host:99/lab", "bolt+s://host:99", "lab"),
        ("neo4j+s://host?database=lab&policy=eu", "neo4j+s://host:7687?policy=eu", "lab"),
        ("bolt://[::1]:7000", "bolt://[::1]:7000", None),
    ],
)
def test_a_url_names_server_and_database(url, uri, database):
    address = parse(url)
    assert (address.uri, address.database) == (uri, database)


@pytest.mark.parametrize(
    "url",
    ["http://host", "neo4j://", "bolt://host:port", "bolt://ada:pw@host", "bolt://h/a?database=b"],
)
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ConfigurationError) as caught:
        parse(url)
    assert "pw" not in str(caught.value)


def test_a_wrong_password_is_not_permitted_and_never_shown(neo4j):
    with opened(neo4j, password="s3cret-canary") as index:
        with pytest.raises(NotPermittedError, match="NEO4J_PASSWORD") as caught:
            index.connected(Question(starts=(vid("a"),)))
        assert caught.value.exit_code == 4
        assert "s3cret" not in str(caught.value) + repr(index.__dict__)


def test_a_database_that_is_not_there_is_named(neo4j):
    with (
        opened(neo4j, path="/nowhere") as index,
        pytest.raises(ConfigurationError, match="nowhere"),
    ):
        index.connected(Question(starts=(vid("a"),)))


def test_the_account_comes_from_the_settings(neo4j):
    settings = Settings(
        catalog="sqlite:///unused.db",
        accounts={"NEO4J_USER": neo4j.user},
        secrets={"NEO4J_PASSWORD": Secret(neo4j.password)},
    )
    with open_index(neo4j.url, settings=settings) as index:
        assert index.schema_version() >= 1
    nobody = Settings(catalog="sqlite:///unused.db")
    with open_index(neo4j.url, settings=nobody) as index, pytest.raises(NotPermittedError):
        index.count()


def test_a_server_that_is_too_old_is_refused():
    connection = Connection(parse("bolt://host"), None)
    with pytest.raises(ConfigurationError, match=r"Neo4j/5\.20\.0.*5\.26"):
        connection._check_version("Neo4j/5.20.0")
    for fine in ("Neo4j/5.26.0", "Neo4j/2026.04.0", "Memgraph"):
        connection._check_version(fine)


def test_without_the_driver_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['neo4j'] = None\n"
        "from biobank_core.lineage.registry import open_index\n"
        "open_index('neo4j://host')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'galaxy-biobank[neo4j]'" in done.stderr


def test_a_reader_given_a_writers_bookmark_sees_its_write(neo4j, index):
    index.apply([node("a")])
    marks = index.bookmarks()
    assert marks
    with opened(neo4j) as reader:
        reader.see(marks)
        assert reader.versions([vid("a")]) == {vid("a"): 1}


def test_a_server_that_is_down_is_answered_from_the_catalog_and_status_says_so(tmp_path):
    catalog = url_of_path(tmp_path / "c.db")
    study = Study(vid=vid("study"), label="KPN")
    with open_catalog(catalog, create=True) as opened_catalog:
        opened_catalog.commit(
            [Save(object=study), Save(object=DataSample(vid=vid("a"), label="a", study=study.vid))],
            by="tester",
        )
    url = f"bolt://127.0.0.1:{free_port()}"
    with open_stores(Settings(catalog=catalog, index=url), write=False) as stores:
        answer, report = stores.lineage.inquire(Question(starts=(vid("a"),)))
        assert [found.label for found in answer.nodes] == ["a"]
        assert report.freshness is Freshness.SOURCE
        assert "can't be reached" in report.warning
        status = status_of(stores)
        assert (status.in_step, status.nodes) == (None, 0)
        assert "can't be reached" in status.warning
        with pytest.raises(UnreachableError) as caught:
            stores.index.apply([node("a")])
        assert (caught.value.exit_code, caught.value.retryable) == (3, True)


@pytest.mark.timeout(900)  # three starts of a server, which a busy machine takes minutes for
def test_killed_short_of_memory_and_read_only_it_loses_nothing():
    # One server of its own for all three: starting one takes half a minute.
    events = ladder(150)
    server = Neo4jServer(heap_mb=512, settings={"db.memory.transaction.max": "2m"})
    with server, emptied(server) as index:
        index.apply(events)
        right = of_sqlite(events)
        assert index.digest() == right
        server.kill()
        with pytest.raises(UnreachableError):
            index.versions([vid("d0")])
        # Not read-only yet: what a kill left behind is mended by writing.
        server.start()
        assert index.digest() == right
        # Connections kept from before a restart are dead; who asks does not notice.
        server.pause()
        server.settings = {"server.databases.default_to_read_only": "true"}
        server.start()
        assert index.versions([vid("d0")]) == {vid("d0"): 1}
        with pytest.raises(UnreachableError, match="read-only") as caught:
            index.apply([node("new")])
        assert caught.value.retryable
        with pytest.raises(TimeoutExceededError):
            index.wait(Receipt({vid("new"): 1}, {LOG: 1}), timeout_s=0)
