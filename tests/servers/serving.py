"""What the servers of the tests have in common: started and stopped, also as programs."""

from __future__ import annotations

import json
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self


class Server(ABC):
    """A server of ours; in a `with` it runs."""

    @abstractmethod
    def start(self) -> None:
        """Start it; return when it can be used."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it and wait until it is gone; remove a temporary folder."""

    @abstractmethod
    def ensure_alive(self) -> None:
        """Raise a ServerError with the log's tail if it has ended."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM end what is inside, in good order, as something that was asked for."""

    def interrupt(signal_number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)  # a shell's background job starts with it ignored
    try:
        yield
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)


def serve(
    server: Server, ready: Callable[[], Mapping[str, object]], *, keep_running: bool = True
) -> None:
    """Run it as a program: what `ready` gives is printed as one line of JSON."""
    with until_interrupted(), server:
        print(json.dumps({**ready(), "ready": True}), flush=True)
        if keep_running:
            watch(server)


def watch(*servers: Server) -> None:
    """Wait until one of them ends by itself, which is a ServerError."""
    while True:
        for server in servers:
            server.ensure_alive()
        time.sleep(1)
