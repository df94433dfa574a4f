"""The connection to a Neo4j server: its URL, its transactions, and what its errors mean to us."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import neo4j
from neo4j import exceptions as neo

from biobank_core.errors import (
    BiobankError,
    ConfigurationError,
    NotPermittedError,
    StorageError,
    UnreachableError,
)

T = TypeVar("T")

SCHEMES: Final = ("neo4j", "neo4j+s", "neo4j+ssc", "bolt", "bolt+s", "bolt+ssc")
# The first long-term release with labels given as parameters and CALL (x) { }.
OLDEST_SERVER: Final = (5, 26)

# A server that does not answer is found out in this time; then the catalog itself is asked.
_CONNECT_TIMEOUT_S: Final = 5.0
# Deadlocks between writers, a change of leader in a cluster: tried again for so long.
_RETRY_S: Final = 15.0
# A commit whose answer was lost is done again: it changes nothing when it was done before.
_UNKNOWN_FATES: Final = 3
_FETCH: Final = 5_000

# Codes of https://neo4j.com/docs/status-codes/5/errors/all-errors/ that need words of their own.
_READ_ONLY: Final = (
    "Neo.ClientError.General.ForbiddenOnReadOnlyDatabase",
    "Neo.ClientError.General.ReadOnly",
    "Neo.ClientError.General.WriteOnReadOnlyAccessDatabase",
    "Neo.ClientError.Cluster.NotALeader",
)
_CONSTRAINT: Final = "Neo.ClientError.Schema.ConstraintValidationFailed"
_NO_DATABASE: Final = ("Neo.ClientError.Database.DatabaseNotFound",)
OUT_OF_MEMORY: Final = (
    "Neo.TransientError.General.MemoryPoolOutOfMemoryError",
    "Neo.TransientError.General.TransactionMemoryLimit",
    "Neo.TransientError.General.OutOfMemoryError",
)


class OutOfMemoryError(UnreachableError):
    """The server has no memory for a transaction of this size; a smaller one may do."""


class ConstraintError(StorageError):
    """Something is there already that the ledger does not know of."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is (`uri`, as the driver takes it), and which database (None: its own)."""

    uri: str
    database: str | None
    shown: str


def parse(url: str) -> Address:
    """The address of `neo4j://host:port/database?database=name`; the last two are optional.

    Raises ConfigurationError for a URL that is none.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise ConfigurationError("the index: not a URL") from exc
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise ConfigurationError(
            "a Neo4j index is named by a URL such as neo4j://host:7687 or bolt+s://host/database"
        )
    if parts.username or parts.password:
        raise ConfigurationError(
            "the index: leave user and password out of the URL; set NEO4J_USER and NEO4J_PASSWORD"
        )
    query = parse_qsl(parts.query, keep_blank_values=True)
    named = [value for key, value in query if key == "database"]
    named += [parts.path.strip("/")] if parts.path.strip("/") else []
    if len(set(named)) > 1:
        raise ConfigurationError("the index: the URL names two databases")
    # What is left is the routing context of a cluster, the server's own affair.
    rest = urlencode([(key, value) for key, value in query if key != "database"])
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = f"{parts.scheme}://{host}:{port or 7687}"
    database = named[0] if named else None
    return Address(
        uri=f"{place}?{rest}" if rest else place,
        database=database,
        shown=f"{place}/{database}" if database else place,
    )


class Connection:
    """Transactions on one database. Opens nothing before the first use; for use by threads."""

    def __init__(self, address: Address, auth: tuple[str, str] | None) -> None:
        self.address = address
        self._auth = auth
        self._driver: neo4j.Driver | None = None
        self._closed = False
        self._bookmarks = neo4j.GraphDatabase.bookmark_manager()
        self._seen: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether the server was reached and fits."""
        return self._driver is not None

    def open(self) -> None:
        """Reach the server and see that it is new enough. Idempotent."""
        if self._closed:
            raise ConfigurationError(f"the lineage index {self.address.shown} was closed")
        if self._driver is not None:
            return
        with self.errors():
            driver = neo4j.GraphDatabase.driver(
                self.address.uri,
                auth=self._auth,
                connection_timeout=_CONNECT_TIMEOUT_S,
                max_transaction_retry_time=_RETRY_S,
                notifications_min_severity="OFF",
                user_agent="galaxy-biobank",
            )
        try:
            with self.errors():
                agent = driver.get_server_info().agent
            self._check_version(agent)
        except BaseException:
            driver.close()
            raise
        self._driver = driver

    def close(self) -> None:
        """Let go of it. Idempotent."""
        self._closed = True
        if self._driver is not None:
            self._driver.close()
            self._driver = None

    def read(self, work: Callable[[neo4j.ManagedTransaction], T]) -> T:
        """Do this in one reading transaction."""
        with self.errors(), self._session(neo4j.READ_ACCESS) as session:
            return session.execute_read(work)

    def rows(self, query: str, parameters: Mapping[str, object]) -> list[list[Any]]:
        """All rows of one reading query: one round trip, where a transaction would take three.

        Tried once more where that may help: connections kept from before a restart of the server
        are dead, and the first try finds that out.
        """
        with self.errors():
            try:
                with self._session(neo4j.READ_ACCESS) as session:
                    return session.run(query, dict(parameters)).values()
            except (neo.DriverError, neo.Neo4jError) as exc:
                if not exc.is_retryable():
                    raise
            with self._session(neo4j.READ_ACCESS) as session:
                return session.run(query, dict(parameters)).values()

    def write(self, work: Callable[[neo4j.ManagedTransaction], T]) -> T:
        """Do this in one writing transaction; it may be done more than once, so be idempotent."""

        def guarded(tx: neo4j.ManagedTransaction) -> T:
            try:
                return work(tx)
            except neo.Neo4jError as exc:
                if exc.code in OUT_OF_MEMORY:
                    # The driver would try the very same again, for as long as it may.
                    raise self._translated(exc) from exc
                raise

        for left in range(_UNKNOWN_FATES, -1, -1):
            try:
                with self.errors(), self._session(neo4j.WRITE_ACCESS) as session:
                    return session.execute_write(guarded)
            except UnreachableError as exc:
                if not left or not isinstance(exc.__cause__, neo.IncompleteCommit):
                    raise
        raise AssertionError("unreachable")

    def write_alone(self, query: str, parameters: Mapping[str, object]) -> None:
        """A statement that makes transactions of its own (CALL { } IN TRANSACTIONS, schema)."""
        with self.errors(), self._session(neo4j.WRITE_ACCESS) as session:
            session.run(query, dict(parameters)).consume()

    def bookmarks(self) -> tuple[str, ...]:
        """What another connection is to be given so that it sees what this one wrote."""
        return tuple(sorted({*self._bookmarks.get_bookmarks(), *self._seen}))

    def see(self, bookmarks: Iterable[str]) -> None:
        """Answer only when all of this is there (in a cluster; one server has it at once)."""
        self._seen = tuple(sorted({*self._seen, *bookmarks}))

    def _session(self, mode: str) -> neo4j.Session:
        self.open()
        assert self._driver is not None
        return self._driver.session(
            database=self.address.database,
            default_access_mode=mode,
            bookmark_manager=self._bookmarks,
            bookmarks=neo4j.Bookmarks.from_raw_values(self._seen) if self._seen else None,
            fetch_size=_FETCH,
        )

    def _check_version(self, agent: str) -> None:
        numbers = agent.rpartition("/")[2].split(".")[:2]
        try:
            version = tuple(int(number) for number in numbers)
        except ValueError:
            return  # something that speaks Bolt and calls itself otherwise
        if version < OLDEST_SERVER:
            oldest = ".".join(map(str, OLDEST_SERVER))
            raise ConfigurationError(
                f"{self.address.shown} is {agent}; the lineage index needs Neo4j {oldest} or later"
            )

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns what the driver raises inside into errors of ours that name the server."""
        try:
            yield
        except (neo.DriverError, neo.Neo4jError, OSError, ValueError) as exc:
            raise self._translated(exc) from exc

    def _translated(self, exc: Exception) -> BiobankError:
        place = f"the lineage index {self.address.shown}"
        if isinstance(exc, neo.AuthError):
            return NotPermittedError(
                f"{place}: user or password is wrong, or may not do this; set NEO4J_USER and "
                "NEO4J_PASSWORD"
            )
        if isinstance(exc, neo.Neo4jError):
            return self._of_server(exc, place)
        if isinstance(exc, neo.ServiceUnavailable | neo.SessionExpired | OSError):
            return UnreachableError(f"{place} can't be reached")
        if isinstance(exc, neo.ConfigurationError | ValueError):
            return ConfigurationError(f"{place}: {exc}")
        return UnreachableError(f"{place} breaks off ({type(exc).__name__})")

    def _of_server(self, exc: neo.Neo4jError, place: str) -> BiobankError:
        code = exc.code or ""
        if code in OUT_OF_MEMORY:
            return OutOfMemoryError(f"{place} has no memory for this now ({code})")
        if code == _CONSTRAINT:
            return ConstraintError(f"{place}: {(exc.message or '')[:300]}")
        if code in _READ_ONLY:
            return UnreachableError(f"{place} takes no writes now: it is read-only")
        if code in _NO_DATABASE:
            return ConfigurationError(f"{place}: there is no database of this name")
        if code.startswith("Neo.ClientError.Security."):
            return NotPermittedError(f"{place}: not permitted ({code})")
        if isinstance(exc, neo.TransientError) or exc.is_retryable():
            return UnreachableError(f"{place} can't do this now ({code})")
        if code.startswith("Neo.DatabaseError.") and ".Statement." not in code:
            return UnreachableError(f"{place} fails; see its own log ({code})")
        return StorageError(f"{place}: {code}: {(exc.message or '')[:300]}")


def run(tx: neo4j.ManagedTransaction, query: str, **parameters: object) -> neo4j.Result:
    """Run one of our own statements; values are parameters, never part of its text."""
    return tx.run(query, parameters)
