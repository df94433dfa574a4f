"""The Galaxy in memory of the unit tests, answering over real HTTP as a Galaxy does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from biobank_core.galaxy.records import DatasetEnd, JobRecord
from tests.unit.scripted_galaxy import ScriptedGalaxy


@contextmanager
def served(galaxy: ScriptedGalaxy) -> Iterator[str]:
    """The URL at which it answers, on a free port of this machine."""
    with _Server(("127.0.0.1", 0), _handler_of(galaxy)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silent: who asked was killed."""


def _handler_of(galaxy: ScriptedGalaxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            found = _answer(galaxy, parts.path.removeprefix("/api/"), parse_qs(parts.query))
            body = json.dumps({"err_msg": "not here"} if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Silent."""

    return Handler


def _answer(galaxy: ScriptedGalaxy, path: str, query: dict[str, list[str]]) -> Any:
    match path.split("/"):
        case ["version"]:
            return {"version_major": "26.1"}
        case ["users", "current"]:
            return {"id": galaxy.user.id, "email": galaxy.user.email, "is_admin": False}
        case ["jobs"]:
            return _rows(galaxy, query)
        case ["jobs", job_id, "build_for_rerun"]:
            return {"version": galaxy.records[job_id].tool_version, "state_inputs": {}}
        case ["jobs", job_id]:
            return _detail(galaxy.job(job_id))
        case ["datasets", hda_id]:
            found = galaxy.dataset(hda_id)
            return {
                "id": found.id,
                "uuid": found.uuid,
                "name": found.name,
                "extension": found.extension,
                "state": found.state,
                "file_size": found.size_bytes,
                "deleted": found.deleted,
                "purged": found.purged,
                "history_id": found.history_id,
                "create_time": _naive(found.create_time),
                "tags": list(found.tags),
            }
        case ["histories", history_id]:
            found_history = galaxy.history(history_id)
            return {"id": history_id, "name": found_history.name, "tags": []}
    return None


def _rows(galaxy: ScriptedGalaxy, query: dict[str, list[str]]) -> list[dict[str, Any]]:
    since, until = (_time(query.get(f"date_range_{end}")) for end in ("min", "max"))
    rows = [
        row
        for row in galaxy.jobs(since=since, states=query.get("state", ()))
        if until is None or row.update_time <= until.replace(tzinfo=None)
    ]
    offset = int(query.get("offset", ["0"])[0])
    limit = int(query.get("limit", ["500"])[0])
    return [
        {
            "id": row.id,
            "tool_id": row.tool_id,
            "state": row.state,
            "create_time": _naive(row.create_time),
            "update_time": _naive(row.update_time),
            "history_id": row.history_id,
        }
        for row in rows[offset : offset + limit]
    ]


def _detail(job: JobRecord) -> dict[str, Any]:
    return {
        "id": job.id,
        "tool_id": job.tool_id,
        "state": job.state,
        "create_time": _naive(job.create_time),
        "update_time": _naive(job.update_time),
        "history_id": job.history_id,
        "params": {name: json.dumps(value) for name, value in job.parameters.items()},
        "inputs": _ends(job.inputs),
        "outputs": _ends(job.outputs),
        "output_collections": {},
    }


def _ends(ends: tuple[DatasetEnd, ...]) -> dict[str, dict[str, Any]]:
    return {end.role: {"id": end.id, "src": "hda", "uuid": end.uuid} for end in ends}


def _naive(time: datetime | None) -> str | None:
    """A time as Galaxy writes it: UTC, without saying so."""
    if time is None:
        return None
    return (time.astimezone(UTC) if time.tzinfo else time).replace(tzinfo=None).isoformat()


def _time(values: list[str] | None) -> datetime | None:
    return datetime.fromisoformat(values[0]).replace(tzinfo=UTC) if values else None
