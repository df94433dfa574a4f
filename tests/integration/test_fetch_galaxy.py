"""Fetching from a real Galaxy what was recorded from it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from biobank_core.catalog.port import Save
from biobank_core.catalog.sqlite import SqliteCatalog, open_catalog
from biobank_core.cli import cli
from biobank_core.galaxy.client import server_key
from biobank_core.galaxy.identity import data_sample_vid
from biobank_core.model.kinds import DataObject
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_user import GalaxyUser, hda, hdca

NESTED = {
    "T 1 ä": {"forward": "ACGT\n", "reverse": "TTTT\n"},
    "..T2": {"forward": "a <b>\n", "reverse": "GGGG\n"},
}


@pytest.fixture(autouse=True)
def _own_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    galaxy: GalaxyServer,
    galaxy_user: GalaxyUser,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("BIOBANK_", "GALAXY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BIOBANK_CATALOG", "sqlite:///c.db")
    monkeypatch.setenv("GALAXY_URL", galaxy.url)
    monkeypatch.setenv("GALAXY_API_KEY", galaxy_user.key)


def biobank(*args: str) -> Result:
    return CliRunner().invoke(cli, args)


def done(*args: str) -> str:
    result = biobank(*args)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def named(kind: str) -> dict[str, str]:
    """{label: VID} of all objects of a kind."""
    rows = [line.split("\t") for line in done("map-ids", "--kind", kind).splitlines()[1:]]
    return {row[3]: row[1] for row in rows}


def manifest(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "manifest.jsonl").read_text().splitlines()]


def change_sha256(catalog: SqliteCatalog, sample: str, sha256: str) -> None:
    (held,) = catalog.find("DataObject", {"sample": sample})
    assert isinstance(held.object, DataObject)
    changed = DataObject(vid=held.object.vid, sample=sample, uri=held.object.uri, sha256=sha256)
    catalog.commit([Save(object=changed, based_on=held.version)], by="test")


def test_a_nested_collection_and_a_result_come_as_they_are_in_galaxy(
    galaxy_user: GalaxyUser,
) -> None:
    history = galaxy_user.new_history()
    batch = galaxy_user.upload_collection(
        history, NESTED, name="batch", collection_type="list:paired"
    )
    # An upload's job does not name the collection that it fills; a job that uses it does.
    galaxy_user.run(history, "nested_input", {"pairs": hdca(batch)})
    source = galaxy_user.upload(history, "a <b> c\n", name="page")
    run = galaxy_user.run(history, "one_to_one", {"input": hda(source)})
    galaxy_user.wait_for_hash(run.outputs["output"])
    done("record")
    (whole,) = (vid for label, vid in named("DataCollection").items() if label == "batch")
    shown = galaxy_user.client.datasets.show_dataset(run.outputs["output"])
    result = data_sample_vid(shown["uuid"])
    result_text = galaxy_user.content(run.outputs["output"])
    said = biobank("fetch", whole, result, "--to", "out")
    assert said.exit_code == 0, said.stderr
    entries = {tuple(entry["identifiers"]): entry for entry in manifest("out")}
    for outer, inner in NESTED.items():
        for name, content in inner.items():
            entry = entries["batch", outer, name]
            assert Path("out", entry["path"]).read_text() == content
            assert entry["sha256"] == hashlib.sha256(content.encode()).hexdigest()
    (alone,) = (entry for entry in entries.values() if entry["vid"] == result)
    assert alone["verified"] == "sha256"
    assert Path("out", alone["path"]).read_bytes().decode() == result_text
    inside = [path for path in Path().rglob("*") if path.suffix in (".txt", ".html")]
    assert all(path.parts[0] == "out" for path in inside)
    again = done("fetch", result, "--to", "out")
    assert again.splitlines()[1].endswith("unchanged")


def test_what_galaxy_gives_and_the_catalog_knows_otherwise_is_removed(
    galaxy_user: GalaxyUser,
) -> None:
    history = galaxy_user.new_history()
    dataset = galaxy_user.upload(history, "abc\n", name="a")
    galaxy_user.wait_for_hash(dataset)
    done("record")
    a = named("DataSample")["a"]
    with open_catalog("sqlite:///c.db") as catalog:
        change_sha256(catalog, a, "0" * 64)
    refused = biobank("fetch", a, "--to", "out")
    assert refused.exit_code == 5
    assert [path.name for path in Path("out").iterdir()] == ["manifest.jsonl"]


def test_purged_data_other_servers_and_other_users_data_are_told_apart(
    galaxy: GalaxyServer, galaxy_user: GalaxyUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = galaxy_user.new_history()
    gone, kept = (galaxy_user.upload(history, text, name=text) for text in ("gone", "kept"))
    done("record")
    galaxy_user.client.histories.delete_dataset(history, gone, purge=True)
    galaxy_user.wait_for(
        lambda: galaxy_user.client.datasets.show_dataset(gone)["purged"], what="the purge"
    )
    purged = biobank("fetch", named("DataSample")["gone"], "--to", "out")
    assert (purged.exit_code, "it was purged" in purged.stderr) == (2, True)
    kept_vid = named("DataSample")["kept"]
    elsewhere = biobank("fetch", kept_vid, "--to", "out", "--galaxy-name", "another")
    assert (elsewhere.exit_code, server_key(galaxy.url) in elsewhere.stderr) == (2, True)
    stranger = galaxy.create_user(f"stranger-{os.getpid()}@biobank.example")
    monkeypatch.setenv("GALAXY_API_KEY", stranger)
    galaxy_user.client.make_put_request(
        f"{galaxy.url}/api/datasets/{kept}/permissions", payload={"action": "make_private"}
    )
    refused = biobank("fetch", kept_vid, "--to", "out")
    assert (refused.exit_code, "may not read it" in refused.stderr) == (2, True)
    monkeypatch.setenv("GALAXY_URL", "http://127.0.0.1:9")
    assert biobank("fetch", kept_vid, "--to", "out").exit_code == 3
