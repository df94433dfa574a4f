"""The files of Galaxy's history and invocation archives, checked: hostile until validated.

Written by `galaxy/model/store/__init__.py` and each model's `_serialize` (export version 2). All
ids in there are encoded with a key that only archives are encoded with: not those of the API.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec

from biobank_core.errors import InputError
from biobank_core.galaxy.records import MAX_COLLECTION_DEPTH, utc
from biobank_core.galaxy.wire import Hash, Id, Name

T = TypeVar("T")

EXPORT: Final = "export_attrs.txt"
JOBS: Final = "jobs_attrs.txt"
DATASETS: Final = "datasets_attrs.txt"
# Datasets without their files: deleted ones, or all of them.
PROVENANCE: Final = "datasets_attrs.txt.provenance"
COLLECTIONS: Final = "collections_attrs.txt"
HISTORY: Final = "history_attrs.txt"
MEMBERS: Final = (EXPORT, JOBS, DATASETS, PROVENANCE, COLLECTIONS, HISTORY)
REQUIRED: Final = (EXPORT, JOBS, DATASETS, PROVENANCE, COLLECTIONS)

EXPORT_VERSION: Final = "2"
# A tool's form is a dozen levels deep at most.
MAX_DEPTH: Final = 100

Mapping = dict[Name, list[Id]]


class Export(msgspec.Struct, frozen=True):
    """`export_attrs.txt`."""

    galaxy_export_version: Name


class History(msgspec.Struct, frozen=True):
    """`history_attrs.txt`."""

    encoded_id: Id
    name: Name | None = None
    tags: list[Name] = []


class Job(msgspec.Struct, frozen=True):
    """A job; the mappings are from the name of an input or output to ids."""

    encoded_id: Id
    state: Name
    create_time: datetime
    update_time: datetime
    tool_id: Name | None = None
    tool_version: Name | None = None
    galaxy_version: Name | None = None
    exit_code: int | None = None
    params: dict[Name, Any] | None = None
    input_dataset_mapping: Mapping = {}
    input_dataset_collection_mapping: Mapping = {}
    input_dataset_collection_element_mapping: Mapping = {}
    output_dataset_mapping: Mapping = {}
    # Collections in a history. What Galaxy calls `implicit_output_...` are those inside of them.
    output_dataset_collection_mapping: Mapping = {}


class FileMetadata(msgspec.Struct, frozen=True):
    """What is known of a dataset's file."""

    hashes: list[Hash] = []


class Dataset(msgspec.Struct, frozen=True):
    """A copy of a dataset."""

    encoded_id: Id
    dataset_uuid: Name | None = None
    name: Name | None = None
    extension: Name | None = None
    state: Name | None = None
    deleted: bool | None = None
    create_time: datetime | None = None
    history_encoded_id: Id | None = None
    tags: list[Name] = []
    copied_from_history_dataset_association_id_chain: list[Id] = []
    file_metadata: FileMetadata | None = None


class Link(msgspec.Struct, frozen=True):
    """Another object of the archive."""

    encoded_id: Id


class Element(msgspec.Struct, frozen=True):
    """An element of a collection."""

    element_identifier: Name
    encoded_id: Id | None = None
    hda: Link | None = None
    child_collection: Content | None = None
    columns: Any = None


class Content(msgspec.Struct, frozen=True):
    """What a collection holds."""

    type: Name
    populated_state: Name | None = None
    elements: list[Element] = []
    column_definitions: Any = None


class Collection(msgspec.Struct, frozen=True):
    """A collection of a history (`collection` is set), or one inside of another (it is not)."""

    encoded_id: Id
    display_name: Name | None = None
    history_encoded_id: Id | None = None
    collection: Content | None = None


def read(members: dict[str, bytes], name: str, kind: type[T], *, file: str) -> T:
    """A member as such a struct. Raises InputError that names file and member."""
    try:
        try:
            return msgspec.json.decode(members[name], type=kind)
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError):
            # Galaxy writes what Python's json writes, NaN and lone surrogates included.
            return msgspec.convert(json.loads(members[name]), kind)
    except RecursionError as exc:
        raise InputError(f"member {name!r}: nested too deeply", file=file) from exc
    except ValueError as exc:
        raise InputError(f"member {name!r}: not as Galaxy writes it ({exc})", file=file) from exc


def check_times(item: Job | Dataset, *, file: str) -> None:
    """Raises InputError for a time that has no UTC: in the first or last hours of the calendar."""
    times = (item.create_time, item.update_time) if isinstance(item, Job) else (item.create_time,)
    try:
        for time in times:
            if time is not None:
                utc(time)
    except OverflowError as exc:
        reason = f"member {JOBS if isinstance(item, Job) else DATASETS!r}: no such time"
        raise InputError(reason, file=file, value=str(times)) from exc


def check_depth(job: Job, *, file: str) -> None:
    """Raises InputError for parameters that are nested deeper than MAX_DEPTH."""
    level: list[Any] = [job.params]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    reason = f"member {JOBS!r}: parameters nested deeper than {MAX_DEPTH} levels (limit)"
    raise InputError(reason, file=file)


def check_elements(content: Content, *, file: str) -> None:
    """Raises InputError for collections that are nested deeper than MAX_COLLECTION_DEPTH."""
    level = [content]
    for _ in range(MAX_COLLECTION_DEPTH):
        level = [e.child_collection for c in level for e in c.elements if e.child_collection]
        if not level:
            return
    limit = MAX_COLLECTION_DEPTH
    reason = f"member {COLLECTIONS!r}: a collection nested deeper than {limit} levels (limit)"
    raise InputError(reason, file=file)
