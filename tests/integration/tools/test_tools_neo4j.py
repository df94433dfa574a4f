"""Galaxy's tools on a catalog with its index in Neo4j, under the administrator's account."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.integration.tools.accounts import all_that_is_shown
from tests.integration.tools.lab import Lab
from tests.servers import tool_catalogs
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_configuration import job_secrets, write_private
from tests.servers.galaxy_user import Run, hda

if TYPE_CHECKING:
    from tests.servers.neo4j import Neo4jServer

TRACE, TUBES = "biobank_trace_lineage", "biobank_register_vessels"

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def catalog(galaxy: GalaxyServer, lab: Lab, neo4j: Neo4jServer) -> Iterator[str]:
    """A catalog with this index, by the name that forms offer; jobs have the index's account."""
    value = f"neo4j-{secrets.token_hex(4)}"
    file = lab.catalogs / f"{value}.db"
    shutil.copy(lab.catalogs / "test.db", file)
    account = {"NEO4J_USER": neo4j.user, "NEO4J_PASSWORD": neo4j.password}
    where = {"BIOBANK_CATALOG": f"sqlite:///{file}", "BIOBANK_INDEX": neo4j.url}
    lab.with_settings(where | account, "rebuild")
    tool_catalogs.add_catalog(galaxy, value, url=f"sqlite:///{file}", index=neo4j.url)
    file_of_jobs = job_secrets(galaxy.folder)
    write_private(file_of_jobs, "".join(f"{name}={text}\n" for name, text in account.items()))
    yield value
    write_private(file_of_jobs, "")


def test_lineage_is_traced_in_neo4j_which_tells_what_it_does_not_hold_yet(
    galaxy: GalaxyServer, lab: Lab, catalog: str, neo4j: Neo4jServer
) -> None:
    user = lab.user
    history = user.new_history("neo4j")
    traced = lab.run(history, TRACE, {"choose_catalog": catalog, "objects": "KPN:T1"})
    assert {"T1", "T1.fna", "T1 typing"} <= labels(lab, traced)
    # It was Neo4j that answered: the catalog itself would have been walked with a warning.
    assert told(lab, traced) == ""
    table = user.upload(history, "label\nin Neo4j\n", name="tubes", ext="tabular")
    tube = {"choose_catalog": catalog, "file": hda(table), "study": "KPN"}
    made = lab.run(history, TUBES, tube)
    # No sync service runs here, which would carry it over.
    asked = {"choose_catalog": catalog, "objects": "KPN:in Neo4j"}
    later = lab.run(history, TRACE, asked)
    assert "the lineage index lacks 1 changes" in told(lab, later)
    walked = lab.run(history, TRACE, asked | {"freshness": "source"})
    assert labels(lab, walked) == {"label", "in Neo4j"}
    runs = [*made.job_ids, *traced.job_ids]
    outputs = [*made.outputs.values(), *traced.outputs.values()]
    seen = all_that_is_shown(galaxy, [user.client], jobs=runs, outputs=outputs)
    assert neo4j.url in seen  # the administrator sees the command line
    assert neo4j.password not in seen


def told(lab: Lab, run: Run) -> str:
    return str(lab.user.client.jobs.show_job(run.job_ids[0], full_details=True)["stderr"])


def labels(lab: Lab, run: Run) -> set[str]:
    lines = lab.user.content(run.outputs["lineage"]).splitlines()
    return {line.split("\t")[3] for line in lines}


def test_without_its_account_the_tool_says_whose_it_is(
    galaxy: GalaxyServer, lab: Lab, catalog: str
) -> None:
    write_private(job_secrets(galaxy.folder), "")
    history = lab.user.new_history("no account")
    with pytest.raises(AssertionError, match="NEO4J_USER"):
        lab.run(history, TRACE, {"choose_catalog": catalog, "objects": "KPN:T1"})
