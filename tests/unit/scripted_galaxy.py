"""A Galaxy in memory, for what a real one can't be made to do: late updates, odd faults, kills."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from biobank_core.errors import BiobankError, NotFoundError
from biobank_core.galaxy import wire
from biobank_core.galaxy.client import GalaxyFaultError, GalaxyUser
from biobank_core.galaxy.records import (
    CollectionRecord,
    DatasetEnd,
    DatasetRecord,
    HistoryRecord,
    JobRecord,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def dataset_uuid(number: int) -> str:
    return str(uuid.UUID(int=number))


def end(role: str, number: int) -> DatasetEnd:
    return DatasetEnd(role=role, uuid=dataset_uuid(number), id=f"hda{number}")


@dataclass
class ScriptedGalaxy:
    """Stands for a `LiveSource` and for its client; `asked` is what it was asked for."""

    hashes: bool = True
    live: bool = True
    user: GalaxyUser = field(default_factory=lambda: GalaxyUser(id="u", email="ada@x.org"))
    records: dict[str, JobRecord] = field(default_factory=dict)
    faults: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    histories: dict[str, HistoryRecord] = field(default_factory=dict)
    collections: dict[str, CollectionRecord] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    odd_rows: dict[str, str] = field(default_factory=dict)

    @property
    def client(self) -> ScriptedGalaxy:
        return self

    def add(self, job_id: str, minute: float, **fields: Any) -> JobRecord:
        """A job that changed this many minutes after the start."""
        values: dict[str, Any] = {
            "id": job_id,
            "tool_id": "tool",
            "tool_version": "1.0",
            "state": "ok",
            "history_id": "h1",
            "create_time": START + timedelta(minutes=minute, microseconds=len(self.records)),
            "update_time": START + timedelta(minutes=minute),
            **fields,
        }
        self.records[job_id] = JobRecord(**values)
        return self.records[job_id]

    def each(
        self, items: Iterable[Any], ask: Callable[[Any], Any], *, workers: int = 1
    ) -> Iterator[tuple[Any, Any]]:
        for item in items:
            try:
                yield item, ask(item)
            except BiobankError as exc:
                yield item, exc

    def jobs(
        self,
        *,
        history_id: str | None = None,
        invocation_id: str | None = None,
        since: datetime | None = None,
        states: Iterable[str] = (),
    ) -> Iterator[wire.JobRow]:
        wanted = set(states)
        self.asked.append("waiting jobs" if wanted else "jobs")
        rows = [
            wire.JobRow(
                id=job.id or "",
                tool_id=job.tool_id,
                state=job.state,
                create_time=job.create_time.replace(tzinfo=None),
                update_time=job.update_time.replace(tzinfo=None),
                history_id=job.history_id,
            )
            for job in self.records.values()
            if (since is None or job.update_time >= since)
            and (history_id is None or job.history_id == history_id)
            and (not wanted or job.state in wanted)
        ]
        yield from sorted(rows, key=lambda row: row.update_time, reverse=True)

    def job(self, job_id: str) -> JobRecord:
        self.asked.append(f"job {job_id}")
        if job_id in self.faults:
            raise GalaxyFaultError(f"GET /api/jobs/{job_id}: HTTP 500")
        return self.records[job_id]

    def dataset(self, hda_id: str) -> DatasetRecord:
        self.asked.append(f"dataset {hda_id}")
        return DatasetRecord(
            uuid=dataset_uuid(int(hda_id.removeprefix("hda").partition("-")[0])),
            id=hda_id,
            name=self.names.get(hda_id, hda_id),
            extension="txt",
            state="ok",
            size_bytes=1,
            deleted=False,
            purged=False,
            history_id="h1",
            create_time=START,
            as_of=START,
            tags=self.tags.get(hda_id, ()),
        )

    def collection(self, hdca_id: str) -> CollectionRecord:
        self.asked.append(f"collection {hdca_id}")
        return self.collections[hdca_id]

    def check_history(self, history_id: str, unknown: str) -> None:
        if history_id not in self.histories:
            raise NotFoundError(unknown)

    def history(self, history_id: str) -> HistoryRecord:
        self.asked.append(f"history {history_id}")
        return self.histories.get(history_id, HistoryRecord(id=history_id))


def chained(jobs: int) -> ScriptedGalaxy:
    """So many jobs; each takes what two earlier ones made, and every seventh fails."""
    galaxy = ScriptedGalaxy()
    for number in range(jobs):
        earlier = {number - 1, number // 2 - 1} - {-1, number}
        galaxy.add(
            f"j{number}",
            number,
            state="error" if number % 7 == 6 else "ok",
            parameters={"threshold": number % 5},
            inputs=tuple(end(f"in{one}", one) for one in sorted(earlier) if one >= 0),
            outputs=(end("out", number), end("log", number + jobs)),
        )
    return galaxy
