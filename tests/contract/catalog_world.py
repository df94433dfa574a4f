"""Small objects for the tests of catalogs."""

from __future__ import annotations

from datetime import UTC, datetime

from biobank_core.catalog.port import Catalog, Delete, Receipt, Save
from biobank_core.model.base import Object
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionStatus,
    DataCollection,
    DataMember,
    DataObject,
    DataSample,
    Individual,
    Port,
    SoftwareProgram,
    Study,
    TiterPlate,
    Tube,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def study(label: str = "KPN") -> Study:
    return Study(vid=new_vid(), label=label)


def individual() -> Individual:
    return Individual(vid=new_vid())


def tube(of: Study, label: str = "T1", *, barcode: str | None = None) -> Tube:
    return Tube(vid=new_vid(), label=label, study=of.vid, barcode=barcode)


def plate(of: Study, label: str = "P1", *, container: str | None = None) -> TiterPlate:
    return TiterPlate(vid=new_vid(), label=label, study=of.vid, container=container)


def sample(of: Study, label: str = "reads") -> DataSample:
    return DataSample(vid=new_vid(), label=label, study=of.vid)


def file_of(held: DataSample) -> DataObject:
    return DataObject(vid=new_vid(), sample=held.vid, uri=f"file:///{held.vid}")


def program(label: str = "kleborate", release: str | None = "2.2.0") -> SoftwareProgram:
    return SoftwareProgram(vid=new_vid(), label=label, release=release)


def collection(of: Study, *members: Object, label: str = "batch") -> DataCollection:
    return DataCollection(
        vid=new_vid(),
        label=label,
        study=of.vid,
        items=tuple(DataMember(role=f"e{n}", object=m.vid) for n, m in enumerate(members)),
    )


def action(
    of: Study,
    inputs: tuple[Object, ...] = (),
    outputs: tuple[Object, ...] = (),
    *,
    device: str | None = None,
) -> Action:
    return Action(
        vid=new_vid(),
        category=ActionCategory.PROCESSING,
        study=of.vid,
        device=device,
        status=ActionStatus.OK,
        begin=BEGIN,
        inputs=tuple(Port(role="in", object=obj.vid) for obj in inputs),
        outputs=tuple(Port(role="out", object=obj.vid) for obj in outputs),
    )


def save(catalog: Catalog, *objects: Object, based_on: int = 0) -> Receipt:
    return catalog.commit([Save(object=obj, based_on=based_on) for obj in objects], by="test")


def delete(catalog: Catalog, obj: Object, *, cascade: bool = False) -> Receipt:
    known = catalog.get([obj.vid])[obj.vid]
    change = Delete(vid=obj.vid, based_on=known.version, cascade=cascade)
    return catalog.commit([change], by="test")
