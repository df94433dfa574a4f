"""Answers as a Galaxy does, with jobs of two inputs and two outputs: `python -m` it with a count.

Prints its URL and serves until its stdin ends. A process of its own: what it takes is not ours.
"""

from __future__ import annotations

import json
import sys
import threading
import uuid
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

_START: Final = datetime(2026, 1, 1)
HISTORY: Final = "0123456789abcdef"
DATASETS_A_JOB: Final = 2


def job_id(number: int) -> str:
    """The encoded id of a job."""
    return f"{number:016x}"


def answer(count: int, path: str, query: dict[str, list[str]]) -> Any:
    """What Galaxy answers; None for what it does not have."""
    match path.removeprefix("/api/").split("/"):
        case ["version"]:
            return {"version_major": "26.1"}
        case ["users", "current"]:
            return {"id": "u", "email": "ada@example.org", "is_admin": True}
        case ["jobs"]:
            return _rows(count, query)
        case ["jobs", job, "build_for_rerun"]:
            return {"id": "tool", "version": "1.0", "state_inputs": _state(int(job, 16) or 1)}
        case ["jobs", job]:
            return _detail(int(job, 16))
        case ["datasets", hda]:
            return _dataset(int(hda, 16))
        case ["histories", history]:
            return {"id": history, "name": "bench", "tags": []}
    return None


def _rows(count: int, query: dict[str, list[str]]) -> list[dict[str, Any]]:
    least, most = (
        datetime.fromisoformat(query[name][0]) if name in query else None
        for name in ("date_range_min", "date_range_max")
    )
    if "state" in query:
        return []
    rows = [
        _row(number)
        for number in reversed(range(count))
        if (least is None or _time(number) >= least) and (most is None or _time(number) <= most)
    ]
    return rows[: int(query["limit"][0])]


def _row(number: int) -> dict[str, Any]:
    return {
        "model_class": "Job",
        "id": job_id(number),
        "tool_id": "tool" if number else "__DATA_FETCH__",
        "state": "ok",
        "create_time": _time(number).isoformat(),
        "update_time": _time(number).isoformat(),
        "history_id": HISTORY,
        "user_email": "ada@example.org",
    }


def _detail(number: int) -> dict[str, Any]:
    params = {f"parameter_{n}": json.dumps(f"value {n} {number % 10}") for n in range(20)}
    metrics = [
        {"name": f"metric_{n}", "plugin": "cgroup", "raw_value": str(n), "title": "t", "value": "v"}
        for n in range(30)
    ]
    return _row(number) | {
        "params": params | {"chromInfo": '"/x/len/?.len"', "dbkey": '"?"'},
        "inputs": {f"in{n}": _end(number - 1, n) for n in range(DATASETS_A_JOB)} if number else {},
        "outputs": {f"out{n}": _end(number, n) for n in range(DATASETS_A_JOB)},
        "output_collections": {},
        "job_metrics": metrics,
        "command_line": "tool " * 100,
        "exit_code": 0,
        "galaxy_version": "26.1",
    }


def _end(job: int, output: int) -> dict[str, Any]:
    number = _dataset_number(job, output)
    return {"id": job_id(number), "src": "hda", "uuid": str(uuid.UUID(int=number))}


def _state(number: int) -> dict[str, Any]:
    given = {
        f"in{n}": {"values": [{"src": "hda", "id": _end(number - 1, n)["id"]}]}
        for n in range(DATASETS_A_JOB)
    }
    return given | {f"parameter_{n}": f"value {n}" for n in range(20)}


def _dataset(number: int) -> dict[str, Any]:
    return {
        "id": job_id(number),
        "uuid": str(uuid.UUID(int=number)),
        "name": f"data {number}",
        "extension": "tabular",
        "state": "ok",
        "file_size": 1000,
        "hashes": [{"hash_function": "SHA-256", "hash_value": f"{number:064x}"}],
        "deleted": False,
        "purged": False,
        "history_id": HISTORY,
        "create_time": _START.isoformat(),
        "tags": [],
        "peek": "<table>" + "<tr><td>1</td></tr>" * 50 + "</table>",
        "metadata_column_types": ["int"] * 20,
    }


def _dataset_number(job: int, output: int) -> int:
    return 1 + DATASETS_A_JOB * job + output


def _time(number: int) -> datetime:
    return _START + timedelta(minutes=number)


def main() -> None:
    """Serve as many jobs as the first argument says."""
    count = int(sys.argv[1])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            found = answer(count, parts.path, parse_qs(parts.query))
            body = json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()
