"""Galaxy's own events as a wake-up: which history changed, told to its owner, with losses.

Galaxy (26.0 and later, with `enable_sse_updates`) keeps `GET /api/events/stream` open and sends
server-sent events (WHATWG HTML, "Server-sent events"), a comment every 30 s. There is no event at
the end of a job, and an administrator is not told of other people's histories: so nothing is read
from an event but that it came.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Final

import requests

from biobank_core.errors import BiobankError, NotPermittedError
from biobank_core.galaxy.client import GalaxyClient

log = logging.getLogger(__name__)

STREAM: Final = "events/stream"
# Three of Galaxy's comments are missing: nobody is there any more.
SILENCE_S: Final = 95.0
_FIRST_BACK_OFF_S: Final = 5.0
_LONGEST_BACK_OFF_S: Final = 300.0
# `ready` comes with each new connection: events may have been lost before it.
_WAKING: Final = frozenset({"history_update", "ready"})
_MAX_LINE_BYTES: Final = 65_536


class Doorbell:
    """Rings when Galaxy says that something changed; silent on a server that says nothing.

    `ring` is called from a thread of its own. Polling must go on beside it.
    """

    def __init__(self, client: GalaxyClient, ring: Callable[[], None]) -> None:
        self._client = client
        self._ring = ring
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="galaxy-events", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Listen no more. The thread ends with the next line, or with the process."""
        self._stopped.set()

    def _listen(self) -> None:
        back_off_s = _FIRST_BACK_OFF_S
        while not self._stopped.is_set():
            try:
                response = self._client.stream(STREAM, silence_s=SILENCE_S)
            except NotPermittedError:
                return  # the recording itself says that the key is refused
            except BiobankError as exc:
                if not exc.retryable:
                    log.info("this Galaxy sends no events: it is asked by the clock alone")
                    return
            else:
                with response:
                    if self._read(response):
                        back_off_s = _FIRST_BACK_OFF_S
            self._stopped.wait(back_off_s)
            back_off_s = min(back_off_s * 2, _LONGEST_BACK_OFF_S)

    def _read(self, response: requests.Response) -> bool:
        """Ring for each event until the stream ends; whether any came."""
        heard = False
        try:
            for line in _lines(response):
                if self._stopped.is_set():
                    break
                name, _, value = line.partition(b":")
                if name == b"event" and value.strip().decode("ascii", "replace") in _WAKING:
                    heard = True
                    self._ring()
        except (requests.RequestException, OSError) as exc:
            log.debug("the stream of events ended: %s", type(exc).__name__)
        return heard


def _lines(response: requests.Response) -> Iterator[bytes]:
    """The lines as they come; an endless one ends it."""
    buffer = b""
    for chunk in response.iter_content(None):
        buffer += chunk
        *lines, buffer = buffer.split(b"\n")
        yield from (line.rstrip(b"\r") for line in lines)
        if len(buffer) > _MAX_LINE_BYTES:
            return
