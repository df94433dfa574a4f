"""A session on an OMERO server: its calls, counted; opened again when it was lost.

Reading calls are simply made again. Of a writing call whose answer was lost nobody knows whether
it was done: it raises UnknownFate, and the caller finds out.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import Glacier2
import Ice
import omero
import omero.clients
import omero.sys
from omero.rtypes import rint, rlist, rlong, rstring

from biobank_core.catalog.omero.address import Account, Address
from biobank_core.errors import (
    BiobankError,
    ConfigurationError,
    NotPermittedError,
    StorageError,
    UnreachableError,
)

T = TypeVar("T")

Value = str | int | Sequence[str] | Sequence[int]

# A session that is not used is ended by the server after ten minutes.
_KEEP_ALIVE_S: Final = 60
# A server that is started again is back after about half a minute.
_REOPEN_S: Final = 60.0
_LONGEST_PAUSE_S: Final = 5.0
_AGENT: Final = "biobank"
_MAX_SHOWN_CHARS: Final = 300

# What OMERO raises when another transaction came first, whatever it is called.
_RACES: Final = (omero.ValidationException, omero.ConcurrencyException)


class UnknownFate(Exception):
    """The connection broke in the middle of a writing call: it was done or it was not."""


class LostRace(Exception):
    """Nothing of the call was done: something of it stood in the way of another one's."""


class Session:
    """Calls to one server under one account.

    `round_trips` counts the calls since it was made.
    """

    def __init__(self, address: Address, account: Account) -> None:
        self.address: Final = address
        self.round_trips = 0
        self._account = account
        self._closed = False
        self._client: Any = None
        self._query: Any = None
        self._update: Any = None
        self._open()
        # A session that is left open holds memory in the server until it times out.
        self._finalizer = weakref.finalize(self, _end, [self._client])
        atexit.register(_close_weakly, weakref.ref(self))

    @property
    def user_id(self) -> int:
        """The id of the account."""
        return int(self.context.userId)

    @property
    def is_administrator(self) -> bool:
        return bool(self.context.isAdmin)

    def close(self) -> None:
        """End the session. Idempotent."""
        self._closed = True
        self._let_go()

    def refuse_closed(self) -> None:
        """Raises ConfigurationError after `close`."""
        if self._closed:
            raise ConfigurationError(f"{self.address.url} is closed")

    def projection(
        self,
        hql: str,
        parameters: Mapping[str, Value] | None = None,
        *,
        group: int,
        limit: int | None = None,
    ) -> list[list[Any]]:
        """The rows of a query over columns; `group` -1 asks in all groups of the account."""
        given = _parameters(parameters or {}, limit)
        rows = self._read(lambda: self._query.projection(hql, given, _context(group)))
        return [[None if cell is None else cell.val for cell in row] for row in rows]

    def objects(
        self, hql: str, parameters: Mapping[str, Value] | None = None, *, group: int
    ) -> list[Any]:
        """The objects that a query finds."""
        given = _parameters(parameters or {}, None)
        found: list[Any] = self._read(
            lambda: self._query.findAllByQuery(hql, given, _context(group))
        )
        return found

    def save(self, items: Sequence[Any], *, group: int) -> None:
        """Save all of these in one transaction. Raises UnknownFate and LostRace."""
        self._write(lambda: self._update.saveArray(list(items), _context(group)))

    def save_for_ids(self, items: Sequence[Any], *, group: int) -> list[int]:
        """The same, and the ids they got, in their order."""
        ids: list[int] = self._write(
            lambda: self._update.saveAndReturnIds(list(items), _context(group))
        )
        return ids

    def delete_row(self, item: Any, *, group: int) -> None:
        """Delete one object that nothing else refers to."""
        self._write(lambda: self._update.deleteObject(item, _context(group)))

    def delete(self, targets: Mapping[str, Sequence[int]], *, group: int) -> None:
        """Delete these objects by kind and id, all or none, and wait until it is done."""
        from omero.cmd import ERR, Delete2  # noqa: PLC0415

        command = Delete2(targetObjects={name: list(ids) for name, ids in targets.items()})

        def run() -> Any:
            callback = self._client.submit(
                command, loops=600, ms=500, failonerror=False, ctx=_context(group)
            )
            try:
                return callback.getResponse()
            finally:
                callback.close(True)

        answer = self._write(run)
        if isinstance(answer, ERR):
            raise NotPermittedError(f"{self.address.server} refuses to delete: {answer.name}")

    def call(self, work: Callable[[Any], T]) -> T:
        """A reading call on the service factory, such as asking who is in a group."""
        return self._read(lambda: work(self._client.getSession()))

    def reopen(self) -> None:
        """A new session in place of a lost one; waits for a server that is being started.

        Raises UnreachableError when it does not come back.
        """
        self.refuse_closed()
        former = self._own_uuid()
        self._let_go()
        until = time.monotonic() + _REOPEN_S
        pause = 0.2
        while True:
            try:
                self._open()
            except UnreachableError:
                if time.monotonic() > until:
                    raise
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
            else:
                self._finalizer.detach()
                self._finalizer = weakref.finalize(self, _end, [self._client])
                if former is not None:
                    # Over a connection that is gone it could not be told to end.
                    quietly(functools.partial(self._client.destroySession, former))
                return

    def _own_uuid(self) -> str | None:
        """The session that we opened ourselves, if it is known."""
        if self._client is None or self._account.session_key is not None:
            return None
        try:
            return str(self._client.getSessionId())
        except (Ice.Exception, omero.ClientError):
            return None

    def _open(self) -> None:
        self.round_trips += 1
        client = omero.client(host=self.address.host, port=self.address.port)
        try:
            client.setAgent(_AGENT)
            if self._account.session_key is not None:
                factory = client.joinSession(self._account.session_key)
                # It is somebody else's: ours is only to leave it.
                factory.detachOnDestroy()
            else:
                client.createSession(self._account.user, self._account.password)
            client.enableKeepAlive(_KEEP_ALIVE_S)
            factory = client.getSession()
            self._query = factory.getQueryService()
            self._update = factory.getUpdateService()
            self.context = factory.getAdminService().getEventContext()
        except BaseException as exc:
            _end([client])
            if isinstance(exc, Ice.Exception | omero.ClientError):
                raise self._refused(exc) from None  # (its text may quote what was sent)
            raise
        self._client = client

    def _let_go(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            _end([client])

    def _read(self, call: Callable[[], T]) -> T:
        self.refuse_closed()
        for last in (False, False, True):
            self.round_trips += 1
            try:
                return call()
            except omero.ServerError as exc:
                if isinstance(exc, omero.ConcurrencyException) and not last:
                    time.sleep(0.1)
                    continue
                if not isinstance(exc, omero.SessionException) or last:
                    raise self._translated(exc) from exc
            except Ice.Exception as exc:
                if last:
                    raise self._translated(exc) from exc
            self.reopen()
        raise AssertionError

    def _write(self, call: Callable[[], T]) -> T:
        self.refuse_closed()
        self.round_trips += 1
        try:
            return call()
        except omero.SessionException as exc:
            raise UnknownFate from exc
        except _RACES as exc:
            raise LostRace(_first_line(exc.message)) from exc
        except omero.ServerError as exc:
            raise self._translated(exc) from exc
        except Ice.Exception as exc:
            raise UnknownFate from exc

    def _translated(self, exc: Exception) -> BiobankError:
        place = self.address.server
        if isinstance(exc, omero.SecurityViolation):
            return NotPermittedError(f"{place}: this account may not do this")
        if isinstance(exc, omero.ServerError):
            return StorageError(f"{place}: {type(exc).__name__}: {_first_line(exc.message)}")
        return UnreachableError(f"{place} breaks off ({type(exc).__name__})")

    def _refused(self, exc: Exception) -> BiobankError:
        place = self.address.server
        if isinstance(exc, Glacier2.PermissionDeniedException):
            # A server whose database is down refuses with the same class.
            if "internal server error" in exc.reason.lower():
                return UnreachableError(f"{place} can't open a session now (internal server error)")
            return NotPermittedError(
                f"{place}: user or password is wrong, or the session key is of a session that is "
                "over; set OMERO_USER and OMERO_PASSWORD, or OMERO_SESSION_KEY"
            )
        if isinstance(exc, omero.SecurityViolation | omero.RemovedSessionException):
            return NotPermittedError(f"{place}: this account may not log in")
        return UnreachableError(f"{place} can't be reached ({type(exc).__name__})")


def quietly(work: Callable[[], object]) -> None:
    """Do what is nice to have done: when it can't be done, nobody is the worse for it."""
    with contextlib.suppress(UnknownFate, LostRace, BiobankError, Ice.Exception, omero.ServerError):
        work()


def pages(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The values in parts of at most `size`."""
    for first in range(0, len(values), size):
        yield values[first : first + size]


def _context(group: int) -> dict[str, str]:
    return {"omero.group": str(group)}


def _parameters(values: Mapping[str, Value], limit: int | None) -> Any:
    parameters = omero.sys.ParametersI()
    for name, value in values.items():
        parameters.map[name] = _typed(value)
    if limit is not None:
        parameters.page(rint(0), rint(limit))
    return parameters


def _typed(value: Value) -> Any:
    if isinstance(value, str):
        return rstring(value)
    if isinstance(value, int):
        return rlong(value)
    return rlist([_typed(part) for part in value])


def _first_line(message: str | None) -> str:
    lines = (message or "").strip().splitlines()
    return lines[0][:_MAX_SHOWN_CHARS] if lines else ""


def _end(clients: list[Any]) -> None:
    for client in clients:
        with contextlib.suppress(Ice.Exception, omero.ClientError, omero.ServerError):
            client.closeSession()


def _close_weakly(reference: weakref.ref[Session]) -> None:
    session = reference()
    if session is not None:
        session.close()
