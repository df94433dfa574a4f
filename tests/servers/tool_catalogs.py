"""The catalogs that the tests of our Galaxy tools use: `test` to read, `scratch` to write to.

`test` is the tour of README with files behind its data, among them odd names, a damaged file and
one outside of the folder that jobs may read. `work` and `cron` are copies of it to write to.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from biobank_core.catalog.port import Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.cli import cli
from biobank_core.galaxy.reanalysis.arrange import Given
from biobank_core.galaxy.reanalysis.campaigns import (
    PlannedCriteria,
    PlannedItem,
    PlannedWorkflow,
    SampleInput,
    as_json,
)
from biobank_core.model.kinds import Campaign, CampaignItem, CampaignState, ItemState, Port

if TYPE_CHECKING:
    from tests.servers.galaxy import GalaxyServer

ROOT = Path(__file__).parents[2]
CATALOGS = "catalogs"
TOUR = ROOT / "examples" / "tour"
_COPIES = ("work", "cron")
_STUDY = "V0EFA10142884E5407B493061E68BDB417"
_ODD_STUDY = 'EMPTY "<b>&'
_GENOMES = ("T1", "T2", "T3")


def write_tables(folder: Path) -> Path:
    """Make the three data tables of our tools in a folder; the file that Galaxy is to read.

    The catalogs that they name are below the same folder; `prepare` makes them.
    """
    sample = (ROOT / "tool_data" / "tool_data_table_conf.xml.sample").read_text()
    for table in ("catalogs", "studies", "devices"):
        (folder / f"biobank_{table}.loc").write_text("")
    (folder / "biobank_catalogs.loc").write_text(_table_rows(folder / CATALOGS))
    tables = folder / "tool_data_table_conf.xml"
    tables.write_text(sample.replace("tool-data/", f"{folder}/"))
    return tables


def folder_of(galaxy_folder: Path) -> Path | None:
    """Where a running Galaxy's tables say that the catalogs are; None if it has no such tables."""
    settings = json.loads((galaxy_folder / "config" / "galaxy.yml").read_text())["galaxy"]
    rows = Path(settings["tool_data_table_config_path"]).with_name("biobank_catalogs.loc")
    return rows.parent / CATALOGS if rows.exists() else None


def add_catalog(server: GalaxyServer, value: str, *, url: str, index: str) -> None:
    """Have the forms of a running Galaxy offer one catalog more."""
    catalogs = folder_of(server.folder)
    assert catalogs is not None
    table = catalogs.with_name("biobank_catalogs.loc")
    with table.open("a") as rows:
        rows.write(f"{value}\tThe catalog {value!r} of the tests\t{url}\t{index}\t\n")
    reload = f"{server.url}/api/tool_data/{table.stem}/reload"
    server.admin().make_get_request(reload).raise_for_status()


def _table_rows(folder: Path) -> str:
    files = folder / "files"
    return "".join(
        f"{name}\tThe catalog {name!r} of the tests\tsqlite:///{folder}/{name}.db\t\t{files}\n"
        for name in ("test", "scratch", *_COPIES)
    )


def prepare(folder: Path) -> None:
    """Make the catalogs anew, and the files of `test`."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "files").mkdir(parents=True)
    tables = folder / "tables"
    shutil.copytree(TOUR, tables)
    tubes = (TOUR / "tubes.tsv").read_text()
    (tables / "tubes.tsv").write_text(tubes.replace("T3", "T 3 'x'"))
    (tables / "odd.tsv").write_text(f"label\n{_ODD_STUDY}\nSECOND\n")
    (tables / "files.jsonl").write_text("\n".join(map(json.dumps, _data(folder))) + "\n")
    for name in ("test", "scratch"):
        _biobank(folder, name, "register", "Study", "studies.tsv")
        _biobank(folder, name, "register", "Study", "odd.tsv")
        for kind in ("Individual", "Consent", "Tube"):
            file = f"{kind.lower()}s.tsv"
            _biobank(folder, name, "register", kind, file, "--study", "KPN")
    _biobank(folder, "test", "load", "analyses.jsonl")
    _biobank(folder, "test", "load", "files.jsonl")
    _add_campaigns(folder)
    _biobank(folder, "test", "consent", "withdraw", "KPN:KP-02", "--date", "2024-06-30")
    for name in _COPIES:
        shutil.copy(folder / "test.db", folder / f"{name}.db")


def _data(folder: Path) -> Iterator[dict[str, Any]]:
    """Files of the genomes, a collection of them, and data that can't be had."""
    lines = map(json.loads, (TOUR / "analyses.jsonl").read_text().splitlines())
    assemblies = {line["label"]: line["vid"] for line in lines if line["kind"] == "Assembly"}
    for label in _GENOMES:
        content = f">{label}\nACGT\n".encode()
        path = folder / "files" / f"{label}.fasta"
        path.write_bytes(content)
        yield _file(assemblies[f"{label}.fna"], path, hashlib.sha256(content).hexdigest())
    members = {"first/one": "T1.fna", 'second "two"': "T3.fna"}
    items = [{"role": role, "object": assemblies[label]} for role, label in members.items()]
    yield {
        "kind": "DataCollection",
        "vid": _vid("batch"),
        "label": "batch",
        "study": _STUDY,
        "items": items,
    }
    (folder / "files" / "damaged.txt").write_text("changed\n")
    for label, path in (
        ("damaged", folder / "files" / "damaged.txt"),
        ("outside", Path("/etc/hostname")),
    ):
        yield {"kind": "DataSample", "vid": _vid(label), "label": label, "study": _STUDY}
        yield _file(_vid(label), path, "0" * 64)


def _add_campaigns(folder: Path) -> None:
    """A campaign that typed T2 again, and one without samples."""
    lines = [json.loads(line) for line in (TOUR / "analyses.jsonl").read_text().splitlines()]
    old, new = (line["vid"] for line in lines if line.get("label", "").startswith("T2 typing"))
    (source,) = (line["vid"] for line in lines if line.get("label") == "T2.fna")
    with open_catalog(f"sqlite:///{folder}/test.db") as catalog:
        (tube,) = catalog.find("Tube", {"label": "T2"})
        workflow = PlannedWorkflow(
            name="typing",
            source="a file",
            document={},
            tools=(),
            sample_input=SampleInput(index=0, label="genome", collection_type=None),
        )
        campaigns = [
            Campaign(
                vid=_vid(f"campaign {label}"),
                label=label,
                study=_STUDY,
                state=CampaignState.FINISHED,
                created=datetime(2026, 1, 1, tzinfo=UTC),
                criteria=as_json(PlannedCriteria(asked={"study": _STUDY})),
                workflow=as_json(workflow),
                galaxy_server="127.0.0.1",
            )
            for label in ("finished", "without samples")
        ]
        item = CampaignItem(
            vid=_vid("item"),
            campaign=campaigns[0].vid,
            sample=tube.object.vid,
            sample_label="T2",
            reason="a new release",
            old=(Port(role="report", object=old),),
            new=(Port(role="typed", object=new),),
            state=ItemState.OK,
            planned=as_json(PlannedItem(given=Given(name="T2", data=source))),
        )
        catalog.commit([Save(object=obj) for obj in (*campaigns, item)], by="test")


def _file(sample: str, path: Path, sha256: str) -> dict[str, Any]:
    return {
        "kind": "DataObject",
        "vid": _vid(f"file of {sample}"),
        "sample": sample,
        "uri": path.as_uri(),
        "sha256": sha256,
    }


def _vid(name: str) -> str:
    return f"V0{hashlib.sha256(name.encode()).hexdigest()[:32].upper()}"


def _biobank(folder: Path, catalog: str, command: str, *args: str) -> None:
    tables = folder / "tables"
    argv = [command, *(str(tables / arg) if (tables / arg).is_file() else arg for arg in args)]
    environment: dict[str, str | None] = {
        name: None for name in os.environ if name.startswith(("BIOBANK_", "GALAXY_"))
    }
    environment |= {"XDG_CONFIG_HOME": str(folder)}
    environment |= {"BIOBANK_CATALOG": f"sqlite:///{folder}/{catalog}.db"}
    done = CliRunner().invoke(cli, argv, env=environment)
    assert done.exit_code == 0, f"{argv}: {done.output}"
