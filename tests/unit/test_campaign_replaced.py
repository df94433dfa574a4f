"""Which old results a new result of one sample takes the place of."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from biobank_core.catalog.port import Save
from biobank_core.config import load_settings
from biobank_core.galaxy.reanalysis.replaced import ReplacedResults
from biobank_core.model.base import Object
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionStatus,
    Consent,
    ConsentStatus,
    DataSample,
    Enrollment,
    Individual,
    Port,
    SoftwareProgram,
    Study,
    Tube,
)
from biobank_core.selection.criteria import Criteria
from biobank_core.selection.select import select
from biobank_core.stores import Stores, open_stores

THEN = datetime(2026, 1, 2, tzinfo=UTC)


def vid(name: str) -> str:
    return f"V0{name.encode().hex().upper():0>32}"


def action(
    name: str, category: ActionCategory, given: list[str], made: str, tool: str | None = None
) -> Action:
    return Action(
        vid=vid(name),
        category=category,
        study=vid("study"),
        device=tool and vid(tool),
        status=ActionStatus.OK,
        begin=THEN,
        inputs=tuple(Port(role="in", object=vid(one)) for one in given),
        outputs=(Port(role="out", object=vid(made)),),
    )


def world() -> list[Object]:
    """Two samples, each with a typing of its own, a summary of that, and one table of both."""
    objects: list[Object] = [
        Study(vid=vid("study"), label="S"),
        SoftwareProgram(vid=vid("typing"), label="typing", release="2.0"),
        SoftwareProgram(vid=vid("table"), label="table", release="1.0"),
    ]
    for one in ("a", "b"):
        objects += [
            Individual(vid=vid(f"who-{one}")),
            Enrollment(
                vid=vid(f"code-{one}"),
                individual=vid(f"who-{one}"),
                study=vid("study"),
                code=one,
            ),
            Consent(
                vid=vid(f"yes-{one}"),
                enrollment=vid(f"code-{one}"),
                status=ConsentStatus.GIVEN,
                valid_from=date(2026, 1, 1),
            ),
            Tube(vid=vid(f"tube-{one}"), label=f"T{one}", study=vid("study")),
            action(f"take-{one}", ActionCategory.EXTRACTION, [f"who-{one}"], f"tube-{one}"),
            action(f"read-{one}", ActionCategory.MEASUREMENT, [f"tube-{one}"], f"data-{one}"),
            action(
                f"type-{one}", ActionCategory.PROCESSING, [f"data-{one}"], f"typed-{one}", "typing"
            ),
            action(
                f"tell-{one}", ActionCategory.PROCESSING, [f"typed-{one}"], f"told-{one}", "table"
            ),
        ]
        objects += [
            DataSample(vid=vid(f"{what}-{one}"), label=f"{what} {one}", study=vid("study"))
            for what in ("data", "typed", "told")
        ]
    objects += [
        DataSample(vid=vid(what), label=what, study=vid("study")) for what in ("joint", "all")
    ]
    objects += [
        action("both", ActionCategory.PROCESSING, ["data-a", "data-b"], "joint", "typing"),
        action("sum", ActionCategory.PROCESSING, ["typed-a", "typed-b"], "all", "table"),
    ]
    return objects


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    settings = load_settings(catalog=f"sqlite:///{tmp_path}/catalog.db", environment={})
    with open_stores(settings, write=True) as opened:
        opened.catalog.commit([Save(object=one) for one in world()], by="test")
        yield opened


def test_a_joint_result_of_two_samples_is_not_one_samples_to_replace(stores: Stores) -> None:
    wanted = Criteria(study=vid("study"), tool="typing", release="<3")
    found = select(stores.catalog, wanted, today=date(2026, 2, 1))
    replaced = ReplacedResults(stores.catalog, stores.index, frozenset({"typing", "table"}))
    assert [row.label for row in found.rows] == ["Ta", "Tb"]
    for row in found.rows:
        one = row.label[-1]
        assert vid("joint") in {result.vid for result in row.results}
        assert {result.vid for result in replaced.of(row)} == {
            vid(f"typed-{one}"),
            vid(f"told-{one}"),
        }
