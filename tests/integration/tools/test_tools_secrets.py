"""Keys and passwords: in no dataset, parameter, command line, log or answer to anybody."""

from __future__ import annotations

import pytest
from bioblend import ConnectionError as BioblendConnectionError
from bioblend.galaxy import GalaxyInstance

from tests.integration.tools.accounts import (
    all_that_is_shown,
    run_with_account,
    stored_account,
)
from tests.integration.tools.lab import Lab
from tests.servers.galaxy import GalaxyServer

OMERO_CANARY = "canary-of-omero-5c1f"
_FORBIDDEN = 403

pytestmark = pytest.mark.timeout(900)


def test_no_key_and_no_password_of_a_user_is_in_anything_that_galaxy_shows(
    galaxy: GalaxyServer, lab: Lab
) -> None:
    user = lab.user
    history = user.new_history("canary")
    recorded = lab.run(history, "biobank_record_history", {})
    tool = user.client.tools.show_tool("biobank_trace_lineage")
    account = stored_account(user, tool, name="ada", password=OMERO_CANARY)
    inputs = {"choose_catalog": "test", "objects": "KPN:T1"}
    traced, made = run_with_account(user, history, tool, inputs, account)
    stranger = GalaxyInstance(galaxy.url, key=galaxy.create_user("stranger@biobank.example"))
    seen = all_that_is_shown(
        galaxy,
        [user.client, stranger],
        jobs=[traced, *recorded.job_ids],
        outputs=[*made.values(), *recorded.outputs.values()],
    )
    seen += lab.biobank("dump")
    assert "biobank --arguments-from" in seen  # the administrator sees the command line
    for secret in (user.key, OMERO_CANARY):
        assert secret not in seen
    where = f"{user.client.url}/users/{user.client.users.get_current_user()['id']}/credentials"
    assert stranger.make_get_request(where).status_code == _FORBIDDEN


def test_a_job_is_shown_to_whoever_may_see_all_that_it_put_out_and_to_nobody_else(
    galaxy: GalaxyServer, lab: Lab
) -> None:
    # Galaxy's own rule (JobManager.get_accessible_job); data are public unless they are made
    # private, which docs/galaxy-administrator.md has the administrator make the default.
    user = lab.user
    history = user.new_history("private")
    run = lab.run(history, "biobank_record_history", {})
    stranger = GalaxyInstance(galaxy.url, key=galaxy.create_user("stranger@biobank.example"))
    assert stranger.jobs.show_job(run.job_ids[0], full_details=True)["state"] == "ok"
    for dataset in run.outputs.values():
        user.client.make_put_request(
            f"{user.client.url}/datasets/{dataset}/permissions", payload={"action": "make_private"}
        )
    with pytest.raises(BioblendConnectionError) as refused:
        stranger.jobs.show_job(run.job_ids[0], full_details=True)
    assert refused.value.status_code == _FORBIDDEN
