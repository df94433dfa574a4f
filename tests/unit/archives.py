"""Archives as Galaxy exports them, made by hand: good ones, for tests to spoil."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from biobank_core.galaxy.archive_container import Limits

# Limits that a small file can go over.
SMALL = Limits(
    members=50,
    unpacked_bytes=4_000_000,
    ratio=20,
    ratio_from_bytes=1_000_000,
    json_bytes=200_000,
    header_bytes=100_000,
    directory_bytes=100_000,
)

HISTORY_ID = "f" * 16
UPLOADED, FIRST, SECOND, MADE = (f"{number:016x}" for number in range(1, 5))
LIST_ID, LIST_ELEMENT = "a" * 16, "b" * 16
UPLOAD_JOB, JOB, OTHER_JOB = "c" * 16, "d" * 16, "e" * 16


def uuid(hda_id: str) -> str:
    """The Dataset uuid of one of the datasets here."""
    return f"00000000-0000-4000-8000-{int(hda_id, 16):012x}"


def dataset(hda_id: str, **fields: Any) -> dict[str, Any]:
    """A copy of a dataset."""
    return {
        "model_class": "HistoryDatasetAssociation",
        "encoded_id": hda_id,
        "dataset_uuid": uuid(hda_id),
        "name": f"data {int(hda_id, 16)}",
        "extension": "txt",
        "state": "ok",
        "deleted": False,
        "create_time": "2026-01-01 10:00:00.000001",
        "history_encoded_id": HISTORY_ID,
        "tags": [],
        "copied_from_history_dataset_association_id_chain": [],
        "file_metadata": {"hashes": [{"hash_function": "SHA-256", "hash_value": "ab" * 32}]},
        **fields,
    }


def job(job_id: str, minute: int, **fields: Any) -> dict[str, Any]:
    """A job that was made so many minutes after ten."""
    return {
        "model_class": "Job",
        "encoded_id": job_id,
        "tool_id": "tool",
        "tool_version": "1.2.0",
        "galaxy_version": "26.1",
        "state": "ok",
        "exit_code": 0,
        "create_time": f"2026-01-01T10:{minute:02}:00.000001",
        "update_time": f"2026-01-01T10:{minute:02}:30.000001",
        "params": {},
        "input_dataset_mapping": {},
        "input_dataset_collection_mapping": {},
        "input_dataset_collection_element_mapping": {},
        "output_dataset_mapping": {},
        "output_dataset_collection_mapping": {},
        "implicit_output_dataset_collection_mapping": {},
        **fields,
    }


def element(identifier: str, hda_id: str) -> dict[str, Any]:
    """An element of a collection."""
    return {
        "element_identifier": identifier,
        "encoded_id": f"{int(hda_id, 16) + 100:016x}",
        "hda": {"encoded_id": hda_id},
    }


def history() -> dict[str, Any]:
    """An upload, and a job that makes one dataset out of it and a list of two."""
    return {
        "export_attrs.txt": {"galaxy_export_version": "2"},
        "history_attrs.txt": {"encoded_id": HISTORY_ID, "name": "study K", "tags": []},
        "datasets_attrs.txt": [dataset(i) for i in (UPLOADED, FIRST, SECOND, MADE)],
        "datasets_attrs.txt.provenance": [],
        "collections_attrs.txt": [
            {
                "model_class": "HistoryDatasetCollectionAssociation",
                "encoded_id": LIST_ID,
                "display_name": "two",
                "history_encoded_id": HISTORY_ID,
                "collection": {
                    "type": "list",
                    "populated_state": "ok",
                    "elements": [element("a", FIRST), element("b", SECOND)],
                },
            }
        ],
        "jobs_attrs.txt": [
            job(
                UPLOAD_JOB,
                1,
                tool_id="__DATA_FETCH__",
                tool_version="0.1.0",
                output_dataset_mapping={"output0": [UPLOADED]},
            ),
            job(
                JOB,
                2,
                params={
                    "one": {"values": [{"src": "hda", "id": UPLOADED}]},
                    "many": {"values": [{"src": "hdca", "id": LIST_ID}]},
                    "count": "3",
                    "dbkey": "?",
                },
                input_dataset_mapping={"one": [UPLOADED], "many1": [FIRST], "many2": [SECOND]},
                input_dataset_collection_mapping={"many": [LIST_ID]},
                output_dataset_mapping={"out": [MADE]},
            ),
        ],
    }


def encoded(content: dict[str, Any]) -> dict[str, bytes]:
    """The members' bytes."""
    return {name: json.dumps(value).encode() for name, value in content.items()}


def tar_bytes(members: dict[str, bytes], *, extra: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    """A tar with these members, and after them those without content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info)
    return out.getvalue()


def tar_gz(path: Path, members: dict[str, bytes], **options: Any) -> Path:
    """A tar.gz in this file."""
    path.write_bytes(gzip.compress(tar_bytes(members, **options)))
    return path


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    """A zip in this file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return path


def good(path: Path) -> Path:
    """The history as a tar.gz."""
    return tar_gz(path, encoded(history()))
