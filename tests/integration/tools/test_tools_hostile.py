"""What a person may type or call things: unchanged in the catalog, or refused; never a shell's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.tools.lab import Lab
from tests.servers.galaxy_user import hda, hdca

pytestmark = pytest.mark.timeout(1200)

_ODD_LABELS = (
    "two  blanks",
    'it\'s "quoted" `and` $(id) ${HOME} #set x#',
    "Größe 北京 🧬 e\u0301",
    "-rf --all",
    "<b>&amp;</b> \\n %s {0} ;|&>",
    "=1+1",
)


def text_fields(inputs: list[dict[str, Any]], path: str = "") -> Iterator[str]:
    """The names of all text fields of a form as it is first shown, and of one of each repeat."""
    for field in inputs:
        name = f"{path}{field['name']}"
        kind = field["type"]
        if kind == "text":
            yield name
        elif kind == "section":
            yield from text_fields(field["inputs"], f"{name}|")
        elif kind == "repeat":
            yield from text_fields(field["inputs"], f"{name}_0|")
        elif kind == "conditional":
            chosen = field["test_param"]["value"]
            for case in field["cases"]:
                if case["value"] == chosen:
                    yield from text_fields(case["inputs"], f"{name}|")


def test_no_text_of_any_form_reaches_a_shell(lab: Lab, suite: list[Path], tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    user = lab.user
    history = user.new_history("hostile")
    table = user.upload(history, "label\tcode\nx\ty\n", name="table", ext="tabular")
    items = user.upload_collection(history, {"T1": ">T1\n"}, ext="fasta")
    data = {"file": hda(table), "choose_data|choose_items": hdca(items)}
    attempts: dict[str, tuple[str, str]] = {}
    for tool in (path.stem for path in suite):
        form = user.client.tools.build(tool, history_id=history)
        fields = list(text_fields(form["inputs"]))
        marker = tmp_path / tool
        touch = f"touch {marker}"
        typed = f"$({touch}) `{touch}` '; {touch}; ' \"; {touch} #\" \\' || {touch}\n{touch}\n é"
        # What a validator of the form refuses by itself needs a value to come past it.
        given = {name: typed for name in fields if "column_0" not in name}
        given |= {n: "0" * 16 for n in fields if n == "choose_workflow|workflow"}
        answer = user.client.make_post_request(
            f"{user.client.url}/tools",
            payload={
                "history_id": history,
                "tool_id": tool,
                "inputs": {"choose_catalog": "scratch"} | data | given,
            },
        )
        attempts[tool] = (answer["jobs"][0]["id"], touch)
        assert fields or tool in ("biobank_register_studies", "biobank_register_devices")
    for tool, (job_id, touch) in attempts.items():
        user.wait_for(
            lambda job_id=job_id: user.client.jobs.get_state(job_id) in ("ok", "error"),
            what=f"the end of {tool}",
        )
        job = user.client.jobs.show_job(job_id, full_details=True)
        told = job["stderr"]
        refused = "biobank: error" in told or "Error: Invalid value" in told
        assert refused or job["state"] == "ok", (tool, told)
        assert "Traceback" not in told, (tool, told)
        if "is unknown or may not be read" in told:
            assert f"$({touch}) `{touch}`" in told, (tool, told)
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
