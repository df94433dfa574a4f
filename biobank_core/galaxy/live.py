"""Source 1: a live Galaxy server. Its answers become records, with as few requests as can be.

A job costs its detail and `build_for_rerun` (the exact version, which collections went in); a new
dataset or collection one request; histories, invocations and workflows one or two each, once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from bioblend.galaxy import GalaxyInstance

from biobank_core.errors import BiobankError, InputError, NotFoundError, UnreachableError
from biobank_core.galaxy import wire
from biobank_core.galaxy.client import GalaxyClient, GalaxyFaultError
from biobank_core.galaxy.live_inputs import grouped_inputs
from biobank_core.galaxy.live_version import exact_version
from biobank_core.galaxy.live_workflows import Invocations
from biobank_core.galaxy.once import Once
from biobank_core.galaxy.records import (
    MAX_COLLECTION_DEPTH,
    UNKNOWN_TOOL,
    UPLOAD_TOOLS,
    CollectionEnd,
    CollectionRecord,
    DatasetEnd,
    DatasetRecord,
    ElementRecord,
    HistoryRecord,
    JobRecord,
    safe_text,
    sheet_columns,
    utc,
)

# Galaxy's own default, and the most that it gives at once.
PAGE_ROWS: Final = 500
_INVOCATION_UUID: Final = "__workflow_invocation_uuid__"
_IDENTIFIER_SUFFIX: Final = "|__identifier__"
_COPY_KEYS: Final = (
    "id,uuid,name,extension,state,file_size,hashes,deleted,purged,create_time,history_id,tags,"
    "copied_from_history_dataset_association_id"
)


class LiveSource:
    """Reads jobs and what belongs to them from one server, as one user; safe for threads."""

    def __init__(self, client: GalaxyClient, *, hashes: bool = True) -> None:
        self.client = client
        self.hashes = hashes
        # Jobs whose line in the list was not as Galaxy has it: id -> reason.
        self.odd_rows: dict[str, str] = {}
        self._histories: Once[HistoryRecord] = Once()
        self._invocations = Invocations(client)

    @property
    def live(self) -> bool:
        """Its ids are those of the server's API, and it has more to tell later."""
        return True

    def jobs(
        self,
        *,
        history_id: str | None = None,
        invocation_id: str | None = None,
        since: datetime | None = None,
        states: Iterable[str] = (),
    ) -> Iterator[wire.JobRow]:
        """Jobs by update time, newest first, each once. An administrator sees everybody's.

        Pages are asked for by the time of the last line, not by offset: a job that ends meanwhile
        moves to the front and would push another one over a page's edge.
        """
        asked: dict[str, Any] = {"limit": PAGE_ROWS, "order_by": "update_time"}
        if self.client.user.is_admin:
            asked["view"] = "admin_job_list"
        if history_id:
            asked["history_id"] = history_id
        if invocation_id:
            asked["invocation_id"] = invocation_id
        if since is not None:
            asked["date_range_min"] = _naive(since)
        if wanted := sorted(states):
            asked["state"] = wanted
        seen: set[str] = set()
        until: datetime | None = None
        offset = stale = 0
        while True:
            page = dict(asked)
            if until is not None:
                page["date_range_max"] = _naive(until)
            if offset:
                page["offset"] = offset
            rows, odd = wire.read_rows(self.client.get("jobs", page), "the list of jobs")
            self.odd_rows |= odd
            new = [row for row in rows if row.id not in seen]
            seen.update(row.id for row in new)
            yield from new
            if not rows or len(rows) + len(odd) < PAGE_ROWS:
                return
            stale = 0 if new else stale + 1
            if stale > 1:
                raise GalaxyFaultError("the list of jobs has no end: its pages repeat themselves")
            last = rows[-1].update_time
            # More jobs of one moment than a page holds: only then go on by offset.
            offset = offset + PAGE_ROWS if last == until else 0
            until = last

    def job(self, row_id: str) -> JobRecord:
        """One job in full: two requests, a third where an element of a collection went in.

        Raises BiobankError when Galaxy does not give it.
        """
        what = f"job {row_id}"
        detail = wire.read(
            self.client.get(f"jobs/{row_id}", {"full": "true"}), wire.JobDetail, what
        )
        rerun = self._rerun(detail)
        tool_id = safe_text(detail.tool_id or UNKNOWN_TOOL)
        version, source = exact_version(tool_id, rerun)
        params = detail.params or {}
        parameters = {
            safe_text(name): _decoded(value)
            for name, value in params.items()
            if not name.endswith(_IDENTIFIER_SUFFIX)
        }
        state = rerun.state_inputs if rerun and rerun.state_inputs else {}
        inputs, collections = grouped_inputs(detail.inputs or {}, state, parameters, self._element)
        begin, end = _metrics(detail.job_metrics)
        return JobRecord(
            id=detail.id,
            tool_id=tool_id,
            tool_version=version,
            tool_version_source=source,
            state=detail.state,
            exit_code=detail.exit_code,
            create_time=utc(detail.create_time),
            update_time=utc(detail.update_time),
            begin=begin,
            end=end,
            user=detail.user_email or self._own_email(detail.user_id),
            galaxy_version=detail.galaxy_version,
            history_id=detail.history_id,
            cached_from=detail.copied_from_job_id,
            parameters=parameters,
            inputs=inputs,
            input_collections=collections,
            outputs=tuple(
                DatasetEnd(role=wire.output_role(name), uuid=wire.canonical_uuid(e.uuid), id=e.id)
                for name, e in sorted((detail.outputs or {}).items())
            ),
            output_collections=tuple(
                CollectionEnd(role=safe_text(name), key=end_.id)
                for name, end_ in sorted((detail.output_collections or {}).items())
                if end_.id
            ),
            element_identifiers={
                safe_text(name.removesuffix(_IDENTIFIER_SUFFIX)): identifier
                for name, value in params.items()
                if name.endswith(_IDENTIFIER_SUFFIX)
                and isinstance(identifier := _decoded(value), str)
            },
            invocation=self._invocations.of(
                _decoded(params.get(_INVOCATION_UUID)),
                job_id=detail.id,
                history_id=detail.history_id,
            ),
        )

    def dataset(self, hda_id: str) -> DatasetRecord | None:
        """One copy of a dataset; None where it has no uuid. One request."""
        what = f"dataset {hda_id}"
        found = wire.read(self.client.get(f"datasets/{hda_id}"), wire.Dataset, what)
        return self._copy(found)

    def content(self, hda_id: str, *, limit_bytes: int) -> bytes:
        """What is in a dataset. One request; raises BiobankError for one that is larger."""
        what = f"GET /api/datasets/{hda_id}/display"
        url = f"{self.client.gi.url}/datasets/{hda_id}/display"
        body = bytearray()

        def ask(gi: GalaxyInstance) -> None:
            with gi.make_get_request(url, params={"raw": "true"}, stream=True) as response:
                if response.status_code != 200:
                    raise NotFoundError(f"{what}: HTTP {response.status_code}")
                body.clear()
                for chunk in response.iter_content(1 << 16):
                    body.extend(chunk)
                    if len(body) > limit_bytes:
                        raise InputError(f"{what}: is larger than {limit_bytes} bytes")

        self.client.call(what, ask, retry=True)
        return bytes(body)

    def copies(self, history_id: str) -> Iterator[DatasetRecord]:
        """Every dataset in a history, those deleted and those in collections too, newest first.

        One request a page. Raises BiobankError for a history that may not be read.
        """
        what = f"contents of history {history_id}"
        seen: set[str] = set()
        offset = 0
        while True:
            asked = {
                "v": "dev",
                "q": "history_content_type",
                "qv": "dataset",
                "keys": _COPY_KEYS,
                # Not by update time: a copy that changes while pages are read would move to the
                # front and be missed, as if it were gone.
                "order": "create_time-dsc",
                "limit": PAGE_ROWS,
                "offset": offset,
            }
            answer = self.client.get(f"histories/{history_id}/contents", asked)
            page = wire.read(answer, list[wire.Dataset], what)
            for row in page:
                # What is made meanwhile is at the front, and pushes others to a second page.
                record = self._copy(row) if row.id not in seen else None
                if record is not None:
                    yield record
            seen.update(row.id for row in page)
            if len(page) < PAGE_ROWS:
                return
            # One row twice: two of one moment may change places between two pages.
            offset += PAGE_ROWS - 1

    def ask_hash(self, hda_id: str) -> None:
        """Ask Galaxy to compute the SHA-256 of a dataset; it does so later, by a task of its own.

        Raises BiobankError where Galaxy does not do that.
        """
        what = f"PUT /api/datasets/{hda_id}/hash"
        url = f"{self.client.gi.url}/datasets/{hda_id}/hash"
        payload = {"hash_function": "SHA-256"}
        self.client.call(what, lambda gi: gi.make_put_request(url, payload=payload), retry=True)

    def _copy(self, found: wire.Dataset) -> DatasetRecord | None:
        uuid = wire.canonical_uuid(found.uuid)
        if uuid is None:
            return None
        # What was purged is zero bytes long now; how long it was is not known.
        size = None if found.purged else found.file_size
        return DatasetRecord(
            uuid=uuid,
            id=found.id,
            name=found.name,
            extension=found.extension or found.file_ext,
            state=found.state,
            size_bytes=size,
            sha256=wire.sha256_of(found.hashes) if self.hashes else None,
            deleted=found.deleted,
            purged=found.purged,
            as_of=datetime.now(UTC),
            create_time=utc(found.create_time) if found.create_time else None,
            history_id=found.history_id,
            tags=tuple(safe_text(tag) for tag in found.tags),
            is_copy=found.copied_from_history_dataset_association_id is not None,
        )

    def collection(self, hdca_id: str) -> CollectionRecord:
        """A collection with all that is in it. One request."""
        what = f"collection {hdca_id}"
        answer = self.client.get(f"dataset_collections/{hdca_id}", {"instance_type": "history"})
        found = wire.read(answer, wire.Hdca, what)
        elements = tuple(
            msgspec.structs.replace(
                record, columns=sheet_columns(found.column_definitions, element.columns)
            )
            for element, record in zip(
                found.elements,
                _elements(found.elements, what, MAX_COLLECTION_DEPTH),
                strict=True,
            )
        )
        complete = found.element_count is None or found.element_count == len(found.elements)
        return CollectionRecord(
            id=found.id,
            name=found.name,
            collection_type=safe_text(found.collection_type),
            populated=found.populated and complete,
            elements=elements,
            history_id=found.history_id,
            create_time=utc(found.create_time) if found.create_time else None,
            tags=tuple(safe_text(tag) for tag in found.tags),
        )

    def history(self, history_id: str) -> HistoryRecord:
        """A history's name and tags; asked once. One that may not be read has neither."""
        return self._histories.get(history_id, self._ask_history)

    def check_history(self, history_id: str, unknown: str) -> None:
        """Raises NotFoundError with the text `unknown` for a history that can't be read."""
        try:
            self.client.get(f"histories/{history_id}", {"keys": "id"})
        except UnreachableError:
            raise
        except BiobankError as exc:
            raise NotFoundError(unknown) from exc

    def _ask_history(self, history_id: str) -> HistoryRecord:
        try:
            answer = self.client.get(f"histories/{history_id}", {"keys": "id,name,tags"})
        except UnreachableError as exc:
            if not isinstance(exc, GalaxyFaultError):
                raise
            return HistoryRecord(id=history_id)
        except BiobankError:
            return HistoryRecord(id=history_id)
        found = wire.read(answer, wire.History, f"history {history_id}")
        return HistoryRecord(
            id=found.id, name=safe_text(found.name), tags=tuple(map(safe_text, found.tags))
        )

    def _own_email(self, user_id: str | None) -> str | None:
        """Galaxy tells a job's owner by id only, except to administrators."""
        user = self.client.user
        return user.email if user_id is not None and user_id == user.id else None

    def _rerun(self, detail: wire.JobDetail) -> wire.Rerun | None:
        if detail.tool_id in UPLOAD_TOOLS:
            return None  # Galaxy refuses it (403)
        try:
            answer = self.client.get(f"jobs/{detail.id}/build_for_rerun")
            return wire.read(answer, wire.Rerun, f"job {detail.id}, build_for_rerun")
        except UnreachableError as exc:
            if isinstance(exc, GalaxyFaultError):
                return None
            raise
        except BiobankError:
            return None  # a tool that is gone, or that can't be run again

    def _element(self, element_id: str) -> wire.CollectionElement | None:
        try:
            answer = self.client.get(f"dataset_collection_element/{element_id}")
        except UnreachableError as exc:
            if isinstance(exc, GalaxyFaultError):
                return None
            raise
        except BiobankError:
            return None
        return wire.read(answer, wire.CollectionElement, f"collection element {element_id}")


def _naive(time: datetime) -> str:
    return (
        time.astimezone(UTC).replace(tzinfo=None).isoformat() if time.tzinfo else time.isoformat()
    )


def _decoded(value: Any) -> Any:
    """A parameter as it was meant: Galaxy gives each as JSON text.

    A number or a truth value stays text ("false"), as Galaxy's own `safe_loads` has it: an archive
    does not tell it from the same text, and both must give equal parameters.
    """
    if not isinstance(value, str):
        return value
    try:
        decoded = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return value if isinstance(decoded, bool | int | float) else decoded


def _metrics(metrics: list[wire.Metric] | None) -> tuple[datetime | None, datetime | None]:
    times: dict[str, datetime] = {}
    for metric in metrics or ():
        if metric.plugin == "core" and metric.name in ("start_epoch", "end_epoch"):
            try:
                times[metric.name] = datetime.fromtimestamp(float(metric.raw_value or ""), UTC)
            except (ValueError, OverflowError, OSError):
                continue
    begin, end = times.get("start_epoch"), times.get("end_epoch")
    return (begin, end) if begin and end and begin <= end else (None, None)


def _elements(elements: list[wire.Element], what: str, depth: int) -> tuple[ElementRecord, ...]:
    if depth == 0:
        raise GalaxyFaultError(f"{what}: nested deeper than {MAX_COLLECTION_DEPTH} levels")
    found: list[ElementRecord] = []
    for element in elements:
        identifier = safe_text(element.element_identifier)
        inner = element.object
        if inner is not None and inner.collection_type is not None:
            record = CollectionRecord(
                collection_type=safe_text(inner.collection_type),
                populated=inner.populated is not False,
                elements=_elements(inner.elements or [], what, depth - 1),
            )
            found.append(ElementRecord(identifier=identifier, collection=record))
        else:
            found.append(
                ElementRecord(
                    identifier=identifier,
                    dataset_uuid=wire.canonical_uuid(inner.uuid) if inner else None,
                    dataset_id=inner.id if inner else None,
                )
            )
    return tuple(found)
