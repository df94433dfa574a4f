"""`biobank record --follow` and a Galaxy that is not always well, on the real server."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from biobank_core.errors import UnreachableError
from biobank_core.galaxy import client as galaxy_client
from biobank_core.galaxy.client import GalaxyClient
from biobank_core.galaxy.events import Doorbell
from biobank_core.galaxy.live import LiveSource
from biobank_core.galaxy.recorder import Summary, record
from tests.integration.galaxy_cases import SERVER, Lab, lab_of
from tests.integration.omero_settings import NewCatalog, on_both
from tests.integration.unreliable_proxy import UnreliableProxy, unreliable
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_user import GalaxyUser, hda, mapped_over

pytestmark = pytest.mark.galaxy


@pytest.fixture
def lab(
    galaxy: GalaxyServer, galaxy_user: GalaxyUser, new_catalog: NewCatalog, tmp_path: Path
) -> Iterator[Lab]:
    with lab_of(galaxy_user, galaxy.url, new_catalog, tmp_path) as opened:
        yield opened


@pytest.fixture
def proxy(lab: Lab) -> Iterator[UnreliableProxy]:
    with unreliable(lab.url) as made:
        yield made


@pytest.fixture
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    no_wait = galaxy_client.tenacity.wait_none()
    monkeypatch.setattr(galaxy_client.tenacity, "wait_random_exponential", lambda **_: no_wait)


class Following:
    """A running `biobank record --follow`; its lines on stderr as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stderr
        self.lines.extend(iter(self.process.stderr.readline, ""))

    def says(self, text: str, *, timeout_s: float = 300) -> None:
        """Wait until a line holds this text."""
        give_up_at = time.monotonic() + timeout_s
        while not any(text in line for line in self.lines):
            assert self.process.poll() is None, self.lines
            assert time.monotonic() < give_up_at, self.lines
            time.sleep(0.05)

    def end(self, number: signal.Signals) -> str:
        """Send a signal; what it wrote to stdout. It must end well."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, self.lines
        return out


FOLLOW = ("biobank_core.cli", "record", "--follow")
SERVICE = ("sync_service", "run", "--only", "recorder")


@contextmanager
def following(
    lab: Lab, url: str, *options: str, command: tuple[str, ...] = FOLLOW
) -> Iterator[Following]:
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--galaxy-name", SERVER, *options],
        env=lab.environment | {"GALAXY_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Following(process)
    finally:
        process.kill()
        process.wait()


def recorded(lab: Lab, job_id: str) -> Callable[[], bool]:
    return lambda: bool(list(lab.stores.catalog.find("Action", {"galaxy.job_id": job_id})))


def test_galaxy_rings_when_a_history_changes(lab: Lab) -> None:
    rung = threading.Semaphore(0)
    bell = Doorbell(GalaxyClient.connect(lab.url, lab.user.key), rung.release)
    bell.start()
    try:
        assert rung.acquire(timeout=300)  # it listens
        # What the history's own beginning rings for may come late.
        for _ in range(10):
            if not rung.acquire(timeout=3):
                break
        else:
            pytest.fail("it rings without a reason")
        lab.user.client.histories.update_history(lab.history, name="another name")
        assert rung.acquire(timeout=300)
    finally:
        bell.stop()


@on_both
def test_jobs_are_recorded_as_they_end_until_a_signal_comes(lab: Lab) -> None:
    with following(lab, lab.url, "--interval", "3600") as run:
        run.says(f"jobs of {lab.user.email}")
        data = lab.user.upload(lab.history, "one\n")
        job = lab.user.run(lab.history, "one_to_one", {"input": hda(data)}).job_ids[0]
        lab.user.wait_for(recorded(lab, job), what="the recording of a job")
        assert "recorded\t2\n" in run.end(signal.SIGTERM)
    assert not any("Traceback" in line for line in run.lines)
    assert lab.user.key not in "".join(run.lines)
    # All of it is there: nothing is left for another recording.
    assert lab.counted()[0].recorded == 0


def test_the_service_records_with_rules_and_without_any_broker(lab: Lab, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text("exclude:\n  tag: no-biobank\n")
    secret = lab.user.new_history("secret")
    lab.user.client.histories.update_history(secret, tags=["no-biobank"])
    lab.user.upload(secret, "one\n")
    options = ("--interval", "3600", "--rules", str(rules))
    with following(lab, lab.url, *options, command=SERVICE) as run:
        run.says(f"jobs of {lab.user.email}")
        lab.user.upload(lab.history, "one\n")
        lab.user.wait_for(lab.actions, what="the recording of a job")
        run.end(signal.SIGTERM)
    assert lab.user.key not in "".join(run.lines)
    assert {action.galaxy.history_id for action in lab.actions() if action.galaxy} == {lab.history}


def test_a_galaxy_that_goes_away_is_said_once_and_followed_again(
    lab: Lab, proxy: UnreliableProxy
) -> None:
    with following(lab, proxy.url, "--interval", "1") as run:
        run.says("following Galaxy")
        proxy.fault = lambda _path: "html"
        run.says("not Galaxy's JSON")
        job = lab.user.run(lab.history, "one_to_one", {"input": hda(_upload(lab))}).job_ids[0]
        proxy.fault = lambda _path: None
        run.says("it works again")
        lab.user.wait_for(recorded(lab, job), what="the recording of a job")
        run.end(signal.SIGINT)
    assert sum("tried again until it works" in line for line in run.lines) == 1


def _upload(lab: Lab) -> str:
    return lab.user.upload(lab.history, "one\n")


def _record(lab: Lab, proxy: UnreliableProxy) -> Summary:
    client = GalaxyClient.connect(proxy.url, lab.user.key)
    return record(lab.stores.catalog, LiveSource(client), server=SERVER)


@pytest.mark.parametrize("fault", ["cut", "html"])
@pytest.mark.usefixtures("without_waiting")
def test_a_galaxy_that_goes_away_in_the_middle_loses_nothing(
    lab: Lab, proxy: UnreliableProxy, fault: str, new_catalog: NewCatalog, tmp_path: Path
) -> None:
    lists = lab.user.upload_collection(lab.history, {name: f"{name}\n" for name in "abcde"})
    lab.user.run(lab.history, "one_to_one", {"input": mapped_over(lists)})
    away_after = 2
    told: list[UnreachableError] = []
    while True:
        asked = [0]

        def after(_path: str, most: int = away_after, asked: list[int] = asked) -> str | None:
            asked[0] += 1
            return fault if asked[0] > most else None

        proxy.fault = after
        try:
            _record(lab, proxy)
        except UnreachableError as exc:
            told.append(exc)
            away_after += 5
        else:
            break
    assert away_after > 10
    assert {exc.exit_code for exc in told} == {3}
    words = {"cut": "went away in the middle of its answer", "html": "not Galaxy's JSON"}
    assert all(words[fault] in str(exc) for exc in told), told
    folder = tmp_path / "straight"
    folder.mkdir()
    with lab_of(lab.user, lab.url, new_catalog, folder, history=None) as straight:
        straight.record()
        assert lab.graph() == straight.graph()


def test_an_odd_job_is_left_for_the_next_time_and_the_rest_is_recorded(
    lab: Lab, proxy: UnreliableProxy
) -> None:
    data = _upload(lab)
    good, odd = (
        lab.user.run(lab.history, "one_to_one", {"input": hda(data)}).job_ids[0] for _ in range(2)
    )
    proxy.fault = lambda path: "500" if path.startswith(f"/api/jobs/{odd}?") else None
    summary = _record(lab, proxy)
    assert (summary.recorded, list(summary.failed)) == (2, [odd])
    assert "500" in summary.failed[odd]
    assert recorded(lab, good)()
    assert list(_record(lab, proxy).failed) == [odd]
    proxy.fault = lambda _path: None
    assert (_record(lab, proxy).recorded, recorded(lab, odd)()) == (1, True)


def test_what_is_not_given_beside_a_job_does_not_stop_it(lab: Lab, proxy: UnreliableProxy) -> None:
    job = lab.user.run(lab.history, "one_to_one", {"input": hda(_upload(lab))}).job_ids[0]
    proxy.fault = lambda path: "500" if "build_for_rerun" in path else None
    assert _record(lab, proxy).failed == {}
    action = lab.action(job)
    assert action.galaxy
    assert (action.galaxy.tool_version, action.galaxy.tool_version_source) == (None, None)
    assert lab.device(action).release is None
