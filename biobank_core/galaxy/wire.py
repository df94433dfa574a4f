"""The answers of Galaxy's API that the recorder reads, checked: hostile until validated.

Fields that are not named here are ignored: Galaxy adds some with every release.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from biobank_core.galaxy.client import GalaxyFaultError
from biobank_core.galaxy.records import safe_text

T = TypeVar("T")

MAX_ENDS: Final = 1_000_000
_SHA256_NAMES: Final = frozenset({"SHA-256", "sha256", "SHA256"})
_SHA256_CHARS: Final = 64
_NEW_FILE: Final = ("__new_primary_file_", "__")

Id = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9_-]+\Z")]
Text = Annotated[str, Meta(max_length=100_000)]
Name = Annotated[str, Meta(max_length=10_000)]
Size = Annotated[int, Meta(ge=0)]


class JobRow(msgspec.Struct, frozen=True):
    """A line of `GET /api/jobs`."""

    id: Id
    state: Name
    create_time: datetime
    update_time: datetime
    tool_id: Name | None = None
    history_id: Id | None = None
    user_email: Name | None = None


class End(msgspec.Struct, frozen=True):
    """An input or output of a job."""

    id: Id | None = None
    src: Name | None = None
    uuid: Name | None = None


class Metric(msgspec.Struct, frozen=True):
    """A job metric; `raw_value` is a decimal number as text."""

    name: Name
    plugin: Name = ""
    raw_value: Name | None = None


class JobDetail(msgspec.Struct, frozen=True):
    """`GET /api/jobs/{id}?full=true`."""

    id: Id
    state: Name
    create_time: datetime
    update_time: datetime
    tool_id: Name | None = None
    history_id: Id | None = None
    exit_code: int | None = None
    galaxy_version: Name | None = None
    user_id: Id | None = None
    user_email: Name | None = None
    params: dict[str, Any] | None = None
    inputs: dict[str, End] | None = None
    outputs: dict[str, End] | None = None
    output_collections: dict[str, End] | None = None
    copied_from_job_id: Id | None = None
    job_metrics: list[Metric] | None = None


class Rerun(msgspec.Struct, frozen=True):
    """`GET /api/jobs/{id}/build_for_rerun`, as far as it is about the job that ran."""

    version: Name | None = None
    message: Text | None = None
    state_inputs: dict[str, Any] | None = None


class Hash(msgspec.Struct, frozen=True):
    """A checksum of a dataset."""

    hash_function: Name | None = None
    hash_value: Name | None = None
    extra_files_path: Name | None = None


class Dataset(msgspec.Struct, frozen=True):
    """`GET /api/datasets/{id}`."""

    id: Id
    uuid: Name | None = None
    name: Name | None = None
    extension: Name | None = None
    file_ext: Name | None = None
    state: Name | None = None
    file_size: Size | None = None
    hashes: list[Hash] | None = None
    deleted: bool | None = None
    purged: bool | None = None
    create_time: datetime | None = None
    history_id: Id | None = None
    tags: list[Name] = []
    copied_from_history_dataset_association_id: Id | None = None


class Element(msgspec.Struct, frozen=True):
    """An element of a collection; `object` is an `ElementObject`, or null."""

    element_identifier: Name
    element_type: Name | None = None
    object: ElementObject | None = None
    # The row of a sample sheet; read by `records.sheet_columns`.
    columns: Any = None


class ElementObject(msgspec.Struct, frozen=True):
    """A dataset or an inner collection, as an element holds it."""

    id: Id | None = None
    uuid: Name | None = None
    collection_type: Name | None = None
    populated: bool | None = None
    element_count: int | None = None
    elements: list[Element] | None = None


class Hdca(msgspec.Struct, frozen=True):
    """`GET /api/dataset_collections/{id}`."""

    id: Id
    collection_type: Name
    name: Name | None = None
    history_id: Id | None = None
    populated: bool = True
    create_time: datetime | None = None
    tags: list[Name] = []
    elements: list[Element] = []
    element_count: int | None = None
    column_definitions: Any = None


class CollectionElement(msgspec.Struct, frozen=True):
    """`GET /api/dataset_collection_element/{id}`, without what is inside."""

    id: Id
    element_identifier: Name
    element_type: Name | None = None
    object: ElementObject | None = None


class History(msgspec.Struct, frozen=True):
    """`GET /api/histories/{id}`."""

    id: Id
    name: Name = ""
    tags: list[Name] = []


class InvocationRow(msgspec.Struct, frozen=True):
    """A line of `GET /api/invocations`."""

    id: Id
    uuid: Name | None = None
    workflow_id: Id | None = None


class StepJob(msgspec.Struct, frozen=True):
    """A job of a step."""

    id: Id


class Step(msgspec.Struct, frozen=True):
    """A step of an invocation."""

    order_index: int
    workflow_step_label: Name | None = None
    job_id: Id | None = None
    jobs: list[StepJob] = []


class Invocation(msgspec.Struct, frozen=True):
    """`GET /api/invocations/{id}?step_details=true`."""

    id: Id
    workflow_id: Id | None = None
    steps: list[Step] = []


class Workflow(msgspec.Struct, frozen=True):
    """`GET /api/workflows/{id}?instance=true`."""

    id: Id
    version: int | None = None


def read(answer: Any, kind: type[T], what: str) -> T:
    """The answer as such a struct. Raises GalaxyFaultError naming what is not as Galaxy has it."""
    try:
        return msgspec.convert(answer, kind)
    except (msgspec.ValidationError, RecursionError) as exc:
        raise GalaxyFaultError(f"{what}: not an answer of Galaxy's ({exc})") from exc


def read_rows(answer: Any, what: str) -> tuple[list[JobRow], dict[str, str]]:
    """The lines of a list of jobs: those that can be read, and id -> reason of those that can't.

    Raises GalaxyFaultError for what is no list, or for a line that does not even tell its id.
    """
    rows: list[JobRow] = []
    odd: dict[str, str] = {}
    for item in read(answer, list[Any], what):
        try:
            rows.append(msgspec.convert(item, JobRow))
        except msgspec.ValidationError as exc:
            odd[read(item, _Identified, what).id] = f"its line in the list: {exc}"
    return rows, odd


class _Identified(msgspec.Struct, frozen=True):
    id: Id


def canonical_uuid(text: str | None) -> str | None:
    """Lower-case with hyphens; None for what is no UUID."""
    if text is None:
        return None
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


def output_role(name: str) -> str:
    """The role of an output: data found at run time have their name wrapped."""
    start, end = _NEW_FILE
    if name.startswith(start) and name.endswith(end):
        name = name.removeprefix(start).removesuffix(end)
    return safe_text(name)


def sha256_of(hashes: list[Hash] | None) -> str | None:
    """The SHA-256 of a dataset's main file."""
    for found in hashes or ():
        if found.hash_function in _SHA256_NAMES and not found.extra_files_path:
            value = (found.hash_value or "").lower()
            if len(value) == _SHA256_CHARS and all(c in "0123456789abcdef" for c in value):
                return value
    return None


# msgspec (0.22) describes a struct to itself at its first use, and two threads that do so at once
# crash the interpreter. Answers are read in several threads: so all of it is done here, once.
for _kind in (
    JobRow,
    JobDetail,
    Rerun,
    Dataset,
    Hdca,
    CollectionElement,
    History,
    InvocationRow,
    Invocation,
    Workflow,
    _Identified,
):
    msgspec.json.Decoder(_kind)
