"""Galaxy's tools on an OMERO catalog: each Galaxy user acts as their own OMERO user."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.integration.tools.accounts import (
    all_that_is_shown,
    owner_of,
    run_with_account,
    stored_account,
)
from tests.integration.tools.lab import PATIENCE_S, Lab
from tests.integration.tools.test_tools_workflows import FOLDER
from tests.servers import tool_catalogs
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_user import GalaxyUser, hda

if TYPE_CHECKING:
    from tests.contract.omero_groups import Member, OwnGroup
    from tests.servers.omero.lab import OmeroLab

TUBES, TRACE, SUMMARIZE = (
    "biobank_register_vessels",
    "biobank_trace_lineage",
    "biobank_summarize_study",
)

pytestmark = pytest.mark.timeout(1200)


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody with an account in Galaxy and one in OMERO."""

    user: GalaxyUser
    member: Member
    accounts: dict[str, Any]  # by tool, as a request to run it names them


@dataclass(frozen=True, kw_only=True)
class World:
    """A group of OMERO as a catalog of Galaxy's forms, and two people who may use it."""

    galaxy: GalaxyServer
    group: OwnGroup
    catalog: str
    people: tuple[Person, ...]

    def run(
        self, person: Person, tool: str, inputs: dict[str, Any], *, account: Any = None
    ) -> tuple[str, dict[str, str]]:
        """Run a tool on the OMERO catalog as a person with their account."""
        history = person.user.new_history("omero")
        if "file" in inputs:
            table = person.user.upload(history, inputs["file"], name="table", ext="tabular")
            inputs = inputs | {"file": hda(table)}
        asked = {"choose_catalog": self.catalog, **inputs}
        tool_seen = person.user.client.tools.show_tool(tool)
        context = account if account is not None else person.accounts[tool]
        return run_with_account(person.user, history, tool_seen, asked, context)


@pytest.fixture
def world(galaxy: GalaxyServer, lab: Lab, omero_lab: OmeroLab) -> World:
    from tests.contract.omero_groups import make_group
    from tests.servers.omero.lab import READ_WRITE

    group = make_group(omero_lab, READ_WRITE, members=2)
    value = f"omero-{secrets.token_hex(4)}"
    index = f"sqlite:///{lab.catalogs}/{value}-index.db"
    tool_catalogs.add_catalog(galaxy, value, url=group.url, index=index)
    owner = {"BIOBANK_CATALOG": group.url, "BIOBANK_INDEX": index, **group.members[0].environment}
    lab.with_settings(owner, "init")
    tables = lab.catalogs / "tables"
    lab.with_settings(owner, "register", "Study", str(tables / "studies.tsv"))
    people = []
    for number, member in enumerate(group.members):
        email = f"omero{number}-{group.id}-{secrets.token_hex(4)}@biobank.example"
        user = GalaxyUser.on(galaxy, email, patience_s=PATIENCE_S)
        accounts = {
            tool: stored_account(
                user, user.client.tools.show_tool(tool), name=member.name, password=member.password
            )
            for tool in (TUBES, TRACE, SUMMARIZE)
        }
        people.append(Person(user=user, member=member, accounts=accounts))
    return World(galaxy=galaxy, group=group, catalog=value, people=tuple(people))


def test_different_users_of_galaxy_act_as_different_users_of_omero(world: World) -> None:
    for number, person in enumerate(world.people):
        table = f"label\ncold {number}\n"
        _, outputs = world.run(person, TUBES, {"file": table, "study": "KPN"})
        (row,) = person.user.content(outputs["registered"]).splitlines()[1:]
        vid = row.split("\t")[2]
        assert owner_of(world.group, vid) == str(person.member.id)


def test_without_an_account_or_with_anothers_nothing_is_shown_and_it_says_why(
    world: World,
) -> None:
    first, second = world.people
    inputs = {"objects": "KPN:nothing"}
    with pytest.raises(AssertionError, match="choose your OMERO account in the tool's form"):
        world.run(first, TRACE, inputs, account=[])
    # What the second one stored is of no use to the first.
    with pytest.raises(Exception, match=r"(?i)credential|who logs in to OMERO"):
        world.run(first, TRACE, inputs, account=second.accounts[TRACE])


def test_no_ones_password_is_seen_by_anybody(world: World) -> None:
    clients = [each.user.client for each in world.people]
    seen = ""
    for number, person in enumerate(world.people):
        table = f"label\nseen {number}\n"
        job, made = world.run(person, TUBES, {"file": table, "study": "KPN"})
        seen += all_that_is_shown(world.galaxy, clients, jobs=[job], outputs=list(made.values()))
    assert "biobank --arguments-from" in seen
    for person in world.people:
        assert person.member.password not in seen


def test_a_workflow_on_omero_runs_with_the_accounts_that_its_user_chose(world: World) -> None:
    person = world.people[0]
    _, outputs = world.run(person, TUBES, {"file": "label\nin the workflow\n", "study": "KPN"})
    assert outputs
    client = person.user.client
    document = yaml.safe_load((FOLDER / "audit.gxwf.yml").read_text())
    workflow = client.workflows.import_workflow_dict(document)["id"]
    asked = {"catalog": world.catalog, "study": "KPN", "objects": "KPN:in the workflow"}
    invocation = client.workflows.invoke_workflow(
        workflow, inputs=asked, inputs_by="name", history_name="workflow"
    )["id"]

    def ended() -> bool:
        states = client.invocations.get_invocation_summary(invocation)["states"]
        state = client.invocations.show_invocation(invocation)["state"]
        assert not {"error", "paused"} & set(states), states
        return state in ("scheduled", "completed") and set(states) == {"ok"}

    person.user.wait_for(ended, what="the end of the workflow")
    made = client.invocations.show_invocation(invocation)["outputs"]
    assert "\tin the workflow\tKPN\t" in person.user.content(made["lineage"]["id"])
