"""VIDs of what Galaxy made (DESIGN: the same thing always gets the same VID, from any source).

The Dataset uuid identifies data, whatever copy of it was seen. A job has no uuid, and its encoded
id differs between servers and archives: server, tool and create time to the microsecond do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from biobank_core.model.base import canonical_json
from biobank_core.model.ids import derived_vid


def data_sample_vid(dataset_uuid: str) -> str:
    """Of a piece of data; `dataset_uuid` is canonical (lower-case, hyphens)."""
    return derived_vid("DataSample", dataset_uuid)


def data_object_vid(server: str, dataset_uuid: str) -> str:
    """Of the file that holds it on this server."""
    return derived_vid("DataObject", server, dataset_uuid)


def data_object_uri(server: str, dataset_uuid: str) -> str:
    """Where that file is."""
    return f"galaxy://{server}/datasets/{dataset_uuid}"


def action_vid(
    server: str, tool_id: str, create_time: datetime, *, least_output: str | None = None
) -> str:
    """Of a job. `least_output`: the least uuid among its outputs, given only where several jobs
    share server, tool and create time (the action is then flagged `ambiguous-identity`).
    """
    time = create_time.astimezone(UTC).isoformat(timespec="microseconds")
    parts = (server, tool_id, time)
    return derived_vid("Action", *parts, *(() if least_output is None else (least_output,)))


def collection_vid(collection_type: str, items: Iterable[tuple[str, str]]) -> str:
    """Of a collection that has elements: (element identifier, VID) each, in order."""
    content = canonical_json([collection_type, [list(item) for item in items]])
    return derived_vid("DataCollection", content.decode())


def empty_collection_vid(action: str, output: str, path: tuple[str, ...] = ()) -> str:
    """Of a collection without elements: what made it, as which output, where inside of it."""
    return derived_vid("DataCollection", canonical_json([action, output, *path]).decode())


def device_vid(tool_id: str, version: str | None) -> str:
    """Of a tool: its full id and its exact version."""
    return derived_vid("Device", tool_id, *(() if version is None else (version,)))


def setup_vid(parameters: dict[str, object]) -> str:
    """Of parameters: equal ones are one setup. Raises ValueError for what JSON can't say."""
    return derived_vid("ActionSetup", canonical_json(parameters).decode())


def link_vid(sample: str, data: str) -> str:
    """Of the action that ties data to the biological sample it came from."""
    return derived_vid("Link", sample, data)


def cursor_vid(name: str) -> str:
    """Of a recorder's cursor."""
    return derived_vid("Cursor", name)


def study_vid(label: str) -> str:
    """Of a study that the recorder makes itself (`unassigned`)."""
    return derived_vid("Study", label)
