"""What a Galaxy job, dataset or collection was, whoever told us: a live server or an archive.

Made only by the sources (`live`, `archive`), which check every value that came from outside. Text
is safe to store; times are UTC; a value is None where the source does not know it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

import msgspec

# Galaxy's states after which a job does not change any more, as we record them.
FINAL_STATES: Final = frozenset({"ok", "error", "deleted", "stopped", "skipped"})
UPLOAD_TOOLS: Final = frozenset({"upload1", "__DATA_FETCH__"})
# Galaxy keeps jobs that have no tool id.
UNKNOWN_TOOL: Final = "unknown"

MAX_TEXT_CHARS: Final = 1000
# People fill them in by hand.
MAX_SHEET_COLUMNS: Final = 1000
SAMPLE_SHEET: Final = "sample_sheet"
# Galaxy nests collections three or four deep; the limit keeps a hostile answer from recursing.
MAX_COLLECTION_DEPTH: Final = 20

# Half of the programs that read it later end a text at a NUL; U+001F separates parts of a VID.
_UNSAFE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class VersionSource(Enum):
    """Where the exact version of a job's tool was learnt."""

    TOOL_SHED_ID = "tool_shed_id"
    BUILD_FOR_RERUN = "build_for_rerun"
    BUILD_FOR_RERUN_MESSAGE = "build_for_rerun_message"
    JOBS_ATTRS = "jobs_attrs"


class DatasetRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One copy (HDA) of a dataset. `uuid` is the Dataset's, lower-case with hyphens.

    `is_copy`: made from another one, not put out by a job itself; False where that is not told.
    """

    uuid: str
    id: str | None = None
    name: str | None = None
    extension: str | None = None
    state: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    deleted: bool | None = None
    purged: bool | None = None
    as_of: datetime | None = None
    create_time: datetime | None = None
    history_id: str | None = None
    tags: tuple[str, ...] = ()
    is_copy: bool = False


class ElementRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An element of a collection: a dataset (its uuid, None where unknown) or a collection.

    `columns`: (name, value) of its row in a sample sheet.
    """

    identifier: str
    dataset_uuid: str | None = None
    dataset_id: str | None = None
    collection: CollectionRecord | None = None
    columns: tuple[tuple[str, str], ...] = ()

    def leaves(self) -> tuple[ElementRecord, ...]:
        """The datasets in it; itself where it is one."""
        return (self,) if self.collection is None else self.collection.leaves()


class CollectionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A collection. `id` is that of its copy in a history (HDCA); None for one inside another."""

    id: str | None = None
    name: str | None = None
    collection_type: str
    populated: bool = True
    elements: tuple[ElementRecord, ...] = ()
    history_id: str | None = None
    create_time: datetime | None = None
    tags: tuple[str, ...] = ()

    def leaves(self) -> tuple[ElementRecord, ...]:
        """All elements that are datasets, those of inner collections included, in order."""
        return tuple(leaf for element in self.elements for leaf in element.leaves())


class DatasetEnd(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset that went into a job or came out of it. `id` is that of the copy meant."""

    role: str
    uuid: str | None
    id: str | None = None


class CollectionEnd(msgspec.Struct, frozen=True, kw_only=True):
    """A collection that went in or came out; `key` finds its record (see `JobRecord`).

    `inner_type` is set where only an element of a collection went in, whose identity the source
    does not tell: then `members` are its datasets, in order.
    """

    role: str
    key: str
    inner_type: str | None = None
    members: tuple[DatasetEnd, ...] = ()


class InvocationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The run of a workflow that a job belongs to."""

    id: str | None = None
    workflow_id: str | None = None
    workflow_version: int | None = None
    step_label: str | None = None


class HistoryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A history, as far as rules need it."""

    id: str
    name: str = ""
    tags: tuple[str, ...] = ()


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One job.

    `inputs` are its dataset inputs, those included that came inside a collection of
    `input_collections` (same role). `element_identifiers`: input role -> element identifier of a
    mapped-over job. `parameters` are decoded, noise still in. `handed_back`: known to be answered
    from the job cache, though not from which job. `partial`: the source does not know all its ends.
    """

    id: str | None
    tool_id: str
    tool_version: str | None = None
    tool_version_source: VersionSource | None = None
    state: str
    exit_code: int | None = None
    create_time: datetime
    update_time: datetime
    begin: datetime | None = None
    end: datetime | None = None
    user: str | None = None
    galaxy_version: str | None = None
    history_id: str | None = None
    cached_from: str | None = None
    handed_back: bool = False
    partial: bool = False
    parameters: dict[str, Any] = {}
    inputs: tuple[DatasetEnd, ...] = ()
    input_collections: tuple[CollectionEnd, ...] = ()
    outputs: tuple[DatasetEnd, ...] = ()
    output_collections: tuple[CollectionEnd, ...] = ()
    element_identifiers: dict[str, str] = {}
    invocation: InvocationRecord | None = None

    @property
    def is_cached(self) -> bool:
        """Whether the job cache answered: what it put out was made by another job."""
        return self.handed_back or self.cached_from is not None

    @property
    def is_upload(self) -> bool:
        """Whether it brought data in from outside."""
        return self.tool_id in UPLOAD_TOOLS


def sheet_columns(definitions: Any, row: Any) -> tuple[tuple[str, str], ...]:
    """(name, value) of each column of a row in a sample sheet; none where the two do not fit.

    `definitions` and `row` are as Galaxy has them, and not checked: a list of objects with `name`,
    and a list of values.
    """
    if not isinstance(definitions, list) or not isinstance(row, list):
        return ()
    names = [item.get("name") if isinstance(item, dict) else None for item in definitions]
    if len(names) != len(row) or len(row) > MAX_SHEET_COLUMNS:
        return ()
    return tuple(
        (safe_text(name), safe_text(str(value))[:MAX_TEXT_CHARS])
        for name, value in zip(names, row, strict=True)
        if isinstance(name, str) and isinstance(value, str | int | float) and value != ""
    )


def safe_text(text: str) -> str:
    """The text with what can't be stored or compared exactly replaced by U+FFFD."""
    return _UNSAFE.sub("\ufffd", text)


def safe_label(text: str | None, otherwise: str) -> str:
    """A label: one line, not empty, of bounded length."""
    line = " ".join(safe_text(text or "").split())[:MAX_TEXT_CHARS]
    return line or otherwise


def utc(time: datetime) -> datetime:
    """Galaxy's times have no zone and are UTC."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
