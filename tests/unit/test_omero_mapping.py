"""Objects as pairs and back, exactly; without any server and without omero-py."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biobank_core.catalog.checks import unique_keys
from biobank_core.catalog.omero import address, mapping
from biobank_core.catalog.omero.names import MAX_PAIR_BYTES
from biobank_core.errors import ConfigurationError, InputError, StorageError
from biobank_core.model import codec
from biobank_core.model.base import Object
from biobank_core.model.galaxy import GalaxyDataset, GalaxyJob
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionSetup,
    ActionStatus,
    DataCollection,
    DataMember,
    DataSample,
    Port,
    Study,
    Tube,
)

TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), min_size=1)


def there_and_back(obj: Object) -> Object:
    mapped = mapping.to_pairs(codec.encode(obj), unique_keys(obj))
    for name, value in mapped.pairs:
        assert len(name.encode()) <= MAX_PAIR_BYTES
        assert len(value.encode()) <= MAX_PAIR_BYTES
    stored = msgspec.json.decode(msgspec.json.encode(mapped.long))
    return mapping.decoded(obj.vid, mapped.pairs, stored)


@given(label=TEXT.map(lambda text: text[:900]), told=st.none() | TEXT | st.just("x" * 9000))
def test_any_text_comes_back_as_it_was(label: str, told: str | None) -> None:
    made = Study(vid=new_vid(), label=label, description=told)
    assert there_and_back(made) == made


@given(
    st.dictionaries(
        TEXT,
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text("aé5{", max_size=5),
            lambda inner: st.lists(inner, max_size=3),
        ),
        max_size=4,
    )
)
def test_any_parameters_come_back_as_they_were(parameters: dict[str, object]) -> None:
    made = ActionSetup(vid=new_vid(), parameters=parameters)
    assert there_and_back(made) == made


@given(st.lists(TEXT | st.sampled_from(["a:b", "@json", "x" * 3000, " "]), max_size=5))
def test_members_keep_their_roles_and_their_order(roles: list[str]) -> None:
    members = tuple(DataMember(role=role, object=new_vid()) for role in roles)
    made = DataCollection(vid=new_vid(), label="c", study=new_vid(), items=members)
    assert there_and_back(made) == made
    named = {
        value
        for name, value in mapping.to_pairs(codec.encode(made)).pairs
        if mapping.field_of(name) == "items"
    }
    assert {member.object for member in members} <= named | {"[]"}


def test_texts_that_look_like_numbers_stay_texts() -> None:
    for barcode in ("5", "true", "null", '"x"', "[]", "0001"):
        made = Tube(vid=new_vid(), label=barcode, study=new_vid(), barcode=barcode, volume_ul=2.5)
        assert there_and_back(made) == made
        assert ("barcode", barcode) in mapping.to_pairs(codec.encode(made)).pairs


def test_what_galaxy_said_comes_back() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    done = Action(
        vid=new_vid(),
        category=ActionCategory.PROCESSING,
        study=new_vid(),
        status=ActionStatus.OK,
        begin=now,
        inputs=(Port(role="in", object=new_vid()),),
        flags=("partial",),
        galaxy=GalaxyJob(server="g", job_id="5", exit_code=0, user="y" * 4000),
    )
    assert there_and_back(done) == done
    data = DataSample(
        vid=new_vid(),
        label="d",
        study=new_vid(),
        galaxy=GalaxyDataset(server="g", deleted=False, as_of=now),
    )
    assert there_and_back(data) == data


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [("label", "T1")],
        [("kind", "Tube")],
        [("kind", "Nonsense"), ("label", "x")],
        [("kind", "Study"), ("label", "x"), ("@long", "description")],
        [("kind", "Study"), ("label", "{"), ("@json", "label")],
        [("kind", "Study"), ("label:role", "x")],
        [("kind", "Study"), ("label", "x"), ("label:role", "x")],
        [("kind", "Study"), ("label", "x"), ("label.part", "x")],
    ],
)
def test_pairs_that_are_no_object_are_refused(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(StorageError, match="V0"):
        mapping.decoded(new_vid(), pairs)


def test_a_change_of_any_pair_changes_the_checksum() -> None:
    mapped = mapping.to_pairs(codec.encode(Study(vid=new_vid(), label="a")))
    other = [(name, f"{value} ") for name, value in mapped.pairs]
    assert mapping.checksum(other, {}) != mapped.checksum
    assert mapping.checksum(mapped.pairs, {"description": "x"}) != mapped.checksum


def test_an_address_names_host_port_and_groups() -> None:
    parsed = address.parse("omero://lab.example.org/?group=a&group=b%20c")
    assert (parsed.host, parsed.port, parsed.groups) == ("lab.example.org", 4064, ("a", "b c"))
    assert parsed.url == "omero://lab.example.org:4064/?group=a&group=b+c"


@pytest.mark.parametrize(
    "url",
    ["omero://", "omero://h/path", "omero://h/?group=", "omero://h/?study=x", "omero://h:x/"],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InputError):
        address.parse(url)


def test_an_account_is_asked_for_and_never_shown() -> None:
    with pytest.raises(ConfigurationError, match="OMERO_PASSWORD"):
        address.account({"OMERO_USER": "ada"}.get)
    with pytest.raises(ConfigurationError):
        address.parse("omero://ada@h/")
    given_account = address.account({"OMERO_USER": "ada", "OMERO_PASSWORD": "canary"}.get)
    assert "canary" not in repr(given_account)
