"""A real history recorded from the server and from its export, in both orders: the same objects."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from biobank_core.galaxy.archive import open_archive
from biobank_core.galaxy.recorder import Summary, record
from biobank_core.model.base import Object
from biobank_core.model.kinds import Action, ActionCategory, ActionStatus
from tests.integration.galaxy_cases import SERVER, Lab, lab_of, new_user
from tests.integration.omero_settings import NewCatalog
from tests.servers.galaxy import LATER_TOOLS, GalaxyServer
from tests.servers.galaxy_user import GalaxyUser, Run, hda, hdca, mapped_over

pytestmark = pytest.mark.galaxy

KINDS: Final = ("Action", "ActionSetup", "DataSample", "DataObject", "DataCollection", "Device")

# ARCHITECTURE.md, "From Galaxy to our words": what an archive does not hold. All else is equal.
LIVE_ONLY: Final = {
    "Action.operator",
    "Action.galaxy.job_id",
    "Action.galaxy.user",
    "Action.galaxy.history_id",
    "Action.galaxy.cached_from",
    "Action.galaxy.invocation_id",
    "Action.galaxy.workflow_id",
    "Action.galaxy.workflow_version",
    "Action.galaxy.step_label",
    "DataCollection.galaxy.hdca_id",
    "DataObject.size_bytes",
    "DataSample.galaxy.purged",
    "DataSample.galaxy.as_of",
}
# Where both have it, whoever came first is kept.
OF_THE_FIRST: Final = {"Action.galaxy.tool_version_source", "DataSample.galaxy.as_of"}


@dataclass
class World:
    """A history with everything in it, and how often it can be exported."""

    galaxy: GalaxyServer
    user: GalaxyUser
    history: str
    runs: dict[str, Run]
    cached_job: str
    purged_job: str
    new_catalog: NewCatalog
    folder: Path

    def lab(self, name: str) -> Any:
        folder = self.folder / name
        folder.mkdir()
        return lab_of(self.user, self.galaxy.url, self.new_catalog, folder, history=None)

    def exported(self, kind: str, *, files: bool = False, what: str = "") -> Path:
        """An archive of the history, or of `what`."""
        return export(
            self.user, what or f"histories/{self.history}", kind, self.folder, files=files
        )


def export(user: GalaxyUser, what: str, kind: str, folder: Path, *, files: bool = False) -> Path:
    """An archive as a file."""
    client = user.client
    asked = client.make_post_request(
        f"{client.url}/{what}/prepare_store_download",
        payload={
            "model_store_format": kind,
            "include_files": files,
            "include_hidden": True,
            "include_deleted": True,
        },
    )
    place = f"{client.url}/short_term_storage/{asked['storage_request_id']}"
    user.wait_for(lambda: client.make_get_request(f"{place}/ready").json(), what="the export")
    answer = client.make_get_request(place)
    assert answer.status_code == 200, answer.text
    path = folder / f"{what.replace('/', '-')}-{files}.{kind}"
    path.write_bytes(answer.content)
    return path


def record_archive(lab: Lab, path: Path) -> Summary:
    return record(lab.stores.catalog, open_archive(path), server=SERVER)


def objects(lab: Lab) -> dict[str, Object]:
    catalog = lab.stores.catalog
    return {item.object.vid: item.object for kind in KINDS for item in catalog.find(kind)}


def differing(one: Object, other: Object) -> Iterator[str]:
    """The fields in which two objects differ."""
    assert type(one) is type(other)
    name = type(one).__name__
    for field in one.__struct_fields__:
        mine, theirs = getattr(one, field), getattr(other, field)
        if isinstance(mine, msgspec.Struct) and isinstance(theirs, msgspec.Struct):
            for inner in mine.__struct_fields__:
                if getattr(mine, inner) != getattr(theirs, inner):
                    yield f"{name}.{field}.{inner}"
        elif mine != theirs:
            yield f"{name}.{field}"


def differences(one: Mapping[str, Object], other: Mapping[str, Object]) -> dict[str, set[str]]:
    """The fields in which objects of one VID differ, with the VIDs."""
    found: dict[str, set[str]] = {}
    for vid in one.keys() & other.keys():
        for field in differing(one[vid], other[vid]):
            found.setdefault(field, set()).add(vid)
    return found


@pytest.fixture(scope="module")
def world(
    galaxy: GalaxyServer, new_catalog: NewCatalog, tmp_path_factory: pytest.TempPathFactory
) -> World:
    user = new_user(galaxy, f"archives-{time.time_ns()}")
    run = user.run
    other = user.new_history("other")
    history = user.new_history("everything")
    folder = tmp_path_factory.mktemp("archives")
    one = user.upload(history, "one\n", name="one")
    elsewhere = user.upload(other, "two\n", name="two")
    two = user.client.histories.copy_dataset(history, elsewhere)["id"]
    lists = user.upload_collection(history, {"s1": "x\n", "s2": "y\n", "s3": ""}, name="list")
    nested = user.upload_collection(
        history,
        {s: {"forward": f"{s} f\n", "reverse": f"{s} r\n"} for s in ("p1", "p2")},
        collection_type="list:paired",
    )
    pairs = {"batch": True, "values": [{**hdca(nested), "map_over_type": "paired"}]}
    runs = {
        "n:m": run(history, "two_to_two", {"first": hda(one), "second": hda(two)}),
        "failed": run(history, "failing", {"input": hda(one)}, expect="error"),
        "mapped": run(history, "one_to_one", {"input": mapped_over(lists)}),
        "reduced": run(history, "reduce_many", {"inputs": hdca(lists)}),
        "several": run(history, "reduce_many", {"inputs": {"values": [hda(one), hda(two)]}}),
        "list": run(history, "list_to_list", {"input": hdca(lists)}),
        "nested": run(history, "nested_input", {"pairs": hdca(nested)}),
        "pairs": run(history, "paired_input", {"pair": pairs}),
        "found": run(history, "discover_datasets", {"input": hda(one)}),
        "found list": run(history, "discover_list", {"input": hda(one)}),
        "make pair": run(history, "make_pair", {"input": mapped_over(lists)}),
        "no input": run(history, "optional_input", {}),
        "parameters": run(
            history, "parameters", {"text": "false", "flag": True, "count": 7, "choices": ["z"]}
        ),
        "flatten": run(history, "__FLATTEN__", {"input": hdca(nested)}),
        "unzip": run(history, "__UNZIP_COLLECTION__", {"input": pairs}),
        "filter": run(history, "__FILTER_EMPTY_DATASETS__", {"input": hdca(lists)}),
        "build": run(
            history,
            "__BUILD_LIST__",
            {"datasets_0|input": hda(one), "datasets_1|input": hda(two)},
        ),
    }
    tool = f"arch_upgraded_{os.getpid()}"
    for version, source in (
        ("1.2.0", LATER_TOOLS.parent / "versioned_tool_1_2_0.xml"),
        ("2.0.0+galaxy1", LATER_TOOLS / "versioned_tool_2_0_0.xml"),
    ):
        file = folder / "tool.xml"
        text = source.read_text(encoding="utf-8").replace('id="versioned_tool"', f'id="{tool}"')
        file.write_text(text, encoding="utf-8")
        galaxy.add_tool(file)
        runs[version] = user.wait_for(
            lambda version=version: run(history, tool, {"input": hda(one)}, version=version),
            what="the tool",
        )
    cached = user.client.make_post_request(
        f"{user.client.url}/tools",
        payload={
            "history_id": history,
            "tool_id": "two_to_two",
            "inputs": {"first": hda(one), "second": hda(two)},
            "use_cached_job": True,
        },
    )["jobs"][0]["id"]
    user.wait_for_jobs([cached])
    purged = run(history, "two_to_two", {"first": hda(two), "second": hda(two)})
    user.client.histories.delete_dataset(history, purged.outputs["reversed"], purge=True)
    user.wait_for(
        lambda: user.client.datasets.show_dataset(purged.outputs["reversed"])["purged"],
        what="purging",
    )
    # Hashes come some time after their jobs; those of copies never do.
    for done in (runs["n:m"], runs["parameters"], runs["2.0.0+galaxy1"]):
        for hda_id in done.outputs.values():
            user.wait_for_hash(hda_id)
    user.wait_for_hash(purged.outputs["joined"])
    return World(galaxy, user, history, runs, cached, purged.job_ids[0], new_catalog, folder)


def test_an_archive_and_its_server_give_the_same_objects(world: World) -> None:
    with world.lab("live") as live, world.lab("archive") as archive:
        assert live.record(history_id=world.history).failed == {}
        summary = record_archive(archive, world.exported("tgz"))
        assert summary.failed == {}
        told, found = objects(live), objects(archive)
        purged = live.action(world.purged_job)
        cached = live.action(world.cached_job)
        upgraded = {
            v: live.action(world.runs[v].job_ids[0]).vid for v in ("1.2.0", "2.0.0+galaxy1")
        }
        failed = live.action(world.runs["failed"].job_ids[0]).vid
        # What both have are the same things, but for what an archive does not hold.
        uploads = {
            vid
            for vid, obj in told.items()
            if isinstance(obj, Action) and obj.category is ActionCategory.IMPORT
        }
        differ = differences(told, found)
        # The server does not tell the version of its upload tool; the archive does.
        assert differ.pop("Action.device") == uploads & found.keys()
        assert differ.pop("Action.galaxy.tool_version") == uploads & found.keys()
        # The archive has left out what was purged, and says so.
        assert differ.pop("Action.outputs") == differ.pop("Action.flags") == {purged.vid}
        assert found[purged.vid].flags == ("partial",)  # type: ignore[attr-defined]
        assert differ.keys() <= LIVE_ONLY | OF_THE_FIRST
        gone = live.sample(live_output(live, world.purged_job, "reversed")).vid
        missing = Counter(type(told[vid]).__name__ for vid in told.keys() - found.keys())
        assert gone not in found
        assert missing == {"DataSample": 1, "DataObject": 1, "SoftwareProgram": 1}
        # The upload of what was copied from another history is in the archive.
        more = Counter(type(found[vid]).__name__ for vid in found.keys() - told.keys())
        assert more == {"Action": 1, "SoftwareProgram": 1}
        for version, vid in upgraded.items():
            action = found[vid]
            assert isinstance(action, Action)
            assert action.galaxy
            assert (action.galaxy.tool_version, action.galaxy.tool_version_source) == (
                version,
                "jobs_attrs",
            )
        assert found[failed].status is ActionStatus.ERROR  # type: ignore[attr-defined]
        assert found[cached.vid].outputs == ()  # type: ignore[attr-defined]


def live_output(lab: Lab, job_id: str, role: str) -> str:
    """The dataset id that a job put out."""
    return str(lab.user.client.jobs.show_job(job_id)["outputs"][role]["id"])


def test_both_orders_end_with_the_same(world: World) -> None:
    path = world.exported("tgz")
    with world.lab("one") as one, world.lab("other") as other:
        one.record()
        before = objects(one)
        record_archive(one, path)
        after = objects(one)
        # Nothing that the server had told was replaced: only what it did not know is new.
        assert differences(before, after).keys() <= {
            "Action.device",
            "Action.galaxy.tool_version",
            "Action.galaxy.tool_version_source",
            "DataSample.galaxy.as_of",
        }
        record_archive(other, path)
        other.record()
        assert objects(other).keys() == after.keys()
        assert differences(after, objects(other)).keys() <= OF_THE_FIRST
        assert one.graph() == other.graph()
        assert one.index.digest() == other.index.digest()
        # A third time, whichever, changes nothing.
        head = one.stores.catalog.head()
        assert record_archive(one, path).recorded == 0
        assert one.stores.catalog.head() == head


@pytest.mark.parametrize(
    ("kind", "files"),
    [("tgz", True), ("bag.tgz", False), ("rocrate.zip", False), ("rocrate.zip", True)],
)
def test_every_kind_of_archive_gives_the_same(world: World, kind: str, files: bool) -> None:
    with world.lab(f"plain-{kind}-{files}") as plain, world.lab(f"{kind}-{files}") as other:
        record_archive(plain, world.exported("tgz"))
        record_archive(other, world.exported(kind, files=files))
        assert objects(plain) == objects(other)


def test_an_invocations_archive_gives_the_same_as_its_server(world: World) -> None:
    user = world.user
    history = user.new_history("workflow")
    lists = user.upload_collection(history, {"a": "1\n", "b": "2\n"})
    workflow = user.client.workflows.import_workflow_dict(
        {
            "class": "GalaxyWorkflow",
            "name": "two steps",
            "inputs": {"data": {"type": "collection", "collection_type": "list"}},
            "outputs": {},
            "steps": {
                "upper": {"tool_id": "one_to_one", "in": {"input": "data"}},
                "joined": {"tool_id": "reduce_many", "in": {"inputs": "upper/output"}},
            },
        }
    )
    source = {"data": {"src": "hdca", "id": lists}}
    invocation = user.client.workflows.invoke_workflow(
        workflow["id"], inputs=source, inputs_by="name", history_id=history
    )["id"]
    user.wait_for(
        lambda: (
            len(jobs := user.client.jobs.get_jobs(invocation_id=invocation)) == 3
            and all(job["state"] == "ok" for job in jobs)
        ),
        what="the workflow",
    )
    for kind in ("tgz", "rocrate.zip"):
        path = export(user, f"invocations/{invocation}", kind, world.folder)
        with world.lab(f"live-{kind}") as live, world.lab(f"invocation-{kind}") as archive:
            live.record(history_id=history)
            assert record_archive(archive, path).recorded == 4
            told, found = objects(live), objects(archive)
            upload = {"Action.device", "Action.galaxy.tool_version"}
            assert differences(told, found).keys() <= LIVE_ONLY | OF_THE_FIRST | upload
            kinds = {type((told | found)[vid]).__name__ for vid in found.keys() ^ told.keys()}
            assert kinds == {"SoftwareProgram"}
