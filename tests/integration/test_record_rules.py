"""Reference data and sample sheets by the rules, on the real server and from its archive."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from biobank_core.galaxy.archive import open_archive
from biobank_core.galaxy.recorder import record
from biobank_core.galaxy.rules import load_rules
from tests.integration.galaxy_cases import SERVER, Lab, lab_of
from tests.integration.omero_settings import NewCatalog
from tests.integration.test_record_archives import export
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_user import GalaxyUser, mapped_over

pytestmark = pytest.mark.galaxy

RULES = """
samples:
  - sample_sheet: tube
  - sheet: run.tsv
    identifier: file
    sample: tube
references:
  - tool: uses_reference
    parameter: reference
    study: references
"""


@pytest.fixture
def lab(
    galaxy: GalaxyServer, galaxy_user: GalaxyUser, new_catalog: NewCatalog, tmp_path: Path
) -> Iterator[Lab]:
    with lab_of(galaxy_user, galaxy.url, new_catalog, tmp_path) as opened:
        yield opened


@pytest.fixture
def rules_file(tmp_path: Path) -> str:
    (tmp_path / "run.tsv").write_text("file\ttube\nlane1\tT3\n")
    path = tmp_path / "rules.yml"
    path.write_text(RULES)
    return str(path)


def upload_sheet(lab: Lab, rows: dict[str, list[str]], kind: str = "sample_sheet") -> str:
    """Upload a sample sheet of Galaxy's: {element identifier: [tube, lane]}; its id."""
    pair = kind.endswith(":paired")

    def element(name: str) -> dict[str, Any]:
        if pair:
            return {"elements": [_pasted(end, f"{name} {end}\n") for end in ("forward", "reverse")]}
        return _pasted(name, f"{name}\n")

    columns = [{"name": name, "type": "string", "optional": False} for name in ("tube", "lane")]
    target = {
        "destination": {"type": "hdca"},
        "collection_type": kind,
        "name": "sheet",
        "column_definitions": columns,
        "elements": [element(name) | {"name": name, "row": row} for name, row in rows.items()],
    }
    client = lab.user.client
    payload = {"history_id": lab.history, "targets": [target]}
    answer = client.make_post_request(f"{client.url}/tools/fetch", payload=payload)
    lab.user.wait_for_jobs([job["id"] for job in answer["jobs"]])
    return str(answer["output_collections"][0]["id"])


def _pasted(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "src": "pasted", "paste_content": text, "ext": "txt"}


def biobank(lab: Lab, *words: str) -> list[list[str]]:
    """The rows that a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "biobank_core.cli", *words],
        env=lab.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_a_sample_sheet_says_which_tube_data_came_from(
    lab: Lab,
    rules_file: str,
    new_catalog: NewCatalog,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    study = lab.study("KPN")
    tubes = {label: lab.tube(label, study) for label in ("T1", "T2", "T3")}
    sheet = upload_sheet(lab, {"a": ["T1", "1"], "T2": ["stranger", "2"]})
    pairs = upload_sheet(lab, {"p": ["T2", "1"]}, "sample_sheet:paired")
    named = lab.user.upload_collection(lab.history, {"lane1": "x\n", "lane2": "y\n"})
    lab.record(rules=load_rules(rules_file), study=study)
    elements = lab.user.elements(sheet)
    pair = lab.user.elements(pairs)["p"]
    lanes = lab.user.elements(named)
    expected = {
        lab.vid(elements["a"]): {tubes["T1"]},
        lab.vid(elements["T2"]): set(),
        lab.vid(pair["forward"]): {tubes["T2"]},
        lab.vid(pair["reverse"]): {tubes["T2"]},
        lab.vid(lanes["lane1"]): {tubes["T3"]},
        lab.vid(lanes["lane2"]): set(),
    }
    assert {vid: lab.upstream(vid) for vid in expected} == expected
    # The history's archive says the same.
    folder = tmp_path_factory.mktemp("archive")
    archive = export(lab.user, f"histories/{lab.history}", "tgz", folder)
    with lab_of(lab.user, lab.url, new_catalog, folder, history=None) as other:
        again = other.study("KPN")
        new = {other.tube(label, again): vid for label, vid in tubes.items()}
        record(
            other.stores.catalog,
            open_archive(archive),
            server=SERVER,
            rules=load_rules(rules_file),
            study=again,
        )
        assert {v: {new[up] for up in other.upstream(v)} for v in expected} == expected


def test_a_reference_that_a_parameter_names_is_selected_by(
    lab: Lab, rules_file: str, tmp_path: Path
) -> None:
    study = lab.study("KPN")
    tube = lab.tube("lane1", study)
    table = tmp_path / "references.tsv"
    table.write_text("label\nhg19\n")
    lists = lab.user.upload_collection(lab.history, {"lane1": "x\n"})
    lab.tube("T3", study)
    runs = {
        genome: lab.user.run(
            lab.history, "uses_reference", {"input": mapped_over(lists), "reference": genome}
        ).job_ids[0]
        for genome in ("hg19", "hg38")
    }
    lab.study("references")
    biobank(lab, "register", "DataSample", str(table), "--study", "references")
    options = ("--rules", rules_file, "--study", "KPN", "--galaxy-name", SERVER)
    biobank(lab, "record", *options)
    hg19, hg38 = (lab.action(job) for job in runs.values())
    assert {port.role for port in hg19.inputs} == {"input", "reference"}
    assert ({port.role for port in hg38.inputs}, hg38.flags) == ({"input"}, ("unknown-reference",))
    listed = biobank(lab, "unlinked", "--references", "--rules", rules_file)
    assert listed[1:] == [["hg38", "references", "reference", "uses_reference", "1", "0"]]
    table.write_text("label\nhg38\n")
    biobank(lab, "register", "DataSample", str(table), "--study", "references")
    assert ["references linked since", "1"] in biobank(lab, "record", *options)
    assert biobank(lab, "unlinked", "--references", "--rules", rules_file)[1:] == []
    for genome, action in (("hg19", hg19), ("hg38", hg38)):
        found = biobank(
            lab,
            *("select", "--study", "KPN", "--all", "--format", "tsv"),
            *("--reference", f"references:{genome}"),
        )
        header, rows = found[0], found[1:]
        results = {row[header.index("results")] for row in rows if row[header.index("results")]}
        assert results == {action.outputs[0].object}
    assert tube not in lab.upstream(hg19.outputs[0].object)  # the sheet says that it is T3
