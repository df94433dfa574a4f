"""The copy of a workflow: upgraded, set, and checked against the tools that are installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from biobank_core.catalog.registry import open_catalog
from biobank_core.errors import InputError
from biobank_core.galaxy.reanalysis.arrange import Arranger
from biobank_core.galaxy.reanalysis.plan import assign_inputs
from biobank_core.galaxy.reanalysis.prepare import Prepared, prepare
from biobank_core.galaxy.reanalysis.toolbox import Toolbox
from biobank_core.galaxy.reanalysis.workflow import Workflow, as_workflow, read_workflow

SHED = "toolshed.example/repos/iuc/typing/typer"


def data(name: str, *, optional: bool = False) -> dict[str, Any]:
    return {"name": name, "type": "data", "optional": optional}


def select(name: str, *values: str) -> dict[str, Any]:
    options = [[value, value, False] for value in values]
    return {"name": name, "type": "select", "options": options, "is_dynamic": False}


def tool(version: str, inputs: list[dict[str, Any]], *outputs: str) -> dict[str, Any]:
    return {
        "id": f"{SHED}/{version}",
        "version": version,
        "versions": ["1.0", "2.0+galaxy1", "2.0+galaxy0", "10.0"],
        "inputs": inputs,
        "outputs": [{"name": output} for output in outputs],
        "tool_shed_repository": {"name": "typing", "changeset_revision": f"rev{version}"},
    }


MODE = {
    "name": "mode",
    "type": "conditional",
    "test_param": select("kind", "fast", "careful"),
    "cases": [
        {"value": "fast", "inputs": []},
        {
            "value": "careful",
            "inputs": [{"name": "depth", "type": "integer", "min": 1, "max": 9, "optional": False}],
        },
    ],
}
RULES = {"name": "rules", "type": "repeat", "inputs": [{"name": "pattern", "type": "text"}]}
FLAG = {"name": "flag", "type": "boolean"}
FULL = [data("genome"), {"name": "prefix", "type": "text"}, MODE, RULES, FLAG]
TOOLS = {
    "1.0": tool("1.0", FULL, "table", "log"),
    "2.0+galaxy0": tool("2.0+galaxy0", FULL, "table", "log"),
    "2.0+galaxy1": tool("2.0+galaxy1", FULL, "table", "log"),
    "10.0": tool("10.0", FULL, "table", "log"),
}
COUNT = {
    "id": "count",
    "version": "1.0",
    "versions": ["1.0"],
    "inputs": [data("rows"), {"name": "n", "type": "integer"}],
    "outputs": [{"name": "number"}],
}


def toolbox(changed: Mapping[str, dict[str, Any]] | None = None) -> Toolbox:
    """Answers as Galaxy does: an unknown version gives the newest one."""
    tools = TOOLS | dict(changed or {})

    def fetch(tool_id: str, version: str | None) -> Mapping[str, Any] | None:
        if tool_id == "count":
            return COUNT
        if not tool_id.startswith(SHED):
            return None
        named = tool_id.removeprefix(SHED).lstrip("/")
        return tools.get(version or named) or tools["10.0"]

    return Toolbox(fetch)


def workflow(state: dict[str, Any] | None = None, **step: Any) -> Workflow:
    typing = {
        "id": 1,
        "type": "tool",
        "label": "typing",
        "content_id": f"{SHED}/1.0",
        "tool_id": f"{SHED}/1.0",
        "tool_version": "1.0",
        "tool_state": json.dumps(
            state if state is not None else {"prefix": "v", "mode": {"kind": "fast"}, "flag": True}
        ),
        "input_connections": {"genome": {"id": 0, "output_name": "output"}},
        "workflow_outputs": [{"output_name": "table", "label": "result"}],
        "post_job_actions": {},
    }
    return as_workflow(
        {
            "a_galaxy_workflow": "true",
            "name": "typing of isolates",
            "steps": {
                "0": {"id": 0, "type": "data_input", "label": "genomes", "tool_state": "{}"},
                "1": typing | step,
                "2": {
                    "id": 2,
                    "type": "tool",
                    "label": "v1.5 count",
                    "content_id": "count",
                    "tool_id": "count",
                    "tool_version": "1.0",
                    "tool_state": json.dumps({"n": 3}),
                    "input_connections": {"rows": {"id": 1, "output_name": "table"}},
                },
            },
        },
        source="test",
    )


def state_of(prepared: Prepared, step: str) -> dict[str, Any]:
    (found,) = [entry for entry in prepared.workflow.steps() if entry.name == step]
    return found.state()


def refused(
    given: Workflow,
    *settings: str,
    changed: Mapping[str, dict[str, Any]] | None = None,
    versions: Mapping[str, str] | None = None,
) -> str:
    with pytest.raises(InputError) as caught:
        prepare(given, toolbox=toolbox(changed), settings=settings, versions=versions)
    return str(caught.value)


def test_the_copy_has_the_newest_tool_and_the_original_is_not_touched() -> None:
    given = workflow()
    before = json.dumps(given.document)
    done = prepare(given, toolbox=toolbox())
    assert json.dumps(given.document) == before
    body = done.workflow.document["steps"]["1"]
    assert (body["tool_id"], body["tool_version"]) == (f"{SHED}/10.0", "10.0")
    assert body["content_id"] == body["tool_id"]
    assert body["tool_shed_repository"]["changeset_revision"] == "rev10.0"
    assert [(one.step, one.old, one.new) for one in done.tools] == [
        ("typing", "1.0", "10.0"),
        ("v1.5 count", "1.0", "1.0"),
    ]


@pytest.mark.parametrize("name", ["typer", SHED, f"{SHED}/1.0"])
def test_a_version_may_be_told_whatever_way_the_tool_is_named(name: str) -> None:
    done = prepare(workflow(), toolbox=toolbox(), versions={name: "2.0+galaxy1"})
    assert done.tools[0].new == "2.0+galaxy1"


def test_a_version_that_is_not_installed_is_refused_with_those_that_are() -> None:
    told = refused(workflow(), versions={"typer": "3.0"})
    assert "step 'typing': typer 3.0 is not installed" in told
    assert "1.0, 2.0+galaxy0, 2.0+galaxy1, 10.0" in told
    assert "no step of the workflow runs the tool sorter" in refused(
        workflow(), versions={"sorter": "1"}
    )


def test_a_missing_tool_is_named_with_its_step() -> None:
    told = refused(workflow(content_id="nowhere", tool_id="nowhere"))
    assert "step 'typing': Galaxy has no tool 'nowhere'" in told


def test_a_parameter_that_the_new_version_lacks_is_refused() -> None:
    newer = tool("10.0", [data("genome"), MODE, RULES, FLAG], "table", "log")
    told = refused(workflow(), changed={"10.0": newer})
    assert "step 'typing': parameter 'prefix' is gone in typer 10.0" in told


def test_a_parameter_inside_others_that_is_gone_is_named_by_its_path() -> None:
    given = workflow(
        {"rules": [{"pattern": "a", "old": "b"}], "mode": {"kind": "careful", "depth": 3}}
    )
    assert "parameter 'rules_0|old' is gone in typer 10.0" in refused(given)


def test_a_connected_input_that_the_new_version_lacks_is_refused() -> None:
    newer = tool("10.0", [data("assembly"), *FULL[1:]], "table", "log")
    told = refused(workflow(), changed={"10.0": newer})
    assert "step 'typing': parameter 'genome' is gone in typer 10.0" in told
    assert "step 'typing': typer 10.0 needs data at 'assembly', and nothing is connected" in told


def test_a_value_that_the_new_version_no_longer_offers_is_refused() -> None:
    mode = MODE | {"test_param": select("kind", "slow", "careful")}
    newer = tool("10.0", [FULL[0], FULL[1], mode, RULES, FLAG], "table", "log")
    told = refused(workflow(), changed={"10.0": newer})
    assert "parameter 'mode|kind' is 'fast', which typer 10.0 does not allow" in told
    assert "allows slow, careful" in told


def test_a_number_that_the_new_version_no_longer_allows_is_refused() -> None:
    given = workflow({"mode": {"kind": "careful", "depth": "12"}})
    assert "parameter 'mode|depth' is '12', which typer 10.0 does not allow" in refused(given)


def test_an_output_that_is_gone_is_refused_for_each_that_uses_it() -> None:
    newer = tool("10.0", FULL, "log")
    rename = {
        "RenameDatasetActiontable": {"action_type": "RenameDatasetAction", "output_name": "table"}
    }
    told = refused(workflow(post_job_actions=rename), changed={"10.0": newer})
    assert "output 'table' is gone in typer 10.0; it is the workflow's output 'result'" in told
    assert "step 'v1.5 count' uses it as 'rows'" in told
    assert "RenameDatasetAction needs it" in told


def test_hiding_an_output_that_is_gone_is_no_error() -> None:
    hide = {"HideDatasetActionlog": {"action_type": "HideDatasetAction", "output_name": "log"}}
    newer = tool("10.0", FULL, "table")
    prepare(workflow(post_job_actions=hide), toolbox=toolbox({"10.0": newer}))


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("typing.prefix=a.b=c", ("prefix",), "a.b=c"),
        ("typing.flag=no", ("flag",), False),
        ("typing.mode|kind=careful", ("mode", "kind"), "careful"),
        ("v1.5 count.n=7", ("n",), 7),
    ],
)
def test_a_setting_is_put_into_the_copy_with_its_type(
    setting: str, path: tuple[str, ...], value: object
) -> None:
    # Galaxy fills a new case's parameters in by itself.
    done = prepare(workflow(), toolbox=toolbox(), settings=[setting])
    held: Any = state_of(done, "typing" if setting.startswith("typing") else "v1.5 count")
    for key in path:
        held = held[key]
    assert held == value
    assert type(held) is type(value)


def test_settings_of_a_case_work_in_any_order_and_old_ones_go() -> None:
    settings = ["typing.mode|depth=4", "typing.mode|kind=careful"]
    done = prepare(workflow(), toolbox=toolbox(), settings=settings)
    assert state_of(done, "typing")["mode"] == {"kind": "careful", "depth": 4}
    given = workflow({"mode": {"kind": "careful", "depth": 3, "__current_case__": 1}})
    done = prepare(given, toolbox=toolbox(), settings=["typing.mode|kind=fast"])
    assert state_of(done, "typing")["mode"] == {"kind": "fast"}


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("typing.prefx=1", "typer 10.0 has no parameter 'prefx'; it has genome, prefix"),
        ("typng.prefix=1", "no such step; the workflow has 'typing', 'v1.5 count'"),
        ("typing.genome=x", "'genome' of step 'typing' comes from another step"),
        ("typing.mode|depth=3", "typer 10.0 does not use 'mode|depth' as step 'typing' is set"),
        ("typing.mode|kind=wild", "allows fast, careful"),
        ("v1.5 count.n=many", "'n' of step 'v1.5 count' is a whole number"),
        ("typing.flag=perhaps", "is true or false"),
        ("genomes.x=1", "step 'genomes' has no parameters to set"),
        ("typing.prefix", "write STEP.PARAM=VALUE"),
    ],
)
def test_what_galaxy_would_silently_ignore_is_refused(setting: str, told: str) -> None:
    said = refused(workflow(), setting)
    assert told in said
    assert f"--set {setting}" in said


def test_numbers_out_of_bounds_are_refused() -> None:
    given = workflow({"mode": {"kind": "careful", "depth": 3}})
    assert "is between 1.0 and 9.0" in refused(given, "typing.mode|depth=10")


def test_all_problems_are_said_at_once() -> None:
    newer = tool("10.0", [data("genome")], "log")
    told = refused(workflow(), "nowhere.x=1", changed={"10.0": newer})
    assert len([line for line in told.splitlines() if line.startswith("  - ")]) >= 5


FORMAT2 = """
class: GalaxyWorkflow
label: typing
inputs:
  genomes: {type: collection, collection_type: list}
  reference: data
  word: {type: text, optional: false}
outputs:
  result: {outputSource: typing/table}
steps:
  typing:
    tool_id: TOOL/1.0
    tool_version: "1.0"
    in: {genome: genomes}
    state: {prefix: v, mode: {kind: careful, depth: 2}}
""".replace("TOOL", SHED)


def test_a_format2_file_is_read_checked_and_set_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "w.gxwf.yml"
    path.write_text(FORMAT2, encoding="utf-8")
    done = prepare(
        read_workflow(path), toolbox=toolbox(), settings=["word=试", "typing.mode|depth=5"]
    )
    assert state_of(done, "typing")["mode"]["depth"] == 5
    assert done.parameters == {2: "试"}
    assert [entry.collection_type for entry in done.workflow.data_inputs()] == ["list", None]
    assert "the workflow's parameter 'word' has no value" in refused(read_workflow(path))


def test_the_old_double_encoding_of_states_is_understood() -> None:
    given = workflow(
        {"prefix": '"v"', "mode": '{"kind": "careful", "depth": "3"}', "flag": '"true"'}
    )
    done = prepare(given, toolbox=toolbox(), settings=["typing.mode|depth=4"])
    assert state_of(done, "typing")["mode"] == {"kind": "careful", "depth": 4}
    assert state_of(done, "typing")["prefix"] == "v"


def test_subworkflows_are_upgraded_and_checked_too() -> None:
    inner = workflow().document
    outer = as_workflow(
        {
            "name": "outer",
            "steps": {
                "0": {"id": 0, "type": "data_input", "label": "in", "tool_state": "{}"},
                "1": {
                    "id": 1,
                    "type": "subworkflow",
                    "label": "part",
                    "subworkflow": inner,
                    "input_connections": {"genomes": {"id": 0, "output_name": "output"}},
                },
            },
        },
        source="test",
    )
    done = prepare(outer, toolbox=toolbox(), settings=["part:typing.prefix=w"])
    assert [one.step for one in done.tools] == ["part:typing", "part:v1.5 count"]
    assert state_of(done, "part:typing")["prefix"] == "w"
    newer = tool("10.0", FULL, "log")
    assert "step 'part:v1.5 count' uses it" in refused(outer, changed={"10.0": newer})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is not a Galaxy workflow"),
        (b"[]", "is not a Galaxy workflow"),
        (b"{}", "is not a Galaxy workflow, or has no steps"),
        (b'{"steps": {"0": 1}}', "is a damaged Galaxy workflow"),
        (b'{"steps": {"x": {}}}', "is a damaged Galaxy workflow"),
        (b"\xff\xfe", "is neither JSON nor YAML in UTF-8"),
        (b"a: [", "is neither JSON nor YAML in UTF-8"),
        (b"a: &a [1]\nb: *a\n", "uses YAML aliases"),
        (b"class: GalaxyWorkflow\nsteps: 3\n", "is no valid format2 workflow"),
        (b'{"steps": {"0": {"tool_state": "[]"}}}', "tool_state is no JSON object"),
    ],
)
def test_a_file_that_is_no_workflow_is_refused_by_name(
    tmp_path: Path, content: bytes, told: str
) -> None:
    path = tmp_path / "w.ga"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_workflow(path)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_workflow(tmp_path / "none.ga")


def test_several_data_inputs_need_to_be_told_apart(tmp_path: Path) -> None:
    inputs = as_workflow(_converted(), source="test").data_inputs()
    with open_catalog(f"sqlite:///{tmp_path}/c.db", create=True) as catalog:
        arranger = Arranger(catalog)
        with pytest.raises(InputError, match="give --input NAME=OBJECT for all but the one"):
            assign_inputs(inputs, {}, arranger=arranger)
        with pytest.raises(InputError, match="has no such data input; it has 'genomes', 'ref"):
            assign_inputs(inputs, {"x": None}, arranger=arranger)  # type: ignore[dict-item]


def _converted() -> dict[str, Any]:
    converted: dict[str, Any] = yaml.safe_load(FORMAT2)
    return converted
