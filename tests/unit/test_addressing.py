"""From what people write to the object."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biobank_core.addressing import enrollment, resolve, study
from biobank_core.catalog.port import Catalog, Delete, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.errors import AmbiguousError, InputError, NotFoundError
from biobank_core.model.base import Object
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import (
    DataSample,
    Enrollment,
    Individual,
    SoftwareProgram,
    Study,
    Tombstone,
    Tube,
    VesselsCollection,
)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with open_catalog(f"sqlite:///{tmp_path}/c.db", create=True) as opened:
        yield opened


def add(catalog: Catalog, *objects: Object) -> None:
    catalog.commit([Save(object=item) for item in objects], by="test")


@pytest.fixture
def kpn(catalog: Catalog) -> Study:
    made = Study(vid=new_vid(), label="KPN")
    add(catalog, made)
    return made


def tube(of: Study, label: str) -> Tube:
    return Tube(vid=new_vid(), label=label, study=of.vid)


def person(catalog: Catalog, of: Study, code: str) -> Individual:
    made = Individual(vid=new_vid())
    enrolled = Enrollment(vid=new_vid(), individual=made.vid, study=of.vid, code=code)
    add(catalog, made, enrolled)
    return made


def test_a_vid_finds_any_kind(catalog: Catalog, kpn: Study) -> None:
    assert resolve(catalog, kpn.vid).object == kpn


def test_a_label_within_a_study_finds_vessels_data_and_collections(
    catalog: Catalog, kpn: Study
) -> None:
    made = (
        tube(kpn, "T1"),
        DataSample(vid=new_vid(), label="d.fna", study=kpn.vid),
        VesselsCollection(vid=new_vid(), label="batch", study=kpn.vid),
    )
    add(catalog, *made)
    for item in made:
        assert resolve(catalog, f"KPN:{item.label}").object == item


def test_a_code_finds_the_individual_or_where_asked_the_enrollment(
    catalog: Catalog, kpn: Study
) -> None:
    made = person(catalog, kpn, "KP-01")
    assert resolve(catalog, "KPN:KP-01").object == made
    assert enrollment(catalog, "KPN:KP-01").individual == made.vid


def test_an_address_that_fits_several_lists_their_vids(catalog: Catalog, kpn: Study) -> None:
    first, second = (DataSample(vid=new_vid(), label="d", study=kpn.vid) for _ in range(2))
    add(catalog, first, second)
    with pytest.raises(AmbiguousError) as caught:
        resolve(catalog, "KPN:d")
    assert first.vid in str(caught.value)
    assert second.vid in str(caught.value)


def test_a_code_and_a_label_that_are_equal_are_told_apart_by_kind(
    catalog: Catalog, kpn: Study
) -> None:
    made, donor = tube(kpn, "X"), person(catalog, kpn, "X")
    add(catalog, made)
    with pytest.raises(AmbiguousError):
        resolve(catalog, "KPN:X")
    assert resolve(catalog, "KPN:X", kinds=("Vessel",)).object == made
    assert resolve(catalog, "KPN:X", kinds=("Tube",)).object == made
    assert resolve(catalog, "KPN:X", kinds=("Individual",)).object == donor


@pytest.mark.parametrize("text", ["", ":", "KPN", "KPN:", ":T1", "KPN:T2", "NO:T1", "kpn:T1", "V0"])
def test_what_is_unknown_has_one_message(catalog: Catalog, kpn: Study, text: str) -> None:
    add(catalog, tube(kpn, "T1"))
    with pytest.raises(NotFoundError, match="is unknown or may not be read"):
        resolve(catalog, text)


def test_an_unknown_vid_has_the_same_message(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError, match="is unknown or may not be read"):
        resolve(catalog, new_vid())


def test_a_vid_of_another_kind_says_which_it_is(catalog: Catalog, kpn: Study) -> None:
    with pytest.raises(InputError, match="is of kind Study; here it must be Vessel"):
        resolve(catalog, kpn.vid, kinds=("Vessel",))


def test_a_deleted_object_is_its_tombstone_unless_a_kind_is_asked_for(
    catalog: Catalog, kpn: Study
) -> None:
    made = tube(kpn, "T1")
    add(catalog, made)
    catalog.commit([Delete(vid=made.vid, based_on=1)], by="test")
    assert isinstance(resolve(catalog, made.vid).object, Tombstone)
    with pytest.raises(NotFoundError, match="was a Tube"):
        resolve(catalog, made.vid, kinds=("Vessel",))
    with pytest.raises(NotFoundError):
        resolve(catalog, "KPN:T1")


def test_a_study_that_is_unknown_says_how_to_make_one(catalog: Catalog, kpn: Study) -> None:
    assert study(catalog, "KPN") == kpn
    with pytest.raises(NotFoundError, match="biobank register Study"):
        study(catalog, "NOPE")


def test_a_device_goes_by_label_and_release(catalog: Catalog) -> None:
    old, new = (SoftwareProgram(vid=new_vid(), label="k", release=r) for r in ("2", "3"))
    add(catalog, old, new)
    assert resolve(catalog, "k:3", kinds=("Device",)).object == new
    with pytest.raises(AmbiguousError):
        resolve(catalog, "k", kinds=("Device",))


labels = st.text(st.sampled_from("a:é '\"%_*"), min_size=1, max_size=6)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(of=labels, label=labels)
def test_colons_quotes_and_wildcards_in_labels_are_only_text(
    catalog: Catalog, of: str, label: str
) -> None:
    # Each in a study and a tube of its own: a shorter prefix must not be taken for the study.
    home = next(iter(catalog.find("Study", {"label": of})), None)
    if home is None:
        add(catalog, Study(vid=new_vid(), label=of))
        home = next(iter(catalog.find("Study", {"label": of})))
    assert isinstance(home.object, Study)
    here = {"study": home.object.vid, "label": label}
    if not list(catalog.find("Tube", here)):
        add(catalog, tube(home.object, label))
    (made,) = catalog.find("Tube", here)
    try:
        found = resolve(catalog, f"{of}:{label}").object.vid
    except AmbiguousError as exc:
        found = str(exc)
    assert made.object.vid in found
