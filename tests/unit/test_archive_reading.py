"""What an archive tells, and how it meets what a server told before or after."""

from __future__ import annotations

import itertools
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from biobank_core.catalog.port import Catalog, Save
from biobank_core.config import load_settings
from biobank_core.galaxy import identity
from biobank_core.galaxy.archive import open_archive
from biobank_core.galaxy.recorder import Summary, record
from biobank_core.galaxy.records import CollectionEnd, CollectionRecord, DatasetEnd, ElementRecord
from biobank_core.galaxy.rules import Rules, StudyRule
from biobank_core.model.base import Object
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import Action, DataCollection, Device, Study
from biobank_core.stores import open_stores
from tests.unit.archives import (
    FIRST,
    HISTORY_ID,
    JOB,
    LIST_ID,
    MADE,
    OTHER_JOB,
    SECOND,
    UPLOADED,
    dataset,
    encoded,
    history,
    job,
    tar_gz,
    uuid,
    zipped,
)
from tests.unit.scripted_galaxy import ScriptedGalaxy

NINTH = f"{9:016x}"
TEN = datetime(2026, 1, 1, 10, 0, 0, 1, tzinfo=UTC)


@pytest.fixture
def catalogs(tmp_path: Path) -> Iterator[Callable[[], Catalog]]:
    opened = []
    numbers = itertools.count()

    def new() -> Catalog:
        file = tmp_path / f"{next(numbers)}.db"
        stores = open_stores(load_settings(catalog=f"sqlite:///{file}", environment={}), write=True)
        opened.append(stores)
        return stores.__enter__().catalog

    yield new
    for stores in opened:
        stores.__exit__(None, None, None)


@pytest.fixture
def catalog(catalogs: Callable[[], Catalog]) -> Catalog:
    return catalogs()


def record_archive(
    catalog: Catalog, folder: Path, content: dict[str, Any], **options: Any
) -> Summary:
    source = open_archive(tar_gz(folder / "a.tgz", encoded(content)))
    return record(catalog, source, server="g", **options)


def action(catalog: Catalog, minute: int, tool: str = "tool") -> Action:
    vid = identity.action_vid("g", tool, TEN + timedelta(minutes=minute))
    found = catalog.get([vid])[vid].object
    assert isinstance(found, Action)
    return found


def sample(hda_id: str) -> str:
    return identity.data_sample_vid(uuid(hda_id))


def objects(catalog: Catalog) -> dict[str, Object]:
    kinds = ("Action", "ActionSetup", "DataSample", "DataObject", "DataCollection", "Device")
    return {item.object.vid: item.object for kind in kinds for item in catalog.find(kind)}


def test_a_job_of_an_archive_is_an_action_with_its_exact_tool_version(
    catalog: Catalog, tmp_path: Path
) -> None:
    summary = record_archive(catalog, tmp_path, history())
    assert (summary.seen, summary.recorded, summary.failed) == (2, 2, {})
    made = action(catalog, 2)
    items = [("a", sample(FIRST)), ("b", sample(SECOND))]
    given = identity.collection_vid("list", items)
    ports = {(port.role, port.object) for port in made.inputs}
    assert ports == {("one", sample(UPLOADED)), ("many", given)}
    assert [(port.role, port.object) for port in made.outputs] == [("out", sample(MADE))]
    assert made.flags == ()
    assert made.galaxy
    assert made.galaxy.tool_version == "1.2.0"
    assert made.galaxy.tool_version_source == "jobs_attrs"
    device = catalog.get([made.device or ""])[made.device or ""].object
    assert isinstance(device, Device)
    assert (device.label, device.release) == ("tool", "1.2.0")
    # Ids of an archive mean nothing outside of it.
    assert (made.galaxy.job_id, made.galaxy.history_id, made.operator) == (None, None, None)
    collection = catalog.get([given])[given].object
    assert isinstance(collection, DataCollection)
    assert collection.galaxy
    assert (collection.label, collection.galaxy.hdca_id) == ("two", None)
    assert not list(catalog.find("Cursor"))


@pytest.mark.parametrize("form", ["tar.gz", "with ./", "bag", "zip"])
def test_every_form_of_archive_gives_the_same_objects(
    catalogs: Callable[[], Catalog], tmp_path: Path, form: str
) -> None:
    members = encoded(history())
    path = tmp_path / "b"
    if form == "with ./":
        tar_gz(path, {f"./{name}": data for name, data in members.items()})
    elif form == "bag":
        folder = tarfile.TarInfo("tmpx/data/datasets")
        folder.type = tarfile.DIRTYPE
        bag = {f"tmpx/data/{name}": data for name, data in members.items()}
        tar_gz(path, {"tmpx/bagit.txt": b"", **bag}, extra=(folder,))
    else:
        (zipped if form == "zip" else tar_gz)(path, members)
    one, other = catalogs(), catalogs()
    record_archive(one, tmp_path, history())
    record(other, open_archive(path), server="g")
    assert objects(one) == objects(other)


def test_recording_an_archive_again_changes_nothing(catalog: Catalog, tmp_path: Path) -> None:
    record_archive(catalog, tmp_path, history())
    head = catalog.head()
    summary = record_archive(catalog, tmp_path, history())
    assert (summary.recorded, summary.unchanged) == (0, 2)
    assert catalog.head() == head


def live_galaxy() -> ScriptedGalaxy:
    """The same job as a server tells it."""
    galaxy = ScriptedGalaxy()
    uuids = {i: uuid(i) for i in (UPLOADED, FIRST, SECOND, MADE)}

    def end(role: str, i: str) -> DatasetEnd:
        return DatasetEnd(role=role, uuid=uuids[i], id=None)

    galaxy.collections["hdca"] = CollectionRecord(
        id="hdca",
        name="two",
        collection_type="list",
        elements=(
            ElementRecord(identifier="a", dataset_uuid=uuids[FIRST]),
            ElementRecord(identifier="b", dataset_uuid=uuids[SECOND]),
        ),
    )
    galaxy.add(
        "live-job",
        0,
        create_time=TEN + timedelta(minutes=2),
        update_time=TEN + timedelta(minutes=2, seconds=30),
        tool_version=None,
        user="ada@x.org",
        parameters={"count": "3", "dbkey": "?"},
        inputs=(end("one", UPLOADED), end("many", FIRST), end("many", SECOND)),
        input_collections=(CollectionEnd(role="many", key="hdca"),),
        outputs=(end("out", MADE),),
    )
    return galaxy


def test_the_second_source_fills_gaps_and_replaces_nothing_in_either_order(
    catalogs: Callable[[], Catalog], tmp_path: Path
) -> None:
    first, second = catalogs(), catalogs()
    record(first, live_galaxy(), server="g")  # type: ignore[arg-type]
    record_archive(first, tmp_path, history())
    record_archive(second, tmp_path, history())
    record(second, live_galaxy(), server="g")  # type: ignore[arg-type]
    for catalog in (first, second):
        made = action(catalog, 2)
        assert made.galaxy
        assert (made.galaxy.job_id, made.galaxy.history_id) == ("live-job", "h1")
        assert (made.galaxy.tool_version, made.operator) == ("1.2.0", "ada@x.org")
        device = catalog.get([made.device or ""])[made.device or ""].object
        assert isinstance(device, Device)
        assert device.release == "1.2.0"
    assert action(first, 2) == action(second, 2)
    assert objects(first).keys() == objects(second).keys()


def test_what_the_archive_leaves_out_makes_the_job_partial_and_a_server_completes_it(
    catalog: Catalog, tmp_path: Path
) -> None:
    content = history()
    content["datasets_attrs.txt"] = [dataset(i) for i in (UPLOADED, FIRST, MADE)]
    record_archive(catalog, tmp_path, content)
    made = action(catalog, 2)
    assert made.flags == ("partial",)
    # Without one element it would be another list: it is left out, and nothing is made up.
    assert not list(catalog.find("DataCollection"))
    assert {port.object for port in made.inputs} == {sample(UPLOADED), sample(FIRST)}
    record(catalog, live_galaxy(), server="g")  # type: ignore[arg-type]
    made = action(catalog, 2)
    assert made.flags == ()
    assert len(list(catalog.find("DataCollection"))) == 1


def test_a_partial_archive_takes_nothing_from_what_a_server_told(
    catalog: Catalog, tmp_path: Path
) -> None:
    record(catalog, live_galaxy(), server="g")  # type: ignore[arg-type]
    before = action(catalog, 2)
    content = history()
    content["datasets_attrs.txt"] = [dataset(UPLOADED)]
    record_archive(catalog, tmp_path, content)
    after = action(catalog, 2)
    assert (after.inputs, after.outputs, after.flags) == (before.inputs, before.outputs, ())


@pytest.mark.parametrize("name", ["hdca", "library"])
def test_an_input_that_is_not_in_the_archive_makes_the_job_partial(
    catalog: Catalog, tmp_path: Path, name: str
) -> None:
    content = history()
    if name == "hdca":
        content["collections_attrs.txt"] = []
    else:
        source = {"values": [{"src": "ldda", "id": FIRST}]}
        content["jobs_attrs.txt"][1]["params"]["from_library"] = source
    record_archive(catalog, tmp_path, content)
    assert action(catalog, 2).flags == ("partial",)


def test_an_output_collection_that_is_not_in_the_archive_makes_the_job_partial(
    catalog: Catalog, tmp_path: Path
) -> None:
    content = history()
    gone = {"output_dataset_collection_mapping": {"list": [f"{8:016x}"]}}
    content["jobs_attrs.txt"].append(job(OTHER_JOB, 5, **gone))
    record_archive(catalog, tmp_path, content)
    assert action(catalog, 5).flags == ("partial",)


def cached_job(**fields: Any) -> dict[str, Any]:
    return job(
        OTHER_JOB,
        5,
        params={"__use_cached_job__": "true"},
        output_dataset_mapping={"out": [NINTH]},
        **fields,
    )


def test_an_answer_of_the_job_cache_makes_no_edge_where_the_archive_shows_it(
    catalog: Catalog, tmp_path: Path
) -> None:
    content = history()
    content["datasets_attrs.txt"].append(dataset(NINTH, dataset_uuid=uuid(MADE)))
    content["jobs_attrs.txt"].insert(0, cached_job())
    record_archive(catalog, tmp_path, content)
    cached = action(catalog, 5)
    assert (cached.outputs, cached.flags) == ((), ())
    assert [port.object for port in cached.without_edge] == [sample(MADE)]
    assert [port.object for port in action(catalog, 2).outputs] == [sample(MADE)]


def test_where_the_archive_does_not_show_whether_the_cache_answered_the_job_is_partial(
    catalog: Catalog, tmp_path: Path
) -> None:
    content = history()
    content["datasets_attrs.txt"].append(dataset(NINTH))
    content["jobs_attrs.txt"].append(cached_job())
    record_archive(catalog, tmp_path, content)
    assert action(catalog, 5).flags == ("partial",)


def test_a_copy_of_what_is_not_known_to_have_gone_in_is_no_product(
    catalog: Catalog, tmp_path: Path
) -> None:
    content = history()
    chain = {"copied_from_history_dataset_association_id_chain": [f"{8:016x}"]}
    content["datasets_attrs.txt"].append(dataset(NINTH, **chain))
    extract = job(OTHER_JOB, 5, output_dataset_mapping={"output": [NINTH]})
    content["jobs_attrs.txt"].append(extract)
    record_archive(catalog, tmp_path, content)
    extracted = action(catalog, 5)
    assert (extracted.outputs, extracted.flags) == ((), ("partial",))


def test_jobs_of_one_moment_are_told_apart_as_the_server_did(
    catalog: Catalog, tmp_path: Path
) -> None:
    galaxy = live_galaxy()
    twin = galaxy.records["live-job"]
    galaxy.add(
        "twin",
        0,
        create_time=twin.create_time,
        update_time=twin.update_time,
        outputs=(DatasetEnd(role="out", uuid=uuid(f"{7:016x}"), id=None),),
    )
    record(catalog, galaxy, server="g")  # type: ignore[arg-type]
    before = catalog.count()["Action"]
    # The archive has only one of the two.
    content = history()
    content["jobs_attrs.txt"] = [content["jobs_attrs.txt"][1]]
    record_archive(catalog, tmp_path, content)
    assert catalog.count()["Action"] == before == 2


def test_a_job_that_has_not_ended_is_left_to_a_later_archive(
    catalog: Catalog, tmp_path: Path
) -> None:
    content = history()
    content["jobs_attrs.txt"].append(job(OTHER_JOB, 5, state="running"))
    summary = record_archive(catalog, tmp_path, content)
    assert (summary.recorded, summary.waiting) == (2, 1)
    content["jobs_attrs.txt"][2]["state"] = "error"
    summary = record_archive(catalog, tmp_path, content)
    assert (summary.recorded, summary.unchanged, summary.waiting) == (1, 2, 0)


def test_rules_place_the_exported_history_and_no_other(catalog: Catalog, tmp_path: Path) -> None:
    study = Study(vid=new_vid(), label="K")
    catalog.commit([Save(object=study)], by="test")
    content = history()
    content["datasets_attrs.txt"].append(dataset(NINTH, history_encoded_id="0" * 16))
    content["jobs_attrs.txt"].append(job(OTHER_JOB, 5, output_dataset_mapping={"out": [NINTH]}))
    rules = Rules(studies=(StudyRule(history_name="study {study}"),))
    record_archive(catalog, tmp_path, content, rules=rules)
    assert action(catalog, 2).study == study.vid
    assert action(catalog, 5).study != study.vid


def test_an_archive_of_nan_and_of_unknown_fields_is_read(catalog: Catalog, tmp_path: Path) -> None:
    content = history()
    content["datasets_attrs.txt"][0]["metadata"] = {"mean": float("nan")}
    content["jobs_attrs.txt"][1]["params"]["threshold"] = {"inner": float("inf")}
    content["jobs_attrs.txt"][1]["brand_new"] = [1, 2, 3]
    assert record_archive(catalog, tmp_path, content).recorded == 2


def test_an_archive_does_not_need_a_server_or_its_history(tmp_path: Path) -> None:
    content = history()
    del content["history_attrs.txt"]
    source = open_archive(tar_gz(tmp_path / "a.tgz", encoded(content)))
    assert source.history(HISTORY_ID).name == ""
    assert source.job(JOB).history_id == HISTORY_ID
    assert source.collection(LIST_ID).name == "two"
