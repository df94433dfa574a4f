"""Where records come from: what the recorder asks of a live server, or of an archive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Protocol, TypeVar

from biobank_core.errors import BiobankError
from biobank_core.galaxy import wire
from biobank_core.galaxy.client import GalaxyUser
from biobank_core.galaxy.records import (
    CollectionRecord,
    DatasetRecord,
    HistoryRecord,
    JobRecord,
)

T = TypeVar("T")
R = TypeVar("R")


class Reader(Protocol):
    """Who asks, and how many things are asked for."""

    @property
    def user(self) -> GalaxyUser:
        """Whose jobs these are, as far as that is known."""

    def each(
        self, items: Iterable[T], ask: Callable[[T], R]
    ) -> Iterator[tuple[T, R | BiobankError]]:
        """Every item with what `ask` returned or the error it raised, in any order."""


class Source(Protocol):
    """A source of records. `odd_rows`: id -> reason of each job whose line can't be read.

    `live`: its ids are those of the server's API, and it has more to tell later. The ids of any
    other source mean nothing outside of it, and are not kept.
    """

    odd_rows: dict[str, str]

    @property
    def live(self) -> bool: ...

    @property
    def hashes(self) -> bool:
        """Whether it tells the hashes of data."""

    @property
    def client(self) -> Reader: ...

    def jobs(
        self,
        *,
        history_id: str | None = None,
        invocation_id: str | None = None,
        since: datetime | None = None,
        states: Iterable[str] = (),
    ) -> Iterator[wire.JobRow]:
        """Jobs by update time, newest first, each once."""

    def job(self, row_id: str) -> JobRecord:
        """One job in full. Raises BiobankError when the source does not give it."""

    def dataset(self, hda_id: str) -> DatasetRecord | None:
        """One copy of a dataset; None where it has no uuid."""

    def content(self, hda_id: str, *, limit_bytes: int) -> bytes:
        """What is in a dataset. Raises BiobankError where it can't be had, or is larger."""

    def collection(self, hdca_id: str) -> CollectionRecord:
        """A collection with all that is in it. Raises BiobankError where it is not known whole."""

    def history(self, history_id: str) -> HistoryRecord:
        """A history's name and tags; one that may not be read has neither."""

    def check_history(self, history_id: str, unknown: str) -> None:
        """Raises NotFoundError with the text `unknown` for a history that can't be read."""
