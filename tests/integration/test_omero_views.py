"""What OMERO.web shows of a catalog: who made what from what, on Projects and on Images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from biobank_core.catalog.port import Catalog, Delete, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionStatus,
    DataObject,
    DataSample,
    Port,
    SoftwareProgram,
    Study,
    Tube,
)
from tests.contract.catalog_world import BEGIN

if TYPE_CHECKING:
    from tests.contract.omero_groups import OwnGroup
    from tests.servers.omero.lab import OmeroLab

NAMESPACE = "org.biobank/view"


@pytest.fixture
def group(omero_lab: OmeroLab, monkeypatch: pytest.MonkeyPatch) -> OwnGroup:
    from tests.contract.omero_groups import make_group

    made = make_group(omero_lab, members=2)
    for name, value in made.members[0].environment.items():
        monkeypatch.setenv(name, value)
    open_catalog(made.url, create=True).close()
    return made


@pytest.fixture
def study() -> Study:
    return Study(vid=new_vid(), label="KPN", description="isolates of 2026")


class Made:
    """A tube, and what a tool made of it."""

    def __init__(self, study: Study, label: str = "T1", *, operator: str = "ada") -> None:
        self.tube = Tube(vid=new_vid(), label=label, study=study.vid)
        self.tool = SoftwareProgram(vid=new_vid(), label=f"kleborate {label}", release="2.2.0")
        self.result = DataSample(vid=new_vid(), label=f"{label}.tsv", study=study.vid)
        self.action = Action(
            vid=new_vid(),
            category=ActionCategory.MEASUREMENT,
            study=study.vid,
            device=self.tool.vid,
            status=ActionStatus.OK,
            begin=BEGIN,
            operator=operator,
            inputs=(Port(role="in", object=self.tube.vid),),
            outputs=(Port(role="out", object=self.result.vid),),
        )

    def save(self, catalog: Catalog, *more: Any) -> None:
        everything = (self.tube, self.tool, self.result, self.action, *more)
        catalog.commit([Save(object=one) for one in everything], by="test")


@contextmanager
def looking(group: OwnGroup) -> Iterator[Any]:
    """What a member of the group, who wrote nothing, sees through the gateway of OMERO.web."""
    with group.gateway(1) as gateway:
        yield gateway


def shown_on(thing: Any) -> list[list[tuple[str, str]]]:
    """The tables of key-value pairs of ours that OMERO.web shows beside it."""
    tables = thing.listAnnotations(ns=NAMESPACE)
    return [[(key, value) for key, value in table.getValue()] for table in tables]


def only(gateway: Any, kind: str) -> Any:
    [one] = gateway.getObjects(kind)
    return one


def test_a_study_is_a_project_that_says_who_made_what_from_what(
    group: OwnGroup, study: Study
) -> None:
    import ezomero

    made, later = Made(study), Made(study, "T2", operator="bob")
    with open_catalog(group.url) as catalog:
        catalog.commit([Save(object=study)], by="test")
        made.save(catalog)
        later.save(catalog)
    with looking(group) as gateway:
        project = only(gateway, "Project")
        assert (project.getName(), project.getDescription()) == ("KPN", "isolates of 2026")
        [pairs] = shown_on(project)
        assert pairs[:2] == [("Study", "KPN"), ("VID", study.vid)]
        assert ("Tube", "2") in pairs
        when = f"{BEGIN:%Y-%m-%d %H:%M}"
        assert pairs[-2:] == [  # the newest first
            ("T2.tsv", f"kleborate T2 2.2.0 from T2 by bob {when}"),
            ("T1.tsv", f"kleborate T1 2.2.0 from T1 by ada {when}"),
        ]
        # As plain ezomero sees it.
        [number] = ezomero.get_map_annotation_ids(gateway, "Project", project.getId(), ns=NAMESPACE)
        assert ezomero.get_map_annotation(gateway, number)["Study"] == "KPN"
    with open_catalog(group.url) as catalog:
        assert (list(catalog.drift()), list(catalog.damage())) == ([], [])


def test_a_view_follows_its_study_and_deleted_labels_go_from_it(
    group: OwnGroup, study: Study
) -> None:
    made = Made(study, "secret")
    with open_catalog(group.url) as catalog:
        catalog.commit([Save(object=study)], by="test")
        made.save(catalog)
    with open_catalog(group.url) as catalog:
        renamed = msgspec.structs.replace(study, label="KPN 2")
        catalog.commit([Save(object=renamed, based_on=1)], by="test")
        catalog.commit([Delete(vid=made.tube.vid, based_on=1, cascade=True)], by="test")
    with looking(group) as gateway:
        project = only(gateway, "Project")
        assert project.getName() == "KPN 2"
        [pairs] = shown_on(project)
        assert pairs[0] == ("Study", "KPN 2")
        assert any("from what was deleted" in value for _, value in pairs)
        assert "Tube" not in dict(pairs)
    with open_catalog(group.url) as catalog:
        changes = [
            Delete(vid=vid, based_on=version)
            for vid, version in (
                (made.action.vid, 1),
                (made.result.vid, 1),
                (study.vid, 2),
            )
        ]
        catalog.commit(changes, by="test")
    with looking(group) as gateway:
        assert list(gateway.getObjects("Project")) == []


def test_a_view_that_somebody_deleted_is_written_again(group: OwnGroup, study: Study) -> None:
    with open_catalog(group.url) as catalog:
        catalog.commit([Save(object=study)], by="test")
    with group.gateway() as gateway:
        gateway.deleteObjects("Project", [only(gateway, "Project").getId()], wait=True)
        assert list(gateway.getObjects("Project")) == []
    with open_catalog(group.url) as catalog:
        assert list(catalog.drift(repair=True)) == []
    with looking(group) as gateway:
        assert len(shown_on(only(gateway, "Project"))) == 1


def test_an_image_says_what_it_shows_and_how_that_came_about(group: OwnGroup, study: Study) -> None:
    import omero.model
    from omero.rtypes import rint, rstring, rtime

    with group.login() as client:
        image = omero.model.ImageI()
        image.setName(rstring("plate.tiff"))
        image.setAcquisitionDate(rtime(0))
        image.setSeries(rint(0))
        number = client.update.saveAndReturnObject(image).id.val
        server = client.factory.getConfigService().getDatabaseUuid()
    made = Made(study)
    held = DataObject(vid=new_vid(), sample=made.result.vid, uri=f"omero://{server}/Image/{number}")
    lost = DataObject(vid=new_vid(), sample=made.result.vid, uri=f"omero://{server}/Image/999999")
    with open_catalog(group.url) as catalog:
        catalog.commit([Save(object=study)], by="test")
        made.save(catalog, held, lost)
    expected = [
        ("Study", "KPN"),
        ("shows", "T1.tsv"),
        ("VID", made.result.vid),
        ("made by", f"kleborate T1 2.2.0 from T1 by ada {BEGIN:%Y-%m-%d %H:%M}"),
    ]
    with looking(group) as gateway:
        assert shown_on(gateway.getObject("Image", number)) == [expected]
    with open_catalog(group.url) as catalog:
        newer = msgspec.structs.replace(made.result, label="T1 again")
        catalog.commit([Save(object=newer, based_on=1)], by="test")
    with looking(group) as gateway:
        [pairs] = shown_on(gateway.getObject("Image", number))
        assert pairs[1] == ("shows", "T1 again")


def test_views_of_two_members_are_one_and_go_with_uninstall_but_not_what_people_put_there(
    group: OwnGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ezomero

    studies = [Study(vid=new_vid(), label=f"S{n}") for n in range(2)]
    with open_catalog(group.url) as catalog:
        catalog.commit([Save(object=one) for one in studies], by="owner")
    for name, value in group.members[1].environment.items():
        monkeypatch.setenv(name, value)
    with open_catalog(group.url) as catalog:  # a member may not change the owner's annotations
        catalog.commit([Save(object=Tube(vid=new_vid(), label="T", study=studies[0].vid))], by="m")
    with group.gateway() as gateway:
        projects = {each.getName(): each for each in gateway.getObjects("Project")}
        assert projects.keys() == {"S0", "S1"}
        ezomero.post_dataset(gateway, "theirs", projects["S1"].getId())
    for name, value in group.members[0].environment.items():
        monkeypatch.setenv(name, value)
    with open_catalog(group.url) as catalog:
        list(catalog.drift(repair=True))
    with looking(group) as gateway:
        [pairs] = shown_on(next(p for p in gateway.getObjects("Project") if p.getName() == "S0"))
        assert ("Tube", "1") in pairs
    with open_catalog(group.url) as catalog:
        catalog.remove_all(lambda _count: None)  # type: ignore[attr-defined]
    with looking(group) as gateway:
        left = only(gateway, "Project")
        assert (left.getName(), shown_on(left)) == ("S1", [])
        assert [each.getName() for each in left.listChildren()] == ["theirs"]
