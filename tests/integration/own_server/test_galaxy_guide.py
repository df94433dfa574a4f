"""docs/galaxy-administrator.md, followed on an empty Galaxy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from bioblend import ConnectionError as BioblendConnectionError
from bioblend.galaxy import GalaxyInstance

from tests.integration.conftest import new_galaxy
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_user import GalaxyUser, hda

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "galaxy-administrator.md"
# The tests run where it is installed already.
_NOT_HERE = ("python3 -m venv", "/opt/biobank/bin/pip")
_PATIENCE_S = 400.0


class Site:
    """The guide's paths, somewhere else."""

    def __init__(self, folder: Path) -> None:
        self.dependencies = folder / "dependencies"
        self.tool_data = folder / "tool-data"
        self.files = folder / "biobank"
        for made in (self.dependencies, self.tool_data, self.files):
            made.mkdir()
        self.tables = self.tool_data / "tool_data_table_conf.xml"
        sample = ROOT / "tool_data" / "tool_data_table_conf.xml.sample"
        self.tables.write_text(sample.read_text().replace("tool-data/", f"{self.tool_data}/"))
        for loc in (ROOT / "tool_data").glob("*.loc.sample"):
            (self.tool_data / loc.stem).write_text(loc.read_text())

    def blocks(self, language: str) -> list[str]:
        """The guide's blocks in this language, with the paths of this site."""
        found = re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(), re.S | re.M)
        return [self._here(block) for block in found]

    def commands(self, word: str) -> list[list[str]]:
        """The commands of the guide that call this subcommand."""
        lines = [line for block in self.blocks("sh") for line in block.splitlines()]
        return [
            line.split() for line in lines if not line.startswith(_NOT_HERE) and f" {word} " in line
        ]

    def run(self, word: str, **environment: str) -> str:
        """Run the guide's one command that calls this subcommand; its standard output."""
        (command,) = self.commands(word)
        done = subprocess.run(
            command,
            env={"PATH": os.environ["PATH"], "HOME": str(self.files), **environment},
            cwd=self.files,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _here(self, text: str) -> str:
        for there, here in (
            ("/opt/biobank/bin/biobank", Path(sys.executable).parent / "biobank"),
            ("/srv/galaxy/dependencies", self.dependencies),
            ("/srv/galaxy/tool-data", self.tool_data),
            ("/srv/biobank", self.files),
        ):
            text = text.replace(there, str(here))
        return text


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def empty_galaxy(site: Site) -> Iterator[GalaxyServer]:
    (settings,) = site.blocks("yaml")
    server = new_galaxy(
        warm_up=False,
        test_tools=False,
        tool_data_tables=site.tables,
        galaxy_config=yaml.safe_load(settings),
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()


def user_of(server: GalaxyServer, name: str) -> GalaxyUser:
    key = server.create_user(f"{name}@biobank.example")
    client = GalaxyInstance(server.url, key=key)
    return GalaxyUser(
        email=name,
        key=key,
        client=client,
        ensure_alive=server.ensure_alive,
        patience_s=_PATIENCE_S,
    )


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
    site: Site, empty_galaxy: GalaxyServer
) -> None:
    server = empty_galaxy
    # 1 and 2: the program and the tools.
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
    (row,) = site.blocks("loc")
    catalogs = site.tool_data / "biobank_catalogs.loc"
    catalogs.write_text(catalogs.read_text() + row)
    site.run("init")
    reload_tables(server)
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
    # 7: the administrator records everything.
    told = site.run("record", GALAXY_URL=server.url, GALAXY_API_KEY=server.admin_key)
    assert "failed to record\t0" in told
