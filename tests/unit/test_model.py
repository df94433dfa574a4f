from __future__ import annotations

import json
import uuid
from datetime import UTC, date, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_catalogs import catalogs, json_objects, texts

from biobank_core.errors import InputError
from biobank_core.model import codec
from biobank_core.model.base import MAX_LABEL_CHARS, Object, OnCascade, canonical_json
from biobank_core.model.ids import derived_vid, from_uuid, is_vid, new_vid
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionStatus,
    Consent,
    ConsentStatus,
    DataCollection,
    DataMember,
    Port,
    Study,
    Supersession,
    Tube,
)
from biobank_core.model.registry import (
    ABSTRACT,
    is_a,
    is_node,
    kinds,
    reference_fields,
    references,
    with_subkinds,
)

V = [f"V0{n:032X}" for n in range(20)]
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def action(**fields: object) -> Action:
    given: dict[str, object] = {
        "vid": V[9],
        "category": ActionCategory.PROCESSING,
        "study": V[1],
        "status": ActionStatus.OK,
        "begin": BEGIN,
    }
    return Action(**(given | fields))  # type: ignore[arg-type]


# VIDs


@given(st.uuids())
def test_a_vid_spells_its_uuid(value: uuid.UUID) -> None:
    vid = from_uuid(value)
    assert is_vid(vid)
    assert uuid.UUID(vid[2:]) == value


def test_new_vids_differ_and_are_random_uuids() -> None:
    made = {new_vid() for _ in range(1000)}
    assert len(made) == 1000
    assert {uuid.UUID(vid[2:]).version for vid in made} == {4}


@pytest.mark.parametrize("text", ["", "V0", "v0" + "0" * 32, "V0" + "g" * 32, V[1] + "\n", "V1"])
def test_what_is_not_spelled_like_a_vid_is_none(text: str) -> None:
    assert not is_vid(text)


def test_derived_vids_never_change() -> None:
    # A changed namespace or spelling would record every job a second time.
    assert derived_vid("DataSample", "abc") == "V0D8402EBEDF88518383009DEE3942E5D9"


@given(st.lists(texts, max_size=4), st.lists(texts, max_size=4))
def test_derived_vids_are_equal_for_equal_parts_only(one: list[str], two: list[str]) -> None:
    def derived(parts: list[str]) -> str:
        return derived_vid("K", *(part.replace("\x1f", "") for part in parts))

    clean = [[part.replace("\x1f", "") for part in parts] for parts in (one, two)]
    assert (derived(one) == derived(two)) == (clean[0] == clean[1])


def test_a_separator_in_a_part_is_refused() -> None:
    with pytest.raises(ValueError, match="U\\+001F"):
        derived_vid("K", "a\x1fb")


# Kinds


def test_every_concrete_kind_has_a_docstring_and_decodes_by_its_name() -> None:
    assert not ABSTRACT & set(kinds())
    for name, cls in kinds().items():
        assert cls.__doc__, name
        assert cls.__struct_config__.tag == name


def test_subkinds_count_as_their_bases() -> None:
    assert is_a("Tube", "Vessel")
    assert not is_a("Vessel", "Tube")
    assert with_subkinds("Vessel") == {"Tube", "PlateWell", "TiterPlate", "FlowCell", "Lane"}
    assert with_subkinds("Tube") == {"Tube"}
    assert {name for name in kinds() if is_node(name)} == (
        {"Individual"}
        | with_subkinds("Vessel")
        | with_subkinds("DataSample")
        | with_subkinds("Collection")
    )
    with pytest.raises(InputError):
        with_subkinds("Nonsense")


def test_every_reference_field_says_what_it_points_to() -> None:
    for kind in kinds():
        for field in reference_fields(kind):
            assert field.reference.kinds
            for target in field.reference.kinds:
                assert with_subkinds(target)
            if field.reference.on_cascade is OnCascade.DELETE:
                assert len(field.path) == 1, "a part belongs to one whole"


def test_references_are_found_wherever_they_stand() -> None:
    done = action(
        device=V[2],
        inputs=(Port(role="a", object=V[3]), Port(role="b", object=V[4])),
        outputs=(Port(role="o", object=V[5]),),
    )
    assert [(field.name, vid) for field, vid in references(done)] == [
        ("study", V[1]),
        ("device", V[2]),
        ("inputs", V[3]),
        ("inputs", V[4]),
        ("outputs", V[5]),
    ]


# What is refused


@pytest.mark.parametrize(
    "make",
    [
        lambda: action(end=BEGIN - timedelta(seconds=1)),
        lambda: action(begin=datetime(2026, 1, 1)),
        lambda: action(
            inputs=(Port(role="a", object=V[3]),), outputs=(Port(role="b", object=V[3]),)
        ),
        lambda: DataCollection(
            vid=V[1], label="c", study=V[2], items=(DataMember(role="r", object=V[1]),)
        ),
        lambda: Supersession(vid=V[1], new=V[2], old=V[2]),
        lambda: Tube(vid=V[1], label="t", study=V[2], container=V[1]),
        lambda: Consent(
            vid=V[1],
            enrollment=V[2],
            status=ConsentStatus.GIVEN,
            valid_from=date(2026, 1, 2),
            until=date(2026, 1, 1),
        ),
    ],
)
def test_what_contradicts_itself_is_refused_when_it_is_made(make: object) -> None:
    with pytest.raises(ValueError, match=r"^[a-z]+: "):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("fields", "field", "allowed"),
    [
        ({"kind": "Nonsense"}, "kind", "known are Action,"),
        ({"kind": "Vessel", "vid": V[1]}, "kind", "known are"),
        ({"vid": V[1]}, "kind", ""),
        ({"kind": "Study", "vid": V[1]}, "label", "needs"),
        ({"kind": "Study", "vid": V[1], "label": ""}, "label", "length >= 1"),
        ({"kind": "Study", "vid": V[1], "label": "x" * (MAX_LABEL_CHARS + 1)}, "label", "1000"),
        ({"kind": "Study", "vid": V[1], "label": 5}, "label", "Expected `str`"),
        ({"kind": "Study", "vid": "KPN", "label": "x"}, "vid", ""),
        ({"kind": "Study", "vid": V[1], "label": "x", "colour": "red"}, "colour", "no such"),
        ({"kind": "Individual", "vid": V[1], "gender": "male"}, "gender", "MALE, FEMALE"),
        (
            {"kind": "Tube", "vid": V[1], "label": "t", "study": V[2], "volume_ul": -1},
            "volume_ul",
            ">= 0",
        ),
        (
            {"kind": "Tube", "vid": V[1], "label": "t", "study": V[2], "container": V[1]},
            "container",
            "in itself",
        ),
        (
            {
                "kind": "Consent",
                "vid": V[1],
                "enrollment": V[2],
                "status": "given",
                "from": "2026-02-30",
            },
            "from",
            "",
        ),
        (
            {
                "kind": "DataCollection",
                "vid": V[1],
                "label": "c",
                "study": V[2],
                "items": [{"role": "a", "object": V[3]}, {"role": "b", "objekt": V[3]}],
            },
            None,
            "",
        ),
    ],
)
def test_a_wrong_field_is_named_with_what_is_allowed(
    fields: dict[str, object], field: str | None, allowed: str
) -> None:
    with pytest.raises(InputError) as caught:
        codec.convert(fields)
    if field is not None:
        assert caught.value.field == field
    assert allowed in caught.value.reason


@given(st.binary(max_size=60))
def test_any_bytes_are_an_object_or_an_input_error(data: bytes) -> None:
    with pytest.raises(InputError):
        codec.decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"kind":"Study","vid":"%s","label":5,"x":"\xff"}' % V[1].encode(),
        b'{"kind":"Study","vid":"%s","label":5} trailing' % V[1].encode(),
        b'{"kind":"Study","vid":"%s","x":%s}' % (V[1].encode(), b"[" * 100_000),
        b'{"kind":"Study","vid":"%s","label":5,"x":1e999}' % V[1].encode(),
    ],
)
def test_a_line_that_is_wrong_in_two_ways_is_an_input_error(data: bytes) -> None:
    with pytest.raises(InputError):
        codec.decode(data)


# To JSON and back


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(catalogs())
def test_encoding_and_decoding_gives_an_equal_object_and_the_same_bytes(
    objects: list[Object],
) -> None:
    for obj in objects:
        data = codec.encode(obj)
        assert b"\n" not in data
        assert codec.decode(data) == obj
        assert codec.encode(codec.decode(data)) == data


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "\ud800"])
def test_text_that_can_not_be_kept_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        codec.encode(Study(vid=V[1], label=text))


def test_a_backslash_before_u0000_is_no_nul() -> None:
    kept = Study(vid=V[1], label="\\u0000")
    assert codec.decode(codec.encode(kept)) == kept


def test_times_are_settled_in_utc() -> None:
    local = datetime(2026, 1, 1, 5, tzinfo=timezone(timedelta(hours=5)))
    done = action(begin=local, end=local)
    assert done.begin == BEGIN
    assert b'"begin":"2026-01-01T00:00:00Z"' in codec.encode(done)


@given(json_objects)
def test_equal_content_has_equal_canonical_json_in_any_order(content: dict[str, object]) -> None:
    turned = dict(reversed(content.items()))
    try:
        text = canonical_json(content)
    except ValueError:
        return
    assert canonical_json(turned) == text
    # Numbers are those of ECMAScript: a large float is written like an integer.
    numbers_as_floats = {"parse_int": float, "parse_float": float}
    assert json.loads(text, **numbers_as_floats) == json.loads(
        msgspec.json.encode(content), **numbers_as_floats
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53])
def test_what_json_can_not_say_exactly_has_no_canonical_json(value: float) -> None:
    with pytest.raises(ValueError, match="canonical"):
        canonical_json({"x": value})
