"""What a person may type or call things: unchanged in the catalog, or refused; never a shell's."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.tools.lab import Lab
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_user import hda, hdca

pytestmark = pytest.mark.timeout(1200)

# More than any conditional of the forms has.
_MOST_CASES = 3
_PAST_VALIDATOR = {"choose_workflow|workflow": "0" * 16, "column_0|name": "label"}
_ODD_LABELS = (
    "two  blanks",
    'it\'s "quoted" `and` $(id) ${HOME} #set x#',
    "Größe 北京 🧬 e\u0301",
    "-rf --all",
    "<b>&amp;</b> \\n %s {0} ;|&>",
    "=1+1",
)


@dataclass
class Filled:
    """One way through a form: what is chosen in its conditionals, its text and its data fields."""

    chosen: dict[str, str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    data: dict[str, str] = field(default_factory=dict)  # name: type

    def walk(self, inputs: list[dict[str, Any]], number: int, path: str = "") -> None:
        """Take the case of this number in every conditional, and one of each repeat."""
        for one in inputs:
            name, kind = f"{path}{one['name']}", one["type"]
            if kind == "text":
                self.texts.append(name)
            elif kind in ("data", "data_collection") and not one["optional"]:
                self.data[name] = kind
            elif kind == "section":
                self.walk(one["inputs"], number, f"{name}|")
            elif kind == "repeat":
                self.walk(one["inputs"], number, f"{name}_0|")
            elif kind == "conditional":
                cases = [case for case in one["cases"] if not _is_empty(case["inputs"])]
                case = cases[number % len(cases)]
                self.chosen[f"{name}|{one['test_param']['name']}"] = case["value"]
                self.walk(case["inputs"], number, f"{name}|")


def _is_empty(inputs: list[dict[str, Any]]) -> bool:
    return any(one["type"] == "select" and not one["options"] for one in inputs)


def ways(inputs: list[dict[str, Any]]) -> list[Filled]:
    """Ways through a form that together take each case of each conditional."""
    found: list[Filled] = []
    for number in range(_MOST_CASES):
        filled = Filled()
        filled.walk(inputs, number)
        if filled not in found:
            found.append(filled)
    return found


def test_no_text_of_any_form_reaches_a_shell(
    galaxy: GalaxyServer, lab: Lab, suite: list[Path], tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    user = lab.user
    history = user.new_history("hostile")
    table = user.upload(history, "label\tcode\nx\ty\n", name="table", ext="tabular")
    items = user.upload_collection(history, {"T1": ">T1\n"}, ext="fasta")
    data = {"data": hda(table), "data_collection": hdca(items)}
    attempts: list[tuple[str, str, str]] = []
    for tool in (path.stem for path in suite):
        form = user.client.tools.build(tool, history_id=history)
        for number, filled in enumerate(ways(form["inputs"])):
            touch = f"touch {tmp_path / tool}-{number}"
            typed = (
                f"$({touch}) `{touch}` '; {touch}; ' \"; {touch} #\" \\' || {touch}\n{touch}\n é"
            )
            # What a validator of the form refuses by itself needs a value to come past it.
            given = {name: _PAST_VALIDATOR.get(name, typed) for name in filled.texts}
            given |= {"column_0|value": "1"} if "column_0|name" in given else {}
            answer = user.client.make_post_request(
                f"{user.client.url}/tools",
                payload={
                    "history_id": history,
                    "tool_id": tool,
                    "inputs": {
                        "choose_catalog": "scratch",
                        **filled.chosen,
                        **{name: data[kind] for name, kind in filled.data.items()},
                        **given,
                    },
                },
            )
            attempts.append((tool, answer["jobs"][0]["id"], touch))
    assert {tool for tool, _, _ in attempts} == {path.stem for path in suite}
    # Each has a text field; three have two ways through them, one has three.
    assert len(attempts) > len(suite)
    shown = 0
    for tool, job_id, touch in attempts:
        user.wait_for(
            lambda job_id=job_id: user.client.jobs.get_state(job_id) in ("ok", "error"),
            what=f"the end of {tool}",
        )
        job = galaxy.admin().jobs.show_job(job_id, full_details=True)
        told = job["stderr"]
        assert touch not in job["command_line"], tool
        refused = "biobank: error" in told or "Error: Invalid value" in told
        assert refused or job["state"] == "ok", (tool, told)
        assert "Traceback" not in told, (tool, told)
        if "is unknown or may not be read" in told:
            assert f"$({touch}) `{touch}`" in told, (tool, told)
            shown += 1
    assert shown
    assert not list(tmp_path.iterdir())


def test_a_text_field_as_the_validator_sees_it_refuses_what_is_no_field(lab: Lab) -> None:
    history = lab.user.new_history("refused")
    table = lab.user.upload(history, "label\nx\n", name="table", ext="tabular")
    column = {"column_0|name": "label; touch x", "column_0|value": "1"}
    with pytest.raises(Exception, match="letters and underscores"):
        lab.run(history, "biobank_register_studies", {"file": hda(table), **column})


def test_odd_labels_come_into_the_catalog_as_they_are(lab: Lab) -> None:
    user = lab.user
    history = user.new_history("odd")
    table = "label\tdescription\n" + "".join(f"{x}\tof {x}\n" for x in _ODD_LABELS)
    studies = user.upload(history, table, name="odd", ext="tabular")
    lab.run(history, "biobank_register_studies", {"file": hda(studies)})
    tubes = user.upload(
        history, "label\tbarcode\n" + "".join(f"{x}\tB {x}\n" for x in _ODD_LABELS), ext="tabular"
    )
    study = _ODD_LABELS[1]
    lab.run(history, "biobank_register_vessels", {"file": hda(tubes), "study": study})
    items = user.upload_collection(history, {x: f">{n}\n" for n, x in enumerate(_ODD_LABELS)})
    lab.run(
        history,
        "biobank_register_data",
        {"choose_data|choose_items": hdca(items), "choose_sample|study": study},
    )
    objects = [json.loads(line) for line in lab.biobank("dump").splitlines()]
    stored = {o["label"]: o for o in objects if o["kind"] == "Study"}
    for label in _ODD_LABELS:
        assert stored[label]["description"] == f"of {label}"
    vid = stored[study]["vid"]
    found = {o["label"]: o for o in objects if o["kind"] == "Tube" and o["study"] == vid}
    assert {label: tube["barcode"] for label, tube in found.items()} == {
        label: f"B {label}" for label in _ODD_LABELS
    }
    elements = user.elements(items)
    for label in _ODD_LABELS:
        assert lab.tubes(elements[label]) == {label}
