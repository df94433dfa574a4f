"""What EventLog has, and what it leaves out."""

from __future__ import annotations

from collections.abc import Iterator

import omero
import omero.cmd
import omero.model
import pytest
from omero.rtypes import rstring

from tests.conformance.annotations import (
    delete,
    last_log,
    logs_since,
    map_annotation,
    namespace,
)
from tests.servers.omero.lab import READ_WRITE, Client, OmeroLab


@pytest.fixture
def bob(omero_lab: OmeroLab) -> Iterator[Client]:
    """A member of the read-annotate group."""
    with omero_lab.login("bob") as client:
        yield client


def test_inserts_updates_and_deletes_are_logged(omero_lab: OmeroLab, bob: Client) -> None:
    last = last_log(bob)
    made = bob.update.saveAndReturnObject(map_annotation(namespace(omero_lab), "logged"))
    row = ("MapAnnotation", made.id.val)
    assert logs_since(bob, last) == [("INSERT", *row)]
    last = last_log(bob)
    found = bob.query.get("MapAnnotation", made.id.val)
    found.setDescription(rstring("changed"))
    bob.update.saveObject(found)
    assert logs_since(bob, last) == [("UPDATE", *row)]
    last = last_log(bob)
    delete(bob, MapAnnotation=[made.id.val])
    assert logs_since(bob, last) == [("DELETE", *row)]


def test_a_change_of_pairs_alone_is_not_logged_though_event_and_version_move(
    omero_lab: OmeroLab, bob: Client
) -> None:
    made = bob.update.saveAndReturnObject(map_annotation(namespace(omero_lab), "p", ("a", "1")))
    last = last_log(bob)
    found = bob.query.get("MapAnnotation", made.id.val)
    found.setMapValue([omero.model.NamedValue("a", "2")])
    bob.update.saveObject(found)
    assert logs_since(bob, last) == []
    again = bob.query.get("MapAnnotation", made.id.val)
    assert again.version.val == 1
    assert again.details.updateEvent.id.val != found.details.updateEvent.id.val
    with pytest.raises(omero.OptimisticLockException):
        bob.update.saveObject(found)


def test_an_unchanged_object_saved_is_not_logged(omero_lab: OmeroLab, bob: Client) -> None:
    made = bob.update.saveAndReturnObject(map_annotation(namespace(omero_lab), "same"))
    last = last_log(bob)
    bob.update.saveObject(bob.query.get("MapAnnotation", made.id.val))
    assert logs_since(bob, last) == []


def test_a_stranger_reads_all_of_the_log(omero_lab: OmeroLab, bob: Client) -> None:
    made = bob.update.saveAndReturnObject(map_annotation(namespace(omero_lab), "seen"))
    with omero_lab.login("dan") as dan:
        assert dan.ids(
            "select e.entityId from EventLog e where e.entityType ="
            f" 'ome.model.annotations.MapAnnotation' and e.entityId = {made.id.val}"
        ) == [made.id.val]


def test_links_are_logged_with_what_they_link(omero_lab: OmeroLab, bob: Client) -> None:
    project = omero.model.ProjectI()
    project.setName(rstring("logged"))
    project.linkAnnotation(map_annotation(namespace(omero_lab), "linked"))
    last = last_log(bob)
    made = bob.update.saveAndReturnObject(project)
    classes = [(action, name) for action, name, _ in logs_since(bob, last)]
    expected = ["MapAnnotation", "Project", "ProjectAnnotationLink"]
    assert classes == [("INSERT", name) for name in expected]
    last = last_log(bob)
    delete(bob, Project=[made.id.val])
    classes = [(action, name) for action, name, _ in logs_since(bob, last)]
    assert classes == [("DELETE", name) for name in expected]


def test_the_rows_of_one_call_are_of_one_event_and_those_of_the_next_of_another(
    omero_lab: OmeroLab, bob: Client
) -> None:
    ns = namespace(omero_lab)
    events = []
    for number in range(2):
        some = [map_annotation(ns, f"event {number}.{n}") for n in range(3)]
        ids = bob.update.saveAndReturnIds(some)
        given = omero.sys.ParametersI().addIds(ids)
        rows = bob.query.projection(
            "select e.event.id from EventLog e where e.entityId in (:ids)"
            " and e.entityType = 'ome.model.annotations.MapAnnotation' order by e.id",
            given,
            {"omero.group": "-1"},
        )
        assert len(rows) == 3
        events.append({row[0].val for row in rows})
    assert [len(each) for each in events] == [1, 1]
    assert events[0] != events[1]


def test_what_is_moved_to_another_group_is_logged_as_an_update(
    omero_lab: OmeroLab, bob: Client
) -> None:
    made = bob.update.saveAndReturnObject(map_annotation(namespace(omero_lab), "moved"))
    last = last_log(bob)
    request = omero.cmd.Chgrp2(
        targetObjects={"Annotation": [made.id.val]}, groupId=omero_lab.groups[READ_WRITE]
    )
    bob.submit(request)
    assert ("UPDATE", "MapAnnotation", made.id.val) in logs_since(bob, last)
