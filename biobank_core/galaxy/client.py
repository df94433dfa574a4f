"""The one adapter to bioblend: errors of our tree, retries, time-outs, a request counter.

No text that leaves this module holds the API key.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import bioblend
import msgspec
import requests
import tenacity
from bioblend.galaxy import GalaxyInstance

from biobank_core.errors import (
    BiobankError,
    ConfigurationError,
    InputError,
    NotFoundError,
    NotPermittedError,
    UnreachableError,
)

T = TypeVar("T")
R = TypeVar("R")

# The oldest Galaxy whose answers have the shape that we read (dataset uuids in job details).
OLDEST_GALAXY: Final = (23, 1)

REQUEST_TIMEOUT_S: Final = 120.0
# One list page of Galaxy's is below 5 MB; more than this is not an answer but an accident.
MAX_ANSWER_BYTES: Final = 512 * 1024 * 1024
# Enough to hide the latency of a remote server, few enough not to be a burden for it.
CONCURRENT_REQUESTS: Final = 8

_ATTEMPTS: Final = 5
_BUSY_STATUS: Final = frozenset({429, 502, 503, 504})
_MAX_REASON_CHARS: Final = 300


class GalaxyFaultError(UnreachableError):
    """Galaxy answers 500 to one question while it goes on answering others."""

    retryable = False


class GalaxyBusyError(UnreachableError):
    """Galaxy, or what stands before it, says to come back later."""


class GalaxyUser(msgspec.Struct, frozen=True, kw_only=True):
    """Whose API key it is."""

    id: str
    email: str | None = None
    username: str | None = None
    is_admin: bool = False


class GalaxyClient:
    """A connection to one Galaxy server as one user.

    `gi` is bioblend's instance; wrap what you do with it in `call`, so that its errors become
    ours. `request_count` counts every request that was sent, retries included.
    """

    def __init__(self, url: str, key: str, *, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self.url = _checked_url(url)
        if not key:
            raise ConfigurationError(
                "no API key for Galaxy: set GALAXY_API_KEY (make one in Galaxy under "
                "User > Preferences > Manage API Key)"
            )
        if not key.isascii() or not key.isprintable():
            raise ConfigurationError("GALAXY_API_KEY holds characters that no API key has")
        self._key = key
        self._counter = _Counter()
        self.gi: GalaxyInstance = _Instance(self.url, key, timeout_s, self._counter)
        self.version = ""
        self.user = GalaxyUser(id="")

    @classmethod
    def connect(cls, url: str, key: str, *, timeout_s: float = REQUEST_TIMEOUT_S) -> GalaxyClient:
        """A client that has checked that a Galaxy answers there and takes the key.

        Raises UnreachableError (not there, not Galaxy, too old), NotPermittedError (the key).
        """
        client = cls(url, key, timeout_s=timeout_s)
        client.version = client._checked_version()
        client.user = client._current_user()
        return client

    def __repr__(self) -> str:
        return f"GalaxyClient({self.url!r})"

    @property
    def request_count(self) -> int:
        """How many requests were sent so far."""
        return self._counter.value

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """The decoded JSON answer to `GET <url>/api/<path>`; retried where that may help.

        Raises NotFoundError (404), NotPermittedError (401, 403), InputError (400),
        GalaxyFaultError (500), UnreachableError (no answer, or one that is not Galaxy's).
        """
        what = f"GET /api/{path}"
        target = f"{self.gi.url}/{path}"

        def ask(gi: GalaxyInstance) -> Any:
            response = gi.make_get_request(target, params=dict(params or {}), stream=True)
            with response:
                return self._decoded(what, response)

        return self.call(what, ask, retry=True)

    def stream(self, path: str, *, silence_s: float) -> requests.Response:
        """The open answer to `GET <url>/api/<path>` as a stream of events; the caller closes it.

        Not retried. Reading raises requests' errors, also when nothing comes for `silence_s`.
        Raises as `get` does, and NotFoundError for an answer that is no stream of events.
        """
        what = f"GET /api/{path}"
        target = f"{self.gi.url}/{path}"

        def ask(gi: GalaxyInstance) -> requests.Response:
            response: requests.Response = gi.make_get_request(
                target, stream=True, timeout=(REQUEST_TIMEOUT_S, silence_s)
            )
            if response.status_code == 200 and _is_event_stream(response):
                return response
            with response:
                if response.status_code == 200:
                    raise NotFoundError(f"{what} at {self.url}: no stream of events")
                raise self._refusal(
                    what, response.status_code, response.raw.read(_MAX_REASON_CHARS)
                )

        return self.call(what, ask)

    def call(self, what: str, do: Callable[[GalaxyInstance], T], *, retry: bool = False) -> T:
        """What `do` returns, its bioblend and transport errors translated to ours.

        `what` names it in messages. `retry` only for what may be done twice without harm.
        """
        if not retry:
            return self._once(what, do)
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=20),
            retry=tenacity.retry_if_exception(_may_help_to_retry),
            reraise=True,
        )
        result: T = retrying(self._once, what, do)
        return result

    def each(
        self, items: Iterable[T], ask: Callable[[T], R], *, workers: int = CONCURRENT_REQUESTS
    ) -> Iterator[tuple[T, R | BiobankError]]:
        """Every item with what `ask` returned or the error it raised, as they come.

        At most `workers` run at a time, and items are taken only when one is free.
        """
        source = iter(items)
        with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="galaxy") as pool:
            running: dict[Future[R], T] = {}
            try:
                while True:
                    while len(running) < workers:
                        try:
                            item = next(source)
                        except StopIteration:
                            break
                        running[pool.submit(ask, item)] = item
                    if not running:
                        return
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        item = running.pop(future)
                        try:
                            yield item, future.result()
                        except BiobankError as exc:
                            yield item, exc
            finally:
                for future in running:
                    future.cancel()

    def _once(self, what: str, do: Callable[[GalaxyInstance], T]) -> T:
        try:
            return do(self.gi)
        except bioblend.ConnectionError as exc:
            if exc.status_code is None:
                raise UnreachableError(self._no_answer()) from exc
            raise self._refusal(what, exc.status_code, exc.body) from exc
        except (requests.ConnectionError, requests.Timeout) as exc:
            raise UnreachableError(self._no_answer()) from exc
        except requests.exceptions.ChunkedEncodingError as exc:
            raise UnreachableError(
                f"Galaxy at {self.url} went away in the middle of its answer to {what}"
            ) from exc
        except requests.RequestException as exc:
            raise UnreachableError(f"{what} at {self.url}: {type(exc).__name__}") from exc

    def _no_answer(self) -> str:
        return (
            f"no Galaxy answers at {self.url}: check the URL (--galaxy or GALAXY_URL), "
            "and that the server runs and can be reached from here"
        )

    def _decoded(self, what: str, response: requests.Response) -> Any:
        body = bytearray()
        for chunk in response.iter_content(64 * 1024):
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise UnreachableError(f"{what} at {self.url}: the answer has no end")
        if 300 <= response.status_code < 400:
            target = urlsplit(response.headers.get("location", ""))
            raise UnreachableError(
                f"{self.url} sends us on to {target.scheme}://{target.hostname or '?'}; "
                "give the URL of Galaxy itself (--galaxy or GALAXY_URL)"
            )
        if response.status_code != 200:
            raise self._refusal(what, response.status_code, bytes(body))
        try:
            return msgspec.json.decode(bytes(body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise UnreachableError(
                f"{self.url} answers {what} with something that is not Galaxy's JSON: "
                "is it the URL of a Galaxy (the page where one logs in)?"
            ) from exc

    def _refusal(self, what: str, status: int, body: bytes | str | None) -> BiobankError:
        reason = self._reason(body)
        if status == 401 or (status == 403 and "api key" in reason.lower()):
            return NotPermittedError(
                f"Galaxy at {self.url} refuses the API key: make a new one in Galaxy (User > "
                "Preferences > Manage API Key) and set GALAXY_API_KEY"
            )
        told = f"{what} at {self.url}: {reason or f'HTTP {status}'}"
        if status == 403:
            return NotPermittedError(told)
        if status in (404, 410):
            return NotFoundError(told)
        if status in (400, 409, 413, 422):
            return InputError(told)
        if status == 500:
            return GalaxyFaultError(told)
        if status in _BUSY_STATUS:
            return GalaxyBusyError(told)
        return UnreachableError(told)

    def _reason(self, body: bytes | str | None) -> str:
        """Galaxy's own words in an error answer; empty where there are none."""
        try:
            answer = msgspec.json.decode(body or b"null")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ""
        reason = answer.get("err_msg") if isinstance(answer, dict) else answer
        if not isinstance(reason, str):
            return ""
        reason = "".join(char if char.isprintable() else " " for char in reason)
        return reason.replace(self._key, "***")[:_MAX_REASON_CHARS]

    def _checked_version(self) -> str:
        try:
            answer = self.get("version")
        except NotFoundError as exc:
            raise UnreachableError(
                f"{self.url} is not a Galaxy: it has no /api/version; give the URL of the page "
                "where one logs in"
            ) from exc
        major = answer.get("version_major") if isinstance(answer, dict) else None
        match = re.match(r"(\d+)\.(\d+)", major) if isinstance(major, str) else None
        if match is None:
            raise UnreachableError(f"{self.url} does not say which version of Galaxy it is")
        if (int(match[1]), int(match[2])) < OLDEST_GALAXY:
            oldest = ".".join(map(str, OLDEST_GALAXY))
            raise UnreachableError(
                f"Galaxy at {self.url} is {major}; at least {oldest} is needed: ask for an upgrade"
            )
        return str(major)

    def _current_user(self) -> GalaxyUser:
        try:
            answer = self.get("users/current")
            return msgspec.convert(answer, GalaxyUser)
        except (NotFoundError, InputError, msgspec.ValidationError) as exc:
            raise NotPermittedError(
                f"the API key for Galaxy at {self.url} belongs to no user: use a user's own key"
            ) from exc


class _Counter:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.value = 0

    def add(self) -> None:
        with self._lock:
            self.value += 1


class _Instance(GalaxyInstance):
    """bioblend's, with connections that are kept open and lent to whichever thread asks.

    Redirects are not followed: the key would go to whatever host the answer names.
    """

    def __init__(self, url: str, key: str, timeout_s: float, counter: _Counter) -> None:
        self._idle: deque[requests.Session] = deque()
        self._counter = counter
        super().__init__(url=url, key=key)
        self.timeout = timeout_s

    def make_get_request(self, url: str, **options: Any) -> requests.Response:
        self._counter.add()
        try:
            session = self._idle.pop()
        except IndexError:
            session = requests.Session()
        options.setdefault("timeout", self.timeout)
        options.setdefault("verify", self.verify)
        options.setdefault("allow_redirects", False)
        try:
            return session.get(url, headers=self.json_headers, **options)
        finally:
            self._idle.append(session)

    def make_post_request(self, *args: Any, **options: Any) -> Any:
        self._counter.add()
        return super().make_post_request(*args, **options)

    def make_put_request(self, *args: Any, **options: Any) -> Any:
        self._counter.add()
        return super().make_put_request(*args, **options)


def server_key(url: str) -> str:
    """The name of a server in VIDs where `--galaxy-name` gives none: its host, lower-case."""
    return (urlsplit(_checked_url(url)).hostname or "").lower()


_BROKEN_OFF: Final = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)


def _is_event_stream(response: requests.Response) -> bool:
    return response.headers.get("content-type", "").startswith("text/event-stream")


def _may_help_to_retry(exc: BaseException) -> bool:
    if isinstance(exc, GalaxyBusyError):
        return True
    # Not Galaxy's protocol, or too many bytes: the same would come again.
    return isinstance(exc, UnreachableError) and isinstance(exc.__cause__, _BROKEN_OFF)


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as exc:
        raise InputError("not a URL", field="galaxy", value=url) from exc
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("needs a URL such as https://usegalaxy.org", field="galaxy", value=url)
    if parts.username or parts.password:
        raise InputError("the URL of Galaxy must not hold a user or a password", field="galaxy")
    return url.rstrip("/")
