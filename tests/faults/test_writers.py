"""Several processes that write one SQLite file at once, through the command line."""

from __future__ import annotations

import json
import os
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from benchmarks import world
from biobank_core.catalog.port import Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.catalog.sqlite import SqliteCatalog
from biobank_core.interchange import LoadReport, load, survey
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import Study
from biobank_core.register import register, service
from tests.faults.compared import dump_and_digest
from tests.faults.killing import Lab

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PEOPLE = 4
TUBES = 500


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "studies.tsv").write_text("label\nKPN\n")
    people = "".join(f"P{number}\n" for number in range(PEOPLE))
    (folder / "people.tsv").write_text(f"code\n{people}")
    for name in "ab":
        rows = (f"{name}{n}\tP{n % PEOPLE}\tIMPORT\t2026-01-01\n" for n in range(TUBES))
        (folder / f"{name}.tsv").write_text("label\tsource\tcategory\tbegin\n" + "".join(rows))
    lines = list(world.lines(world.mixed(4_000)))
    common = len(world.common())
    # Two files of which each holds all that it needs; what they have in common is in both.
    (folder / "data.jsonl").write_bytes(b"".join(lines))
    (folder / "samples.jsonl").write_bytes(
        b"".join([*lines[:common], *world.lines(world.data(f"own {n}") for n in range(1_000))])
    )
    return Lab(folder)


def test_many_writers_at_once_lose_nothing_and_none_is_turned_away(lab: Lab) -> None:
    lab.run("register", "Study", "studies.tsv")
    lab.run("register", "Individual", "people.tsv", "--study", "KPN")
    commands = [
        ("load", "data.jsonl"),
        ("register", "Tube", "a.tsv", "--study", "KPN"),
        ("load", "samples.jsonl"),
        ("register", "Tube", "b.tsv", "--study", "KPN"),
        *(("consent", "give", f"KPN:P{number}") for number in range(PEOPLE)),
    ]
    _all_at_once(lab, commands)
    dumped, _ = dump_and_digest(lab.folder)
    lines = [json.loads(line) for line in dumped.splitlines()]
    kinds = [line["kind"] for line in lines]
    # Study, individuals with enrollment and consent, tubes with their actions, both files.
    assert len(lines) == 1 + 3 * PEOPLE + 2 * 2 * TUBES + 4_000 + 1_000
    assert (kinds.count("Consent"), kinds.count("Tube")) == (PEOPLE, 2 * TUBES)


def test_the_same_by_several_at_once_is_done_once(lab: Lab) -> None:
    # The file itself is made by whoever comes first.
    _all_at_once(lab, [("load", "data.jsonl")] * 3 + [("init",)] * 3)
    assert len(dump_and_digest(lab.folder)[0].splitlines()) == 4_000
    _all_at_once(lab, [("register", "Study", "studies.tsv")] * 4)
    _all_at_once(lab, [("register", "Individual", "people.tsv", "--study", "KPN")] * 4)
    assert len(dump_and_digest(lab.folder)[0].splitlines()) == 4_000 + 1 + 2 * PEOPLE


def test_consents_of_one_person_given_at_once_all_stand(lab: Lab) -> None:
    lab.run("register", "Study", "studies.tsv")
    lab.run("register", "Individual", "people.tsv", "--study", "KPN")
    scopes = [f"scope {number}" for number in range(6)]
    _all_at_once(lab, [("consent", "give", "KPN:P0", "--scope", scope) for scope in scopes])
    dumped, _ = dump_and_digest(lab.folder)
    consents = [line for line in map(json.loads, dumped.splitlines()) if line["kind"] == "Consent"]
    assert sorted(line["scope"] for line in consents) == scopes


def _all_at_once(lab: Lab, commands: list[tuple[str, ...]]) -> None:
    processes = [(command, lab.start(*command)) for command in commands]
    for command, process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, f"{command}: {err}"
        assert "locked" not in err


def test_a_load_that_another_overtakes_finds_the_objects_there(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, url = lab.folder / "data.jsonl", f"sqlite:///{lab.folder}/c.db"
    real = survey.Survey.order
    overtaken: list[LoadReport] = []

    def order(self: survey.Survey) -> list[int]:
        if not overtaken:
            overtaken.append(LoadReport(0, 0, 0, 0))
            with open_catalog(url, create=True) as other:
                overtaken.append(load(other, file, by="other"))
        return real(self)

    monkeypatch.setattr(survey.Survey, "order", order)
    with open_catalog(url, create=True) as catalog:
        report = load(catalog, file, by="test")
    assert overtaken[1].created == 4_000
    assert (report.created, report.unchanged) == (0, 4_000)


def test_a_registration_that_another_overtakes_finds_the_rows_there(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, url = str(lab.folder / "studies.tsv"), f"sqlite:///{lab.folder}/c.db"
    real = service._Registration._refuse_cycles
    overtaken: list[str] = []

    def refuse_cycles(self: service._Registration, drafts: list[Any]) -> None:
        if not overtaken:
            overtaken.append("begun")
            with open_catalog(url, create=True) as other:
                overtaken.append(register(other, file=file, kind="Study", by="other")[0].vid)
        real(self, drafts)

    monkeypatch.setattr(service._Registration, "_refuse_cycles", refuse_cycles)
    # A catalog that can't hold others back, as one on a server.
    monkeypatch.setattr(SqliteCatalog, "transaction", lambda _self: nullcontext())
    # What comes through a pipe can be read only once.
    reading, writing = os.pipe()
    os.write(writing, Path(file).read_bytes())
    os.close(writing)
    with open_catalog(url, create=True) as catalog:
        [row] = register(catalog, file=f"/dev/fd/{reading}", kind="Study", by="test")
    os.close(reading)
    assert (row.vid, row.new) == (overtaken[1], False)


def test_one_table_registered_twice_at_once_is_registered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a kind that has nothing unique, so that no commit is refused."""
    url, file = f"sqlite:///{tmp_path}/c.db", tmp_path / "references.tsv"
    file.write_text("label\nhg38\n")
    real = service._Registration._refuse_cycles
    came_far = threading.Event()

    def once_more() -> None:
        with open_catalog(url) as other:
            register(other, file=str(file), kind="DataSample", study="KPN", by="other")
        came_far.set()

    second = threading.Thread(target=once_more)

    def refuse_cycles(self: service._Registration, drafts: list[Any]) -> None:
        if threading.current_thread() is not second:
            second.start()
            came_far.wait()
        real(self, drafts)

    def transaction(self: SqliteCatalog) -> AbstractContextManager[None]:
        if threading.current_thread() is second:
            came_far.set()
        return held(self)

    held = SqliteCatalog.transaction
    monkeypatch.setattr(service._Registration, "_refuse_cycles", refuse_cycles)
    monkeypatch.setattr(SqliteCatalog, "transaction", transaction)
    with open_catalog(url, create=True) as catalog:
        catalog.commit([Save(object=Study(vid=new_vid(), label="KPN"))], by="test")
        register(catalog, file=str(file), kind="DataSample", study="KPN", by="test")
        second.join()
        assert catalog.count() == {"DataSample": 1, "Study": 1}
