"""A recorder over a scripted Galaxy, and what tests look up in the catalog it wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from biobank_core.catalog.port import Save
from biobank_core.catalog.sqlite import SqliteCatalog
from biobank_core.config import load_settings
from biobank_core.galaxy.recorder import Recorder, Scope
from biobank_core.galaxy.rules import Rules
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import Action, Study
from biobank_core.stores import open_stores
from tests.unit.scripted_galaxy import ScriptedGalaxy


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqliteCatalog]:
    """An empty catalog on SQLite whose index keeps up with it."""
    settings = load_settings(catalog=f"sqlite:///{tmp_path / 'c.db'}", environment={})
    with open_stores(settings, write=True) as stores:
        assert isinstance(stores.catalog, SqliteCatalog)
        yield stores.catalog


def recorder_of(
    catalog: SqliteCatalog, galaxy: ScriptedGalaxy, *, rules: Rules | None = None
) -> Recorder:
    """A recorder of everything in this Galaxy, named `g`."""
    return Recorder(
        catalog,
        galaxy,  # type: ignore[arg-type]
        server="g",
        scope=Scope(),
        rules=rules or Rules(),
        study=None,
        by="test",
    )


def action(catalog: SqliteCatalog, job_id: str) -> Action:
    """The one action of this job."""
    [found] = catalog.find("Action", {"galaxy.job_id": job_id})
    assert isinstance(found.object, Action)
    return found.object


def study_of(catalog: SqliteCatalog, label: str) -> str:
    """The VID of a new study."""
    study = Study(vid=new_vid(), label=label)
    catalog.commit([Save(object=study)], by="test")
    return study.vid
