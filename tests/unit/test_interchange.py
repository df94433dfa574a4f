from __future__ import annotations

import io
import itertools
import json
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_catalogs import catalogs

from biobank_core.catalog.port import Catalog, Delete, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.errors import BiobankError, ConflictError, DuplicateError, InputError
from biobank_core.interchange import dump, json_schema, load
from biobank_core.interchange.lines import MAX_LINE_BYTES
from biobank_core.lineage.follow import catch_up
from biobank_core.lineage.registry import open_index
from biobank_core.model.base import Object
from biobank_core.model.codec import encode
from biobank_core.model.kinds import Cursor, DataSample, Individual, Study, Tombstone, Tube
from biobank_core.model.registry import kinds
from biobank_core.sqlite_file import url_of_path

V = [f"V0{n:032X}" for n in range(100)]
SLOW = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])


@contextmanager
def new_catalog() -> Iterator[Catalog]:
    with (
        TemporaryDirectory() as folder,
        open_catalog(url_of_path(Path(folder) / "c.db"), create=True) as opened,
    ):
        yield opened


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    with new_catalog() as opened:
        yield opened


def dumped(catalog: Catalog) -> bytes:
    out = io.BytesIO()
    dump(catalog, out)
    return out.getvalue()


def digest(catalog: Catalog) -> str:
    """The digest of an index made from this catalog alone."""
    with TemporaryDirectory() as folder:
        url = url_of_path(Path(folder) / "index.db")
        with open_index(url, catalog=catalog) as index:
            catch_up(catalog, index)
            return index.digest()


def lines_of(*objects: dict[str, object]) -> bytes:
    return b"".join(json.dumps(obj).encode() + b"\n" for obj in objects)


def load_lines(catalog: Catalog, *objects: dict[str, object], update: bool = False) -> object:
    return load(catalog, io.BytesIO(lines_of(*objects)), by="test", update=update)


STUDY = {"kind": "Study", "vid": V[1], "label": "KPN"}
TUBE = {"kind": "Tube", "vid": V[2], "label": "T1", "study": V[1]}
DATA = {"kind": "DataSample", "vid": V[3], "label": "d", "study": V[1]}


def action(vid: str, inputs: list[str], outputs: list[str]) -> dict[str, object]:
    return {
        "kind": "Action",
        "vid": vid,
        "category": "PROCESSING",
        "study": V[1],
        "status": "ok",
        "begin": "2026-01-01T00:00:00Z",
        "inputs": [{"role": "i", "object": each} for each in inputs],
        "outputs": [{"role": "o", "object": each} for each in outputs],
    }


# What goes in comes out


@SLOW
@given(catalogs(), st.randoms(use_true_random=False))
def test_any_catalog_dumps_and_loads_to_the_same_dump_in_any_order(
    objects: list[Object], shuffler: random.Random
) -> None:
    lines = [encode(obj) for obj in objects]
    shuffler.shuffle(lines)
    with new_catalog() as first, new_catalog() as second:
        report = load(first, io.BytesIO(b"\n".join(lines)), by="test")
        assert report.created == report.saved == len(objects)
        text = dumped(first)
        assert sorted(text.splitlines()) == sorted(lines)
        load(second, io.BytesIO(text), by="test")
        assert dumped(second) == text
        assert digest(second) == digest(first)
        again = load(second, io.BytesIO(text), by="test")
        assert (again.saved, again.unchanged) == (0, len(objects))
        assert {known.object.vid: known.object for known in second.iterate()} == {
            obj.vid: obj for obj in objects
        }


def test_a_dump_is_in_the_order_of_vids_and_has_no_cursors(catalog: Catalog) -> None:
    load_lines(catalog, DATA, TUBE, STUDY)
    cursor = Cursor(vid=V[9], name="g", position=datetime.now(UTC))
    catalog.commit([Save(object=cursor)], by="test")
    seen = [json.loads(line)["vid"] for line in dumped(catalog).splitlines()]
    assert seen == [V[1], V[2], V[3]]


def test_tombstones_are_dumped_and_loaded(catalog: Catalog) -> None:
    load_lines(catalog, STUDY, TUBE, DATA, action(V[4], [V[2]], [V[3]]))
    catalog.commit([Delete(vid=V[2], based_on=1, cascade=True)], by="test")
    text = dumped(catalog)
    with new_catalog() as second:
        assert load(second, io.BytesIO(text), by="test").created == 4
        assert dumped(second) == text
        assert isinstance(second.get([V[2]])[V[2]].object, Tombstone)


def test_a_byte_order_mark_empty_lines_and_windows_line_ends_are_taken(catalog: Catalog) -> None:
    text = b"\xef\xbb\xbf" + lines_of(STUDY).replace(b"\n", b"\r\n\r\n") + lines_of(TUBE).strip()
    assert load(catalog, io.BytesIO(text), by="test").created == 2


def test_a_pipe_is_read_like_a_file(catalog: Catalog) -> None:
    reading, writing = os.pipe()
    text = lines_of(TUBE, STUDY)

    def feed() -> None:
        with os.fdopen(writing, "wb") as stream:
            stream.write(text)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with os.fdopen(reading, "rb") as stream:
        assert load(catalog, stream, by="test").created == 2
    feeder.join()


def test_progress_counts_every_byte_twice(catalog: Catalog) -> None:
    text = lines_of(TUBE, STUDY, DATA)
    told: list[float] = []
    load(catalog, io.BytesIO(text), by="test", progress=told.append)
    assert sum(told) == 2 * len(text)
    told.clear()
    dump(catalog, io.BytesIO(), progress=told.append)
    assert sum(told) == 3


def test_many_lines_with_references_across_batches_load_in_any_order(catalog: Catalog) -> None:
    chain = [f"V0{n:032X}" for n in range(1000, 4000)]
    objects = [STUDY]
    objects += [{"kind": "DataSample", "vid": vid, "label": "d", "study": V[1]} for vid in chain]
    objects += [
        action(f"V0{n:032X}", [a], [b])
        for n, (a, b) in enumerate(itertools.pairwise(chain), start=10_000)
    ]
    random.Random(3).shuffle(objects)
    load_lines(catalog, *objects)
    assert catalog.count() == {"Action": 2999, "DataSample": 3000, "Study": 1}


def test_vessels_in_vessels_load_across_batches_in_any_order(catalog: Catalog) -> None:
    # The innermost has the least VID, so the order of VIDs is the wrong one.
    boxes = [
        {
            "kind": "TiterPlate",
            "vid": f"V0{n:032X}",
            "label": f"P{n}",
            "study": V[1],
            "container": f"V0{n + 1:032X}" if n < 3499 else None,
        }
        for n in range(1000, 3500)
    ]
    load_lines(catalog, *boxes, STUDY)
    assert catalog.count() == {"Study": 1, "TiterPlate": 2500}


def test_few_actions_that_name_very_many_data_are_saved_in_several_commits(
    catalog: Catalog,
) -> None:
    made = [f"V0{n:032X}" for n in range(1000, 3000)]
    data = [{"kind": "DataSample", "vid": vid, "label": "d", "study": V[1]} for vid in made]
    fans = [action(f"V0{n:032X}", [V[3]], made) for n in range(10_000, 10_030)]
    load_lines(catalog, STUDY, DATA, *data, *fans)
    actions = {str(fan["vid"]) for fan in fans}
    units = [{change.vid for change in unit.changes} for unit in catalog.changes({})]
    assert sum(map(len, units)) == 2032
    assert sum(not actions.isdisjoint(unit) for unit in units) > 1, "100 kB each, in one commit"


# What is in the catalog already


def test_equal_content_is_unchanged_and_makes_no_version(catalog: Catalog) -> None:
    load_lines(catalog, STUDY, TUBE)
    head = catalog.head()
    report = load(catalog, io.BytesIO(lines_of(TUBE, STUDY, DATA)), by="test")
    assert (report.created, report.unchanged) == (1, 2)
    assert catalog.get([V[2]])[V[2]].version == 1
    assert [len(unit.changes) for unit in catalog.changes(head)] == [1]


def test_other_content_is_a_conflict_that_names_the_field(catalog: Catalog) -> None:
    load_lines(catalog, STUDY, TUBE)
    with pytest.raises(ConflictError, match=rf"line 2: Tube {V[2]}.*'label'.*\"T1\".*\"T2\""):
        load_lines(catalog, DATA, TUBE | {"label": "T2"})
    assert catalog.count() == {"Study": 1, "Tube": 1}


def test_update_saves_other_content_as_a_new_version(catalog: Catalog) -> None:
    load_lines(catalog, STUDY, TUBE)
    report = load(
        catalog, io.BytesIO(lines_of(TUBE | {"label": "T2"}, DATA)), by="test", update=True
    )
    assert (report.created, report.updated) == (1, 1)
    known = catalog.get([V[2]])[V[2]]
    assert isinstance(known.object, Tube)
    assert (known.object.label, known.version) == ("T2", 2)


def test_a_tombstone_line_deletes_only_with_update(catalog: Catalog) -> None:
    load_lines(catalog, STUDY, TUBE, DATA, action(V[4], [V[2]], [V[3]]))
    stone = {"kind": "Tombstone", "vid": V[2], "of": "Tube", "time": "2026-01-01T00:00:00Z"}
    with pytest.raises(ConflictError, match=V[2]):
        load_lines(catalog, stone)
    report = load(catalog, io.BytesIO(lines_of(stone)), by="test", update=True)
    assert report.deleted == 1
    assert isinstance(catalog.get([V[2]])[V[2]].object, Tombstone)


def test_what_was_deleted_comes_back_only_with_update(catalog: Catalog) -> None:
    load_lines(catalog, STUDY, TUBE)
    catalog.commit([Delete(vid=V[2], based_on=1)], by="test")
    with pytest.raises(ConflictError, match=r"there it is deleted"):
        load_lines(catalog, TUBE)
    load_lines(catalog, TUBE, update=True)
    assert catalog.get([V[2]])[V[2]].version == 3


def test_a_vid_of_another_kind_is_a_conflict_even_with_update(catalog: Catalog) -> None:
    load_lines(catalog, STUDY, TUBE)
    with pytest.raises(ConflictError, match="Tube"):
        load_lines(catalog, DATA | {"vid": V[2]}, update=True)


def test_a_label_taken_in_the_catalog_is_a_duplicate_with_its_line(catalog: Catalog) -> None:
    load_lines(catalog, STUDY, TUBE)
    with pytest.raises(DuplicateError, match=rf"line 2, field 'label': 'T1' is taken by {V[2]}"):
        load_lines(catalog, DATA, TUBE | {"vid": V[7]})
    with pytest.raises(DuplicateError, match="KPN"):
        load_lines(catalog, STUDY | {"vid": V[7]})
    assert catalog.count() == {"Study": 1, "Tube": 1}


def test_a_label_that_the_same_file_gives_up_is_free_with_update(catalog: Catalog) -> None:
    load_lines(catalog, STUDY, TUBE)
    load_lines(catalog, TUBE | {"vid": V[7]}, TUBE | {"label": "T2"}, update=True)
    assert len(list(catalog.find("Tube"))) == 2


# What is wrong


@pytest.mark.parametrize(
    ("bad", "message", "line", "field"),
    [
        (b"{", "not a JSON object", 2, None),
        (b"[]", "object", 2, None),
        (b'{"kind":"Study","vid":"%s","label":"\xff"}' % V[5].encode(), "UTF-8", 2, None),
        (b'{"kind":"Study","vid":"%s","label":"a\\u0000"}' % V[5].encode(), "NUL", 2, None),
        (b'{"kind":"Study","vid":"%s","label":"\\ud800"}' % V[5].encode(), "JSON", 2, None),
        (b'{"kind":"Nonsense","vid":"%s"}' % V[5].encode(), "unknown kind", 2, "kind"),
        (b'{"kind":"Object","vid":"%s"}' % V[5].encode(), "unknown kind", 2, "kind"),
        (b'{"kind":"Study","vid":"%s","label":"x","y":1}' % V[5].encode(), "no such", 2, "y"),
        (b'{"kind":"Study","vid":"%s"}' % V[5].encode(), "needs", 2, "label"),
        (b'{"kind":"Study","vid":"v05","label":"x"}', "regex", 2, "vid"),
        (b'{"kind":"Study","vid":"%s","label":"x"}' % V[1].encode(), "line 1", 2, "vid"),
        (b'{"kind":"Study","vid":"%s","label":"KPN"}' % V[5].encode(), "line 1", 2, "label"),
        (
            b'{"kind":"Study","vid":"%s","label":"x","label":"x"}' % V[5].encode(),
            "twice",
            2,
            "label",
        ),
        (
            b'{"kind":"ActionSetup","vid":"%s","parameters":{"a":[{"b":1,"\\u0062":2}]}}'
            % V[5].encode(),
            "twice",
            2,
            "b",
        ),
        (
            b'{"kind":"ActionSetup","vid":"%s","parameters":{"a":1e999}}' % V[5].encode(),
            "range",
            2,
            None,
        ),
        (
            b'{"kind":"ActionSetup","vid":"%s","parameters":{"a":%s}}'
            % (V[5].encode(), b"[" * 200 + b"]" * 200),
            "100 levels",
            2,
            "parameters",
        ),
        (
            b'{"kind":"ActionSetup","vid":"%s","parameters":{"a":%s}}'
            % (V[5].encode(), b"[" * 200_000 + b"]" * 200_000),
            "deep",
            2,
            None,
        ),
        (
            b'{"kind":"Tube","vid":"%s","label":"t","study":"%s"}' % (V[5].encode(), V[6].encode()),
            "neither in the file nor in the catalog",
            2,
            "study",
        ),
        (
            b'{"kind":"Tube","vid":"%s","label":"t","study":"%s","container":"%s"}'
            % (V[5].encode(), V[1].encode(), V[1].encode()),
            "names a Study; allowed are Vessel",
            2,
            "container",
        ),
        (
            b'{"kind":"Cursor","vid":"%s","name":"g","position":"2026-01-01T00:00:00Z"}'
            % V[5].encode(),
            "cursors",
            2,
            "kind",
        ),
        (
            b'{"kind":"Tombstone","vid":"%s","of":"Nonsense","time":"2026-01-01T00:00:00Z"}'
            % V[5].encode(),
            "unknown kind",
            2,
            "of",
        ),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_saved(
    catalog: Catalog, bad: bytes, message: str, line: int, field: str | None
) -> None:
    text = io.BytesIO(lines_of(STUDY) + bad + b"\n" + lines_of(DATA))
    text.name = "bad.jsonl"  # type: ignore[misc]
    with pytest.raises(InputError, match=message) as caught:
        load(catalog, text, by="test")
    assert (caught.value.file, caught.value.line, caught.value.field) == ("bad.jsonl", line, field)
    assert catalog.count() == {}
    assert list(catalog.changes({})) == []


def test_a_part_of_a_deleted_object_is_named_with_its_line(catalog: Catalog) -> None:
    stone = {"kind": "Tombstone", "vid": V[3], "of": "DataSample", "time": "2026-01-01T00:00:00Z"}
    part = {"kind": "DataObject", "vid": V[4], "sample": V[3], "uri": "file:///x"}
    with pytest.raises(InputError, match="deleted") as caught:
        load_lines(catalog, STUDY, stone, part)
    assert (caught.value.line, caught.value.field, caught.value.value) == (3, "sample", V[3])
    load_lines(catalog, STUDY, stone, action(V[5], [V[3]], []))


def test_a_cycle_in_the_file_is_named(catalog: Catalog) -> None:
    other = DATA | {"vid": V[4]}
    with pytest.raises(InputError, match="cycle") as caught:
        load_lines(
            catalog, STUDY, DATA, other, action(V[5], [V[3]], [V[4]]), action(V[6], [V[4]], [V[3]])
        )
    assert V[5] in caught.value.reason
    assert catalog.count() == {}


def test_a_cycle_of_file_and_catalog_is_found_and_nothing_is_saved(catalog: Catalog) -> None:
    load_lines(catalog, STUDY, DATA, DATA | {"vid": V[4]}, action(V[5], [V[3]], [V[4]]))
    with pytest.raises(InputError, match="cycle"):
        load_lines(catalog, TUBE, action(V[6], [V[4]], [V[3]]))
    assert "Tube" not in catalog.count()


def test_what_goes_wrong_after_thousands_were_written_undoes_them_all(catalog: Catalog) -> None:
    load_lines(catalog, STUDY, DATA, DATA | {"vid": V[4]}, action(V[5], [V[3]], [V[4]]))
    before = dumped(catalog), list(catalog.changes({}))
    many = [DATA | {"vid": f"V0{n:032X}"} for n in range(1000, 3500)]
    # Only the commit sees it: the cycle runs through an action of the catalog.
    with pytest.raises(InputError, match="cycle"):
        load_lines(catalog, *many, action(V[6], [V[4]], [V[3]]))
    assert (dumped(catalog), list(catalog.changes({}))) == before


def test_containers_in_a_circle_are_refused(catalog: Catalog) -> None:
    with pytest.raises(InputError, match="cycle"):
        load_lines(
            catalog,
            STUDY,
            TUBE | {"container": V[5]},
            TUBE | {"vid": V[5], "label": "T5", "container": V[2]},
        )
    assert catalog.count() == {}


def test_a_line_without_end_is_refused_by_its_limit(catalog: Catalog) -> None:
    text = lines_of(STUDY) + b'{"kind":"Study","label":"' + b"x" * MAX_LINE_BYTES + b'"}\n'
    with pytest.raises(InputError, match="16,777,216 bytes") as caught:
        load(catalog, io.BytesIO(text), by="test")
    assert caught.value.line == 2


@pytest.mark.parametrize(
    ("start", "message"),
    [(b"\x1f\x8b\x08", "gzip"), ("ö".encode("utf-16"), "UTF-16"), (b"PK\x03\x04", "ZIP")],
)
def test_a_file_of_another_sort_is_named(catalog: Catalog, start: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(catalog, io.BytesIO(start), by="test")


def test_a_missing_file_or_a_folder_is_an_input_error(catalog: Catalog, tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(InputError, match=str(tmp_path)):
            load(catalog, path, by="test")


@SLOW
@given(catalogs(), st.data())
def test_no_damage_to_a_file_saves_anything_or_raises_what_is_not_ours(
    objects: list[Object], data: st.DataObject
) -> None:
    text = bytearray(b"".join(encode(obj) + b"\n" for obj in objects))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(text) - 1))
        length = data.draw(st.integers(0, 30))
        text[position : position + length] = data.draw(
            st.sampled_from(
                [b"", b"\n", b'"', b"\\", b"{", b"}", b"]", b"null", b"1e999", b"\xff", b"\x00"]
            )
            | st.binary(max_size=4)
        )
    with new_catalog() as catalog:
        try:
            report = load(catalog, io.BytesIO(bytes(text)), by="test")
        except BiobankError:
            assert catalog.count() == {}
            assert list(catalog.changes({})) == []
        else:
            assert sum(catalog.count().values()) == report.created


@SLOW
@given(catalogs(), st.data())
def test_fields_of_other_values_save_nothing_or_something_that_dumps_and_loads(
    objects: list[Object], data: st.DataObject
) -> None:
    lines = [json.loads(encode(obj)) for obj in objects]
    victim = data.draw(st.sampled_from(lines))
    field = data.draw(st.sampled_from(sorted(victim)))
    other = data.draw(st.sampled_from(lines))
    victim[field] = data.draw(
        st.sampled_from([None, "", 0, -1, 1.5, [], {}, True, "V0", other["vid"], other["kind"]])
    )
    with new_catalog() as first, new_catalog() as second:
        try:
            load_lines(first, *lines)
        except BiobankError:
            assert first.count() == {}
        else:
            load(second, io.BytesIO(dumped(first)), by="test")
            assert dumped(second) == dumped(first)


# The schema


@pytest.mark.parametrize("check", ["meta", "lines"])
def test_the_schema_is_valid_and_takes_every_kind(check: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    if check == "meta":
        jsonschema.Draft202012Validator.check_schema(schema)
        assert set(kinds()) - {"Cursor"} <= set(schema["$defs"])
        # Not part of the regular expressions of JSON Schema (ECMA-262).
        assert r"\\Z" not in json.dumps(schema)
        return
    validator = jsonschema.Draft202012Validator(schema)
    for good in (STUDY, TUBE, DATA, action(V[4], [V[2]], [V[3]])):
        validator.validate(good)
    for bad in (
        TUBE | {"colour": "red"},
        TUBE | {"study": "KPN"},
        {"kind": "Study", "vid": V[1]},
        STUDY | {"kind": "Nonsense"},
        STUDY | {"vid": V[1] + "\n"},
    ):
        assert not validator.is_valid(bad)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(catalogs())
def test_what_is_dumped_fits_the_schema(objects: list[Object]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    for obj in objects:
        validator.validate(json.loads(encode(obj)))


def test_an_object_that_a_file_names_may_be_in_the_catalog(catalog: Catalog) -> None:
    load_lines(catalog, STUDY)
    load_lines(catalog, TUBE)
    found = next(catalog.find("Study", {"label": "KPN"})).object
    assert isinstance(found, Study)
    assert [known.object.vid for known in catalog.find("Vessel", {"study": found.vid})] == [V[2]]
    assert not any(isinstance(k.object, DataSample | Individual) for k in catalog.iterate())
