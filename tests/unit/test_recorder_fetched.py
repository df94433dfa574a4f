"""Jobs of our fetching tools: each copy comes from its one original, as the manifest says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from biobank_core.catalog.port import Save
from biobank_core.catalog.sqlite import SqliteCatalog, open_catalog
from biobank_core.errors import NotFoundError, UnreachableError
from biobank_core.galaxy.drafts import Draft
from biobank_core.galaxy.fetched import with_originals
from biobank_core.galaxy.gather import Gathered
from biobank_core.galaxy.identity import data_sample_vid
from biobank_core.galaxy.records import CollectionEnd, DatasetEnd, JobRecord
from biobank_core.galaxy.shapes import Shape
from biobank_core.galaxy.source import Source
from biobank_core.galaxy.translate import translate
from biobank_core.model.ids import derived_vid
from biobank_core.model.kinds import Action, ActionCategory, DataSample, Study

STUDY = derived_vid("test", "study")
ORIGINALS = {name: derived_vid("test", name) for name in ("a", "b")}
TIME = datetime(2026, 1, 1, tzinfo=UTC)
COPIES = {name: f"00000000-0000-0000-0000-00000000000{n}" for n, name in enumerate("ab", 1)}
TABLE, TOLD = (f"00000000-0000-0000-0000-0000000000{n}" for n in (98, 99))


class Told:
    """A source that only gives one manifest, or fails."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer = answer

    def content(self, hda_id: str, *, limit_bytes: int) -> bytes:
        assert hda_id == "m1"
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def catalog(tmp_path: Path) -> SqliteCatalog:
    made = open_catalog(f"sqlite:///{tmp_path}/c.db", create=True)
    objects = [Study(vid=STUDY, label="KPN")]
    samples = [DataSample(vid=vid, label=name, study=STUDY) for name, vid in ORIGINALS.items()]
    made.commit([Save(object=obj) for obj in (*objects, *samples)], by="test")
    return made


def line(name: str, **other: Any) -> bytes:
    entry = {
        "vid": ORIGINALS[name],
        "object": ORIGINALS[name],
        "identifiers": [name],
        "path": name,
        "sha256": "0" * 64,
        "size_bytes": 1,
        "extension": None,
        "verified": "sha256",
        "element": name,
    }
    return json.dumps(entry | other).encode() + b"\n"


def recorded(
    catalog: SqliteCatalog,
    answer: bytes | Exception,
    *,
    tool: str = "biobank_fetch_data",
    state: str = "ok",
) -> tuple[Action, list[Action]]:
    """The job's own action, and those of the single copies."""
    found = [f"__new_primary_file_files|{name}__" for name in COPIES]
    job = JobRecord(
        id="j1",
        tool_id=tool,
        state=state,
        create_time=TIME,
        update_time=TIME,
        outputs=(
            DatasetEnd(role="table", uuid=TABLE, id="t1"),
            DatasetEnd(role="manifest", uuid=TOLD, id="m1"),
            *(
                DatasetEnd(role=role, uuid=uuid)
                for role, uuid in zip(found, COPIES.values(), strict=True)
            ),
        ),
        output_collections=(CollectionEnd(role="files", key="c1"),),
    )
    items = tuple((name, data_sample_vid(uuid)) for name, uuid in COPIES.items())
    shape = Shape(
        vid=derived_vid("test", "list"),
        collection_type="list",
        items=items,
        leaves={vid: (name,) for name, vid in items},
    )
    action = translate(job, server="g", study=STUDY, inputs={}, outputs={"c1": shape}).action
    draft = Draft(job_id="j1", action=action, objects={action.vid: action})
    around = Gathered(shapes={"c1": shape}, collections={}, datasets={}, known={})
    source = cast(Source, Told(answer))
    (done,) = with_originals([draft], [job], around, source=source, catalog=catalog)
    assert done.action is not None
    clones = [obj for obj in done.objects.values() if obj.vid != done.action.vid]
    return done.action, [obj for obj in clones if isinstance(obj, Action)]


def edges(actions: list[Action]) -> set[tuple[str, str]]:
    return {(i.object, o.object) for a in actions for i in a.inputs for o in a.outputs}


@pytest.mark.parametrize(
    "tool",
    ["biobank_fetch_data", "shed.org/repos/x/biobank_select_samples/biobank_select_samples/1"],
)
def test_each_copy_comes_from_its_one_original(catalog: SqliteCatalog, tool: str) -> None:
    action, clones = recorded(catalog, line("a") + line("b"), tool=tool)
    assert action.category is ActionCategory.OBJECT_CLONING
    assert {port.object for port in action.inputs} == set(ORIGINALS.values())
    assert [port.role for port in action.outputs] == ["table", "manifest"]
    assert {port.object for port in action.without_edge} == set(
        map(data_sample_vid, COPIES.values())
    )
    assert action.flags == ()
    assert edges(clones) == {
        (ORIGINALS[name], data_sample_vid(uuid)) for name, uuid in COPIES.items()
    }
    assert {clone.category for clone in clones} == {ActionCategory.OBJECT_CLONING}


def test_recording_twice_gives_the_same_objects(catalog: SqliteCatalog) -> None:
    assert recorded(catalog, line("a")) == recorded(catalog, line("a"))


@pytest.mark.parametrize(
    "answer",
    [
        NotFoundError("purged"),
        b"not a manifest\n",
        line("a"),
        line("a") + line("b", vid=derived_vid("test", "nobody knows")),
        line("a") + line("b", vid=STUDY),
        line("a") + line("b", element="another"),
    ],
)
def test_what_the_manifest_does_not_tell_or_nobody_knows_makes_it_partial(
    catalog: SqliteCatalog, answer: bytes | Exception
) -> None:
    action, clones = recorded(catalog, answer)
    assert action.flags == ("partial",)
    assert action.category is ActionCategory.OBJECT_CLONING
    assert ORIGINALS["b"] not in {source for source, _ in edges([action, *clones])}


def test_a_server_that_is_gone_stops_the_recording(catalog: SqliteCatalog) -> None:
    with pytest.raises(UnreachableError):
        recorded(catalog, UnreachableError("gone"))


@pytest.mark.parametrize(("tool", "state"), [("cat1", "ok"), ("biobank_fetch_data", "error")])
def test_other_jobs_and_failed_ones_are_not_touched(
    catalog: SqliteCatalog, tool: str, state: str
) -> None:
    action, clones = recorded(catalog, AssertionError("asked"), tool=tool, state=state)
    assert action.category is ActionCategory.PROCESSING
    assert not clones
