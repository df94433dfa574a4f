"""docs/galaxy-administrator.md, followed on an empty Galaxy."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from bioblend import ConnectionError as BioblendConnectionError

from biobank_core.catalog.registry import open_catalog
from biobank_core.galaxy.identity import data_sample_vid
from tests.integration.conftest import new_galaxy
from tests.integration.own_server.guide import OMERO, Site
from tests.integration.tools.accounts import owner_of, run_with_account, stored_account
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_configuration import job_secrets, write_private
from tests.servers.galaxy_user import GalaxyUser, JobFailed, hda
from tests.servers.missing import service_is_missing
from tests.servers.processes import MissingService

if TYPE_CHECKING:
    from tests.servers.omero.lab import OmeroLab

ROOT = Path(__file__).parents[3]
_PATIENCE_S = 400.0


@pytest.fixture
def site(tmp_path: Path) -> Site:
    try:
        return Site(tmp_path)
    except (MissingService, subprocess.CalledProcessError) as error:
        service_is_missing(f"no Galaxy server can be had here: {error}")


@pytest.fixture
def empty_galaxy(site: Site) -> Iterator[GalaxyServer]:
    # Settings of all steps at once: a second start of Galaxy takes a minute.
    vault = site.settings("encryption_keys")
    vault["encryption_keys"] = [site.run("Fernet").strip()]
    vault_file = site.settings("vault_config_file")
    write_private(Path(vault_file["vault_config_file"]), yaml.safe_dump(vault))
    server = new_galaxy(
        warm_up=False,
        test_tools=False,
        tool_data_tables=site.tables,
        galaxy_config=site.settings("tool_dependency_dir") | vault_file,
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()


def user_of(server: GalaxyServer, name: str) -> GalaxyUser:
    return GalaxyUser.on(server, f"{name}@biobank.example", patience_s=_PATIENCE_S)


def set_up(site: Site, server: GalaxyServer, catalog: str) -> None:
    """Add the guide's line of this catalog to the table, which Galaxy reads again."""
    (row,) = [block for block in site.blocks("loc") if block.startswith(f"{catalog}\t")]
    table = site.tool_data / "biobank_catalogs.loc"
    table.write_text(table.read_text() + row)
    reload_tables(server)


@contextmanager
def running(site: Site, part: str, **environment: str) -> Iterator[None]:
    """The service that the guide's one command with this text starts; it ends in good order."""
    command = site.command(part)
    environment |= {"PATH": os.environ["PATH"], "HOME": str(site.files)}
    log = site.files / "service.log"
    with log.open("w") as errors, subprocess.Popen(command, env=environment, stderr=errors) as it:
        try:
            yield
            assert it.poll() is None, log.read_text()
        finally:
            it.terminate()
    assert it.returncode == 0, log.read_text()


def reload_tables(server: GalaxyServer) -> None:
    for table in ("biobank_catalogs", "biobank_studies", "biobank_devices"):
        url = f"{server.url}/api/tool_data/{table}/reload"
        server.admin().make_get_request(url).raise_for_status()


def form_field(form: dict[str, Any], name: str) -> dict[str, Any]:
    """The field of this name in a form, also inside of a conditional's cases."""
    todo = list(form["inputs"])
    while todo:
        field: dict[str, Any] = todo.pop(0)
        if field["name"] == name and field["type"] != "text":
            return field
        todo += [inner for case in field.get("cases", ()) for inner in case["inputs"]]
        todo += field.get("inputs", ())
    raise AssertionError(name)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_guide_leads_from_an_empty_galaxy_to_a_recorded_history(
    site: Site, empty_galaxy: GalaxyServer, omero_lab: OmeroLab
) -> None:
    server = empty_galaxy
    # 1 and 2: the program and the tools.
    site.install()
    site.run("install-galaxy-dependency")
    server.add_tools(sorted((ROOT / "galaxy_tools").glob("biobank_*.xml")))
    user = user_of(server, "ada")
    history = user.new_history("first")

    def form(tool: str, **state: Any) -> dict[str, Any]:
        answer = user.client.make_post_request(
            f"{user.client.url}/tools/{tool}/build",
            payload={"history_id": history, "inputs": state},
        )
        return dict(answer)

    # 3: until there is a catalog, the form says what to do.
    empty = form("biobank_summarize_study")
    field = form_field(empty, "choose_catalog")
    assert field["options"] == []
    assert "An empty list: no catalog is set up here" in field["help"]
    site.run("init --catalog sqlite:")
    set_up(site, server, "lab")
    filled = form("biobank_summarize_study")
    assert [option[:2] for option in form_field(filled, "choose_catalog")["options"]] == [
        ["Laboratory", "lab"]
    ]
    asked = {"choose_catalog": "lab", "choose_study|choose_study_by": "list"}
    field = form_field(form("biobank_summarize_study", **asked), "study")
    assert field["options"] == []
    assert "publishes no study of this catalog" in field["help"]
    # 4: try it.
    table = user.upload(history, "label\nKPN\n", name="studies", ext="tabular")
    inputs = {"choose_catalog": "lab", "file": hda(table)}
    user.run(history, "biobank_register_studies", inputs)
    recorded = user.run(
        history, "biobank_record_history", {"choose_catalog": "lab", "study": "KPN"}
    )
    assert "failed to record\t0" in user.content(recorded.outputs["report"])
    # 3 again: the study in the forms.
    site.run("galaxy-tables")
    reload_tables(server)
    (option,) = form_field(form("biobank_summarize_study", **asked), "study")["options"]
    assert option[0] == "KPN"
    chosen = {**asked, "choose_study|study": option[1]}
    summary = user.run(history, "biobank_summarize_study", chosen)
    assert "biobank_register_studies" in user.content(summary.outputs["table"])
    # 5: nobody else sees the job.
    stranger = user_of(server, "eve").client
    with pytest.raises(BioblendConnectionError) as refused:
        stranger.jobs.show_job(recorded.job_ids[0], full_details=True)
    assert refused.value.status_code == 403
    # 6: a catalog on OMERO, where the user acts as themself.
    acts_in_omero_as_themself(site, server, user, omero_lab)
    # 7: the jobs' environment is the one that the tests' Galaxy has.
    jobs = json.loads((server.folder / "config" / "job_conf.yml").read_text())
    (told,) = site.settings("execution")["execution"]["environments"].values()
    told["env"][0]["value"] = str(job_secrets(server.folder))
    assert told in jobs["execution"]["environments"].values()
    # 8: the administrator records everything, at once and from now on.
    administrator = {"GALAXY_URL": server.url, "GALAXY_API_KEY": server.admin_key}
    told = site.run("bin/biobank record", **administrator)
    assert "failed to record\t0" in told
    with running(site, "--only recorder", **administrator):
        late = user.upload(user.new_history("later"), "late\n")
        vid = data_sample_vid(user.client.datasets.show_dataset(late)["uuid"])
        with open_catalog(f"sqlite:///{site.files}/lab.db") as catalog:
            user.wait_for(lambda: catalog.get({vid}), what="the record of the upload")


def acts_in_omero_as_themself(
    site: Site, server: GalaxyServer, user: GalaxyUser, omero_lab: OmeroLab
) -> None:
    from tests.contract.omero_groups import make_group
    from tests.servers.omero.lab import READ_WRITE

    group = make_group(omero_lab, READ_WRITE, members=2)
    owner, member = group.members
    site.elsewhere[OMERO] = group.url
    site.run(f"init --catalog '{OMERO}", **owner.environment)
    set_up(site, server, "omero")
    history = user.new_history("omero")
    table = user.upload(history, "label\nON-OMERO\n", name="studies", ext="tabular")
    inputs = {"choose_catalog": "omero", "file": hda(table)}
    tool = user.client.tools.show_tool("biobank_register_studies")
    with pytest.raises(JobFailed, match="choose your OMERO account in the tool's form"):
        run_with_account(user, history, tool, inputs, [])
    account = stored_account(user, tool, name=member.name, password=member.password)
    _, made = run_with_account(user, history, tool, inputs, account)
    (row,) = user.content(made["registered"]).splitlines()[1:]
    assert owner_of(group, row.split("\t")[2]) == str(member.id)
