"""The client against a server that answers as Galaxy, a proxy or a stranger may."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import tenacity

from biobank_core.errors import (
    BiobankError,
    ConfigurationError,
    InputError,
    NotFoundError,
    NotPermittedError,
    UnreachableError,
)
from biobank_core.galaxy import client as module
from biobank_core.galaxy import live
from biobank_core.galaxy.client import GalaxyClient, GalaxyFaultError

KEY = "canary-0123456789"

Answer = tuple[int, str, dict[str, str]]


@dataclass
class Server:
    """Answers each path by a function of its query; remembers what was asked, with which key."""

    url: str = ""
    answers: dict[str, Callable[[dict[str, list[str]]], Answer]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def says(self, path: str, body: Any, status: int = 200, **headers: str) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.answers[path] = lambda _query: (status, text, headers)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            made.asked.append((parts.path, self.headers.get("x-api-key")))
            answer = made.answers.get(parts.path)
            status, text, headers = (
                answer(parse_qs(parts.query)) if answer else (404, "nothing here", {})
            )
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            body = text.encode()
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        made.url = f"http://127.0.0.1:{httpd.server_address[1]}"
        made.says("/api/version", {"version_major": "26.1"})
        made.says("/api/users/current", {"id": "u", "email": "ada@x.org", "is_admin": False})
        yield made
        httpd.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    no_wait = tenacity.wait_none()
    monkeypatch.setattr(module.tenacity, "wait_random_exponential", lambda **_: no_wait)


def test_a_client_knows_version_and_user(server: Server) -> None:
    client = GalaxyClient.connect(server.url, KEY)
    assert (client.version, client.user.email, client.request_count) == ("26.1", "ada@x.org", 2)
    assert KEY not in repr(client)


@pytest.mark.parametrize(
    ("status", "body", "error", "code"),
    [
        (401, {"err_msg": "x"}, NotPermittedError, 4),
        (403, {"err_msg": "Provided API key is not valid."}, NotPermittedError, 4),
        (403, {"err_msg": "no"}, NotPermittedError, 4),
        (404, {"err_msg": "no"}, NotFoundError, 2),
        (400, {"err_msg": "no"}, InputError, 2),
        (500, "Internal Server Error", GalaxyFaultError, 3),
        (503, "<html>", UnreachableError, 3),
        (418, "?", UnreachableError, 3),
        (200, "<html>login</html>", UnreachableError, 3),
        (200, "[" * 100_000, UnreachableError, 3),
    ],
)
def test_each_answer_has_its_error(
    server: Server, status: int, body: Any, error: type[BiobankError], code: int
) -> None:
    client = GalaxyClient.connect(server.url, KEY)
    server.says("/api/thing", body, status)
    with pytest.raises(error) as caught:
        client.get("thing")
    assert caught.value.exit_code == code
    assert KEY not in str(caught.value)


def test_an_answer_that_repeats_the_key_does_not_leak_it(server: Server) -> None:
    client = GalaxyClient.connect(server.url, KEY)
    server.says("/api/thing", {"err_msg": f"bad key {KEY}\x1b[2J"}, 400)
    with pytest.raises(InputError) as caught:
        client.get("thing")
    assert KEY not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_what_is_not_galaxy_is_unreachable(server: Server) -> None:
    for path, body in (("/api/version", "<html>"), ("/api/version", {"version_major": None})):
        server.says(path, body)
        with pytest.raises(UnreachableError):
            GalaxyClient.connect(server.url, KEY)
    server.answers.pop("/api/version")
    with pytest.raises(UnreachableError, match="not a Galaxy"):
        GalaxyClient.connect(server.url, KEY)
    with pytest.raises(UnreachableError, match="no Galaxy answers"):
        GalaxyClient.connect("http://127.0.0.1:9", KEY)


def test_a_galaxy_that_is_too_old_says_what_is_needed(server: Server) -> None:
    server.says("/api/version", {"version_major": "19.09"})
    with pytest.raises(UnreachableError, match=r"19\.09.*23\.1"):
        GalaxyClient.connect(server.url, KEY)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ({"version_major": "19.09"}, "is 19.09; at least 23.1 is needed: ask for an upgrade"),
        ("<html>Please log in</html>", "not Galaxy's JSON: is it the URL of a Galaxy"),
        ({"version_major": None}, "does not say which version of Galaxy it is"),
    ],
)
def test_the_command_says_what_is_wrong_with_a_server_and_makes_nothing(
    server: Server, tmp_path: Path, version: Any, said: str
) -> None:
    server.says("/api/version", version)
    done = subprocess.run(
        [sys.executable, "-m", "biobank_core.cli", "record", "--galaxy", server.url],
        env={
            **os.environ,
            "BIOBANK_CATALOG": f"sqlite:///{tmp_path / 'c.db'}",
            "GALAXY_API_KEY": KEY,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert KEY not in done.stderr
    assert not (tmp_path / "c.db").exists()


def test_a_busy_server_is_asked_again_and_a_fault_is_not(server: Server) -> None:
    client = GalaxyClient.connect(server.url, KEY)
    tries = iter([(503, "later", {}), (429, "later", {}), (200, "[1]", {})])
    server.answers["/api/thing"] = lambda _query: next(tries)
    before = client.request_count
    assert client.get("thing") == [1]
    assert client.request_count - before == 3
    server.says("/api/fault", "x", 500)
    with pytest.raises(GalaxyFaultError):
        client.get("fault")
    assert client.request_count - before == 4


def test_the_key_does_not_follow_a_redirect(server: Server) -> None:
    client = GalaxyClient.connect(server.url, KEY)
    server.says("/stolen", {})
    server.says("/api/thing", "", 302, location=f"{server.url}/stolen")
    with pytest.raises(UnreachableError, match="sends us on"):
        client.get("thing")
    assert "/stolen" not in [path for path, _ in server.asked]


def test_an_answer_without_end_is_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    client = GalaxyClient.connect(server.url, KEY)
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 100_000)
    server.says("/api/thing", "1" * 300_000)
    with pytest.raises(UnreachableError, match="no end"):
        client.get("thing")


@pytest.mark.parametrize(
    "url", ["", "galaxy.org", "ftp://x", "http://ada:x@host", "http://h:port", "http://["]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="galaxy"):
        GalaxyClient(url, KEY)


@pytest.mark.parametrize("key", ["", "a\nb", "schlüssel"])
def test_a_key_that_can_not_be_one_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        GalaxyClient("http://host", key)
    assert not key or key not in str(caught.value)


def test_many_are_asked_at_once_and_one_error_stops_none(server: Server) -> None:
    client = GalaxyClient.connect(server.url, KEY)
    for number in range(20):
        server.says(f"/api/n/{number}", number, 500 if number == 7 else 200)
    found = dict(client.each(range(20), lambda number: client.get(f"n/{number}")))
    assert isinstance(found.pop(7), GalaxyFaultError)
    assert found == {number: number for number in range(20) if number != 7}


@dataclass
class JobTable:
    """`/api/jobs` as Galaxy does it; `between` is called after each page."""

    times: dict[str, datetime]
    between: Callable[[], None] = lambda: None

    def __call__(self, query: dict[str, list[str]]) -> Answer:
        low = datetime.fromisoformat(query.get("date_range_min", ["0001-01-01"])[0])
        high = datetime.fromisoformat(query.get("date_range_max", ["9999-01-01"])[0])
        offset, limit = int(query.get("offset", ["0"])[0]), int(query["limit"][0])
        rows = sorted(self.times, key=lambda job: (self.times[job], job), reverse=True)
        page = [job for job in rows if low <= self.times[job] <= high][offset : offset + limit]
        self.between()
        answer = [
            {
                "id": job,
                "tool_id": "t",
                "state": "ok",
                "create_time": self.times[job].isoformat(),
                "update_time": self.times[job].isoformat(),
            }
            for job in page
        ]
        return 200, json.dumps(answer), {}


@pytest.mark.parametrize("spacing_s", [0, 1])
def test_pages_give_each_job_once_also_when_all_are_of_one_moment(
    server: Server, monkeypatch: pytest.MonkeyPatch, spacing_s: int
) -> None:
    monkeypatch.setattr(live, "PAGE_ROWS", 10)
    start = datetime(2026, 1, 1)
    times = {f"j{n:03}": start + timedelta(seconds=spacing_s * n) for n in range(57)}
    server.answers["/api/jobs"] = JobTable(times)
    source = live.LiveSource(GalaxyClient.connect(server.url, KEY))
    found = [row.id for row in source.jobs()]
    assert sorted(found) == sorted(times)


def test_jobs_that_end_while_pages_are_read_push_none_out(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PAGE_ROWS", 10)
    start = datetime(2026, 1, 1)
    times = {f"j{n:03}": start + timedelta(seconds=n) for n in range(57)}
    moving = iter(["j000", "j013", "j021", "j030"])

    def between() -> None:
        job = next(moving, None)
        if job:
            times[job] = start + timedelta(days=1)

    server.answers["/api/jobs"] = JobTable(times, between)
    source = live.LiveSource(GalaxyClient.connect(server.url, KEY))
    found = {row.id for row in source.jobs()}
    # Those that moved to the front are in the next run's list; the others must all be here.
    assert set(times) - {"j000", "j013", "j021", "j030"} <= found
