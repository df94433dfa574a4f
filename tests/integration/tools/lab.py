"""A user who works with the tests' catalogs, by Galaxy's tools and by the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from click.testing import CliRunner, Result

from biobank_core.cli import cli
from biobank_core.galaxy.identity import data_sample_vid
from tests.servers import tool_catalogs
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_user import GalaxyUser, Run

# Of one job that waits for others on a machine that is busy with four pytest workers.
PATIENCE_S = 400.0


class Lab:
    """One user; `biobank` works on the catalog `scratch` unless another one is named."""

    def __init__(self, galaxy: GalaxyServer, user: GalaxyUser) -> None:
        catalogs = tool_catalogs.folder_of(galaxy.folder)
        assert catalogs is not None
        self.catalogs = catalogs
        self.user = replace(user, patience_s=PATIENCE_S)
        self._url = galaxy.url

    def run(self, history: str, tool: str, inputs: Mapping[str, Any], *, expect: str = "ok") -> Run:
        """Run a tool; one of ours on the catalog `scratch`, unless it is told another one."""
        ours = {"choose_catalog": "scratch"} if tool.startswith("biobank_") else {}
        return self.user.run(history, tool, ours | dict(inputs), expect=expect)

    def report(self, run: Run, name: str = "report") -> dict[str, str]:
        """A table of two columns as a mapping."""
        lines = self.user.content(run.outputs[name]).splitlines()
        return dict(line.split("\t") for line in lines)

    def biobank(self, *args: str, catalog: str = "scratch") -> str:
        """The standard output of a command that succeeds, as this user."""
        done = self.try_biobank(*args, catalog=catalog)
        assert done.exit_code == 0, done.stderr
        return done.stdout

    def try_biobank(self, *args: str, catalog: str = "scratch") -> Result:
        """The same, whatever its exit code is."""
        environment = {
            "BIOBANK_CATALOG": f"sqlite:///{self.catalogs}/{catalog}.db",
            "GALAXY_URL": self._url,
            "GALAXY_API_KEY": self.user.key,
        }
        return CliRunner().invoke(cli, args, env=environment)

    @staticmethod
    def with_settings(environment: Mapping[str, str], *args: str) -> str:
        """The standard output of a command that succeeds, with the settings of this environment."""
        done = CliRunner().invoke(cli, args, env=environment)
        assert done.exit_code == 0, done.stderr
        return done.stdout

    def vid(self, dataset_id: str) -> str:
        """What the catalog calls a dataset of Galaxy."""
        return data_sample_vid(self.user.client.datasets.show_dataset(dataset_id)["uuid"])

    def upstream(self, dataset_id: str, *, catalog: str = "scratch") -> dict[str, Any]:
        """The lineage of a dataset as JSON."""
        text = self.biobank(
            *("lineage", self.vid(dataset_id), "--direction", "upstream", "--format", "json"),
            catalog=catalog,
        )
        answer: dict[str, Any] = json.loads(text)
        return answer

    def tubes(self, dataset_id: str, *, catalog: str = "scratch") -> set[str]:
        """The labels of the tubes that a dataset comes from."""
        nodes = self.upstream(dataset_id, catalog=catalog)["nodes"]
        return {node["label"] for node in nodes if node["kind"] == "Tube"}
