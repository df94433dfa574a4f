"""Comparing an old result with the new one: the same bytes or not, and for tables each cell."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from biobank_core.catalog.port import Catalog
from biobank_core.errors import NotFoundError
from biobank_core.galaxy.reanalysis.locate import Locator
from biobank_core.galaxy.reanalysis.results import Result
from biobank_core.galaxy.reanalysis.server import CampaignServer
from biobank_core.galaxy.reanalysis.tables import TableChange, compare_tables, parse_table
from biobank_core.model.base import JsonObject
from biobank_core.model.kinds import DataObject

# A larger table is compared by its hash alone: nobody reads a list of a million cells.
MAX_TABLE_BYTES: Final = 20_000_000
_CSV: Final = frozenset({"csv"})
# What can't be a table of tab-separated text; all else is looked at.
_BINARY: Final = frozenset({"bam", "cram", "bcf", "h5", "h5ad", "zip", "png", "jpg", "pdf", "html"})
_SHA256: Final = "SHA-256"


class Verdict(Enum):
    """How a new result compares with the old one."""

    SAME_DATA = "same data"  # Galaxy handed the old result back; nothing was made anew
    EQUAL = "equal"  # made anew, the same bytes
    DIFFERENT = "different"
    NOT_READ = "not compared"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One result, before and after. `note` says why something was not compared."""

    old: Result
    new: Result
    verdict: Verdict
    old_sha256: str | None = None
    new_sha256: str | None = None
    table: TableChange | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class _File:
    """What is known of a file's bytes; `text` where it was read and is small enough."""

    sha256: str | None
    extension: str
    text: str | None = None


class Comparer:
    """Compares results, fetching from Galaxy what the catalog and Galaxy have no hash of."""

    def __init__(self, catalog: Catalog, server: CampaignServer, locator: Locator) -> None:
        self._catalog = catalog
        self._server = server
        self._locator = locator

    def compare(self, old: Result, new: Result) -> FileChange:
        """What changed from one result to the other. What can't be read is said, not raised."""
        if old.vid == new.vid:
            return FileChange(old=old, new=new, verdict=Verdict.SAME_DATA)
        try:
            known_old, known_new = self._hash(old.vid), self._hash(new.vid)
            if known_old is not None and known_old == known_new:
                return FileChange(
                    old=old,
                    new=new,
                    verdict=Verdict.EQUAL,
                    old_sha256=known_old,
                    new_sha256=known_new,
                )
            was, now = self._read(old.vid), self._read(new.vid)
        except NotFoundError as exc:
            return FileChange(old=old, new=new, verdict=Verdict.NOT_READ, note=str(exc))
        equal = was.sha256 == now.sha256
        table, note = (None, None) if equal else _table_change(was, now)
        return FileChange(
            old=old,
            new=new,
            verdict=Verdict.EQUAL if equal else Verdict.DIFFERENT,
            old_sha256=was.sha256,
            new_sha256=now.sha256,
            table=table,
            note=note,
        )

    def _hash(self, vid: str) -> str | None:
        """The SHA-256 that is known without reading the file."""
        for referrer in self._catalog.referring([vid], kinds=("DataObject",)):
            found = self._catalog.get([referrer.vid]).get(referrer.vid)
            if found and isinstance(found.object, DataObject) and found.object.sha256:
                return found.object.sha256
        return _hash_of(self._locator.dataset(vid))

    def _read(self, vid: str) -> _File:
        """Read a file, as text if it is small enough, and work out its hash."""
        dataset = self._locator.dataset(vid)
        extension = str(dataset.get("extension") or dataset.get("file_ext") or "")
        digest, kept, size = hashlib.sha256(), bytearray(), 0
        for chunk in self._chunks(dataset):
            digest.update(chunk)
            size += len(chunk)
            if size <= MAX_TABLE_BYTES:
                kept += chunk
        text = None
        if size <= MAX_TABLE_BYTES and extension not in _BINARY:
            try:
                text = kept.decode("utf-8")
            except UnicodeDecodeError:
                text = None
        return _File(digest.hexdigest(), extension, text)

    def _chunks(self, dataset: JsonObject) -> Iterator[bytes]:
        return self._server.read(str(dataset["id"]))


def _table_change(was: _File, now: _File) -> tuple[TableChange | None, str | None]:
    if was.text is None or now.text is None:
        return None, None
    old = parse_table(was.text, delimiter="," if was.extension in _CSV else "\t")
    new = parse_table(now.text, delimiter="," if now.extension in _CSV else "\t")
    if old is None or new is None:
        return None, None
    change = compare_tables(old, new)
    note = None
    if change.key is None:
        note = "no column tells the rows of both tables apart, so cells are not compared"
    return change, note


def _hash_of(dataset: JsonObject) -> str | None:
    for entry in dataset.get("hashes") or ():
        if entry.get("hash_function") == _SHA256 and not entry.get("extra_files_path"):
            value = str(entry.get("hash_value") or "").lower()
            return value or None
    return None
