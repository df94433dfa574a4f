"""Recording as people do it: again and again, as administrator, over upgrades, by command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from biobank_core.errors import NotPermittedError
from biobank_core.galaxy.client import GalaxyClient
from biobank_core.galaxy.live import LiveSource
from biobank_core.galaxy.recorder import record
from tests.integration.galaxy_cases import SERVER, Lab, lab_of, ports
from tests.integration.omero_settings import NewCatalog, on_both
from tests.servers.galaxy import LATER_TOOLS, GalaxyServer
from tests.servers.galaxy_user import GalaxyUser, hda, mapped_over

pytestmark = pytest.mark.galaxy

HOSTILE = "ü \"q\" 's' <script>alert(1)</script> =1+1 試料 \\ | ; $HOME `id`"


@pytest.fixture
def lab(
    galaxy: GalaxyServer, galaxy_user: GalaxyUser, new_catalog: NewCatalog, tmp_path: Path
) -> Iterator[Lab]:
    with lab_of(galaxy_user, galaxy.url, new_catalog, tmp_path, history=HOSTILE) as opened:
        yield opened


def test_a_tool_upgraded_in_between_has_both_exact_versions(
    lab: Lab, galaxy: GalaxyServer, tmp_path: Path
) -> None:
    name = f"rec_upgraded_{os.getpid()}"
    file = tmp_path / "tool.xml"

    def install(source: Path) -> None:
        text = source.read_text(encoding="utf-8")
        file.write_text(text.replace('id="versioned_tool"', f'id="{name}"'), encoding="utf-8")
        galaxy.add_tool(file)

    data = lab.user.upload(lab.history, "one\n")
    install(LATER_TOOLS.parent / "versioned_tool_1_2_0.xml")
    old = lab.user.run(lab.history, name, {"input": hda(data)})
    install(LATER_TOOLS / "versioned_tool_2_0_0.xml")
    new = lab.user.wait_for(
        lambda: lab.user.run(lab.history, name, {"input": hda(data)}, version="2.0.0+galaxy1"),
        what="the new version's job",
    )
    lab.record()
    versions = {}
    for run in (old, new):
        action = lab.action(run.job_ids[0])
        assert action.galaxy
        versions[lab.device(action).release] = action.galaxy.tool_version_source
    assert versions == {
        "1.2.0": "build_for_rerun_message",
        "2.0.0+galaxy1": "build_for_rerun",
    }


@on_both
def test_any_text_is_kept_as_it_is_and_secrets_are_not(lab: Lab) -> None:
    lists = lab.user.upload_collection(lab.history, {HOSTILE: "x\n"}, name=HOSTILE)
    element = lab.user.elements(lists)[HOSTILE]
    lab.user.client.histories.update_dataset(lab.history, element, name=HOSTILE)
    run = lab.user.run(
        lab.history,
        "parameters",
        {"input": hda(element), "text": HOSTILE, "api_key": "geheim", "choices": ["x", "z"]},
    )
    summary = lab.record()
    assert summary.failed == {}
    assert lab.sample(element).label == HOSTILE
    made = lab.collection(lists)
    assert (made.label, made.items[0].role) == (HOSTILE, HOSTILE)
    kept = lab.parameters(lab.action(run.job_ids[0]))
    assert kept["text"] == HOSTILE
    assert kept["choices"] == ["x", "z"]
    assert kept["mode"] == {"kind": "simple"}
    assert kept["advanced"] == {"seed": "42"}
    assert not [name for name in kept if name.startswith("__") or name in ("chromInfo", "dbkey")]
    assert "geheim" not in json.dumps(kept)


def test_requests_are_few_and_a_second_run_asks_only_the_list(lab: Lab) -> None:
    lists = lab.user.upload_collection(lab.history, {"a": "1\n", "b": "2\n", "c": "3\n"})
    lab.user.run(lab.history, "one_to_one", {"input": mapped_over(lists)})
    summary, requests = lab.counted()
    jobs, datasets, collections = 1 + 3, 3 + 3, 2
    assert summary.recorded == jobs
    assert requests <= 1 + 3 * jobs + datasets + collections
    assert lab.counted()[1] == 1
    # One job more asks for what is new only.
    more = lab.user.run(lab.history, "reduce_many", {"inputs": {"src": "hdca", "id": lists}})
    summary, requests = lab.counted()
    assert (summary.recorded, summary.failed) == (1, {})
    assert requests <= 1 + 3 + 1
    assert lab.action(more.job_ids[0]).inputs[0].object == lab.collection(lists).vid


def test_an_administrator_records_the_jobs_of_all_users(
    lab: Lab, galaxy: GalaxyServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = lab.user.upload(lab.history, "one\n")
    run = lab.user.run(lab.history, "one_to_one", {"input": hda(data)})
    admin = GalaxyClient.connect(galaxy.url, galaxy.admin_key)
    record(lab.stores.catalog, LiveSource(admin), server=SERVER, history_id=lab.history)
    action = lab.action(run.job_ids[0])
    assert action.operator == lab.user.email
    assert action.galaxy
    assert action.galaxy.times_from == "metrics"
    # The user's own recording finds the same objects, and nothing to change.
    before = lab.index.digest()
    summary = lab.record()
    assert (summary.recorded, summary.unchanged) == (0, 2)
    assert lab.index.digest() == before
    other = GalaxyClient.connect(galaxy.url, galaxy.create_user("nobody@biobank.example"))
    mine = record(lab.stores.catalog, LiveSource(other), server=SERVER)
    assert mine.seen == 0


def test_a_workflows_jobs_know_invocation_version_and_step(lab: Lab) -> None:
    lists = lab.user.upload_collection(lab.history, {"a": "1\n", "b": "2\n"})
    workflow = lab.user.client.workflows.import_workflow_dict(
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
    invocation = lab.user.client.workflows.invoke_workflow(
        workflow["id"],
        inputs={"data": {"src": "hdca", "id": lists}},
        inputs_by="name",
        history_id=lab.history,
    )["id"]
    jobs = lab.user.wait_for(
        lambda: (
            found
            if len(found := lab.user.client.jobs.get_jobs(invocation_id=invocation)) == 3
            and all(job["state"] == "ok" for job in found)
            else []
        ),
        what="the workflow",
    )
    lab.record(invocation_id=invocation)
    told = {}
    for job in jobs:
        galaxy_job = lab.action(job["id"]).galaxy
        assert galaxy_job
        assert galaxy_job.invocation_id == invocation
        assert galaxy_job.workflow_version == 0
        told[job["id"]] = (job["tool_id"], galaxy_job.step_label)
    assert sorted(told.values()) == [
        ("one_to_one", "upper"),
        ("one_to_one", "upper"),
        ("reduce_many", "joined"),
    ]
    [joined] = [job for job, (tool, _) in told.items() if tool == "reduce_many"]
    [(_, given)] = ports(lab.action(joined), "inputs")
    assert lab.stores.catalog.get([given])[given].object.kind == "DataCollection"


def test_rules_and_commands_tie_data_to_tubes(lab: Lab, tmp_path: Path) -> None:
    study = lab.study("KPN")
    tubes = {label: lab.tube(label, study) for label in ("T1", "T2", "T3")}
    lists = lab.user.upload_collection(lab.history, {"T1": "1\n", "stranger": "2\n"})
    tagged = lab.user.upload(lab.history, "3\n", name="tagged")
    lab.user.client.histories.update_dataset(lab.history, tagged, tags=["biobank:T2"])
    run = lab.user.run(lab.history, "one_to_one", {"input": mapped_over(lists)})
    lab.user.client.histories.update_history(lab.history, tags=["study:KPN"])
    rules = tmp_path / "rules.yml"
    rules.write_text("studies:\n  - history_tag: 'study:{study}'\n", encoding="utf-8")

    def biobank(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "biobank_core.cli", *words],
            env=lab.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert lab.user.key not in done.stdout + done.stderr
        return done.stdout

    out = biobank("record", "--rules", str(rules), "--galaxy-name", SERVER)
    assert "data linked to samples\t2\n" in out
    sources, made = lab.user.elements(lists), lab.user.elements(run.collections["output"])
    assert lab.upstream(lab.vid(sources["T1"])) == {tubes["T1"]}
    assert lab.upstream(lab.vid(made["T1"])) == {tubes["T1"], lab.vid(sources["T1"])}
    assert lab.upstream(lab.vid(tagged)) == {tubes["T2"]}
    stranger = lab.vid(sources["stranger"])
    listed = biobank("unlinked").splitlines()[1:]
    assert [line.split("\t")[0] for line in listed] == [stranger]
    biobank("link", stranger, "KPN:T3")
    biobank("link", stranger, "KPN:T3")
    assert biobank("unlinked").splitlines()[1:] == []
    assert tubes["T3"] in lab.upstream(lab.vid(made["stranger"]))
    biobank("link", "KPN:T3", stranger, code=2)
    biobank("record", "--history", "0000", code=2)


def test_a_key_that_galaxy_refuses_is_not_permitted(galaxy: GalaxyServer) -> None:
    with pytest.raises(NotPermittedError, match="GALAXY_API_KEY") as caught:
        GalaxyClient.connect(galaxy.url, "0123456789abcdef")
    assert "0123456789abcdef" not in str(caught.value)
