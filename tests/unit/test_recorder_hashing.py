"""Hashes that Galaxy computes when it is asked: slow, odd, gone in the middle."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from biobank_core.catalog.sqlite import SqliteCatalog
from biobank_core.errors import UnreachableError
from biobank_core.galaxy import hashing, identity, recorder
from biobank_core.galaxy import rounds as rounds_of
from biobank_core.galaxy.again import compute_hashes
from biobank_core.galaxy.client import GalaxyFaultError
from biobank_core.galaxy.hashing import Hashed
from biobank_core.galaxy.recorder import Scope, record
from biobank_core.galaxy.records import DatasetRecord, JobRecord
from biobank_core.galaxy.refresh import Refresher
from biobank_core.galaxy.rounds import LiveRounds
from biobank_core.galaxy.rules import Rules, ToolRule
from biobank_core.model.kinds import DataObject
from tests.unit.recorder_lab import catalog
from tests.unit.scripted_galaxy import ScriptedGalaxy, dataset_uuid, end

__all__ = ["catalog"]  # the fixture

SIZES = {1: 10, 2: 10, 3: 10, 4: 10_000}


@dataclass
class HashingGalaxy(ScriptedGalaxy):
    """One that computes a hash when it was asked to; `what_happens` may raise instead."""

    computed: set[str] = field(default_factory=set)
    asked_for: list[str] = field(default_factory=list)
    never: set[str] = field(default_factory=set)
    what_happens: Callable[[str], None] = lambda _hda_id: None

    def dataset(self, hda_id: str) -> DatasetRecord:
        found = super().dataset(hda_id)
        number = int(hda_id.removeprefix("hda"))
        sha256 = hashlib.sha256(hda_id.encode()).hexdigest() if hda_id in self.computed else None
        return replace(found, size_bytes=SIZES[number], sha256=sha256)

    def copies(self, history_id: str) -> Iterator[DatasetRecord]:
        self.asked.append(f"contents {history_id}")
        for number in SIZES:
            yield self.dataset(f"hda{number}")

    def ask_hash(self, hda_id: str) -> None:
        self.what_happens(hda_id)
        self.asked_for.append(hda_id)
        if hda_id not in self.never:
            self.computed.add(hda_id)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_FIRST_LOOK_S", 0.001)
    monkeypatch.setattr(hashing, "_PATIENCE_S", 0.05)


@pytest.fixture
def galaxy(catalog: SqliteCatalog) -> HashingGalaxy:
    made = HashingGalaxy()
    for number in SIZES:
        made.add(f"j{number}", number, outputs=(end("o", number),))
    record(catalog, made, server="g")  # type: ignore[arg-type]
    made.asked.clear()
    return made


def compute(catalog: SqliteCatalog, galaxy: HashingGalaxy, max_bytes: int | None = 100) -> Hashed:
    refresher = Refresher(catalog, galaxy, server="g", by="test")  # type: ignore[arg-type]
    return compute_hashes(galaxy, refresher, max_bytes=max_bytes)  # type: ignore[arg-type]


def hashed(catalog: SqliteCatalog) -> set[int]:
    """The numbers of the data whose file has its hash."""
    files = {identity.data_object_vid("g", dataset_uuid(number)): number for number in SIZES}
    found = set()
    for vid, item in catalog.get(files).items():
        assert isinstance(item.object, DataObject)
        if item.object.sha256 is not None:
            name = f"hda{files[vid]}"
            assert item.object.sha256 == hashlib.sha256(name.encode()).hexdigest()
            found.add(files[vid])
    return found


def test_the_size_is_a_limit_and_what_has_a_hash_is_not_asked_for_again(
    catalog: SqliteCatalog, galaxy: HashingGalaxy
) -> None:
    galaxy.computed.add("hda1")
    done = compute(catalog, galaxy)
    assert (done.found, done.computed, done.left_out) == (1, 2, 0)
    assert sorted(galaxy.asked_for) == ["hda2", "hda3"]
    assert hashed(catalog) == {1, 2, 3}
    assert compute(catalog, galaxy).computed == 0
    assert compute(catalog, galaxy, max_bytes=None).computed == 1
    assert hashed(catalog) == {1, 2, 3, 4}


def test_one_that_galaxy_refuses_or_never_finishes_stops_no_other(
    catalog: SqliteCatalog, galaxy: HashingGalaxy
) -> None:
    def odd(hda_id: str) -> None:
        if hda_id == "hda1":
            raise GalaxyFaultError("PUT /api/datasets/hda1/hash: HTTP 500")

    galaxy.what_happens = odd
    galaxy.never.add("hda2")
    done = compute(catalog, galaxy)
    assert (done.computed, done.late, len(done.failed)) == (1, 1, 1)
    assert "HTTP 500" in next(iter(done.failed.values()))
    assert hashed(catalog) == {3}
    galaxy.what_happens = lambda _hda_id: None
    galaxy.never.clear()
    assert compute(catalog, galaxy).computed == 2


def test_a_galaxy_that_goes_away_keeps_what_was_computed(
    catalog: SqliteCatalog, galaxy: HashingGalaxy
) -> None:
    def away(hda_id: str) -> None:
        if hda_id == "hda3":
            raise UnreachableError("no Galaxy answers")

    galaxy.what_happens = away
    with pytest.raises(UnreachableError):
        compute(catalog, galaxy)
    assert hashed(catalog) == {1, 2}
    galaxy.what_happens = lambda _hda_id: None
    assert compute(catalog, galaxy).computed == 1


@pytest.fixture
def rounds(
    catalog: SqliteCatalog, galaxy: HashingGalaxy, monkeypatch: pytest.MonkeyPatch
) -> LiveRounds:
    """Rounds of this Galaxy, with the jobs of SIZES to be recorded anew."""
    monkeypatch.setattr(rounds_of, "LiveSource", lambda _client, **_options: galaxy)
    return LiveRounds(
        catalog=catalog,
        connect=lambda: pytest.fail("connected"),
        server="g",
        scope=Scope(),
        # Another rule, another cursor: the first round sees all jobs.
        rules=Rules(tools=(ToolRule(tool="x", category=None),)),
        study=None,
        by="test",
        _client=galaxy,  # type: ignore[arg-type]
    )


def test_a_hash_that_galaxy_takes_minutes_for_is_looked_for_again_and_not_for_ever(
    catalog: SqliteCatalog,
    galaxy: HashingGalaxy,
    rounds: LiveRounds,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 0.0
    monkeypatch.setattr(rounds_of.time, "monotonic", lambda: now_s)
    looks = []
    for _ in range(200):
        galaxy.asked.clear()
        rounds(lambda: False, frozenset())
        looks.append("contents h1" in galaxy.asked)
        now_s += 60
        if now_s == 300:
            galaxy.computed |= {"hda1", "hda2", "hda3"}
    assert hashed(catalog) == {1, 2, 3}
    # The fourth never gets one.
    assert 4 < sum(looks) < 12
    assert not any(looks[100:])


def test_after_the_first_recording_of_a_large_server_its_old_data_are_not_asked_for_again(
    galaxy: HashingGalaxy, rounds: LiveRounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(rounds_of.time, "monotonic", lambda: now_s)
    monkeypatch.setattr(rounds_of, "_MOST_LATE", len(SIZES) - 1)
    galaxy.asked.clear()
    for _ in range(50):
        rounds(lambda: False, frozenset())
        now_s += 60
    assert galaxy.asked.count("contents h1") == 1


def test_a_round_that_breaks_off_forgets_no_hash_that_was_not_there_yet(
    catalog: SqliteCatalog,
    galaxy: HashingGalaxy,
    rounds: LiveRounds,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "JOBS_A_UNIT", 1)
    real = HashingGalaxy.job

    def away(self: HashingGalaxy, job_id: str) -> JobRecord:
        if job_id == "j2":
            raise UnreachableError("no Galaxy answers")
        return real(self, job_id)

    with monkeypatch.context() as patched:
        patched.setattr(HashingGalaxy, "job", away)
        with pytest.raises(UnreachableError):
            rounds(lambda: False, frozenset())
    galaxy.computed.add("hda1")
    rounds(lambda: False, frozenset())
    assert hashed(catalog) == {1}


def test_an_answer_about_other_data_is_not_believed(
    catalog: SqliteCatalog, galaxy: HashingGalaxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = HashingGalaxy.dataset

    def other(self: HashingGalaxy, hda_id: str) -> DatasetRecord:
        return real(self, "hda1" if self.asked_for and hda_id == "hda2" else hda_id)

    monkeypatch.setattr(HashingGalaxy, "dataset", other)
    assert compute(catalog, galaxy).late == 1
    assert hashed(catalog) == {1, 3}
