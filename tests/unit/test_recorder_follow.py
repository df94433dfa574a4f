"""Following a Galaxy: when it looks, what it survives, how it ends, what it says."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from biobank_core.catalog.sqlite import SqliteCatalog
from biobank_core.errors import NotPermittedError, UnreachableError
from biobank_core.galaxy import events, follow, recorder
from biobank_core.galaxy.client import GalaxyClient
from biobank_core.galaxy.events import Doorbell
from biobank_core.galaxy.follow import Follower, OddJobs
from biobank_core.galaxy.recorder import Scope, Summary
from biobank_core.galaxy.rounds import LiveRounds
from biobank_core.galaxy.rules import Choice, Rules
from biobank_core.model.kinds import Cursor
from tests.faults.galaxy_over_http import served
from tests.unit.recorder_lab import catalog, recorder_of
from tests.unit.scripted_galaxy import ScriptedGalaxy, end
from tests.unit.test_recorder_client import KEY, Server, server

__all__ = ["catalog", "server"]  # the fixtures

QUICK = {"interval_s": 0.05, "shortest_s": 0.01}


class Rounds:
    """Does what the script says, one step a round, then stops the follower."""

    def __init__(self, *script: Summary | Exception) -> None:
        self.script = list(script)
        self.times: list[float] = []
        self.left_alone: list[frozenset[str]] = []
        self.follower: Follower | None = None

    def __call__(self, _stopped: Callable[[], bool], not_now: frozenset[str]) -> Summary:
        self.times.append(time.monotonic())
        self.left_alone.append(not_now)
        step = self.script.pop(0)
        if not self.script and self.follower:
            self.follower.stop()
        if isinstance(step, Exception):
            raise step
        return step

    def follow(self, **options: Any) -> Follower:
        self.follower = Follower(self, **(QUICK | options))
        self.follower.run()
        return self.follower


def test_every_round_is_summed_up_and_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="biobank_core.galaxy")
    done = Rounds(Summary(recorded=2, linked=1), Summary(), Summary(recorded=1)).follow().done
    assert (done.rounds, done.recorded, done.linked) == (3, 3, 1)
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "recorded 2",
        "recorded 1",
    ]


def test_a_galaxy_that_is_away_is_said_once_and_asked_less_and_less(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What it means to wait, not how long a busy machine made of it.
    pauses: list[float] = []
    monkeypatch.setattr(Follower, "_rest", lambda _self, seconds: bool(pauses.append(seconds)))
    away = [UnreachableError("no Galaxy answers at http://g") for _ in range(4)]
    rounds = Rounds(Summary(), *away, Summary(recorded=1))
    assert rounds.follow().done.recorded == 1
    assert pauses[1] < pauses[2] < pauses[3] < pauses[4]
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert "no Galaxy answers at http://g" in warnings[0]
    assert "works again" in warnings[1]


def test_a_key_that_is_refused_ends_it() -> None:
    with pytest.raises(NotPermittedError):
        Rounds(Summary(), NotPermittedError("the key"), Summary()).follow()


class Bell:
    """Rings at these times; the time goes on only while somebody waits for it."""

    def __init__(self, *rings_s: float) -> None:
        self.now_s = 0.0
        self.rings_s = sorted(rings_s)

    def get(self, timeout: float = 0.0) -> None:
        until_s = self.now_s + timeout
        if not self.rings_s or self.rings_s[0] > until_s:
            self.now_s = until_s
            raise queue.Empty
        self.now_s = max(self.now_s, self.rings_s.pop(0))

    def empty(self) -> bool:
        return not self.rings_s or self.rings_s[0] > self.now_s


@pytest.mark.parametrize(
    ("rings_s", "rang", "after_s"),
    [
        ((), False, 60),
        ((30,), True, 30),
        ([0.05] * 500, True, 2),
        ((0, 0.5, 1.9, 2, 2.1), True, 2),
    ],
)
def test_an_event_makes_the_next_round_come_at_once_and_many_are_one(
    monkeypatch: pytest.MonkeyPatch, rings_s: Sequence[float], rang: bool, after_s: float
) -> None:
    follower = Follower(lambda _stopped, _not_now: Summary(), interval_s=60, shortest_s=2)
    follower._bell = bell = Bell(*rings_s)  # type: ignore[assignment]
    monkeypatch.setattr(follow.time, "monotonic", lambda: bell.now_s)
    assert (follower._rest(60), bell.now_s) == (rang, after_s)
    assert bell.empty()


def test_an_event_of_another_thread_ends_the_wait() -> None:
    follower = Follower(lambda _stopped, _not_now: Summary(), interval_s=3600, shortest_s=0.01)
    threading.Timer(0.1, follower.wake).start()
    assert follower._rest(3600)


def test_it_stops_while_it_waits() -> None:
    follower = Follower(lambda _stopped, _not_now: Summary(), interval_s=3600, shortest_s=3600)
    threading.Timer(0.1, follower.stop).start()
    assert follower.run().rounds == 1


def test_an_odd_job_is_said_once_and_left_alone_for_longer_and_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(follow.time, "monotonic", lambda: now[0])
    odd = OddJobs()
    assert odd.note({"j1": "HTTP 500"}) == {"j1": "HTTP 500"}
    due = []
    for second in range(1000):
        now[0] = float(second)
        if "j1" in odd.not_now():
            assert odd.note({}) == {}
        else:
            due.append(second)
            assert odd.note({"j1": "HTTP 500"}) == {}
    assert due == [60, 180, 420, 900]
    now[0] = 10_000.0
    assert odd.note({}) == {}  # it was due, and did not fail
    assert odd.note({"j1": "HTTP 500"}) == {"j1": "HTTP 500"}


def test_an_odd_job_is_said_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    rounds = Rounds(Summary(failed={"odd": "HTTP 500"}), Summary())
    rounds.follow()
    assert rounds.left_alone == [frozenset(), {"odd"}]
    assert "job odd was not recorded, and is asked for again: HTTP 500" in caplog.text


@pytest.mark.parametrize("minute", [0, 55])
def test_an_odd_job_that_is_left_alone_is_not_forgotten(
    catalog: SqliteCatalog, minute: int
) -> None:
    galaxy = ScriptedGalaxy()
    galaxy.add("odd", minute)
    galaxy.add("good", 60)
    galaxy.faults.add("odd")

    def a_round(*not_now: str) -> Summary:
        galaxy.asked.clear()
        made = recorder_of(catalog, galaxy)
        return made.run(made.prepare(not_now))

    assert list(a_round().failed) == ["odd"]
    galaxy.faults.clear()
    assert (a_round("odd").recorded, galaxy.asked) == (0, ["jobs"])
    assert a_round().recorded == 1


def test_what_is_stopped_in_the_middle_saves_the_unit_in_hand(
    catalog: SqliteCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "JOBS_A_UNIT", 2)
    galaxy = ScriptedGalaxy()
    for number in range(6):
        galaxy.add(f"j{number}", number * 20)

    def record(stopped: Callable[[], bool]) -> Summary:
        made = recorder_of(catalog, galaxy)
        return made.run(made.prepare(), stopped=stopped)

    asked = iter([False, False, True])
    assert record(lambda: next(asked)).recorded == 4
    assert record(lambda: False).recorded == 2


def test_jobs_that_the_rules_leave_out_are_not_listed_for_ever(catalog: SqliteCatalog) -> None:
    galaxy = ScriptedGalaxy()
    galaxy.add("mine", 0)
    for number in range(1, 50):
        galaxy.add(f"other{number}", number * 20, tool_id="other")
    rules = Rules(exclude=Choice(tools=("other",)))
    for expected in (50, 1):
        made = recorder_of(catalog, galaxy, rules=rules)
        assert made.run(made.prepare()).seen == expected
    [cursor] = catalog.find("Cursor")
    assert isinstance(cursor.object, Cursor)
    assert cursor.object.position == galaxy.records["other49"].update_time


def test_jobs_that_have_not_ended_cost_no_request_a_round(catalog: SqliteCatalog) -> None:
    galaxy = ScriptedGalaxy()
    galaxy.add("paused", 0, state="paused")
    galaxy.add("later", 600)

    def a_round(*, ask_waiting: bool) -> tuple[int, int]:
        galaxy.asked.clear()
        made = recorder_of(catalog, galaxy)
        summary = made.run(made.prepare(ask_waiting=ask_waiting))
        return summary.recorded, summary.waiting

    assert a_round(ask_waiting=True) == (1, 1)
    assert (a_round(ask_waiting=False), galaxy.asked) == ((0, 1), ["jobs"])
    # It ends, and its time does not move: the next full look finds it.
    galaxy.records["paused"] = replace(galaxy.records["paused"], state="ok")
    assert a_round(ask_waiting=False) == (0, 1)
    assert a_round(ask_waiting=True) == (1, 0)


def test_what_the_rules_leave_out_is_decided_once(catalog: SqliteCatalog) -> None:
    galaxy = ScriptedGalaxy()
    for number in range(5):
        galaxy.add(f"j{number}", number, history_id=f"h{number}")
    rules = Rules(exclude=Choice(histories=("h1", "h2")))
    unwanted: set[str] = set()
    for left_out, asked in ((2, 5), (2, 0)):
        galaxy.asked.clear()
        made = recorder_of(catalog, galaxy, rules=rules)
        made.run(made.prepare(unwanted=unwanted))
        unwanted = made.unwanted
        assert (made.summary.left_out, unwanted) == (left_out, {"j1", "j2"})
        assert sum(what.startswith("history") for what in galaxy.asked) == asked
    assert catalog.count()["Action"] == 3


def test_a_galaxy_without_events_is_asked_by_the_clock(catalog: SqliteCatalog) -> None:
    galaxy = ScriptedGalaxy()
    galaxy.add("j0", 0, outputs=(end("o", 0),))
    with served(galaxy) as url:
        rounds = LiveRounds(
            catalog=catalog,
            connect=lambda: GalaxyClient.connect(url, KEY),
            server="g",
            scope=Scope(),
            rules=Rules(),
            study=None,
            by="test",
        )
        follower = Follower(rounds, **QUICK)
        rounds.ring = follower.wake
        recorded: list[int] = []

        def watched(stopped: Callable[[], bool], not_now: frozenset[str]) -> Summary:
            summary = rounds(stopped, not_now)
            recorded.append(summary.recorded)
            if len(recorded) == 1:
                galaxy.add("j1", 1, outputs=(end("o", 1),))
            if sum(recorded) == 2:
                follower.stop()
            return summary

        follower._do_round = watched
        with rounds:
            assert follower.run().recorded == 2
    assert catalog.count()["Action"] == 2


def test_the_doorbell_rings_for_a_change_and_not_for_a_comment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = ": keep\n\nevent: notification_status\ndata: x\n\nevent: history_update\ndata: {}\n\n"
    server.answers["/api/events/stream"] = lambda _query: (
        200,
        body,
        {"content-type": "text/event-stream; charset=utf-8"},
    )
    rung = threading.Semaphore(0)
    # It does not connect once more while we listen.
    monkeypatch.setattr(events, "_FIRST_BACK_OFF_S", 3600.0)
    bell = Doorbell(GalaxyClient.connect(server.url, KEY), lambda: rung.release() or None)
    bell.start()
    assert rung.acquire(timeout=120)
    assert not rung.acquire(timeout=0.3)
    bell.stop()


@pytest.mark.parametrize(
    ("status", "headers"), [(404, {}), (200, {"content-type": "text/html"}), (403, {})]
)
def test_the_doorbell_gives_up_where_there_are_no_events(
    server: Server, status: int, headers: dict[str, str]
) -> None:
    server.answers["/api/events/stream"] = lambda _query: (status, "<html>", headers)
    bell = Doorbell(GalaxyClient.connect(server.url, KEY), lambda: pytest.fail("rang"))
    bell.start()
    bell._thread.join(120)
    assert not bell._thread.is_alive()
    assert [path for path, _ in server.asked].count("/api/events/stream") == 1
