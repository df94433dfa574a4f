"""Selecting by parameters and by reference data."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from biobank_core.cli.select import command
from biobank_core.errors import InputError
from biobank_core.model.kinds import ActionStatus
from biobank_core.selection.criteria import Selection
from biobank_core.selection.uses import has
from tests.unit.selection_world import TOOL, World, codes, labels


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def by_param(world: World, *params: tuple[str, str], release: str | None = None) -> Selection:
    return world.select(world.criteria(release=release, params=params))


def by_reference(world: World, reference: str, release: str | None = None) -> Selection:
    return world.select(world.criteria(release=release, reference=reference))


@pytest.mark.parametrize(
    ("parameters", "name", "text", "fits"),
    [
        ({"k": "21"}, "k", "21", True),
        ({"k": 21}, "k", "21", True),
        ({"k": 0.5}, "k", "0.5", True),
        ({"k": True}, "k", "true", True),
        ({"k": "21"}, "k", "2", False),
        ({"k": "21"}, "K", "21", False),
        ({"mode": {"name": "fast"}}, "mode.name", "fast", True),
        ({"mode": {"name": "fast"}}, "name", "fast", False),
        ({"mode": {"name": "fast"}}, "mode", "fast", False),
        ({"a.b": {"c.d": "1"}}, "a.b.c.d", "1", True),
        ({"a": {"x": "0"}, "a.b": {"c": "1"}}, "a.b.c", "1", True),
        ({"sets": ["one", "two"]}, "sets", "two", True),
        ({"rows": [{"n": 1}, {"n": 2}]}, "rows.n", "2", True),
        ({}, "k", "", False),
    ],
)
def test_a_parameter_is_found_by_its_dotted_name_and_its_text(
    parameters: dict[str, object], name: str, text: str, fits: bool
) -> None:
    assert has(parameters, name, text) is fits


def test_only_what_was_run_with_the_value_is_selected(world: World) -> None:
    world.typing("one", world.isolate("01"), parameters={"mode": {"k": 21}})
    world.typing("two", world.isolate("02"), parameters={"mode": {"k": 31}})
    world.typing("three", world.isolate("03"))
    selection = by_param(world, ("mode.k", "21"))
    assert labels(selection.rows) == ["T-01"]
    assert selection.rows[0].reason.endswith("; wanted: mode.k=21")
    assert not selection.excluded


def test_of_several_parameters_all_must_fit(world: World) -> None:
    world.typing("one", world.isolate("01"), parameters={"k": 21, "fast": True})
    world.typing("two", world.isolate("02"), parameters={"k": 21, "fast": False})
    assert labels(by_param(world, ("k", "21"), ("fast", "true")).rows) == ["T-01"]


def test_the_release_narrows_what_has_the_parameter(world: World) -> None:
    world.typing("one", world.isolate("01"), parameters={"k": 21})
    world.typing("two", world.isolate("02"), parameters={"k": 21}, release="3.0")
    assert labels(by_param(world, ("k", "21"), release="<3").rows) == ["T-01"]


def test_a_newer_run_with_another_value_is_already_done(world: World) -> None:
    reads = world.isolate("01")
    world.typing("old", reads, parameters={"k": 21}, day=10)
    world.typing("new", reads, parameters={"k": 31}, day=11)
    selection = by_param(world, ("k", "21"))
    assert codes(selection) == {"T-01": "already-done"}
    assert selection.excluded[0].reason == (
        "already done with kleborate_typing 2.2.0 and other parameters or reference data on "
        "2026-01-11"
    )


@pytest.mark.parametrize(("day", "parameters"), [(9, {"k": 31}), (11, {"k": 21}), (11, None)])
def test_an_older_run_one_with_the_value_or_one_of_unknown_parameters_does_not_make_it_done(
    world: World, day: int, parameters: dict[str, int] | None
) -> None:
    reads = world.isolate("01")
    world.typing("old", reads, parameters={"k": 21}, day=10)
    world.typing("other", reads, parameters=parameters, day=day)
    assert labels(by_param(world, ("k", "21")).rows) == ["T-01"]


@pytest.mark.parametrize("status", [ActionStatus.OK, ActionStatus.ERROR])
def test_another_tool_with_another_value_is_neither_done_nor_a_try(
    world: World, status: ActionStatus
) -> None:
    reads = world.isolate("01")
    world.typing("old", reads, parameters={"k": 21}, day=10)
    made = world.data("made")
    world.act(
        [reads], [made], tool="other", release="1", parameters={"k": 31}, day=11, status=status
    )
    for tool in ("kleborate_typing", None):
        selection = world.select(world.criteria(tool=tool, release=None, params=(("k", "21"),)))
        assert labels(selection.rows) == ["T-01"]
        assert "tried" not in selection.rows[0].reason


def test_what_had_the_reference_among_its_inputs_is_selected(world: World) -> None:
    old, new = world.data("reference 1"), world.data("reference 2")
    world.typing("one", world.isolate("01"), old)
    world.typing("two", world.isolate("02"), new)
    world.typing("three", world.isolate("03"))
    selection = by_reference(world, old)
    assert labels(selection.rows) == ["T-01"]
    assert selection.rows[0].reason.endswith("; wanted: reference reference 1")


def test_a_reference_within_collections_counts(world: World) -> None:
    reference = world.data("reference")
    inner = world.collection("inner", reference, world.data("another"))
    outer = world.collection("outer", inner)
    world.typing("one", world.isolate("01"), inner)
    world.typing("two", world.isolate("02"), outer)
    world.typing("three", world.isolate("03"))
    assert labels(by_reference(world, reference).rows) == ["T-01", "T-02"]
    assert labels(by_reference(world, outer).rows) == ["T-02"]


def test_what_was_computed_from_a_result_with_the_reference_is_no_match_itself(
    world: World,
) -> None:
    reference = world.data("reference")
    trimmed = world.data("trimmed")
    world.act([world.isolate("01"), reference], [trimmed], tool="trim", release="1")
    world.typing("one", trimmed)
    assert not by_reference(world, reference).rows


def test_a_newer_run_on_another_reference_is_already_done(world: World) -> None:
    old, new = world.data("reference 1"), world.data("reference 2")
    first, second = world.isolate("01"), world.isolate("02")
    world.typing("one", first, old, day=10)
    world.typing("one again", first, new, day=11)
    world.typing("two", second, old, day=10)
    world.typing("two again", second, old, day=11)
    selection = by_reference(world, old)
    assert codes(selection) == {"T-01": "already-done"}
    assert labels(selection.rows) == ["T-02"]


def test_a_reference_that_nothing_was_given_selects_nothing(world: World) -> None:
    reference = world.data("reference")
    world.typing("one", world.isolate("01"))
    assert not by_reference(world, reference).rows


def test_a_parameter_needs_a_name(world: World) -> None:
    with pytest.raises(InputError):
        world.criteria(params=(("", "21"),))


def run(folder: Path, *options: str) -> Result:
    catalog = f"sqlite:///{folder}/world.db"
    return CliRunner().invoke(command, ["--study", "KPN", *options, "--catalog", catalog])


def test_the_command_takes_parameters_and_a_reference_by_label(
    world: World, tmp_path: Path
) -> None:
    reference = world.data("reference")
    world.typing("one", world.isolate("01"), reference, parameters={"k": 21, "q": "a=b"})
    world.typing("two", world.isolate("02"), reference, parameters={"k": 21})
    world.typing("three", world.isolate("03"), parameters={"k": 21, "q": "a=b"})
    world.save()
    world.catalog.close()
    asked = ("--param", "k=21", "--param", "q=a=b", "--reference", "KPN:reference")
    result = run(tmp_path, "--tool", TOOL, *asked)
    assert result.exit_code == 0, result.output
    assert [line.split("\t")[1] for line in result.stdout.splitlines()[1:]] == ["T-01"]


@pytest.mark.parametrize("text", ["k", "=21"])
def test_a_parameter_that_is_no_pair_is_refused(world: World, tmp_path: Path, text: str) -> None:
    world.save()
    assert run(tmp_path, "--param", text).exit_code == 2
