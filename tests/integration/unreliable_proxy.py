"""Stands between a client and a real Galaxy, and does what networks and web servers do."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_HTML = b"<html><body><h1>Galaxy is down for maintenance</h1></body></html>"
# Of the connection between two servers, not of the answer.
_HOP = frozenset({"connection", "transfer-encoding", "content-length", "content-encoding"})


@dataclass
class UnreliableProxy:
    """`fault` says of each path what to do with it: None (pass it on), `cut`, `html`, `500`."""

    url: str = ""
    fault: Callable[[str], str | None] = lambda _path: None
    asked: list[str] = field(default_factory=list)


@contextmanager
def unreliable(upstream: str) -> Iterator[UnreliableProxy]:
    """A proxy before the Galaxy at `upstream`, on a free port of this machine."""
    made = UnreliableProxy()
    target = urlsplit(upstream)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            match made.fault(self.path):
                case "cut":
                    # Without the rest of an answer that was promised.
                    self.send_response(200)
                    self.send_header("content-length", "1000")
                    self.end_headers()
                    self.wfile.write(b"[{")
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                case "html":
                    self._send(200, "text/html", _HTML)
                case "500":
                    self._send(500, "text/plain", b"Internal Server Error")
                case _:
                    self._pass_on()

        def _pass_on(self) -> None:
            connection = http.client.HTTPConnection(target.hostname or "", target.port)
            headers = {n: v for n, v in self.headers.items() if n.lower() not in ("host", *_HOP)}
            headers["accept-encoding"] = "identity"
            connection.request("GET", self.path, headers=headers)
            answer = connection.getresponse()
            self._send(answer.status, answer.getheader("content-type") or "", answer.read())
            connection.close()

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Silent."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Silent: connections are cut on purpose."""

    with Server(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        made.url = f"http://127.0.0.1:{httpd.server_address[1]}"
        yield made
        httpd.shutdown()
        thread.join()
