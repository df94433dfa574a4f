"""biobank delete: what goes, what refuses, and that the plan says what then happens."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from biobank_core.catalog.port import Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.cli import cli
from biobank_core.deletion import delete, plan
from biobank_core.errors import ConflictError
from biobank_core.model.kinds import Tombstone
from tests.unit.random_catalogs import catalogs

TOUR = Path(__file__).parents[2] / "examples" / "tour"


@pytest.fixture
def _world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("BIOBANK_", "GALAXY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BIOBANK_CATALOG", "sqlite:///c.db")
    study = ("--study", "KPN")
    for args in (
        ("register", "Study", str(TOUR / "studies.tsv")),
        ("register", "Individual", str(TOUR / "individuals.tsv"), *study),
        ("register", "Consent", str(TOUR / "consents.tsv"), *study),
        ("register", "Tube", str(TOUR / "tubes.tsv"), *study),
    ):
        done = biobank(*args)
        assert done.exit_code == 0, done.stderr


def biobank(*args: str) -> Result:
    return CliRunner().invoke(cli, args)


def rows(done: Result) -> list[list[str]]:
    return [line.split("\t") for line in done.stdout.splitlines()[1:]]


@pytest.mark.usefixtures("_world")
def test_an_individual_goes_with_its_enrollment_and_consent_and_lineage_stays() -> None:
    before = biobank("dump").stdout
    refused = biobank("delete", "KPN:KP-01")
    assert refused.exit_code == 5
    assert refused.stdout == ""
    assert "can't be deleted" in refused.stderr
    dry = biobank("delete", "KPN:KP-01", "--cascade", "--dry-run")
    assert dry.exit_code == 0
    assert [(row[0], row[2]) for row in rows(dry)] == [
        ("would delete", "Individual"),
        ("would delete", "Enrollment"),
        ("would delete", "Consent"),
        ("keeps naming", "Action"),
    ]
    assert biobank("dump").stdout == before
    done = biobank("delete", "KPN:KP-01", "--cascade")
    assert done.exit_code == 0, done.stderr
    assert [(row[0], row[2]) for row in rows(done)] == [
        ("deleted", "Individual"),
        ("deleted", "Enrollment"),
        ("deleted", "Consent"),
    ]
    person = rows(done)[0][1]
    assert person in biobank("lineage", "KPN:T1").stdout
    assert biobank("delete", person).exit_code == 2
    assert biobank("delete", "KPN:KP-01").exit_code == 2
    assert biobank("verify").exit_code == 0


@pytest.mark.usefixtures("_world")
def test_a_dry_run_names_all_that_refuses_and_exits_as_the_delete_would() -> None:
    dry = biobank("delete", "KPN:T1", "--dry-run")
    assert dry.exit_code == 5
    assert dry.stderr.splitlines() == [
        "1 would be deleted",
        "biobank: refused: 1 references to them stand",
    ]
    assert [(row[0], row[2]) for row in rows(dry)] == [
        ("would delete", "Tube"),
        ("refuses", "Action"),
    ]
    action = rows(dry)[1][1]
    assert rows(dry)[1][4] == f"outputs: {rows(dry)[0][1]}"
    together = biobank("delete", "KPN:T1", action, "KPN:T1")
    assert [row[0] for row in rows(together)] == ["deleted", "deleted"]
    assert together.stderr == "2 deleted\n"


@pytest.mark.usefixtures("_world")
def test_a_study_with_objects_is_not_deleted_even_with_cascade() -> None:
    vid = rows(biobank("map-ids", "--kind", "Study"))[0][1]
    assert biobank("delete", vid, "--cascade").exit_code == 5


@pytest.mark.usefixtures("_world")
def test_one_that_is_unknown_leaves_all_in_place() -> None:
    before = biobank("dump").stdout
    assert biobank("delete", "KPN:T1", "KPN:NOPE", "--cascade").exit_code == 2
    assert biobank("dump").stdout == before


def test_a_missing_catalog_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    assert biobank("--catalog", str(path), "delete", "KPN:T1").exit_code == 2
    assert not path.exists()


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(objects=catalogs(), cascade=st.booleans(), draw=st.data())
def test_the_plan_says_what_then_happens(
    objects: list[object], cascade: bool, draw: st.DataObject
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        open_catalog(f"sqlite:///{folder}/c.db", create=True) as catalog,
    ):
        catalog.commit([Save(object=obj) for obj in objects], by="tester")  # type: ignore[arg-type]
        living = [item for item in catalog.iterate() if not isinstance(item.object, Tombstone)]
        chosen = draw.draw(
            st.lists(
                st.sampled_from(living), min_size=1, max_size=3, unique_by=lambda i: i.object.vid
            )
        )
        planned = plan(catalog, chosen, cascade=cascade)
        if planned.refuses:
            with pytest.raises(ConflictError):
                delete(catalog, chosen, cascade=cascade, by="tester")
            return
        gone = delete(catalog, chosen, cascade=cascade, by="tester")
        assert set(gone) == set(planned.going)
        stones = {item.object.vid for item in catalog.iterate(["Tombstone"])}
        assert {item.vid for item in gone} <= stones
        left = {item.object.vid for item in living} - stones
        assert left == {item.object.vid for item in living} - {item.vid for item in gone}
        kept = {(one.vid, one.target) for one in catalog.referring(item.vid for item in gone)}
        assert kept == {(one.vid, one.target) for one in planned.keeps}
