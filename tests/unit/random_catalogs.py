"""Random catalogs that are right: every reference stands, nothing is its own ancestor."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from hypothesis import strategies as st

from biobank_core.model.base import Object
from biobank_core.model.galaxy import GalaxyDataset, GalaxyJob
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionSetup,
    ActionStatus,
    Campaign,
    CampaignItem,
    Consent,
    ConsentStatus,
    DataCollection,
    DataMember,
    DataObject,
    DataSample,
    Enrollment,
    Gender,
    HardwareDevice,
    Individual,
    Lane,
    PlateWell,
    Port,
    SequencingReads,
    SoftwareProgram,
    Study,
    Supersession,
    TiterPlate,
    Tombstone,
    Tube,
    Vessel,
    VesselContent,
)

# Any Unicode but NUL and lone surrogates, which no catalog takes.
texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20)
labels = texts.filter(bool)
numbers = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False)
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)
times = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
vids = st.uuids().map(lambda value: f"V0{value.hex.upper()}")


@st.composite
def catalogs(draw: st.DrawFn) -> list[Object]:
    """The objects of a small catalog, in an order in which none refers to a later one."""
    studies = [Study(vid=new_vid(), label=label) for label in draw(_unique(labels, least=1))]
    devices: list[Object] = [
        draw(st.sampled_from([SoftwareProgram, HardwareDevice]))(
            vid=new_vid(), label=label, release=release
        )
        for label, release in draw(_unique(st.tuples(labels, st.none() | texts)))
    ]
    setups = [
        ActionSetup(vid=new_vid(), parameters=content)
        for content in draw(st.lists(json_objects, max_size=2))
    ]
    any_study = st.sampled_from(studies).map(lambda study: study.vid)
    people = [
        Individual(vid=new_vid(), gender=gender)
        for gender in draw(st.lists(st.sampled_from(Gender), max_size=3))
    ]
    enrolled = [
        Enrollment(vid=new_vid(), individual=who.vid, study=draw(any_study), code=f"{n}{code}")
        for n, (who, code) in enumerate((who, draw(texts)) for who in people)
    ]
    consents = [
        Consent(
            vid=new_vid(),
            enrollment=enrollment.vid,
            status=draw(st.sampled_from(ConsentStatus)),
            valid_from=draw(st.none() | st.dates(max_value=date(2030, 1, 1))),
            until=draw(st.none() | st.dates(min_value=date(2030, 1, 1))),
        )
        for enrollment in enrolled
    ]
    vessels = _vessels(draw, any_study)
    data = [
        draw(st.sampled_from([DataSample, SequencingReads]))(
            vid=new_vid(),
            label=draw(labels),
            study=draw(any_study),
            galaxy=draw(
                st.none() | st.builds(GalaxyDataset, server=texts, dataset_uuid=texts, as_of=times)
            ),
        )
        for _ in range(draw(st.integers(0, 5)))
    ]
    files = [
        DataObject(vid=new_vid(), sample=held.vid, uri=draw(labels), size_bytes=draw(_sizes))
        for held in data
        if draw(st.booleans())
    ]
    collections: list[DataCollection] = []
    for _ in range(draw(st.integers(0, 3))):
        members = draw(_some([*data, *collections]))
        collections.append(
            DataCollection(
                vid=new_vid(),
                label=draw(labels),
                study=draw(any_study),
                items=tuple(DataMember(role=draw(texts), object=m.vid) for m in members),
            )
        )
    stones = [
        Tombstone(vid=new_vid(), of="DataSample", time=draw(times))
        for _ in range(draw(st.integers(0, 2)))
    ]
    nodes: list[Object] = [*people, *vessels, *data, *stones, *collections]
    actions = [_action(draw, nodes, any_study, devices, setups) for _ in range(draw(_sizes) % 5)]
    campaign = Campaign(
        vid=new_vid(),
        label=draw(labels),
        study=draw(any_study),
        created=draw(times),
        criteria=draw(json_objects),
        workflow=draw(json_objects),
        galaxy_server=draw(texts),
    )
    extras: list[Object] = [campaign]
    if len(nodes) > 1:
        new, old = draw(st.permutations(nodes))[:2]
        extras.append(Supersession(vid=new_vid(), new=new.vid, old=old.vid, campaign=campaign.vid))
        extras.append(
            CampaignItem(
                vid=new_vid(),
                campaign=campaign.vid,
                sample=new.vid,
                sample_label=draw(texts),
                reason=draw(texts),
            )
        )
    return [
        *studies,
        *devices,
        *setups,
        *people,
        *enrolled,
        *consents,
        *vessels,
        *data,
        *files,
        *stones,
        *collections,
        *actions,
        *extras,
    ]


_sizes = st.integers(0, 2**53)


def _unique(values: st.SearchStrategy[Any], *, least: int = 0) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=least, max_size=3, unique=True)


def _some(objects: list[Any]) -> st.SearchStrategy[list[Any]]:
    if not objects:
        return st.just([])
    return st.lists(st.sampled_from(objects), max_size=4, unique_by=lambda obj: obj.vid)


def _vessels(draw: st.DrawFn, any_study: st.SearchStrategy[str]) -> list[Vessel]:
    vessels: list[Vessel] = []
    for number in range(draw(st.integers(0, 5))):
        container = draw(_some(vessels))
        vessels.append(
            draw(st.sampled_from([Tube, PlateWell, TiterPlate, Lane]))(
                vid=new_vid(),
                label=f"{number}{draw(texts)}",
                study=draw(any_study),
                content=draw(st.sampled_from(VesselContent)),
                volume_ul=draw(st.none() | st.floats(0, 1e6)),
                barcode=draw(st.none() | texts.map(lambda text, n=number: f"{n}{text}")),
                container=container[0].vid if container else None,
            )
        )
    return vessels


def _action(
    draw: st.DrawFn,
    nodes: list[Object],
    any_study: st.SearchStrategy[str],
    devices: list[Object],
    setups: list[ActionSetup],
) -> Action:
    # Edges only go from the left of `nodes` to the right, as members stand left of collections.
    cut = draw(st.integers(0, len(nodes)))
    begin = draw(times)
    return Action(
        vid=new_vid(),
        category=draw(st.sampled_from(ActionCategory)),
        study=draw(any_study),
        device=draw(st.sampled_from([None, *(device.vid for device in devices)])),
        setup=draw(st.sampled_from([None, *(setup.vid for setup in setups)])),
        status=draw(st.sampled_from(ActionStatus)),
        begin=begin,
        end=draw(st.none() | st.just(begin)),
        operator=draw(st.none() | texts),
        inputs=tuple(Port(role=draw(texts), object=n.vid) for n in draw(_some(nodes[:cut]))),
        outputs=tuple(Port(role=draw(texts), object=n.vid) for n in draw(_some(nodes[cut:]))),
        galaxy=draw(st.none() | st.builds(GalaxyJob, server=texts, job_id=st.none() | texts)),
    )
