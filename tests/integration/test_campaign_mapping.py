"""Campaigns whose workflow names things otherwise, wants pairs, or is nested: on a real Galaxy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from biobank_core.galaxy.client import GalaxyClient
from biobank_core.galaxy.reanalysis.server import CampaignServer, NewCollection
from tests.integration.campaign_lab import NEW, OLD, Lab, new_lab
from tests.integration.omero_settings import NewCatalog
from tests.servers.galaxy import LATER_TOOLS, GalaxyServer
from tests.servers.galaxy_user import GalaxyUser, hda, hdca

# Recording, linking and running several campaigns each: minutes on a busy machine.
pytestmark = [pytest.mark.galaxy, pytest.mark.timeout(900)]

SHED = "toolshed.biobank.example/repos/biobank/sizes/sizes"
_SHED_FILES = "toolshed.biobank.example/repos/biobank/sizes/{}/sizes.xml"
_LATER = {
    ("versioned_tool", NEW): "versioned_tool_2_0_0.xml",
    ("renamed_tool", "5.0"): "renamed_tool.xml",
    (f"{SHED}/1.0.0", "1.0.0"): _SHED_FILES.format("0123456789ab"),
    (f"{SHED}/2.0.0+galaxy1", "2.0.0+galaxy1"): _SHED_FILES.format("ba9876543210"),
}

# Another tool, with other names for everything.
RENAMED: dict[str, Any] = {
    "class": "GalaxyWorkflow",
    "label": "renamed",
    "inputs": {"genome": {"type": "data"}, "least": {"type": "int", "optional": False}},
    "outputs": {"table of sizes": {"outputSource": "sizing/table"}},
    "steps": {
        "sizing": {
            "tool_id": "renamed_tool",
            "tool_version": "5.0",
            "in": {"genome": "genome", "min_length": "least"},
            "state": {"naming": {"label": "x"}},
        },
    },
}


@pytest.fixture
def lab(
    galaxy: GalaxyServer, galaxy_user: GalaxyUser, new_catalog: NewCatalog, tmp_path: Path
) -> Lab:
    for (tool, version), file in _LATER.items():
        if version not in galaxy.tool_versions(tool):
            galaxy.add_tool(LATER_TOOLS / file)
    return new_lab(galaxy_user, galaxy.url, new_catalog, tmp_path)


def typed_by_hand(lab: Lab, tool: str, given: dict[str, dict[str, Any]], version: str) -> None:
    """Upload a genome for each tube and run a tool on it, with parameters of its own."""
    lab.register(given)
    history = lab.user.new_history("by hand")
    elements = lab.user.elements(
        lab.user.upload_collection(history, {tube: f"{tube} ACGT\n" for tube in given})
    )
    for tube, parameters in given.items():
        lab.user.run(history, tool, {"input": hda(elements[tube]), **parameters}, version=version)
    lab.record()


def planned(lab: Lab, tool: str, document: dict[str, Any], *more: str, expect: int = 0) -> Any:
    """Plan the campaign `c` over all results of a tool; the plan as JSON, or the error."""
    answer = lab.biobank(
        *("reanalyse", "plan", "--study", "KPN", "--tool", tool, "--name", "c"),
        *("--workflow", lab.file(document), "--format", "json", *more),
        expect=expect,
    )
    return json.loads(answer.out) if expect == 0 else answer.err


def test_outputs_and_parameters_of_other_names_are_mapped_by_the_plan(lab: Lab) -> None:
    typed_by_hand(
        lab,
        "versioned_tool",
        {"T1": {"prefix": "one"}, "T2": {"prefix": "“zwei”"}, "T3": {"prefix": "12"}},
        OLD,
    )
    wrong = planned(
        lab,
        "versioned_tool",
        RENAMED,
        *("--keep", "sizing.naming|label=prefx", "--set", "least=3"),
        expect=2,
    )
    assert "no old result was made with a parameter 'prefx'; there are" in wrong
    assert "versioned_tool.prefix" in wrong
    wrong = planned(
        lab,
        "versioned_tool",
        RENAMED,
        *("--keep", "sizing.naming|label=prefix", "--set", "least=3"),
        *("--replaces", "tabel=output", "--replaces", "messages=protocol"),
        expect=2,
    )
    assert "the workflow has no output 'tabel'; it has sizing.messages, sizing.table" in wrong
    wrong = planned(
        lab, "versioned_tool", RENAMED, "--set", "least=3", "--replaces", "messages=protocol",
        expect=2,
    )  # fmt: skip
    assert (
        "no old result is called 'protocol'; there are versioned_tool.log, versioned_tool.outp"
        in wrong
    )
    assert not lab.lines("Campaign")

    plan = planned(
        lab,
        "versioned_tool",
        RENAMED,
        *("--keep", "sizing.naming|label=versioned_tool.prefix", "--set", "least=3"),
        *("--replaces", "table of sizes=output", "--replaces", "sizing.messages=log"),
    )
    assert [item["kept"][0]["value"] for item in plan["items"]] == ["one", "“zwei”", "12"]
    (first, *_) = plan["items"]
    assert {old["output"]: old["replaced_by"]["output"] for old in first["old"]} == {
        "output": "table",
        "log": "messages",
    }
    lab.biobank("reanalyse", "run", "c")
    assert {item["state"] for item in lab.status("c").values()} == {"ok"}
    ran = [
        line["parameters"] for line in lab.lines("ActionSetup") if "naming" in line["parameters"]
    ]
    assert {(one["naming"]["label"], str(one["min_length"])) for one in ran} == {
        ("one", "3"), ("“zwei”", "3"), ("12", "3"),
    }  # fmt: skip
    roles = {
        port["object"]: port["role"] for action in lab.lines("Action") for port in action["outputs"]
    }
    links = lab.lines("Supersession")
    assert sorted((roles[link["old"]], roles[link["new"]]) for link in links) == [
        *[("log", "messages")] * 3,
        *[("output", "table")] * 3,
    ]  # fmt: skip
    rows = lab.biobank("reanalyse", "report", "c", "--tsv", "-").rows
    # Under other names, and otherwise the same to the byte.
    assert {row["column"] for row in rows if row["result"] == "table"} == {"equal"}


def test_what_is_not_mapped_is_said_and_left_alone(lab: Lab) -> None:
    typed_by_hand(lab, "versioned_tool", {"T1": {}}, OLD)
    table = lab.biobank(
        *("reanalyse", "plan", "--study", "KPN", "--tool", "versioned_tool", "--name", "c"),
        *("--workflow", lab.file(RENAMED), "--keep", "least=prefix"),
    )
    # A text that is no number can't be kept where a number is wanted.
    assert table.rows[0]["state"] == "excluded"
    assert "versioned_tool.prefix was 'v', which least does not allow" in table.rows[0]["reason"]
    table = lab.biobank(
        *("reanalyse", "plan", "--study", "KPN", "--tool", "versioned_tool", "--name", "c"),
        *("--workflow", lab.file(RENAMED), "--set", "least=3", "--replaces", "table=output"),
    )
    assert table.rows[0]["replaced"] == "log>;output>sizing.table"
    assert "old log: no output of the workflow replaces it (1 sample" in table.err
    lab.biobank("reanalyse", "run", "c")
    assert len(lab.lines("Supersession")) == 1


def test_nested_parameters_are_kept_sample_by_sample(lab: Lab) -> None:
    expert = {"mode|kind": "expert", "mode|depth": "4"}
    typed_by_hand(
        lab,
        "parameters",
        {
            "T1": {"advanced|seed": "7", "choices": ["z"], "flag": True, **expert},
            "T2": {"advanced|seed": "8", "choices": ["x", "y"], "mode|depth": "5"}
            | {"mode|kind": "expert"},
            "T3": {"choices": ["x"]},
        },
        "1.0.0",
    )
    document = {
        "class": "GalaxyWorkflow",
        "label": "again",
        "inputs": {"given": "data"},
        "outputs": {},
        "steps": {
            "again": {
                "tool_id": "parameters",
                "tool_version": "1.0.0",
                "in": {"input": "given"},
                "state": {"mode": {"kind": "expert", "depth": 9}, "advanced": {"seed": 1}},
            }
        },
    }
    keep = ("again.advanced|seed", "again.choices", "again.flag", "again.mode|depth")
    refused = planned(lab, "parameters", document, "--keep", "again.mode|kind", expect=2)
    assert "'mode|kind' decides which other parameters step 'again' has" in refused
    plan = planned(lab, "parameters", document, *(part for one in keep for part in ("--keep", one)))
    # T3 was run in the simple mode: it has no depth.
    assert [out["code"] for out in plan["left_out"]] == ["no-old-value"]
    before = {line["vid"] for line in lab.lines("ActionSetup")}
    lab.biobank("reanalyse", "run", "c")
    assert {item["state"] for item in lab.status("c").values()} == {"ok"}
    after = [line["parameters"] for line in lab.lines("ActionSetup") if line["vid"] in before]
    # The same parameters are the same setup: nothing new was made of them.
    assert len(lab.lines("ActionSetup")) == len(before), after


def paired(lab: Lab) -> None:
    """T1 has one pair, T2 two, T3 a single file; each was looked at before."""
    lab.register(["T1", "T2", "T3"])
    history = lab.user.new_history("reads")
    pairs = {
        "T1": {"T1": {"forward": "A1\n", "reverse": "A2\n"}},
        "T2": {
            "T2-a": {"forward": "B1\n", "reverse": "B2\n"},
            "T2-b": {"forward": "C1\n", "reverse": "C2\n"},
        },
    }
    for elements in pairs.values():
        made = lab.user.upload_collection(history, elements, collection_type="list:paired")
        lab.user.run(history, "nested_input", {"pairs": hdca(made)})
    single = lab.user.upload(history, "D\n", name="T3")
    lab.user.run(history, "one_to_one", {"input": hda(single)})
    lab.record()
    collections = {line["vid"]: line for line in lab.lines("DataCollection")}
    for line in collections.values():
        if line["galaxy"]["collection_type"] != "list:paired":
            continue
        for outer in line["items"]:
            for inner in collections[outer["object"]]["items"]:
                lab.biobank("link", inner["object"], f"KPN:{outer['role'][:2]}")
    (alone,) = [line for line in lab.lines("DataSample") if line["label"] == "T3"]
    lab.biobank("link", alone["vid"], "KPN:T3")


def pair_workflow(collection_type: str, tool: str, name: str) -> dict[str, Any]:
    return {
        "class": "GalaxyWorkflow",
        "label": f"of {collection_type.replace(':', '-')}",
        "inputs": {"reads": {"type": "collection", "collection_type": collection_type}},
        "outputs": {},
        "steps": {"joining": {"tool_id": tool, "tool_version": "1.0.0", "in": {name: "reads"}}},
    }


def test_pairs_and_lists_of_pairs_are_given_as_they_were_recorded(lab: Lab) -> None:
    paired(lab)
    one = planned(lab, "nested_input", pair_workflow("paired", "paired_input", "pair"))
    assert [item["label"] for item in one["items"]] == ["T1"]
    (out,) = one["left_out"]
    assert (out["label"], out["code"]) == ("T2", "wrong-shape")
    assert "takes a collection of type paired, and there are 4 data sets" in out["reason"]
    lab.biobank("reanalyse", "run", "c")
    assert {item["state"] for item in lab.status("c").values()} == {"ok"}

    several = lab.biobank(
        *("reanalyse", "plan", "--study", "KPN", "--tool", "nested_input", "--name", "d"),
        *("--workflow", lab.file(pair_workflow("list:paired", "nested_input", "pairs"))),
    )
    assert {row["label"]: row["state"] for row in several.rows} == {
        "T1": "planned",
        "T2": "planned",
    }
    lab.biobank("reanalyse", "run", "d")
    items = lab.status("d")
    assert {item["state"] for item in items.values()} == {"ok"}
    told = lab.biobank("reanalyse", "report", "d", "--tsv", "-").rows
    # The same pairs in the same order: the same bytes.
    assert {row["column"] for row in told if row["change"] == "file"} == {"equal"}

    # A pair or a single file: T3 goes in too.
    either = pair_workflow("list:paired_or_unpaired", "one_to_one", "input")
    plan = planned(lab, "one_to_one", either, "--name", "e")
    (alone,) = plan["items"][0]["given"]["members"][0]["members"]
    assert alone["name"] == "unpaired"
    lab.biobank("reanalyse", "run", "e")
    assert {item["state"] for item in lab.status("e").values()} == {"ok"}


def test_galaxy_makes_each_kind_of_collection_that_we_give(lab: Lab) -> None:
    server = CampaignServer(GalaxyClient.connect(lab.url, lab.user.key))
    history = lab.user.new_history("kinds")
    one, two = (lab.user.upload(history, text) for text in ("A\n", "B\n"))
    pair = NewCollection("p", "paired", (("forward", one), ("reverse", two)))
    either = NewCollection("e", "paired_or_unpaired", (("unpaired", one),))
    for wanted in (
        pair,
        either,
        NewCollection("l", "list", (("a", one), ("b", two))),
        NewCollection("lp", "list:paired", (("x", pair), ("y", pair))),
        NewCollection("le", "list:paired_or_unpaired", (("x", either),)),
        NewCollection(
            "llp", "list:list:paired", (("x", NewCollection("x", "list:paired", (("y", pair),))),)
        ),
        NewCollection("r", "record", (("genome", one), ("annotation", two))),
    ):
        made = server.make_collection(history, wanted)
        told = lab.user.client.dataset_collections.show_dataset_collection(made)
        assert told["collection_type"] == wanted.type
        assert [entry["element_identifier"] for entry in told["elements"]] == [
            name for name, _ in wanted.members
        ]


def test_a_shape_that_no_sample_has_is_an_error_of_plan(lab: Lab) -> None:
    typed_by_hand(lab, "versioned_tool", {"T1": {}, "T2": {}}, OLD)
    wants = pair_workflow("paired", "paired_input", "pair")
    told = planned(lab, "versioned_tool", wants, expect=2)
    assert "the workflow's input 'reads' fits the data of no sample" in told
    assert (
        "T1: its data do not fit the workflow's input 'reads': the input takes a collection of"
        in told
    )
    strange = pair_workflow("sample_sheet", "paired_input", "pair")
    assert "wants a collection of type 'sample_sheet'" in planned(
        lab, "versioned_tool", strange, expect=2
    )
    assert not lab.lines("Campaign")


def test_a_workflow_in_a_workflow_with_tool_shed_tools(lab: Lab) -> None:
    inner = {
        "class": "GalaxyWorkflow",
        "label": "inner",
        "inputs": {"text": "data"},
        "outputs": {"sizes": {"outputSource": "sizing/output"}},
        "steps": {
            "sizing": {
                "tool_id": f"{SHED}/1.0.0",
                "tool_version": "1.0.0",
                "in": {"input": "text"},
                "state": {"what": "letters"},
            }
        },
    }
    outer = {
        "class": "GalaxyWorkflow",
        "label": "outer",
        "inputs": {"genomes": {"type": "collection", "collection_type": "list"}},
        "outputs": {"upper": {"outputSource": "upper/output"}},
        "steps": {
            "part": {"run": inner, "in": {"text": "genomes"}},
            "upper": {"tool_id": "one_to_one", "in": {"input": "part/sizes"}},
        },
    }
    lab.register(["T1", "T2"])
    history = lab.user.new_history("nested")
    genomes = lab.user.upload_collection(history, {"T1": "ACGT\n", "T2": "AC\n"})
    lab.invoke(outer, {"genomes": hdca(genomes)}, history=history, jobs=4)
    lab.record()
    devices = {(line["label"], line["release"]) for line in lab.lines("SoftwareProgram")}
    assert (SHED, "1.0.0") in devices

    refused = planned(lab, "sizes", outer, "--keep", "part:sizing.what", expect=2)
    assert "step 'part:sizing' is inside a subworkflow" in refused
    plan = planned(lab, "sizes", outer, "--release", "<2", "--set", "part:sizing.what=signs")
    assert [(tool["step"], tool["old"], tool["new"]) for tool in plan["tools"]] == [
        ("part:sizing", "1.0.0", "2.0.0+galaxy1"),
        ("upper", None, "1.0.0"),
    ]
    lab.biobank("reanalyse", "run", "c")
    assert {item["state"] for item in lab.status("c").values()} == {"ok"}
    devices = {(line["label"], line["release"]) for line in lab.lines("SoftwareProgram")}
    assert (SHED, "2.0.0+galaxy1") in devices
    # The inner result and the one made of it, for each sample.
    assert len(lab.lines("Supersession")) == 4
    left = lab.biobank("select", "--study", "KPN", "--tool", "sizes", "--release", "<2").rows
    assert left == []
