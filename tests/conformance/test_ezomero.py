"""Unmodified ezomero, a program that knows nothing of ours, on whichever server is at hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ezomero
import pytest

from tests.servers.omero.lab import READ_ANNOTATE, OmeroLab


@pytest.fixture(scope="module")
def connection(omero_lab: OmeroLab) -> Iterator[Any]:
    """Bob's connection, opened by ezomero itself."""
    bob = omero_lab.account("bob")
    made = ezomero.connect(
        user=bob.name,
        password=bob.password,
        group=omero_lab.group_name(READ_ANNOTATE),
        host=omero_lab.address.host,
        port=omero_lab.address.port,
        secure=True,
    )
    assert made is not None
    yield made
    made.close()


@pytest.fixture(scope="module")
def project(connection: Any, omero_lab: OmeroLab) -> int:
    """A project that ezomero made."""
    made: int = ezomero.post_project(connection, f"ezomero-{omero_lab.tag}", "of the smoke suite")
    return made


def test_projects_and_datasets_are_made_linked_and_listed(connection: Any, project: int) -> None:
    inside = ezomero.post_dataset(connection, "inside", project, "a description")
    outside = ezomero.post_dataset(connection, "outside")
    assert project in ezomero.get_project_ids(connection)
    assert ezomero.get_dataset_ids(connection, project=project) == [inside]
    ezomero.link_datasets_to_project(connection, [outside], project)
    assert sorted(ezomero.get_dataset_ids(connection, project=project)) == [inside, outside]
    assert connection.getObject("Project", project).getDescription() == "of the smoke suite"
    assert connection.getObject("Dataset", inside).getName() == "inside"


def test_map_annotations_are_made_found_changed_and_filtered(
    connection: Any, project: int, omero_lab: OmeroLab
) -> None:
    ns = f"ezomero-map-{omero_lab.tag}"
    pairs = {"strain": "Kp-1", "Größe": "5 µm"}
    made = ezomero.post_map_annotation(connection, "Project", project, pairs, ns)
    assert ezomero.get_map_annotation(connection, made) == pairs
    assert ezomero.get_map_annotation_ids(connection, "Project", project, ns=ns) == [made]
    assert ezomero.get_map_annotation_ids(connection, "Project", project, ns="other") == []
    ezomero.put_map_annotation(connection, made, {"strain": "Kp-2"})
    assert ezomero.get_map_annotation(connection, made) == {"strain": "Kp-2"}
    found = connection.getObjects("MapAnnotation", attributes={"ns": ns})
    assert [each.getId() for each in found] == [made]


def test_tags_and_comments_hang_on_what_they_are_about(connection: Any, project: int) -> None:
    from omero.gateway import CommentAnnotationWrapper, TagAnnotationWrapper

    target = connection.getObject("Project", project)
    for wrapper, value in ((TagAnnotationWrapper, "blue"), (CommentAnnotationWrapper, "seen")):
        annotation = wrapper(connection)
        annotation.setValue(value)
        annotation.save()
        target.linkAnnotation(annotation)
    again = connection.getObject("Project", project)
    values = [each.getValue() for each in again.listAnnotations() if hasattr(each, "getTextValue")]
    assert sorted(values) == ["blue", "seen"]


def test_files_are_attached_and_come_back_as_they_were(
    connection: Any, project: int, tmp_path: Path, omero_lab: OmeroLab
) -> None:
    content = bytes(range(256)) * 5_000
    source = tmp_path / "reads.bin"
    source.write_bytes(content)
    ns = f"ezomero-file-{omero_lab.tag}"
    made = ezomero.post_file_annotation(connection, str(source), ns, "Project", project)
    assert ezomero.get_file_annotation_ids(connection, "Project", project, ns=ns) == [made]
    folder = tmp_path / "back"
    folder.mkdir()
    back = ezomero.get_file_annotation(connection, made, str(folder))
    assert Path(back).read_bytes() == content


def test_users_and_groups_are_told(connection: Any, omero_lab: OmeroLab) -> None:
    bob = omero_lab.account("bob")
    assert ezomero.get_user_id(connection, bob.name) == bob.id
    name = omero_lab.group_name(READ_ANNOTATE)
    assert ezomero.get_group_id(connection, name) == omero_lab.groups[READ_ANNOTATE]


def test_what_is_deleted_is_gone_with_its_annotations(connection: Any, omero_lab: OmeroLab) -> None:
    made = ezomero.post_project(connection, f"ezomero-goes-{omero_lab.tag}")
    annotation = ezomero.post_map_annotation(connection, "Project", made, {"a": "1"}, "goes")
    connection.deleteObjects("Project", [made], deleteAnns=True, wait=True)
    assert connection.getObject("Project", made) is None
    assert connection.getObject("MapAnnotation", annotation) is None
    with pytest.raises(Exception, match=r"does not exist|NoneType"):
        ezomero.get_map_annotation(connection, annotation)
