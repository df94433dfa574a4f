"""What users store in Galaxy for a tool: which key wins, what an upgrade asks, who reads it."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.tools.accounts import (
    all_that_is_shown,
    run_with_account,
    stored_account,
    stored_for,
    stored_key,
)
from tests.integration.tools.lab import PATIENCE_S, Lab
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_user import GalaxyUser

FETCH = "biobank_fetch_data"
REFUSED = "it was deleted, or this account may not read it"
# The id of copies of that tool: the suite's own must not get other versions in the tests' Galaxy.
COPY = "biobank_fetch_upgraded"
VERSIONS = ("0.1.0+galaxy7", "0.1.0+galaxy8")

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True, kw_only=True)
class PrivateData:
    """Data of the catalog `scratch` that in Galaxy only their owner may read."""

    owner: GalaxyUser
    request: dict[str, str]  # how to fetch them


@pytest.fixture
def private_data(galaxy: GalaxyServer) -> PrivateData:
    email = f"owner-{secrets.token_hex(4)}@biobank.example"
    owner = GalaxyUser.on(galaxy, email, patience_s=PATIENCE_S)
    history = owner.new_history("private")
    dataset = owner.upload(history, ">T1\nACGT\n", name="private.fna", ext="fasta")
    owner.client.make_put_request(
        f"{galaxy.url}/api/datasets/{dataset}/permissions", payload={"action": "make_private"}
    )
    theirs = Lab(galaxy, owner)
    theirs.biobank("record", "--history", history, "--study", "KPN")
    asked = {"choose_data|choose_data_by": "text", "choose_data|addresses": theirs.vid(dataset)}
    return PrivateData(owner=owner, request={"choose_catalog": "scratch"} | asked)


def test_a_key_that_a_user_stores_wins_over_their_own_and_is_seen_nowhere(
    galaxy: GalaxyServer, lab: Lab, private_data: PrivateData
) -> None:
    user, owner = lab.user, private_data.owner
    history = user.new_history("fetched")
    tool = user.client.tools.show_tool(FETCH)
    # Who has stored nothing asks as themself.
    with pytest.raises(AssertionError, match=REFUSED):
        run_with_account(user, history, tool, private_data.request, [])
    account = stored_key(user, tool, owner.key)
    job, made = run_with_account(user, history, tool, private_data.request, account)
    assert "private.fna" in user.content(made["table"])
    stranger = GalaxyUser.on(galaxy, "stranger@biobank.example", patience_s=PATIENCE_S)
    clients = [one.client for one in (user, owner, stranger)]
    seen = all_that_is_shown(galaxy, clients, jobs=[job], outputs=list(made.values()))
    seen += lab.biobank("dump")
    assert "biobank --arguments-from" in seen
    for key in (owner.key, user.key):
        assert key not in seen
    # What one user stored is of no use to another.
    with pytest.raises(Exception, match=rf"(?i)credential|{REFUSED}"):
        run_with_account(
            stranger,
            stranger.new_history("stolen"),
            tool,
            private_data.request,
            account,
        )


def test_who_is_not_logged_in_has_no_key_and_is_told_so(galaxy: GalaxyServer, lab: Lab) -> None:
    nobody = requests.Session()
    nobody.get(galaxy.url, timeout=PATIENCE_S)
    history = nobody.get(f"{galaxy.url}/history/current_history_json", timeout=PATIENCE_S).json()
    answer = nobody.post(
        f"{galaxy.url}/api/tools",
        timeout=PATIENCE_S,
        json={
            "tool_id": "biobank_record_history",
            "history_id": history["id"],
            "inputs": {"choose_catalog": "scratch"},
        },
    ).json()
    job = answer["jobs"][0]["id"]
    with pytest.raises(AssertionError, match="in Galaxy: log in, or choose a Galaxy key"):
        lab.user.wait_for_jobs([job])


def test_galaxys_own_script_hands_what_users_store_to_a_shell_as_the_guide_warns(
    lab: Lab, tmp_path: Path
) -> None:
    # Galaxy's fault, which no tool can mend (jobs/runners/util/env.py of 26.1). When this test
    # fails, Galaxy has mended it: take the warning out of docs/galaxy-administrator.md.
    tmp_path.chmod(0o777)
    marker = tmp_path / "made by the shell"
    tool = lab.user.client.tools.show_tool("biobank_trace_lineage")
    account = stored_account(lab.user, tool, name="ada", password=f"$(touch '{marker}')")
    history = lab.user.new_history("stored")
    inputs = {"choose_catalog": "test", "objects": "KPN:T1"}
    run_with_account(lab.user, history, tool, inputs, account)
    assert marker.exists()


@pytest.fixture(scope="module")
def two_versions(
    galaxy: GalaxyServer,
    suite: list[Path],
    archives: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """A tool in two versions, listed by the administrator and as from a Tool Shed: their ids."""
    assert suite
    folder = tmp_path_factory.mktemp("upgraded")
    shed = "toolshed.biobank.example/repos/biobank"
    homes = {"listed": folder / "listed", "shed": folder / shed / f"{COPY}_shed"}
    tools = list(_copies(archives[FETCH], homes))
    galaxy.add_tools(tools)
    return {"listed": f"{COPY}_listed", "shed": f"{shed}/{COPY}_shed/{COPY}_shed"}


def _copies(archive: Path, homes: dict[str, Path]) -> Iterator[Path]:
    for way, home in homes.items():
        for number, version in enumerate(VERSIONS):
            revision = home / f"{number:012x}"
            shutil.copytree(archive, revision)
            tool = revision / f"{FETCH}.xml"
            text = tool.read_text().replace(f'id="{FETCH}"', f'id="{COPY}_{way}"')
            old = 'version="@TOOL_VERSION@+galaxy@VERSION_SUFFIX@"'
            assert old in text
            tool.write_text(text.replace(old, f'version="{version}"'))
            yield tool


@pytest.mark.parametrize("way", ["listed", "shed"])
def test_after_an_upgrade_what_was_stored_still_works_though_the_form_asks_anew(
    lab: Lab, private_data: PrivateData, two_versions: dict[str, str], way: str
) -> None:
    user = lab.user
    history = user.new_history("upgraded")
    name = two_versions[way]
    ids = [f"{name}/{version}" if way == "shed" else name for version in VERSIONS]
    old, new = (
        {"id": tool, "version": version} for tool, version in zip(ids, VERSIONS, strict=True)
    )
    account = stored_key(user, old, private_data.owner.key)
    # The form looks it up by the tool's version: it asks anew.
    assert [len(stored_for(user, tool)) for tool in (old, new)] == [1, 0]
    # A job of the new version takes what was stored for the old one: the credentials' own version
    # is the same.
    _, made = run_with_account(user, history, new, private_data.request, account)
    assert "private.fna" in user.content(made["table"])
    # A workflow's step finds it by the tool's id, which for a Tool Shed holds the version.
    state = _ended_workflow(user, new, private_data.request)
    assert state == ("ok" if way == "listed" else "error")


def _ended_workflow(user: GalaxyUser, tool: dict[str, Any], request: dict[str, str]) -> str:
    """The state in which the one job of a workflow ends that calls this tool."""
    document = {
        "class": "GalaxyWorkflow",
        "name": "fetch",
        "inputs": {},
        "outputs": {},
        "steps": {
            "fetch": {
                "tool_id": tool["id"],
                "tool_version": tool["version"],
                "tool_state": {
                    "choose_catalog": request["choose_catalog"],
                    "choose_data": {
                        "choose_data_by": "text",
                        "addresses": request["choose_data|addresses"],
                    },
                },
            }
        },
    }
    client = user.client
    workflow = client.workflows.import_workflow_dict(document)["id"]
    invocation = client.workflows.invoke_workflow(workflow, history_name="workflow")["id"]

    def jobs() -> list[dict[str, Any]]:
        found = client.jobs.get_jobs(invocation_id=invocation)
        return [job for job in found if job["state"] in ("ok", "error")]

    (job,) = user.wait_for(jobs, what="the end of the workflow's job")
    assert job["tool_id"] == tool["id"]
    return str(job["state"])
