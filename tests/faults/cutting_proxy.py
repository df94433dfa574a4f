"""A TCP proxy that cuts connections after some bytes: what the other end did stays unknown."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from typing import Self

_CHUNK = 4096


class CuttingProxy:
    """Between a client and `port` of this machine; its own port is `port`.

    While `cutting` is set, each connection is reset after a random number of bytes that the server
    has sent (what the client sent has arrived, its answer has not).
    """

    def __init__(self, target_port: int, *, chance: random.Random, most_bytes: int) -> None:
        self._target = target_port
        self._chance = chance
        self._most = most_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cutting = threading.Event()
        self.cuts = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        # A thread in `accept` is not woken by `close` alone.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=10)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, may_cut: bool) -> None:
        left = self._chance.randint(200, self._most)
        try:
            while data := source.recv(_CHUNK):
                left -= len(data)
                if may_cut and left <= 0 and self.cutting.is_set():
                    self.cuts += 1
                    break
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
