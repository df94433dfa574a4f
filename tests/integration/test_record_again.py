"""Asking Galaxy again about known data, and having it compute hashes, on the real server."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from biobank_core.catalog.port import Save
from biobank_core.galaxy.again import compute_hashes, refresh
from biobank_core.galaxy.client import GalaxyClient
from biobank_core.galaxy.live import LiveSource
from biobank_core.galaxy.recorder import Scope
from biobank_core.galaxy.refresh import Refresher
from biobank_core.galaxy.rounds import Hashes, LiveRounds
from biobank_core.galaxy.rules import Rules
from tests.integration.galaxy_cases import SERVER, Lab, lab_of
from tests.integration.omero_settings import NewCatalog
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_user import GalaxyUser, hda

pytestmark = pytest.mark.galaxy

KB = 1000


@pytest.fixture
def lab(
    galaxy: GalaxyServer, galaxy_user: GalaxyUser, new_catalog: NewCatalog, tmp_path: Path
) -> Iterator[Lab]:
    with lab_of(galaxy_user, galaxy.url, new_catalog, tmp_path) as opened:
        yield opened


def source_of(lab: Lab) -> LiveSource:
    return LiveSource(GalaxyClient.connect(lab.url, lab.user.key))


def refreshed(lab: Lab, *, history_id: str | None = None) -> tuple[Refresher, int]:
    """The refresher after its work, and how many requests that took."""
    source = source_of(lab)
    before = source.client.request_count
    refresher = Refresher(lab.stores.catalog, source, server=SERVER, by="recorder")
    refresh(refresher, history_id=history_id)
    return refresher, source.client.request_count - before


def deleted(lab: Lab, hda_id: str) -> tuple[bool | None, bool | None]:
    galaxy = lab.sample(hda_id).galaxy
    assert galaxy
    return galaxy.deleted, galaxy.purged


def purge(lab: Lab, history: str, hda_id: str) -> None:
    lab.user.client.histories.delete_dataset(history, hda_id, purge=True)
    lab.user.wait_for(
        lambda: lab.user.client.datasets.show_dataset(hda_id)["purged"], what="purging"
    )


def test_a_refresh_learns_in_one_request_a_history_what_changed_since(lab: Lab) -> None:
    histories = lab.user.client.histories
    kept, gone, named = (lab.user.upload(lab.history, f"{n}\n", name=n) for n in ("k", "g", "n"))
    lab.record()
    assert refreshed(lab)[0].done.changed == 0
    purge(lab, lab.history, gone)
    histories.update_dataset(lab.history, named, name="another name")
    again, requests = refreshed(lab)
    assert requests == 1
    assert (again.done.data, again.done.changed) == (3, 2)
    assert (deleted(lab, kept), deleted(lab, gone)) == ((False, False), (True, True))
    told = lab.sample(gone).galaxy
    assert told
    assert told.as_of is not None
    assert lab.file(gone).size_bytes == len("g\n")
    assert lab.sample(named).label == "another name"
    # What the recorder wrote is no renaming by a person.
    histories.update_dataset(lab.history, named, name="a third name")
    refreshed(lab)
    assert lab.sample(named).label == "a third name"


def test_a_refresh_never_touches_what_people_set(lab: Lab) -> None:
    data = lab.user.upload(lab.history, "one\n", name="as Galaxy has it")
    lab.record()
    vid = lab.vid(data)
    standing = lab.stores.catalog.get([vid])[vid]
    mine = replace(standing.object, label="as I say")
    lab.stores.catalog.commit([Save(object=mine, based_on=standing.version)], by="ada")
    lab.user.client.histories.update_dataset(lab.history, data, name="another name")
    refreshed(lab)
    assert lab.sample(data).label == "as I say"


def test_data_are_gone_only_when_all_known_copies_are(lab: Lab) -> None:
    data = lab.user.upload(lab.history, "one\n", name="original")
    other = lab.user.new_history("other")
    copied = str(lab.user.client.histories.copy_dataset(other, data)["id"])
    lab.user.run(other, "one_to_one", {"input": hda(copied)})
    lab.user.client.histories.delete_dataset(other, copied)
    # The deleted copy is seen first; what the other recording sees then is the original.
    lab.record(history_id=other)
    assert deleted(lab, data) == (True, False)
    lab.record()
    assert deleted(lab, data) == (False, False)
    lab.user.client.histories.delete_dataset(lab.history, data)
    lab.user.client.histories.update_dataset(other, copied, deleted=False)
    for history in (lab.history, other, None):
        refreshed(lab, history_id=history)
        assert deleted(lab, data) == (False, False)
    lab.user.client.histories.delete_dataset(other, copied)
    refreshed(lab, history_id=lab.history)
    assert deleted(lab, data) == (True, False)
    assert lab.sample(data).label == "original"


def test_galaxy_computes_the_hashes_that_are_missing_up_to_a_size(lab: Lab) -> None:
    texts = {"a": "a\n", "b": "b" * 3 * KB, "c": "c\n"}
    lists = lab.user.upload_collection(lab.history, texts)
    elements = lab.user.elements(lists)
    lab.record()
    assert [lab.file(element).sha256 for element in elements.values()] == [None] * 3
    purge(lab, lab.history, elements["c"])

    def computed() -> tuple[int, int, int]:
        source = source_of(lab)
        refresher = Refresher(lab.stores.catalog, source, server=SERVER, by="recorder")
        done = compute_hashes(source, refresher, max_bytes=KB)
        assert done.failed == {}
        return done.computed, done.found, done.left_out

    # The large one is not even asked about; the purged one was not known to be.
    assert computed() == (1, 0, 1)
    assert computed() == (0, 0, 1)
    assert {name: lab.file(element).sha256 for name, element in elements.items()} == {
        "a": hashlib.sha256(texts["a"].encode()).hexdigest(),
        "b": None,
        "c": None,
    }


def test_who_follows_takes_hashes_that_come_after_the_job_and_computes_the_others(
    lab: Lab,
) -> None:
    lists = lab.user.upload_collection(lab.history, {"a": "a\n"})
    data = lab.user.upload(lab.history, "one\n")
    rounds = LiveRounds(
        catalog=lab.stores.catalog,
        connect=lambda: GalaxyClient.connect(lab.url, lab.user.key),
        server=SERVER,
        scope=Scope(),
        rules=Rules(),
        study=None,
        by="recorder",
        hashes=Hashes.COMPUTE,
        max_bytes=KB,
    )
    with rounds:
        assert rounds(lambda: False, frozenset()).recorded == 2
        lab.user.wait_for_hash(data)
        assert rounds(lambda: False, frozenset()).recorded == 0
    element = lab.user.elements(lists)["a"]
    assert lab.file(element).sha256 == hashlib.sha256(b"a\n").hexdigest()
    assert lab.file(data).sha256 == hashlib.sha256(b"one\n").hexdigest()


def test_the_command_says_what_it_learnt(lab: Lab) -> None:
    lab.user.upload_collection(lab.history, {"a": "a\n"})

    def biobank(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "biobank_core.cli", "record", *words],
            env=lab.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    out = biobank("--refresh", "--hashes", "compute", "--max-size", "1.5 kB")
    for line in ("recorded\t1", "data asked again\t1", "hashes computed\t1", "hashes failed\t0"):
        assert f"{line}\n" in out
    assert "write 500M" in biobank("--hashes", "compute", "--max-size", "much", code=2)
    assert "--refresh goes without" in biobank("--refresh", "--follow", code=2)
    assert "does not change" in biobank("--archive", "x", "--refresh", code=2)


def test_verify_finds_jobs_without_an_action_and_records_just_those(
    lab: Lab, tmp_path: Path
) -> None:
    data = lab.user.upload(lab.history, "one\n")
    lab.record()
    # Nobody saw it: as after a restored backup, whose cursor is of an earlier day.
    lost = lab.user.run(lab.history, "one_to_one", {"input": hda(data)}).job_ids[0]
    rules = tmp_path / "rules.yml"
    rules.write_text("exclude:\n  tools: [two_to_two]\n")
    lab.user.run(lab.history, "two_to_two", {"first": hda(data), "second": hda(data)})

    def verify(*words: str, code: int) -> list[list[str]]:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "biobank_core.cli", "verify", "--galaxy", lab.url),
                *("--galaxy-name", SERVER, "--rules", str(rules), *words),
            ],
            env=lab.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return [line.split("\t") for line in done.stdout.splitlines()][1:]

    [row] = verify(code=1)
    assert (row[0], row[2]) == ("unrecorded", "Action")
    assert f"job {lost} of one_to_one, ok" in row[3]
    assert verify("--repair", code=0) == [row]
    assert lab.action(lost).vid == row[1]
    assert verify(code=0) == []
