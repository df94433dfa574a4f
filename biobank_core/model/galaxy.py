"""What Galaxy said of a job, a dataset or a collection; null where it is unknown."""

from __future__ import annotations

from datetime import datetime

from biobank_core.model.base import Value, settle_utc


class GalaxyJob(Value, frozen=True, kw_only=True):
    """Of an Action. `tool_version_source` says where the exact version was learnt.

    `times_from` is `metrics` where Galaxy gave the job's own begin and end, else `job` (the create
    and update time of its row).
    """

    server: str
    job_id: str | None = None
    tool_id: str | None = None
    tool_version: str | None = None
    tool_version_source: str | None = None
    state: str | None = None
    exit_code: int | None = None
    user: str | None = None
    galaxy_version: str | None = None
    history_id: str | None = None
    invocation_id: str | None = None
    workflow_id: str | None = None
    workflow_version: int | None = None
    step_label: str | None = None
    cached_from: str | None = None
    times_from: str | None = None


class GalaxyDataset(Value, frozen=True, kw_only=True):
    """Of a DataSample. `as_of` is when `deleted` and `purged` were last asked."""

    server: str
    dataset_uuid: str | None = None
    extension: str | None = None
    deleted: bool | None = None
    purged: bool | None = None
    as_of: datetime | None = None

    def __post_init__(self) -> None:
        settle_utc(self, "as_of")


class GalaxyCollection(Value, frozen=True, kw_only=True):
    """Of a DataCollection."""

    server: str
    hdca_id: str | None = None
    collection_type: str | None = None
