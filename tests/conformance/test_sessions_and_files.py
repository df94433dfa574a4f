"""Logging in and being thrown out; the bytes of stored files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import Glacier2
import Ice
import omero
import omero.model
import pytest
from omero.rtypes import rstring, unwrap

from tests.conformance.annotations import delete, namespace
from tests.servers.omero.lab import READ_WRITE, Client, OmeroLab


@pytest.fixture
def bob(omero_lab: OmeroLab) -> Iterator[Client]:
    """A member of the read-annotate group."""
    with omero_lab.login("bob") as client:
        yield client


def test_a_wrong_password_and_an_unknown_user_are_denied_alike(omero_lab: OmeroLab) -> None:
    for user in (omero_lab.account("bob").name, f"nobody-{omero_lab.tag}"):
        with (
            pytest.raises(Glacier2.PermissionDeniedException) as caught,
            omero_lab.login_as(user, "wrong"),
        ):
            pass
        assert caught.value.reason.startswith("Password check failed")


def test_a_group_that_is_not_there_or_not_ones_own_is_told_apart(omero_lab: OmeroLab) -> None:
    dan = omero_lab.account("dan")
    with (
        pytest.raises(omero.WrappedCreateSessionException) as caught,
        omero_lab.login_as(dan.name, dan.password, "no-such-group"),
    ):
        pass
    assert caught.value.reason == "No such group: no-such-group"
    with (
        pytest.raises(Ice.UnknownException),
        omero_lab.login_as(dan.name, dan.password, omero_lab.group_name(READ_WRITE)),
    ):
        pass


def test_a_session_is_joined_by_its_uuid_and_gone_once_closed(omero_lab: OmeroLab) -> None:
    with omero_lab.login("bob") as bob:
        uuid = bob.admin.getEventContext().sessionUuid
        with omero_lab.login_as(uuid, uuid) as joined:
            assert joined.admin.getEventContext().sessionUuid == uuid
        assert bob.admin.getEventContext().sessionUuid == uuid
        session = omero.model.SessionI()
        session.setUuid(rstring(uuid))
        with omero_lab.root() as root:
            root.factory.getSessionService().closeSession(session)
        with pytest.raises(Ice.ObjectNotExistException):
            bob.ids("select max(e.id) from EventLog e")
        with pytest.raises(Glacier2.PermissionDeniedException), omero_lab.login_as(uuid, uuid):
            pass


def test_the_gateway_comes_in_over_plain_tcp_too(omero_lab: OmeroLab) -> None:
    with omero_lab.gateway("bob") as gateway:
        assert not gateway.secure
        assert gateway.getUser().getName() == omero_lab.account("bob").name
        assert gateway.getGroupFromContext().getName() == omero_lab.group_name("rwra--")


def _file(client: Client, hasher: str | None) -> Any:
    made = omero.model.OriginalFileI()
    made.setName(rstring("reads.txt"))
    made.setPath(rstring("conformance"))
    made.setMimetype(rstring("text/plain"))
    if hasher:
        algorithm = omero.model.ChecksumAlgorithmI()
        algorithm.setValue(rstring(hasher))
        made.setHasher(algorithm)
    return client.update.saveAndReturnObject(made)


@pytest.mark.parametrize("hasher", [None, "SHA1-160"])
def test_a_stored_file_has_a_hash_only_if_it_names_a_hasher(
    bob: Client, hasher: str | None
) -> None:
    row_id = _file(bob, hasher).id.val
    store = bob.factory.createRawFileStore()
    store.setFileId(row_id)
    assert (store.exists(), store.size()) == (False, 0)
    store.write(b"hello", 0, 5)
    saved = store.save()
    digest = hashlib.sha1(b"hello").hexdigest() if hasher else None
    assert (unwrap(saved.size), unwrap(saved.hash)) == (5, digest)
    store.close()
    with pytest.raises(Ice.ObjectNotExistException):
        store.size()


def test_reads_past_the_end_are_padded_with_zeros(bob: Client) -> None:
    store = bob.factory.createRawFileStore()
    with pytest.raises(omero.ApiUsageException, match="not been properly initialized"):
        store.read(0, 1)
    with pytest.raises(omero.ValidationException):
        store.setFileId(2**40)
    store.setFileId(_file(bob, None).id.val)
    store.write(b"hello", 0, 5)
    assert store.read(3, 6) == b"lo\0\0\0\0"
    assert store.read(100, 3) == b"\0\0\0"
    assert store.truncate(2)
    assert store.size() == 2
    store.close()


def test_only_who_may_edit_a_file_writes_it_and_two_writers_raise_no_error(
    omero_lab: OmeroLab, bob: Client
) -> None:
    row_id = _file(bob, None).id.val
    first, second = (bob.factory.createRawFileStore() for _ in range(2))
    first.setFileId(row_id)
    second.setFileId(row_id)
    first.write(b"first", 0, 5)
    second.write(b"other", 0, 5)
    first.close()
    second.close()
    with omero_lab.login("cleo") as cleo:
        store = cleo.factory.createRawFileStore()
        store.setFileId(row_id)
        assert store.read(0, 5) == b"other"
        with pytest.raises(omero.SecurityViolation, match="not writeable"):
            store.write(b"x", 0, 1)
        store.close()


def test_a_file_goes_with_its_last_annotation(omero_lab: OmeroLab, bob: Client) -> None:
    row_id = _file(bob, None).id.val
    annotations = []
    for _ in range(2):
        made = omero.model.FileAnnotationI()
        made.setNs(rstring(namespace(omero_lab)))
        made.setFile(omero.model.OriginalFileI(row_id, False))
        annotations.append(bob.update.saveAndReturnObject(made).id.val)
    assert delete(bob, FileAnnotation=annotations[:1]) == {"FileAnnotation": 1}
    assert delete(bob, FileAnnotation=annotations[1:]) == {"FileAnnotation": 1, "OriginalFile": 1}
    assert bob.query.find("OriginalFile", row_id) is None


def test_what_hangs_on_a_project_goes_with_it(omero_lab: OmeroLab, bob: Client) -> None:
    project = omero.model.ProjectI()
    project.setName(rstring("goes"))
    classes = ("Map", "Comment", "Tag", "Xml", "Long", "File")
    for name in classes:
        made = getattr(omero.model, f"{name}AnnotationI")()
        made.setNs(rstring(namespace(omero_lab)))
        project.linkAnnotation(made)
    row_id = bob.update.saveAndReturnObject(project).id.val
    gone = delete(bob, Project=[row_id])
    expected = {f"{name}Annotation": 1 for name in classes}
    assert gone == {**expected, "Project": 1, "ProjectAnnotationLink": len(classes)}


def test_only_known_classes_of_data_are_deleted(bob: Client) -> None:
    for name, expected in (("Nonsense", "graph-fail"), ("Experimenter", "bad-target")):
        with pytest.raises(omero.CmdError) as caught:
            delete(bob, **{name: [1]})
        assert caught.value.err.name == expected
