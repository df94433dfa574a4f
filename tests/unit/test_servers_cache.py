"""What the tests' servers are installed with, where a download breaks off."""

from __future__ import annotations

import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest

from tests.servers import cache

_WHEEL = "halved-1.0-py3-none-any.whl"


@pytest.fixture
def index() -> Iterator[str]:
    """The URL of a package index that breaks off in the middle of its first wheel."""
    whole = _wheel()
    broken = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wheel = self.path.endswith(".whl")
            body = whole if wheel else f'<a href="/{_WHEEL}">{_WHEEL}</a>'.encode()
            self.send_response(200)
            self.send_header("content-type", "application/zip" if wheel else "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if wheel and not broken.is_set():
                broken.set()
                body = body[: len(body) // 2]
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        assert broken.is_set()
        server.shutdown()


def _wheel() -> bytes:
    info = "halved-1.0.dist-info"
    files = {
        "halved.py": f"{os.urandom(50_000).hex()!r}\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: halved\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    made = BytesIO()
    with zipfile.ZipFile(made, "w") as packed:
        for name, text in (*files.items(), (f"{info}/RECORD", record)):
            packed.writestr(name, text)
    return made.getvalue()


def test_a_download_that_breaks_off_is_repeated(
    index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", index)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setattr(cache, "_PAUSE_S", 0.0)
    what = ("--no-deps", "--dest", tmp_path, "halved==1.0")
    cache.run_pip(Path(sys.executable), "download", *what)
    assert zipfile.ZipFile(tmp_path / _WHEEL).testzip() is None
