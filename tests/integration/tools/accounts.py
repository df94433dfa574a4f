"""Accounts in Galaxy's vault, jobs that get them, and what Galaxy shows of a job."""

from __future__ import annotations

from typing import Any

import requests
from bioblend.galaxy import GalaxyInstance

from tests.integration.tools.lab import PATIENCE_S
from tests.servers.galaxy_user import GalaxyUser


def job_as_shown_to(client: GalaxyInstance, job_id: str) -> str:
    """Whatever Galaxy tells this client of a job, refusals included."""
    asked = ("?full=true", "/console_output", "/parameters_display", "/metrics", "/build_for_rerun")
    answers = [client.make_get_request(f"{client.url}/jobs/{job_id}{path}") for path in asked]
    return "\n".join(answer.text for answer in answers)


def stored_account(
    user: GalaxyUser, tool: dict[str, Any], *, name: str, password: str
) -> list[dict[str, Any]]:
    """Store an OMERO account in the vault; what a request to run the tool names it by."""
    url, user_id = user.client.url, user.client.users.get_current_user()["id"]
    payload = {
        "source_type": "tool",
        "source_id": tool["id"],
        "source_version": tool["version"],
        "service_credential": {
            "name": "omero",
            "version": "1.0",
            "group": {
                "name": "mine",
                "variables": [{"name": "user", "value": name}],
                "secrets": [{"name": "password", "value": password}],
            },
        },
    }
    where = f"{url}/users/{user_id}/credentials"
    group = user.client.make_post_request(where, payload=payload)
    listed = user.client.make_get_request(where).json()
    (stored,) = [one for one in listed if one["source_id"] == tool["id"]]
    # What the steps of a workflow get.
    chosen = {"user_credentials_id": stored["id"], "current_group_id": group["id"]}
    # It answers 204, which bioblend takes for a fault.
    requests.put(
        where,
        headers={"x-api-key": user.key},
        timeout=PATIENCE_S,
        json={
            "source_type": "tool",
            "source_id": tool["id"],
            "source_version": tool["version"],
            "service_credentials": [chosen],
        },
    ).raise_for_status()
    return [
        {
            "user_credentials_id": stored["id"],
            "name": "omero",
            "version": "1.0",
            "selected_group": {"id": group["id"], "name": "mine"},
        }
    ]


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
            "inputs": inputs,
            "credentials_context": account,
        },
    )
    job = str(answer["jobs"][0]["id"])
    user.wait_for_jobs([job], expect=expect)
    return job, {output["output_name"]: output["id"] for output in answer["outputs"]}
