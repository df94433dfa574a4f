"""Which texts come back as they were sent, and which are refused."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator

import omero
import omero.model
import pytest
from omero.rtypes import rstring, unwrap

from tests.conformance.annotations import map_annotation, names, namespace, pairs_of
from tests.servers.omero.lab import Client, OmeroLab

_SAFE_LENGTH, _TOO_LONG = 2_600, 2_720


@pytest.fixture
def bob(omero_lab: OmeroLab) -> Iterator[Client]:
    """A member of the read-annotate group."""
    with omero_lab.login("bob") as client:
        yield client


def _noise(length: int) -> str:
    source = random.Random(20)  # an index compresses what repeats
    return "".join(source.choice(string.ascii_letters) for _ in range(length))


@pytest.mark.parametrize("part", ["key", "value", "ns", "name"])
def test_text_that_an_index_page_cannot_hold_is_refused_and_nothing_saved(
    omero_lab: OmeroLab, bob: Client, part: str
) -> None:
    for length in (_SAFE_LENGTH, _TOO_LONG):
        noise, ns = _noise(length), f"{namespace(omero_lab)}-{part}-{length}"
        made = map_annotation(ns, "long")
        if part in ("key", "value"):
            pair = (noise, "x") if part == "key" else ("x", noise)
            made.setMapValue([omero.model.NamedValue(*pair)])
        else:
            setattr(made, part, rstring(noise))
        if length == _SAFE_LENGTH:
            bob.update.saveObject(made)
        else:
            with pytest.raises(omero.InternalException):
                bob.update.saveArray([map_annotation(ns, "beside"), made])
            assert names(bob, ns) == []


def test_long_text_fits_where_there_is_no_index(omero_lab: OmeroLab, bob: Client) -> None:
    made = map_annotation(namespace(omero_lab), "long")
    made.setDescription(rstring("d" * 900_000))
    saved = bob.update.saveAndReturnObject(made)
    found = bob.query.get("MapAnnotation", saved.id.val)
    assert len(found.description.val) == 900_000
    xml = omero.model.XmlAnnotationI()
    xml.setTextValue(rstring("x" * 2_000_000))
    saved = bob.update.saveAndReturnObject(xml)
    assert len(bob.query.get("XmlAnnotation", saved.id.val).textValue.val) == 2_000_000


@pytest.mark.parametrize(
    "value",
    ["", " blanks behind  ", "e\u0301 decomposed", "\U0001f9ec", "tab\tline\nend", "null"],
    ids=ascii,
)
def test_any_proper_text_survives(omero_lab: OmeroLab, bob: Client, value: str) -> None:
    made = bob.update.saveAndReturnObject(map_annotation(namespace(omero_lab), "t", ("a", value)))
    assert pairs_of(bob, made.id.val) == [("a", value)]


def test_order_and_doubles_of_pairs_survive(omero_lab: OmeroLab, bob: Client) -> None:
    pairs = [("b", "1"), ("a", "2"), ("b", "1"), ("a", "0")]
    made = bob.update.saveAndReturnObject(map_annotation(namespace(omero_lab), "o", *pairs))
    assert pairs_of(bob, made.id.val) == pairs


def test_a_lone_surrogate_silently_empties_the_whole_text(omero_lab: OmeroLab, bob: Client) -> None:
    made = map_annotation(namespace(omero_lab), "s", ("a", "before\ud800behind"))
    made.setDescription(rstring("before\ud800behind"))
    row_id = bob.update.saveAndReturnObject(made).id.val
    assert pairs_of(bob, row_id) == [("a", "")]
    assert unwrap(bob.query.get("MapAnnotation", row_id).description) == ""


def test_nul_is_refused(omero_lab: OmeroLab, bob: Client) -> None:
    ns = namespace(omero_lab)
    described = map_annotation(ns, "nul")
    described.setDescription(rstring("a\0b"))
    for made in (map_annotation(ns, "nul", ("a", "b\0c")), map_annotation("a\0b"), described):
        with pytest.raises(omero.ValidationException):
            bob.update.saveObject(made)


def test_no_value_at_all_is_kept_as_an_empty_one(omero_lab: OmeroLab, bob: Client) -> None:
    made = map_annotation(namespace(omero_lab), "none")
    made.setMapValue([omero.model.NamedValue("a", None), None, omero.model.NamedValue("b", "2")])
    row_id = bob.update.saveAndReturnObject(made).id.val
    assert pairs_of(bob, row_id) == [("a", ""), None, ("b", "2")]
