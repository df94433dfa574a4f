"""biobank history: who changed what of an object, field by field."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from biobank_core.catalog.port import Catalog, Delete, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.cli import cli
from biobank_core.history import FieldChange, Happened, history_of
from biobank_core.model.galaxy import GalaxyDataset
from biobank_core.model.ids import derived_vid
from biobank_core.model.kinds import DataSample, DataStatus, Study

STUDY = Study(vid=derived_vid("Test", "study"), label="KPN")
DATA = derived_vid("Test", "data")


def data(label: str, **more: object) -> DataSample:
    return DataSample(vid=DATA, label=label, study=STUDY.vid, **more)  # type: ignore[arg-type]


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("BIOBANK_", "GALAXY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BIOBANK_CATALOG", "sqlite:///c.db")
    with open_catalog("sqlite:///c.db", create=True) as catalog:
        catalog.commit([Save(object=STUDY)], by="ada")
        yield catalog


def save(catalog: Catalog, obj: DataSample, *, based_on: int, by: str) -> None:
    catalog.commit([Save(object=obj, based_on=based_on)], by=by)


def biobank(*args: str) -> Result:
    return CliRunner().invoke(cli, args)


def test_each_version_says_which_fields_it_changed(catalog: Catalog) -> None:
    save(catalog, data("a"), based_on=0, by="ada")
    save(catalog, data("b", status=DataStatus.USABLE), based_on=1, by="bob")
    galaxy = GalaxyDataset(server="g", dataset_uuid="u", extension="fasta")
    save(catalog, data("b", status=DataStatus.USABLE, galaxy=galaxy), based_on=2, by="ada")
    first, second, third = history_of(catalog, DATA)
    assert (first.happened, second.happened) == (Happened.CREATED, Happened.UPDATED)
    assert (first.by, second.by, third.by) == ("ada", "bob", "ada")
    assert FieldChange("label", None, "a") in (first.fields or ())
    assert set(second.fields or ()) == {
        FieldChange("label", "a", "b"),
        FieldChange("status", "UNKNOWN", "USABLE"),
    }
    assert {change.field: change.new for change in third.fields or ()} == {
        "galaxy.server": "g",
        "galaxy.dataset_uuid": "u",
        "galaxy.extension": "fasta",
    }


def test_a_deleted_object_keeps_its_versions_without_their_content(catalog: Catalog) -> None:
    save(catalog, data("secret name"), based_on=0, by="ada")
    catalog.commit([Delete(vid=DATA, based_on=1)], by="bob")
    save(catalog, data("again"), based_on=2, by="ada")
    assert [change.happened for change in history_of(catalog, DATA)] == [
        Happened.CREATED,
        Happened.DELETED,
        Happened.CREATED,
    ]
    done = biobank("history", DATA)
    assert done.exit_code == 0, done.stderr
    assert "secret name" not in done.stdout
    assert [line.split("\t")[0] for line in done.stdout.splitlines()[1:3]] == ["1", "2"]


def test_the_table_holds_no_formula_and_json_holds_values(catalog: Catalog) -> None:
    save(catalog, data("a"), based_on=0, by="ada")
    save(catalog, data("=1+1\tx"), based_on=1, by="@bob")
    lines = biobank("history", "KPN:=1+1\tx").stdout.splitlines()
    assert lines[0] == "version\ttime\tby\tchange\tfield\told\tnew"
    cells = lines[-1].split("\t")
    assert (cells[0], *cells[2:]) == ("2", "'@bob", "updated", "label", "a", "'=1+1\\tx")
    assert cells[1].endswith("Z")
    document = json.loads(biobank("history", DATA, "--format", "json").stdout)
    assert [entry["version"] for entry in document] == [1, 2]
    assert document[1]["fields"] == {"label": {"old": "a", "new": "=1+1\tx"}}


def test_a_save_that_changed_nothing_is_a_line_of_its_own(catalog: Catalog) -> None:
    save(catalog, data("a"), based_on=0, by="ada")
    save(catalog, data("a"), based_on=1, by="bob")
    lines = biobank("history", DATA).stdout.splitlines()
    assert lines[-1].split("\t")[2:] == ["bob", "updated", "", "", ""]


def test_an_unknown_object_exits_2(catalog: Catalog) -> None:
    assert biobank("history", "KPN:NOPE").exit_code == 2
