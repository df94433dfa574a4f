"""What replaces what, what is kept, and how a sample's data are arranged: never guessed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from biobank_core.catalog.port import Catalog, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.errors import InputError
from biobank_core.galaxy.reanalysis.arrange import Arranger, Given, check_type
from biobank_core.galaxy.reanalysis.carry import Carrier, NotCarriedError
from biobank_core.galaxy.reanalysis.forms import Parameter
from biobank_core.galaxy.reanalysis.outputs import NewOutput, Replacing, parse_replaces
from biobank_core.galaxy.reanalysis.results import Result
from biobank_core.galaxy.reanalysis.settings import Kept
from biobank_core.model.base import Object
from biobank_core.model.galaxy import GalaxyCollection
from biobank_core.model.ids import derived_vid
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionSetup,
    ActionStatus,
    DataCollection,
    DataMember,
    DataSample,
    SoftwareProgram,
    Study,
)

SHED = "toolshed.example/repos/iuc/typing/typer"


def vid(name: str) -> str:
    return derived_vid("Test", name)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with open_catalog(f"sqlite:///{tmp_path}/c.db", create=True) as opened:
        opened.commit([Save(object=Study(vid=vid("study"), label="KPN"))], by="test")
        yield opened


def keep(catalog: Catalog, *objects: Object) -> None:
    catalog.commit([Save(object=obj) for obj in objects], by="test")


# Outputs


def out(
    name: str, *, step: str = "typing", tool: str = SHED, label: str | None = None, **more: Any
) -> NewOutput:
    return NewOutput(step=step, tool=tool, output=name, label=label, **more)


def old(name: str, role: str = "table", tool: str = SHED, step: str | None = "typing") -> Result:
    return Result(vid=vid(name), label=name, tool=tool, role=role, step=step)


def settled(
    results: list[Result], outputs: list[NewOutput], *replaces: str
) -> dict[str, str | None]:
    replacing = Replacing(outputs, parse_replaces(replaces, outputs))
    found = replacing.of("T1", results)
    replacing.check()
    return {one.label: found[one.vid].title if one.vid in found else None for one in results}


def test_the_same_output_of_the_same_tool_replaces_where_nothing_is_said() -> None:
    outputs = [out("table"), out("log"), out("table", step="other", tool="other")]
    assert settled([old("a"), old("b", "log"), old("c", "plot")], outputs) == {
        "a": "typing.table",
        "b": "typing.log",
        "c": None,
    }


@pytest.mark.parametrize("new", ["typed", "typing.sheet", "sheet"])
@pytest.mark.parametrize("was", ["table", "typer.table", f"{SHED}.table", "typing.table"])
def test_an_output_of_another_name_is_told_however_people_write_it(new: str, was: str) -> None:
    outputs = [out("sheet", label="typed"), out("log")]
    assert settled([old("a"), old("b", "log")], outputs, f"{new}={was}") == {
        "a": "typing.sheet",
        "b": "typing.log",
    }


def test_what_was_found_at_run_time_goes_by_its_output() -> None:
    found = settled([old("a", "lines|1"), old("b", "lines|2")], [out("rows")], "rows=lines")
    assert found == {"a": "typing.rows", "b": "typing.rows"}


def test_a_tool_that_runs_twice_is_told_apart_by_its_step_or_is_an_error() -> None:
    twice = [
        out("table", step="first", step_label="first"),
        out("table", step="second", step_label="second"),
    ]
    assert settled([old("a", step="second")], twice) == {"a": "second.table"}
    with pytest.raises(InputError, match=r"may be replaced by first.table or second.table: say"):
        settled([old("a", step=None)], twice)
    assert settled([old("a", step=None)], twice, "first.table=table") == {"a": "first.table"}
    with pytest.raises(InputError, match=r"'table' may be first.table, second.table; write one"):
        settled([old("a")], twice, "table=table")


def test_two_steps_that_became_one_are_an_error_until_they_are_told() -> None:
    results = [old("a", step="first"), old("b", step="second")]
    with pytest.raises(InputError, match=r"would replace the old results of several steps"):
        settled(results, [out("table")])
    assert settled(
        results, [out("table")], "typing.table=first.table", "typing.table=second.table"
    ) == {"a": "typing.table", "b": "typing.table"}
    with pytest.raises(InputError, match=r"'table' may be first.table, second.table; write one"):
        settled(results, [out("table")], "typing.table=table")


def test_all_that_is_wrong_with_replaces_is_said_at_once() -> None:
    with pytest.raises(InputError) as caught:
        settled([old("a")], [out("table")], "x=table", "nothing", "=table", "table=")
    assert str(caught.value).count("\n  - ") == 4
    with pytest.raises(InputError, match=r"no old result is called 'b'; there are typer.table"):
        settled([old("a")], [out("table")], "table=b")
    with pytest.raises(InputError, match=r"typing.table is replaced by typing.table already"):
        settled([old("a")], [out("table"), out("log")], "table=table", "log=table")


# Parameters


def kept(target: str, was: str, tool: str | None = None, **more: Any) -> Kept:
    parameter = Parameter(name=target, **{"type": "text", **more})
    return Kept(target=target, index=1, path=target, parameter=parameter, old=was, tool=tool)


def run(catalog: Catalog, name: str, parameters: dict[str, Any], tool: str = SHED) -> str:
    made: list[Object] = [
        SoftwareProgram(vid=vid(tool), label=tool, release="1"),
        ActionSetup(vid=vid(f"setup {name}"), parameters=parameters),
        Action(
            vid=vid(name),
            category=ActionCategory.PROCESSING,
            study=vid("study"),
            device=vid(tool),
            setup=vid(f"setup {name}"),
            status=ActionStatus.OK,
            begin=datetime(2026, 1, 2, tzinfo=UTC),
        ),
    ]
    known = catalog.get(obj.vid for obj in made)
    keep(catalog, *(obj for obj in made if obj.vid not in known))
    return vid(name)


def carrier(catalog: Catalog, asked: list[Kept], actions: dict[str, list[str]]) -> Carrier:
    made = Carrier(catalog, asked)
    made.learn(actions)
    return made


def test_each_sample_keeps_its_own_values_whatever_their_type(catalog: Catalog) -> None:
    one = run(catalog, "one", {"n": 3, "mode": {"depth": "4"}, "rules": [{"x": ["a", "b"]}]})
    two = run(catalog, "two", {"n": 5, "mode": {"depth": "6"}, "rules": [{"x": []}]})
    asked = [kept("n", "n"), kept("d", "typer.mode|depth"), kept("x", "rules_0|x")]
    found = carrier(catalog, asked, {"T1": [one], "T2": [two]})
    assert [entry.value for entry in found.of("T1")] == [3, "4", ["a", "b"]]
    assert [entry.value for entry in found.of("T2")] == [5, "6", []]
    assert found.of("T1")[1].old == "typer.mode|depth"


def test_a_name_that_two_tools_have_or_none_is_an_error(catalog: Catalog) -> None:
    actions = {"T1": [run(catalog, "a", {"n": 1}), run(catalog, "b", {"n": 2}, tool="count")]}
    with pytest.raises(InputError, match=r"may be of count.n, typer.n; write --keep n=TOOL.PARAM"):
        carrier(catalog, [kept("n", "n")], actions)
    assert carrier(catalog, [kept("n", "count.n")], actions).of("T1")[0].value == 2
    assert carrier(catalog, [kept("n", "n", tool=SHED)], actions).of("T1")[0].value == 1
    with pytest.raises(InputError, match=r"no old result was made with a parameter 'm'; there are"):
        carrier(catalog, [kept("n", "m")], actions)


def test_a_sample_without_one_allowed_value_is_left_out_with_the_reason(catalog: Catalog) -> None:
    actions = {
        "T1": [run(catalog, "a", {"n": 1}), run(catalog, "b", {"n": 2})],
        "T2": [run(catalog, "c", {"m": 1})],
        "T3": [run(catalog, "d", {"n": 99})],
        "T4": [run(catalog, "e", {"n": "(redacted)"})],
        "T5": [run(catalog, "f", {"n": 7}), run(catalog, "g", {"n": 7})],
    }
    found = carrier(catalog, [kept("n", "n", type="integer", maximum=9)], actions)
    codes = {}
    for sample in actions:
        try:
            codes[sample] = str(found.of(sample)[0].value)
        except NotCarriedError as exc:
            codes[sample] = exc.code
    assert codes == {
        "T1": "several-old-values",
        "T2": "no-old-value",
        "T3": "value-not-allowed",
        "T4": "no-old-value",
        "T5": "7",
    }


# Shapes


def data(catalog: Catalog, *names: str) -> list[str]:
    keep(catalog, *(DataSample(vid=vid(name), label=name, study=vid("study")) for name in names))
    return [vid(name) for name in names]


def collection(catalog: Catalog, name: str, kind: str | None, **members: str) -> str:
    galaxy = None if kind is None else GalaxyCollection(server="g", collection_type=kind)
    items = tuple(DataMember(role=role, object=vid(one)) for role, one in members.items())
    made = DataCollection(vid=vid(name), label=name, study=vid("study"), items=items, galaxy=galaxy)
    keep(catalog, made)
    return made.vid


def shape(given: Given) -> Any:
    if given.data is not None:
        return next(name for name in "abcdefg" if vid(name) == given.data)
    return given.type, {member.name: shape(member) for member in given.members}


def test_data_go_in_alone_or_as_a_list(catalog: Catalog) -> None:
    sources = data(catalog, "a", "b")
    arranger = Arranger(catalog)
    assert shape(arranger.sample("T1", sources[:1], None)) == "a"
    assert shape(arranger.sample("T1", sources[:1], "list")) == ("list", {"T1": "a"})
    assert shape(arranger.sample("T1", sources, "list")) == ("list", {"T1_1": "a", "T1_2": "b"})
    with pytest.raises(InputError, match=r"takes one data set, and there are 2 data sets"):
        arranger.sample("T1", sources, None)


def test_a_pair_is_one_that_was_recorded_as_such(catalog: Catalog) -> None:
    sources = data(catalog, "a", "b")
    arranger = Arranger(catalog)
    for wanted in ("paired", "list:paired", "record", "paired_or_unpaired"):
        with pytest.raises(InputError, match=f"of type {wanted}, and there are 2 data sets"):
            arranger.sample("T1", sources, wanted)
    whole = collection(catalog, "p", "paired", forward="b", reverse="a")
    pair = {"forward": "b", "reverse": "a"}
    for given in (sources, [whole], [whole, *sources]):
        assert shape(arranger.sample("T1", given, "paired")) == ("paired", pair)
        assert shape(arranger.sample("T1", given, "list:paired")) == (
            "list:paired",
            {"T1": ("paired", pair)},
        )
        assert shape(arranger.sample("T1", given, "list:list:paired"))[0] == "list:list:paired"
    assert shape(arranger.sample("T1", sources, "paired_or_unpaired"))[1] == pair
    # The same two files the other way round: who is to say?
    collection(catalog, "q", "paired", forward="a", reverse="b")
    with pytest.raises(InputError, match=r"is in two recorded collections of type paired"):
        arranger.sample("T1", sources, "paired")
    assert shape(arranger.sample("T1", [whole], "paired")) == ("paired", pair)


def test_several_pairs_make_a_list_of_pairs_in_their_order(catalog: Catalog) -> None:
    sources = data(catalog, "a", "b", "c", "d", "e")
    collection(catalog, "p", "paired", forward="c", reverse="d")
    collection(catalog, "q", "paired", forward="a", reverse="b")
    arranger = Arranger(catalog)
    found = arranger.sample("T1", sources[:4], "list:paired")
    assert shape(found)[1] == {
        "T1_1": ("paired", {"forward": "a", "reverse": "b"}),
        "T1_2": ("paired", {"forward": "c", "reverse": "d"}),
    }
    with pytest.raises(InputError, match=r"there are 5 data sets"):
        arranger.sample("T1", sources, "list:paired")
    either = shape(arranger.sample("T1", sources, "list:paired_or_unpaired"))[1]
    assert either["T1_3"] == ("paired_or_unpaired", {"unpaired": "e"})
    # One that was recorded whole is given as it was, with its own names.
    collection(catalog, "all", "list:paired", x="p", y="q")
    assert list(shape(arranger.sample("T1", sources[:4], "list:paired"))[1]) == ["x", "y"]


def test_a_record_is_given_as_it_was_recorded(catalog: Catalog) -> None:
    sources = data(catalog, "a", "b", "c")
    collection(catalog, "r", "record", genome="a", annotation="b")
    arranger = Arranger(catalog)
    found = shape(arranger.sample("T1", sources[:2], "record"))
    assert found == ("record", {"genome": "a", "annotation": "b"})
    with pytest.raises(InputError, match=r"of type record, and there are 3 data sets"):
        arranger.sample("T1", sources, "record")


def test_what_is_the_same_for_all_samples_must_be_of_the_type_too(catalog: Catalog) -> None:
    data(catalog, "a", "b")
    collection(catalog, "l", None, x="a", y="b")
    collection(catalog, "p", "paired", forward="a", reverse="b")
    arranger = Arranger(catalog)
    held: dict[str, Any] = {name: catalog.get([vid(name)])[vid(name)].object for name in "alp"}
    assert shape(arranger.fixed(held["l"], "list", label="refs"))[1] == {"x": "a", "y": "b"}
    assert shape(arranger.fixed(held["p"], "paired", label="refs"))[0] == "paired"
    with pytest.raises(
        InputError, match=r"--input refs: the workflow wants one data set; .* of type"
    ):
        arranger.fixed(held["p"], None, label="refs")
    with pytest.raises(InputError, match=r"wants a collection of type list; .* is one data set"):
        arranger.fixed(held["a"], "list", label="refs")


@pytest.mark.parametrize("wanted", ["sample_sheet", "list:record", ":".join(["list"] * 7)])
def test_a_type_that_nobody_can_give_is_refused(wanted: str) -> None:
    with pytest.raises(InputError, match=r"wants a collection of type"):
        check_type(wanted, label="reads")
    for known in (None, "list", "list:paired", "record", "list:paired_or_unpaired"):
        check_type(known, label="reads")
