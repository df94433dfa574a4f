"""Source 2: an exported history or invocation. The same records as a live server's, from a file.

An archive knows the exact version of each job's tool. It does not know ids of the API, users,
sizes, and from which job a cached one took its outputs. What it leaves out (data that were purged,
collections that were deleted) makes the job partial: a later source completes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from biobank_core.errors import BiobankError, InputError, NotFoundError
from biobank_core.galaxy import archive_wire as files
from biobank_core.galaxy import wire
from biobank_core.galaxy.archive_container import Limits, read_members
from biobank_core.galaxy.client import GalaxyUser
from biobank_core.galaxy.live_inputs import grouped_inputs, sources_of
from biobank_core.galaxy.records import (
    UNKNOWN_TOOL,
    UPLOAD_TOOLS,
    CollectionEnd,
    CollectionRecord,
    DatasetEnd,
    DatasetRecord,
    ElementRecord,
    HistoryRecord,
    JobRecord,
    VersionSource,
    safe_text,
    sheet_columns,
    utc,
)

T = TypeVar("T")
R = TypeVar("R")

_IDENTIFIER_SUFFIX: Final = "|__identifier__"
_MAY_BE_CACHED: Final = "__use_cached_job__"
_IN_A_HISTORY: Final = frozenset({"hda", "hdca", "dce"})


class _OneByOne:
    """An archive is in memory: threads would not make it faster."""

    user = GalaxyUser(id="archive", is_admin=True)

    def each(
        self, items: Iterable[T], ask: Callable[[T], R]
    ) -> Iterator[tuple[T, R | BiobankError]]:
        for item in items:
            try:
                yield item, ask(item)
            except BiobankError as exc:
                yield item, exc


@dataclass(slots=True, kw_only=True)
class ArchiveSource:
    """The records of one archive; ids are its own. `name` is the file's."""

    name: str
    hashes: bool
    jobs_by_id: dict[str, files.Job]
    datasets: dict[str, files.Dataset]
    collections: dict[str, files.Collection]
    exported_history: HistoryRecord | None = None
    odd_rows: dict[str, str] = field(default_factory=dict)
    _elements: dict[str, files.Element] = field(default_factory=dict)
    _uuids: dict[str, str | None] = field(default_factory=dict)
    _wholes: dict[str, bool] = field(default_factory=dict)
    # Dataset uuid -> (create time, id) of the first job that has it as an output.
    _makers: dict[str, tuple[datetime, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for dataset in self.datasets.values():
            self._uuids[dataset.encoded_id] = wire.canonical_uuid(dataset.dataset_uuid)
        waiting = [c.collection for c in self.collections.values() if c.collection]
        while waiting:
            for element in waiting.pop().elements:
                if element.encoded_id is not None:
                    self._elements[element.encoded_id] = element
                if element.child_collection is not None:
                    waiting.append(element.child_collection)
        for job in self.jobs_by_id.values():
            made = (utc(job.create_time), job.encoded_id)
            for uuid in self._output_uuids(job):
                self._makers[uuid] = min(made, self._makers.get(uuid, made))

    @property
    def live(self) -> bool:
        return False

    @property
    def client(self) -> _OneByOne:
        return _OneByOne()

    def jobs(
        self,
        *,
        history_id: str | None = None,
        invocation_id: str | None = None,
        since: datetime | None = None,
        states: Iterable[str] = (),
    ) -> Iterator[wire.JobRow]:
        """All jobs, newest first; an archive is one history or one invocation."""
        del history_id, invocation_id
        wanted = frozenset(states)
        rows = [
            wire.JobRow(
                id=job.encoded_id,
                state=job.state,
                create_time=job.create_time,
                update_time=job.update_time,
                tool_id=job.tool_id,
                history_id=self._history_of(job),
            )
            for job in self.jobs_by_id.values()
            if (since is None or utc(job.update_time) >= since)
            and (not wanted or job.state in wanted)
        ]
        yield from sorted(rows, key=lambda row: (utc(row.update_time), row.id), reverse=True)

    def job(self, row_id: str) -> JobRecord:
        """One job; `partial` where the archive does not have all that went in or came out."""
        job = self.jobs_by_id[row_id]
        tool_id = safe_text(job.tool_id or UNKNOWN_TOOL)
        params = job.params or {}
        parameters = {
            safe_text(name): value
            for name, value in params.items()
            if not name.endswith(_IDENTIFIER_SUFFIX)
        }
        state = {} if tool_id in UPLOAD_TOOLS else parameters
        raw = {name: self._end(ids[-1]) for name, ids in job.input_dataset_mapping.items() if ids}
        inputs, found = grouped_inputs(raw, state, parameters, self._element)
        # Unlike a server's answer, the archive holds what is inside of an element.
        collections = tuple(replace(end, inner_type=None, members=()) for end in found)
        given = {end.uuid for end in inputs}
        outputs = tuple(
            DatasetEnd(role=wire.output_role(name), uuid=self._made(hda_id, given), id=hda_id)
            for name, ids in sorted(job.output_dataset_mapping.items())
            for hda_id in ids
        )
        output_collections = tuple(
            CollectionEnd(role=safe_text(name), key=key)
            for name, ids in sorted(job.output_dataset_collection_mapping.items())
            for key in ids
        )
        cached, sure = self._cached(job, given)
        version = safe_text(job.tool_version) if job.tool_version else None
        whole = all(self._whole(end.key) for end in (*collections, *output_collections))
        return JobRecord(
            id=job.encoded_id,
            tool_id=tool_id,
            tool_version=version,
            tool_version_source=VersionSource.JOBS_ATTRS if version else None,
            state=job.state,
            exit_code=job.exit_code,
            create_time=utc(job.create_time),
            update_time=utc(job.update_time),
            galaxy_version=job.galaxy_version,
            history_id=self._history_of(job),
            handed_back=cached,
            partial=not (whole and sure and self._all_inputs(job, state)),
            parameters=parameters,
            inputs=inputs,
            input_collections=collections,
            outputs=outputs,
            output_collections=output_collections,
            element_identifiers={
                safe_text(name.removesuffix(_IDENTIFIER_SUFFIX)): identifier
                for name, identifier in params.items()
                if name.endswith(_IDENTIFIER_SUFFIX) and isinstance(identifier, str)
            },
        )

    def dataset(self, hda_id: str) -> DatasetRecord | None:
        """One copy of a dataset; None where it is left out or has no uuid.

        Without `as_of`: the archive does not say when it was made.
        """
        found = self.datasets.get(hda_id)
        uuid = self._uuid(hda_id)
        if found is None or uuid is None:
            return None
        hashes = found.file_metadata.hashes if found.file_metadata else []
        return DatasetRecord(
            uuid=uuid,
            id=found.encoded_id,
            name=found.name,
            extension=found.extension,
            state=found.state,
            sha256=wire.sha256_of(hashes) if self.hashes else None,
            deleted=found.deleted,
            create_time=utc(found.create_time) if found.create_time else None,
            history_id=found.history_encoded_id,
            tags=tuple(safe_text(tag) for tag in found.tags),
        )

    def content(self, hda_id: str, *, limit_bytes: int) -> bytes:
        """Raises NotFoundError: the contents in an archive are not read."""
        raise NotFoundError(f"dataset {hda_id}: the contents in an archive are not read")

    def collection(self, hdca_id: str) -> CollectionRecord:
        """A collection of the history, or an element by its key `dce-ID`.

        Raises NotFoundError where the archive does not hold all of it: what is left would be
        another collection.
        """
        content = self._content(hdca_id)
        if content is None or not self._has_all(content):
            raise NotFoundError(f"{self.name}: collection {hdca_id} is not in it, or not all of it")
        listed = self.collections.get(hdca_id)
        return CollectionRecord(
            id=hdca_id if listed else None,
            name=listed.display_name if listed else None,
            collection_type=safe_text(content.type),
            populated=content.populated_state in (None, "ok"),
            elements=self._records(content),
            history_id=listed.history_encoded_id if listed else None,
        )

    def history(self, history_id: str) -> HistoryRecord:
        """Of the exported history name and tags; of any other nothing."""
        known = self.exported_history
        return known if known and known.id == history_id else HistoryRecord(id=history_id)

    def check_history(self, history_id: str, unknown: str) -> None:
        """Raises NotFoundError for any but the exported history."""
        if self.exported_history is None or self.exported_history.id != history_id:
            raise NotFoundError(unknown)

    def _uuid(self, hda_id: str) -> str | None:
        return self._uuids.get(hda_id)

    def _end(self, hda_id: str) -> wire.End:
        return wire.End(id=hda_id, src="hda", uuid=self._uuid(hda_id))

    def _made(self, hda_id: str, given: set[str | None]) -> str | None:
        """The uuid of an output; None for a copy of what is not known to have gone in."""
        uuid = self._uuid(hda_id)
        found = self.datasets.get(hda_id)
        copy = found is not None and found.copied_from_history_dataset_association_id_chain
        return None if copy and uuid not in given else uuid

    def _output_uuids(self, job: files.Job) -> set[str]:
        ids = (hda_id for found in job.output_dataset_mapping.values() for hda_id in found)
        return {uuid for hda_id in ids if (uuid := self._uuid(hda_id)) is not None}

    def _cached(self, job: files.Job, given: set[str | None]) -> tuple[bool, bool]:
        """(whether the job cache answered, whether that is known).

        An archive tells that the cache might be asked, not whether it was. A dataset that an
        earlier job made is the cache's answer; else the earlier job may just not be in here.
        """
        if str((job.params or {}).get(_MAY_BE_CACHED, "")).lower() != "true":
            return False, True
        uuids = self._output_uuids(job) - given
        earlier = any(self._makers[uuid][1] != job.encoded_id for uuid in uuids)
        return earlier, earlier or job.state != "ok"

    def _history_of(self, job: files.Job) -> str | None:
        ids = (hda_id for found in job.output_dataset_mapping.values() for hda_id in found)
        found = {self.datasets[i].history_encoded_id for i in ids if i in self.datasets}
        ids = (key for found in job.output_dataset_collection_mapping.values() for key in found)
        found |= {self.collections[i].history_encoded_id for i in ids if i in self.collections}
        return found.pop() if len(found) == 1 else None

    def _all_inputs(self, job: files.Job, state: dict[str, Any]) -> bool:
        """Whether each input has an id in here, and nothing came from a library."""
        if any(len(ids) != 1 for ids in job.input_dataset_mapping.values()):
            return False
        elements = job.input_dataset_collection_element_mapping.values()
        if any(key not in self._elements for ids in elements for key in ids):
            return False
        named = {key for ids in job.input_dataset_collection_mapping.values() for key in ids}
        if not all(self._whole(key) for key in named):
            return False
        return all(src in _IN_A_HISTORY for src, _ in sources_of(state))

    def _element(self, element_id: str) -> wire.CollectionElement | None:
        found = self._elements.get(element_id)
        if found is None:
            return None
        child = found.child_collection
        inner = wire.ElementObject(collection_type=child.type) if child else None
        return wire.CollectionElement(
            id=element_id, element_identifier=found.element_identifier, object=inner
        )

    def _content(self, key: str) -> files.Content | None:
        if key.startswith("dce-"):
            element = self._elements.get(key.removeprefix("dce-"))
            return element.child_collection if element else None
        listed = self.collections.get(key)
        return listed.collection if listed else None

    def _whole(self, key: str) -> bool:
        if key not in self._wholes:
            content = self._content(key)
            self._wholes[key] = content is not None and self._has_all(content)
        return self._wholes[key]

    def _has_all(self, content: files.Content) -> bool:
        for element in content.elements:
            if element.child_collection is not None:
                if not self._has_all(element.child_collection):
                    return False
            elif element.hda is None or self._uuid(element.hda.encoded_id) is None:
                return False
        return True

    def _records(self, content: files.Content) -> tuple[ElementRecord, ...]:
        found: list[ElementRecord] = []
        for element in content.elements:
            identifier = safe_text(element.element_identifier)
            columns = sheet_columns(content.column_definitions, element.columns)
            child, hda_id = (
                element.child_collection,
                element.hda.encoded_id if element.hda else None,
            )
            if child is not None:
                inner = CollectionRecord(
                    collection_type=safe_text(child.type),
                    populated=child.populated_state in (None, "ok"),
                    elements=self._records(child),
                )
                found.append(
                    ElementRecord(identifier=identifier, collection=inner, columns=columns)
                )
            else:
                uuid = self._uuid(hda_id) if hda_id else None
                found.append(
                    ElementRecord(
                        identifier=identifier, dataset_uuid=uuid, dataset_id=hda_id, columns=columns
                    )
                )
        return tuple(found)


def open_archive(path: Path, *, hashes: bool = True, limits: Limits | None = None) -> ArchiveSource:
    """The records of a history's or an invocation's archive (tar.gz, bag.tgz, rocrate.zip).

    All of it is read and checked first. Raises InputError that names file, member and limit.
    """
    file = str(path)
    members = read_members(path, files.MEMBERS, mark=files.EXPORT, limits=limits)
    for name in files.REQUIRED:
        if name not in members:
            raise InputError(f"not a whole export of Galaxy's: it has no member {name}", file=file)
    version = files.read(members, files.EXPORT, files.Export, file=file).galaxy_export_version
    if version != files.EXPORT_VERSION:
        raise InputError(
            f"member {files.EXPORT!r}: a format that is not known; known is"
            f" {files.EXPORT_VERSION!r}",
            file=file,
            value=version,
        )
    jobs = files.read(members, files.JOBS, list[files.Job], file=file)
    collections = files.read(members, files.COLLECTIONS, list[files.Collection], file=file)
    datasets = [
        dataset
        for name in (files.PROVENANCE, files.DATASETS)
        for dataset in files.read(members, name, list[files.Dataset], file=file)
    ]
    for job in jobs:
        files.check_times(job, file=file)
        files.check_depth(job, file=file)
    for dataset in datasets:
        files.check_times(dataset, file=file)
    for collection in collections:
        if collection.collection is not None:
            files.check_elements(collection.collection, file=file)
    history = None
    if files.HISTORY in members:
        known = files.read(members, files.HISTORY, files.History, file=file)
        history = HistoryRecord(
            id=known.encoded_id,
            name=safe_text(known.name or ""),
            tags=tuple(map(safe_text, known.tags)),
        )
    by_id = {job.encoded_id: job for job in jobs}
    if len(by_id) != len(jobs):
        raise InputError(f"member {files.JOBS!r}: two jobs have one id", file=file)
    return ArchiveSource(
        name=path.name,
        hashes=hashes,
        jobs_by_id=by_id,
        datasets={dataset.encoded_id: dataset for dataset in datasets},
        collections={collection.encoded_id: collection for collection in collections},
        exported_history=history,
    )
