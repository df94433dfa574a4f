"""Who may do what to another's annotation, in each kind of group."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import omero
import omero.cmd
import omero.model
import pytest
from omero.rtypes import rlong, rstring

from tests.conformance.annotations import (
    ALL_GROUPS,
    delete,
    last_log,
    logs_since,
    map_annotation,
    namespace,
    tokens,
    with_token,
)
from tests.servers.omero.lab import (
    KINDS,
    PRIVATE,
    READ_ANNOTATE,
    READ_ONLY,
    READ_WRITE,
    Client,
    OmeroLab,
)


@dataclass
class Room:
    """Bob's project and annotation in one group, and somebody else who is there."""

    bob: Client
    other: Client
    ns: str
    project: int
    annotation: int

    def reads(self) -> bool:
        seen = self.other.ids(f"select a.id from MapAnnotation a where a.id = {self.annotation}")
        return seen == [self.annotation]

    def edits(self) -> None:
        found = self.other.query.get("MapAnnotation", self.annotation)
        found.setDescription(rstring("edited"))
        self.other.update.saveObject(found)

    def edits_pairs(self) -> None:
        found = self.other.query.get("MapAnnotation", self.annotation)
        found.setMapValue([omero.model.NamedValue("edited", "1")])
        self.other.update.saveObject(found)

    def edits_blindly(self) -> None:
        made = map_annotation(self.ns, "blind")
        made.setId(rlong(self.annotation))
        self.other.update.saveObject(made)

    def links(self) -> None:
        self._link(omero.model.MapAnnotationI(self.annotation, False))

    def annotates(self) -> None:
        self._link(map_annotation(self.ns, "annotates"))

    def deletes(self) -> None:
        delete(self.other, MapAnnotation=[self.annotation])

    def _link(self, annotation: object) -> None:
        link = omero.model.ProjectAnnotationLinkI()
        link.setParent(omero.model.ProjectI(self.project, False))
        link.setChild(annotation)
        self.other.update.saveObject(link)


@pytest.fixture
def room(omero_lab: OmeroLab) -> Iterator[Callable[[str, str], Room]]:
    with ExitStack() as open_sessions:

        def enter(kind: str, who: str) -> Room:
            bob = open_sessions.enter_context(omero_lab.login("bob", kind))
            login = omero_lab.root(kind) if who == "root" else omero_lab.login(who, kind)
            other = open_sessions.enter_context(login)
            project = omero.model.ProjectI()
            project.setName(rstring("room"))
            ns = namespace(omero_lab)
            return Room(
                bob,
                other,
                ns,
                bob.update.saveAndReturnObject(project).id.val,
                bob.update.saveAndReturnObject(map_annotation(ns, "room")).id.val,
            )

        yield enter


_EVERYTHING = {"edits", "edits_pairs", "edits_blindly", "links", "annotates", "deletes"}
_CHANGES = _EVERYTHING - {"links", "annotates"}
_MEMBER = {
    PRIVATE: set[str](),
    READ_ONLY: set[str](),
    READ_ANNOTATE: {"links", "annotates"},
    READ_WRITE: _EVERYTHING,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("who", ["cleo", "ada", "root"])
def test_the_permission_table(room: Callable[[str, str], Room], kind: str, who: str) -> None:
    there = room(kind, who)
    may = _MEMBER[kind] if who == "cleo" else (_CHANGES if kind == PRIVATE else _EVERYTHING)
    assert there.reads() == (who != "cleo" or kind != PRIVATE)
    for name in sorted(_EVERYTHING, key=lambda name: name == "deletes"):
        if name in may:
            getattr(there, name)()
        elif name == "deletes":
            with pytest.raises(omero.CmdError) as caught:
                there.deletes()
            hidden = kind == PRIVATE
            expected = "cannot read" if hidden else "not permitted to delete"
            assert expected in caught.value.err.message
        else:
            supervises = who != "cleo" and kind == PRIVATE
            error = omero.ReadOnlyGroupSecurityViolation if supervises else omero.SecurityViolation
            with pytest.raises(error):
                getattr(there, name)()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (READ_ONLY, (False, False, False)),
        (READ_ANNOTATE, (False, True, False)),
        (READ_WRITE, (True, True, True)),
    ],
)
def test_an_object_tells_what_its_reader_may_do(
    room: Callable[[str, str], Room], kind: str, expected: tuple[bool, bool, bool]
) -> None:
    there = room(kind, "cleo")
    found = there.other.query.get("MapAnnotation", there.annotation)
    may = found.details.permissions
    assert (may.canEdit(), may.canAnnotate(), may.canDelete()) == expected
    assert str(may) == kind


def test_a_stranger_sees_nothing_and_may_not_look_into_the_group(
    room: Callable[[str, str], Room], omero_lab: OmeroLab
) -> None:
    there = room(READ_WRITE, "cleo")
    hql = f"select a.id from MapAnnotation a where a.id = {there.annotation}"
    with omero_lab.login("dan") as dan:
        assert dan.query.projection(hql, None, ALL_GROUPS) == []
        group = {"omero.group": str(omero_lab.groups[READ_WRITE])}
        with pytest.raises(omero.SecurityViolation, match="not a member"):
            dan.query.projection(hql, None, group)
        nowhere = {"omero.group": str(2**40)}
        with pytest.raises(omero.ValidationException):
            dan.query.projection(hql, None, nowhere)


def test_deleting_ones_annotation_takes_others_links_to_it_along(
    room: Callable[[str, str], Room],
) -> None:
    there = room(READ_ANNOTATE, "cleo")
    there.links()
    with pytest.raises(omero.ValidationException, match="fkprojectannotationlink_child"):
        there.bob.update.deleteObject(omero.model.MapAnnotationI(there.annotation, False))
    gone = delete(there.bob, MapAnnotation=[there.annotation])
    assert gone == {"MapAnnotation": 1, "ProjectAnnotationLink": 1}


def test_delete_is_all_or_nothing(room: Callable[[str, str], Room]) -> None:
    there = room(READ_ANNOTATE, "cleo")
    own = there.other.update.saveAndReturnObject(map_annotation(there.ns, "own")).id.val
    with pytest.raises(omero.CmdError):
        delete(there.other, MapAnnotation=[own, there.annotation])
    assert there.other.query.find("MapAnnotation", own) is not None
    with pytest.raises(omero.CmdError, match="cannot read all the specified objects"):
        delete(there.other, MapAnnotation=[own, 2**40])


def test_deleting_a_project_takes_others_annotations_along_where_one_may_write(
    room: Callable[[str, str], Room],
) -> None:
    for kind, gone in ((READ_WRITE, 1), (READ_ANNOTATE, 0)):
        there = room(kind, "cleo")
        there.annotates()
        assert delete(there.bob, Project=[there.project]).get("MapAnnotation", 0) == gone


def test_an_administrator_moves_an_annotation_to_another_group_and_cuts_its_links(
    room: Callable[[str, str], Room], omero_lab: OmeroLab
) -> None:
    there, there_is_cleo = room(READ_ANNOTATE, "root"), room(READ_ANNOTATE, "cleo")
    there.links()
    (token,) = tokens(there.bob)
    claims = with_token(map_annotation(there.ns, "moves"), token)
    row_id = there.bob.update.saveAndReturnObject(claims).id.val
    group = omero_lab.groups[READ_WRITE]
    request = omero.cmd.Chgrp2(
        targetObjects={"MapAnnotation": [there.annotation, row_id]}, groupId=group
    )
    with pytest.raises(omero.CmdError) as caught:
        there_is_cleo.other.submit(request)
    assert "does not own" in caught.value.err.message
    last = last_log(there.bob)
    there.other.submit(request)
    assert logs_since(there.other, last) == sorted(
        [
            ("DELETE", "ProjectAnnotationLink", link)
            for _, _, link in logs_since(there.other, last)[:1]
        ]
        + [("UPDATE", "MapAnnotation", moved) for moved in (there.annotation, row_id)]
        + [("UPDATE", "ExternalInfo", token)]
    )
    moved = there.bob.query.get("MapAnnotation", row_id, ALL_GROUPS)
    assert moved.details.group.id.val == group
    assert moved.details.externalInfo.id.val == token


def test_a_save_is_for_one_group(room: Callable[[str, str], Room], omero_lab: OmeroLab) -> None:
    there = room(READ_ANNOTATE, "cleo")
    made = map_annotation(there.ns, "group")
    with pytest.raises(omero.ApiUsageException, match="DUMMY permissions"):
        there.bob.update.saveObject(made, ALL_GROUPS)
    private = {"omero.group": str(omero_lab.groups[PRIVATE])}
    saved = there.bob.update.saveAndReturnObject(made, private)
    assert saved.details.group.id.val == omero_lab.groups[PRIVATE]
    mixed = omero.model.ProjectAnnotationLinkI()
    mixed.setParent(omero.model.ProjectI(there.project, False))
    mixed.setChild(omero.model.MapAnnotationI(saved.id.val, False))
    with pytest.raises(omero.SecurityViolation):
        there.bob.update.saveObject(mixed)
    elsewhere = map_annotation(there.ns, "elsewhere")
    group = omero.model.ExperimenterGroupI(omero_lab.groups[PRIVATE], False)
    elsewhere.getDetails().setGroup(group)
    with pytest.raises(omero.SecurityViolation, match="not authorized to set"):
        there.bob.update.saveObject(elsewhere)


def test_only_its_owner_and_supervisors_delete_an_unused_token(
    room: Callable[[str, str], Room],
) -> None:
    there = room(READ_ANNOTATE, "cleo")
    token = omero.model.ExternalInfoI(tokens(there.bob)[0], False)
    with pytest.raises(omero.SecurityViolation):
        there.other.update.deleteObject(token)
    there.bob.update.deleteObject(token)


def test_a_session_that_asks_who_it_is_knows_the_groups_that_its_account_joined(
    omero_lab: OmeroLab,
) -> None:
    from tests.contract.omero_groups import join, make_group

    one, two = make_group(omero_lab), make_group(omero_lab)
    with two.login() as owner:
        made = owner.update.saveAndReturnObject(map_annotation(namespace(omero_lab)))
    member = one.members[0]
    with omero_lab.login_as(member.name, member.password) as client:
        look = functools.partial(
            client.query.projection,
            f"select a.id from Annotation a where a.id = {made.id.val}",
            None,
            ALL_GROUPS,
        )
        assert look() == []
        join(two, member)
        # Until it asks (or for some minutes) it may not know; a new session does.
        assert two.id in client.admin.getEventContext().memberOfGroups
        assert [row[0].val for row in look()] == [made.id.val]
