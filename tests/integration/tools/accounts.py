"""Accounts in Galaxy's vault, jobs that get them, and what Galaxy shows of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import requests
from bioblend.galaxy import GalaxyInstance

from tests.integration.tools.lab import PATIENCE_S
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_user import GalaxyUser

if TYPE_CHECKING:
    from tests.contract.omero_groups import OwnGroup


def _job_as_shown_to(client: GalaxyInstance, job_id: str) -> str:
    """Whatever Galaxy tells this client of a job, refusals included."""
    asked = ("?full=true", "/console_output", "/parameters_display", "/metrics", "/build_for_rerun")
    answers = [client.make_get_request(f"{client.url}/jobs/{job_id}{path}") for path in asked]
    return "\n".join(answer.text for answer in answers)


def all_that_is_shown(
    galaxy: GalaxyServer,
    clients: Sequence[GalaxyInstance],
    *,
    jobs: Sequence[str],
    outputs: Sequence[str],
) -> str:
    """What Galaxy tells these clients and an administrator of jobs, of what they put out and of
    all that these clients stored; and Galaxy's logs.
    """
    asking = [*clients, galaxy.admin()]
    seen = [_job_as_shown_to(client, job) for client in asking for job in jobs]
    for client in clients:
        where = f"{client.url}/users/{client.users.get_current_user()['id']}/credentials"
        seen += [one.make_get_request(where).text for one in asking]
    for dataset in outputs:
        for path in ("", "/display", "/get_content_as_text"):
            url = f"{clients[0].url}/datasets/{dataset}{path}"
            seen += [client.make_get_request(url).text for client in asking]
    seen += [path.read_text(errors="replace") for path in galaxy.logs.glob("*.log")]
    return "\n".join(seen)


def stored_account(
    user: GalaxyUser, tool: dict[str, Any], *, name: str, password: str
) -> list[dict[str, Any]]:
    """Store an OMERO account in the vault; what a request to run the tool names it by."""
    variables, secrets = {"user": name}, {"password": password}
    return _stored(user, tool, service="omero", variables=variables, secrets=secrets)


def stored_key(user: GalaxyUser, tool: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The same for a key of Galaxy."""
    return _stored(user, tool, service="galaxy", variables={}, secrets={"api_key": key})


def _stored(
    user: GalaxyUser,
    tool: dict[str, Any],
    *,
    service: str,
    variables: Mapping[str, str],
    secrets: Mapping[str, str],
) -> list[dict[str, Any]]:
    url, user_id = user.client.url, user.client.users.get_current_user()["id"]
    source = {
        "source_type": "tool",
        "source_id": tool["id"],
        "source_version": tool["version"],
    }
    group = {
        "name": "mine",
        "variables": [{"name": name, "value": value} for name, value in variables.items()],
        "secrets": [{"name": name, "value": value} for name, value in secrets.items()],
    }
    credential = {"name": service, "version": "1.0", "group": group}
    where = f"{url}/users/{user_id}/credentials"
    made = user.client.make_post_request(
        where, payload={**source, "service_credential": credential}
    )
    (stored,) = [one for one in stored_for(user, tool) if one["name"] == service]
    # What the steps of a workflow get.
    chosen = {"user_credentials_id": stored["id"], "current_group_id": made["id"]}
    # It answers 204, which bioblend takes for a fault.
    requests.put(
        where,
        headers={"x-api-key": user.key},
        timeout=PATIENCE_S,
        json={**source, "service_credentials": [chosen]},
    ).raise_for_status()
    return [
        {
            "user_credentials_id": stored["id"],
            "name": service,
            "version": "1.0",
            "selected_group": {"id": made["id"], "name": "mine"},
        }
    ]


def stored_for(user: GalaxyUser, tool: dict[str, Any]) -> list[dict[str, Any]]:
    """What a user has stored for a tool in its version, as the tool's form asks for it."""
    user_id = user.client.users.get_current_user()["id"]
    answer = user.client.make_get_request(
        f"{user.client.url}/users/{user_id}/credentials",
        params={
            "source_type": "tool",
            "source_id": tool["id"],
            "source_version": tool["version"],
        },
    )
    found: list[dict[str, Any]] = answer.json()
    return found


def run_with_account(
    user: GalaxyUser,
    history: str,
    tool: dict[str, Any],
    inputs: dict[str, Any],
    account: Any,
    *,
    expect: str = "ok",
) -> tuple[str, dict[str, str]]:
    """Run a tool with an account of the vault; its job, ended, and its outputs by name."""
    answer = user.client.make_post_request(
        f"{user.client.url}/tools",
        payload={
            "history_id": history,
            "tool_id": tool["id"],
            "tool_version": tool["version"],
            "inputs": inputs,
            "credentials_context": account,
        },
    )
    job = str(answer["jobs"][0]["id"])
    user.wait_for_jobs([job], expect=expect)
    return job, {output["output_name"]: output["id"] for output in answer["outputs"]}


def owner_of(group: OwnGroup, vid: str) -> str:
    """The OMERO user who wrote an object."""
    with group.login() as client:
        found = client.ids(
            "select a.details.owner.id from MapAnnotation a where a.name = :name", name=vid
        )
        (owner,) = set(found)
        return str(owner)
