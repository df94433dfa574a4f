"""HQL: what it takes, what it refuses, and what it answers otherwise than one would think."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import Ice
import omero
import omero.model
import pytest
from omero.rtypes import rlist, rlong, rstring, unwrap

from tests.conformance.annotations import ALL_GROUPS, map_annotation
from tests.servers.omero.lab import Client, OmeroLab

_COUNT = 4


@dataclass
class Shelf:
    """Four annotations n0..n3 with pairs k=<number>, l=x, k=again; two hang on a project."""

    client: Client
    ns: str
    ids: list[int]
    project: int

    def given(self, **more: Any) -> Any:
        """Return parameters: `ns`, and texts, numbers or lists of them by name."""
        made = omero.sys.ParametersI().addString("ns", self.ns)
        for name, value in more.items():
            if isinstance(value, list):
                wrap = rlong if value and isinstance(value[0], int) else rstring
                made.map[name] = rlist([wrap(each) for each in value])
            elif isinstance(value, int):
                made.addLong(name, value)
            else:
                made.addString(name, value)
        return made

    def rows(self, hql: str, **more: Any) -> list[list[Any]]:
        """Return a projection's rows as plain values."""
        found = self.client.query.projection(hql, self.given(**more))
        return [[unwrap(value) for value in row] for row in found]

    def objects(self, hql: str, parameters: Any = None) -> list[Any]:
        """Return a query's objects."""
        found: list[Any] = self.client.query.findAllByQuery(hql, parameters or self.given())
        return found


@pytest.fixture(scope="module")
def shelf(omero_lab: OmeroLab) -> Iterator[Shelf]:
    with omero_lab.login("bob") as client:
        ns = f"queries-{omero_lab.tag}"
        made = [
            map_annotation(ns, f"n{number}", ("k", str(number)), ("l", "x"), ("k", "again"))
            for number in range(_COUNT)
        ]
        ids = [each.id.val for each in client.update.saveAndReturnArray(made)]
        project = omero.model.ProjectI()
        project.setName(rstring(ns))
        for row_id in ids[:2]:
            project.linkAnnotation(omero.model.MapAnnotationI(row_id, False))
        yield Shelf(client, ns, ids, client.update.saveAndReturnObject(project).id.val)


_NAMES = "select a.name from MapAnnotation a where a.ns = :ns and "
_JOINED = "from MapAnnotation a join a.mapValue mv where a.ns = :ns"
_LEGAL = {
    "two joins": (
        "select a.name from MapAnnotation a join a.mapValue m join a.mapValue n where a.ns = :ns"
        " and m.name = 'k' and m.value = '2' and n.name = 'l'",
        [["n2"]],
    ),
    "a join's with": (
        "select a.name from MapAnnotation a join a.mapValue mv with mv.value = '3'"
        " where a.ns = :ns",
        [["n3"]],
    ),
    "exists": (
        _NAMES + "exists (select 1 from a.mapValue mv where mv.value = '3')",
        [["n3"]],
    ),
    "in a subquery": (
        _NAMES + "'1' in (select mv.value from a.mapValue mv)",
        [["n1"]],
    ),
    "size in where": (_NAMES + "size(a.mapValue) = 3 and a.name = 'n0'", [["n0"]]),
    "index": (
        f"select mv.name, mv.value, index(mv) {_JOINED} and a.name = 'n1' order by index(mv)",
        [["k", "1", 0], ["l", "x", 1], ["k", "again", 2]],
    ),
    "group and having": (
        f"select mv.name, count(mv.value) {_JOINED} group by mv.name having count(mv.value) > 4",
        [["k", 8]],
    ),
    "new map": (
        "select new map(a.name as n) from MapAnnotation a where a.ns = :ns and a.name = 'n0'",
        [[{"n": "n0"}]],
    ),
    "TYPE": (
        "select a.name from Annotation a where TYPE(a) = MapAnnotation and a.ns = :ns"
        " and a.name = 'n0'",
        [["n0"]],
    ),
    "class": (
        "select count(a.id) from Annotation a where a.class = MapAnnotation and a.ns = :ns",
        [[4]],
    ),
    "the class itself": (
        "select a.class from Annotation a where a.ns = :ns and a.name = 'n0'",
        [["/map/"]],
    ),
    "functions": (
        "select upper(a.name), length(a.name), substring(a.name, 2, 1), a.name || 'q',"
        " coalesce(a.description, 'none') from MapAnnotation a where a.ns = :ns"
        " and a.name = 'n0'",
        [["N0", 2, "0", "n0q", "none"]],
    ),
    "case": (
        "select case when a.name = 'n0' then 'zero' else 'more' end from MapAnnotation a"
        " where a.ns = :ns and a.name in ('n0', 'n1') order by a.name",
        [["zero"], ["more"]],
    ),
    "like, between and not": (
        _NAMES + "a.name like 'n%' and a.name between 'n1' and 'n3' and not a.name = 'n2'"
        " and a.name not in ('n3')",
        [["n1"]],
    ),
    "a path through a link": (
        "select p.name, l.child.name from Project p join p.annotationLinks l"
        " where l.child.ns = :ns and l.child.name = 'n1' and p.name = :ns",
        None,
    ),
}


@pytest.mark.parametrize("name", _LEGAL)
def test_legal_hql_answers(shelf: Shelf, name: str) -> None:
    hql, expected = _LEGAL[name]
    assert shelf.rows(hql) == (expected or [[shelf.ns, "n1"]])


_ILLEGAL = {
    "a field of a collection": "select a.mapValue.name from MapAnnotation a where a.ns = :ns",
    "an element's field": "select a.name from MapAnnotation a where a.mapValue[0].name = :ns",
    "an unknown class": "select a.name from Nonsense a where a.ns = :ns",
    "an unknown field": "select a.nonsense from MapAnnotation a where a.ns = :ns",
    "an unknown function": "select nonsense(a.name) from MapAnnotation a where a.ns = :ns",
    "an unfinished query": "select a.name from MapAnnotation a where (",
    "a comparison as a value": "select a.id > 0 from MapAnnotation a where a.ns = :ns",
    "SQL's limit": "select a.name from MapAnnotation a where a.ns = :ns order by a.id limit 1",
    "more behind the end": "select a.name from MapAnnotation a where a.ns = :ns more here",
}


@pytest.mark.parametrize("name", _ILLEGAL)
def test_illegal_hql_is_a_query_exception(shelf: Shelf, name: str) -> None:
    with pytest.raises(omero.QueryException):
        shelf.rows(_ILLEGAL[name])


_UNUSABLE = {
    "size in select": "select a.id, size(a.mapValue) from MapAnnotation a where a.ns = :ns",
    "an unknown function": "select a.name from MapAnnotation a where nonsense(a.ns) = :ns",
    "an order that distinct lost": "select distinct a.ns from MapAnnotation a where a.ns = :ns"
    " order by a.name",
    "an update": "update MapAnnotation a set a.name = 'x' where a.ns = :ns",
}


@pytest.mark.parametrize("name", _UNUSABLE)
def test_hql_that_makes_no_sql_is_an_api_usage_exception(shelf: Shelf, name: str) -> None:
    with pytest.raises(omero.ApiUsageException):
        shelf.rows(_UNUSABLE[name])


def test_a_filtered_fetch_gives_a_list_with_holes_and_saving_it_loses_pairs(
    shelf: Shelf, omero_lab: OmeroLab
) -> None:
    ns = f"{shelf.ns}-holes"
    made = map_annotation(ns, "holes", ("a", "1"), ("b", "2"), ("c", "3"))
    row_id = shelf.client.update.saveAndReturnObject(made).id.val
    (found,) = shelf.objects(
        "select a from MapAnnotation a join fetch a.mapValue mv"
        " where a.ns = :ns and mv.value = '2'",
        omero.sys.ParametersI().addString("ns", ns),
    )
    assert [pair and pair.name for pair in found.getMapValue()] == [None, "b"]
    shelf.client.update.saveObject(found)
    again = shelf.client.query.get("MapAnnotation", row_id)
    assert [pair and pair.name for pair in again.getMapValue()] == [None, "b"]


def test_pairs_are_whole_without_a_fetch_and_with_an_unfiltered_one(shelf: Shelf) -> None:
    for fetch in ("", "left outer join fetch a.mapValue "):
        found = shelf.objects(f"select a from MapAnnotation a {fetch}where a.ns = :ns")
        assert [len(each.getMapValue()) for each in found] == [3] * _COUNT


def test_a_join_repeats_objects_and_a_fetch_does_not(shelf: Shelf) -> None:
    joined = "select a from MapAnnotation a {} a.mapValue mv where a.ns = :ns"
    assert len(shelf.objects(joined.format("join"))) == 3 * _COUNT
    assert len(shelf.objects(joined.format("join fetch"))) == _COUNT


def test_a_page_is_cut_by_the_parameters(shelf: Shelf) -> None:
    hql = "select a from MapAnnotation a {}where a.ns = :ns order by a.id"
    for fetch in ("", "join fetch a.mapValue "):
        found = shelf.objects(hql.format(fetch), shelf.given().page(1, 2))
        assert [each.name.val for each in found] == ["n1", "n2"]


def test_unusable_parameters_fail(shelf: Shelf) -> None:
    with_ids = "select a.id from MapAnnotation a where a.id in (:ids)"
    assert shelf.rows(f"{with_ids} and a.ns = :ns", ids=shelf.ids) != []
    with pytest.raises(omero.ApiUsageException):
        shelf.rows(with_ids, ids=[])
    with pytest.raises(omero.InternalException):
        shelf.rows(with_ids, ids=list(range(33_000)))
    with pytest.raises(omero.ApiUsageException):
        shelf.rows("select a.id from MapAnnotation a where a.name = :missing")
    nothing = shelf.given()
    nothing.map["name"] = None
    with pytest.raises(Ice.UnknownException):
        shelf.client.query.projection(
            "select a.id from MapAnnotation a where a.name = :name", nothing
        )


def test_find_by_query_wants_one_object_at_most(shelf: Shelf) -> None:
    query = shelf.client.query
    hql = "select a from MapAnnotation a where a.ns = :ns"
    with pytest.raises(omero.ApiUsageException, match="more than one Object"):
        query.findByQuery(hql, shelf.given())
    assert query.findByQuery(f"{hql} and a.name = 'n0'", shelf.given()).name.val == "n0"
    assert query.findByQuery(f"{hql} and a.name = 'none'", shelf.given()) is None


def test_a_scalar_select_is_for_projection_alone(shelf: Shelf) -> None:
    with pytest.raises((Ice.LocalException, omero.ServerError)):
        shelf.objects("select a.id from MapAnnotation a where a.ns = :ns")


def test_one_null_alone_is_an_empty_row(shelf: Shelf) -> None:
    where = "from MapAnnotation a where a.ns = :ns and a.name = 'n0'"
    assert shelf.rows(f"select a.description {where}") == [[]]
    assert shelf.rows(f"select a.name, a.description {where}") == [["n0", None]]


def test_a_link_comes_unloaded_unless_its_annotation_is_fetched_with_it(shelf: Shelf) -> None:
    hql = "select l from ProjectAnnotationLink l {}where l.child.ns = :ns"
    assert [each.loaded for each in shelf.objects(hql.format(""))] == [False, False]
    fetched = shelf.objects(hql.format("join fetch l.child "))
    assert [each.child.ns.val for each in fetched] == [shelf.ns] * 2
    assert not any(each.parent.loaded for each in fetched)


def test_what_was_not_fetched_is_not_loaded(shelf: Shelf) -> None:
    hql = "select a from MapAnnotation a {}where a.ns = :ns and a.name = 'n0'"
    (plain,) = shelf.objects(hql.format(""))
    assert not plain.details.owner.loaded
    assert plain.details.group.loaded
    (fetched,) = shelf.objects(hql.format("join fetch a.details.owner "))
    assert fetched.details.owner.omeName.val == shelf.client.admin.getEventContext().userName
    (project,) = shelf.objects("select p from Project p where p.name = :ns")
    assert not project.isAnnotationLinksLoaded()


def test_look_ups_by_id(shelf: Shelf) -> None:
    query, row_id = shelf.client.query, shelf.ids[0]
    assert query.find("MapAnnotation", 2**40) is None
    assert query.find("CommentAnnotation", row_id) is None
    with pytest.raises(omero.ValidationException, match="No row with the given identifier"):
        query.get("MapAnnotation", 2**40)
    for wrong in ("Nonsense", "Annotation"):
        with pytest.raises(omero.ApiUsageException, match="valid class"):
            query.get(wrong, row_id)
    assert len(query.findAllByString("Project", "name", shelf.ns[:-1].upper(), False, None)) == 1


def test_another_group_of_ones_own_needs_the_calls_context(
    shelf: Shelf, omero_lab: OmeroLab
) -> None:
    other = {"omero.group": str(omero_lab.groups["rw----"])}
    hql = "select a.id from MapAnnotation a where a.ns = :ns"
    query = shelf.client.query
    assert query.projection(hql, shelf.given(), other) == []
    assert len(query.projection(hql, shelf.given(), ALL_GROUPS)) == _COUNT
    with pytest.raises(omero.SecurityViolation, match="Cannot read"):
        query.get("MapAnnotation", shelf.ids[0], other)
    assert query.get("MapAnnotation", shelf.ids[0], ALL_GROUPS).id.val == shelf.ids[0]
