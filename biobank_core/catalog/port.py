"""What a catalog does, whatever keeps it.

A catalog holds objects by VID, each with a version of our own: +1 a save, kept through deletion
and re-creation. All writing goes through `commit`, one atomic unit, all or nothing. The change
feed is written in the same transaction, so nothing that was committed can be missing from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

from biobank_core.model import codec
from biobank_core.model.base import Object
from biobank_core.model.kinds import DataObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """Save this object, knowing its state up to version `based_on` (0: it is new).

    A deleted object is re-created with `based_on` = the version of its tombstone.
    """

    object: Object
    based_on: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Delete the object, knowing its state up to version `based_on`; a Tombstone stays.

    Refused while anything refers to it. With `cascade`, parts are deleted with it and facts of the
    past (actions, collections) go on naming the tombstone; see `model.base.OnCascade`.
    """

    vid: str
    based_on: int
    cascade: bool = False


Change: TypeAlias = Save | Delete


@dataclass(frozen=True, slots=True)
class Versioned:
    """An object (or the Tombstone of one) and its version."""

    object: Object
    version: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a unit did: the new version of each object, in the order of the changes.

    `position` is where the feed stands after it; `lineage.wait` takes the receipt. `log` is the
    one that the versions count in, as in the feed (None: not known), `others` the receipts of
    units that other logs had to get with it.
    """

    versions: Mapping[str, int]
    position: Position
    log: str | None = None
    others: tuple[Receipt, ...] = ()


class ChangeKind(Enum):
    """What happened to an object."""

    SAVED = "saved"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class ChangedObject:
    """One line of a unit in the feed."""

    vid: str
    version: int
    kind: str
    change: ChangeKind


# How far a feed was read: log id -> number of the last unit. Empty: from the beginning.
Position: TypeAlias = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CommittedUnit:
    """One unit of the feed. `position` is where a reader stands after it."""

    log: str
    number: int
    position: Position
    time: datetime
    by: str
    changes: tuple[ChangedObject, ...]


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One version of one object: who, when, and the object as it then stood (None: deleted)."""

    version: int
    time: datetime
    by: str
    change: ChangeKind
    object: Object | None


@dataclass(frozen=True, slots=True)
class Referrer:
    """An object that refers to another: `vid`, of `kind`, names `target` in its `field`."""

    vid: str
    kind: str
    field: str
    target: str


@dataclass(frozen=True, slots=True)
class Drift:
    """An object that another program changed behind the catalog's back, and what was done.

    `left`: it was to be mended, and could not be.
    """

    vid: str
    kind: str
    detail: str
    left: bool = False


@runtime_checkable
class Removable(Protocol):
    """A catalog that shares its server with other programs' data, and can be taken out of it."""

    def holdings(self) -> dict[str, int]:
        """How much of ours there is, by sort."""

    def remove_all(self, advance: Callable[[int], None]) -> None:
        """Remove all of it; `advance` is told how many were removed since the last call."""


class Watch(Protocol):
    """Looks again and again at what other programs do to a catalog; see `Watchable`."""

    def reconcile(self) -> list[Drift]:
        """Compare all of the catalog with its log: what is wrong, and what is damaged."""

    def look(self) -> list[Drift]:
        """What is known to be wrong now, by what the server itself logged since the last look.

        A damaged log is a Drift without a VID.
        """


@runtime_checkable
class Watchable(Protocol):
    """A catalog on a server that tells what other programs do there."""

    def watch(self) -> Watch:
        """Begin to watch; what was done before is found by `reconcile`."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that was put into a catalog: its address, size, SHA-256 of what was put."""

    uri: str
    size_bytes: int
    sha256: str


class ContentStore(Protocol):
    """Where a catalog keeps files."""

    def put(
        self,
        vid: str,
        *,
        beside: str,
        name: str,
        mimetype: str | None,
        chunks: Iterable[bytes],
        advance: Callable[[float], object],
    ) -> Stored:
        """Keep these bytes for the DataObject `vid`, for whoever may read the object `beside`.

        `advance` is told of bytes. Nothing stays when it fails. Raises NotPermittedError,
        StorageError, UnreachableError.
        """

    def read(self, file: DataObject) -> Generator[bytes]:
        """The bytes of a file that was put; closed early, it lets go of it.

        Raises NotFoundError, NotPermittedError, InputError (no address of its own),
        UnreachableError.
        """

    def remove(self, stored: Stored, vid: str) -> None:
        """Take back what was put for `vid`."""


@runtime_checkable
class KeepsContent(Protocol):
    """A catalog that can keep the files behind data, not only what is known of them."""

    @property
    def content(self) -> ContentStore:
        """Where it keeps them."""


class Catalog(ABC):
    """The port. Every method raises errors of biobank_core.errors only.

    After `close` every method raises ConfigurationError. A catalog may be used from one thread at
    a time; several processes may have the same one open.
    """

    @property
    @abstractmethod
    def url(self) -> str:
        """Its address, without secrets."""

    @abstractmethod
    def schema_version(self) -> int:
        """The version of the storage; 0 where nothing was made yet."""

    @abstractmethod
    def migrate(self) -> None:
        """Bring the storage to the newest schema; makes it where there is none. Idempotent."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def commit(self, changes: Sequence[Change], *, by: str) -> Receipt:
        """Do all of the changes or none; `by` is who is written into the history.

        The order of changes does not matter for references inside the unit. Raises
        StaleVersionError (`based_on` is not the newest), DuplicateError (a unique label, code,
        barcode or device is taken), InputError (dangling reference, wrong kind of object referred
        to, a cycle, one VID twice, an object that changes its kind), ConflictError (a delete that
        would leave a reference dangling), NotFoundError (a delete of what is not there).
        """

    def transaction(self) -> AbstractContextManager[None]:
        """Several commits as one, all or nothing, where the driver can do that.

        Here each commit stands by itself. Events and feed are those of the single commits.
        """
        return nullcontext()

    @abstractmethod
    def get(self, vids: Iterable[str]) -> dict[str, Versioned]:
        """The objects of these VIDs, in bulk; unknown ones are not in the answer.

        A deleted one comes as its Tombstone.
        """

    def get_in(self, log: str, vids: Iterable[str]) -> dict[str, Versioned]:
        """The same as `get`, as this log of the feed has them.

        An object may stand in several logs, in versions of their own; one that was moved from one
        to another is a Tombstone where it was.
        """
        return self.get(vids)

    @abstractmethod
    def find(self, kind: str, where: Mapping[str, Any] | None = None) -> Iterator[Versioned]:
        """Objects of a kind (subkinds included) whose fields equal the given values, by VID.

        `where` names top-level fields as in JSON Lines (`label`, `study`, `code`, ...), or fields
        of `galaxy` with a dot (`galaxy.job_id`); a value that is a tuple means "one of these".
        Tombstones are only found with kind "Tombstone". Raises InputError for an unknown field.
        """

    def lines(self, kind: str, where: Mapping[str, Any] | None = None) -> Iterator[bytes]:
        """The objects of `find` as in JSON Lines, in any order.

        For who needs a few fields of very many objects: a driver that keeps lines gives them
        without decoding.
        """
        for item in self.find(kind, where):
            yield codec.encode(item.object)

    def lines_of(self, kinds: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """(kind, line) of all living objects of exactly these kinds, in any order.

        For who needs most of a catalog: a driver may read all of it in the order that is fastest.
        """
        for item in self.iterate(kinds):
            if item.object.kind != "Tombstone":
                yield item.object.kind, codec.encode(item.object)

    @abstractmethod
    def iterate(self, kinds: Iterable[str] | None = None) -> Iterator[Versioned]:
        """All objects (tombstones too) by VID, or those of exactly these kinds; streaming."""

    @abstractmethod
    def referring(
        self, vids: Iterable[str], kinds: Iterable[str] | None = None
    ) -> Iterator[Referrer]:
        """Who refers to these objects (living referrers only), in bulk.

        `kinds` limits the kinds of referrers, subkinds included.
        """

    @abstractmethod
    def count(self) -> dict[str, int]:
        """How many objects there are of each concrete kind, tombstones among them."""

    @abstractmethod
    def changes(self, since: Position) -> Iterator[CommittedUnit]:
        """The feed after `since`, in commit order of each log; at least once, nothing missing.

        Kinds of `model.registry.NOT_IN_FEED` are left out; a unit of only such is left out too.
        """

    @abstractmethod
    def head(self) -> Position:
        """The position after the newest unit."""

    @abstractmethod
    def history(self, vid: str) -> list[HistoryEntry]:
        """All versions of one object, oldest first; empty for an unknown one."""

    def rescue(self, after: str) -> Iterator[Versioned | None]:
        """What can still be read when `iterate` failed beyond the VID `after`; in any order.

        None stands for each object that can't. Nothing where the driver has no other way to read.
        """
        return iter(())

    def drift(self, *, repair: bool = False) -> Iterator[Drift]:
        """What other programs did to the storage's objects; with `repair` mended by new units.

        Nothing where no other program can reach them. With `repair` a damaged log is mended first.
        """
        return iter(())

    def damage(self) -> Iterator[str]:
        """What is wrong with the storage itself, a sentence each; nothing where it can't tell."""
        return iter(())
