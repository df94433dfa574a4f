"""`/healthz` and `/metrics` over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

import msgspec

from biobank_core.errors import ConfigurationError
from sync_service.metrics import Metrics
from sync_service.vitals import STALLED_AFTER_S, Part

_MAX_REQUEST_S: Final = 10


def health(parts: Sequence[Part], *, stalled_after_s: float) -> tuple[bool, dict[str, Any]]:
    """Whether all is well, and how each part is."""
    signs = [part.sign() for part in parts]
    stalled = [sign.part for sign in signs if sign.stalled(stalled_after_s)]
    told = {
        sign.part: {
            "idle_s": round(sign.idle_s, 1),
            "waiting": sign.waiting,
            "trouble": sign.trouble,
            "stalled": sign.part in stalled,
        }
        for sign in signs
    }
    return not stalled, {"healthy": not stalled, "parts": told}


class HealthServer:
    """Answers at `address` (`HOST:PORT`) as long as the block lasts.

    `/healthz` is 200 or, when something waits and nothing has moved for `stalled_after_s`, 503;
    both with JSON that says how each part is.
    """

    def __init__(
        self,
        address: str,
        *,
        parts: Sequence[Part],
        metrics: Metrics,
        stalled_after_s: float = STALLED_AFTER_S,
    ) -> None:
        host, mark, port = address.rpartition(":")
        if not mark or not port.isascii() or not port.isdigit():
            raise ConfigurationError(f"--listen {address}: must be HOST:PORT")
        handler = _handler(parts, metrics, stalled_after_s)
        try:
            self._server = _Server((host.strip("[]"), int(port)), handler)
        except (OSError, OverflowError) as exc:
            raise ConfigurationError(f"--listen {address}: {exc}") from exc
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="health", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


def _handler(
    parts: Sequence[Part], metrics: Metrics, stalled_after_s: float
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _MAX_REQUEST_S

        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/healthz":
                    well, told = health(parts, stalled_after_s=stalled_after_s)
                    body = msgspec.json.encode(told) + b"\n"
                    self._answer(200 if well else 503, "application/json", body)
                case "/metrics":
                    for part in parts:
                        metrics.idle.labels(part.name).set(part.sign().idle_s)
                    self._answer(200, "text/plain; version=0.0.4; charset=utf-8", metrics.text())
                case _:
                    self._answer(404, "text/plain", b"/healthz or /metrics\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Silent: a probe asks every few seconds."""

    return Handler
