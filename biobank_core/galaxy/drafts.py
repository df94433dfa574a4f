"""The catalog objects that a batch of jobs becomes, before they meet what the catalog has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from biobank_core.galaxy import identity
from biobank_core.galaxy.gather import Gathered
from biobank_core.galaxy.matching import Candidate
from biobank_core.galaxy.records import (
    DatasetRecord,
    JobRecord,
    safe_label,
    safe_text,
)
from biobank_core.galaxy.rules import Rules, ToolRule
from biobank_core.galaxy.translate import translate
from biobank_core.model.base import Object
from biobank_core.model.galaxy import GalaxyCollection, GalaxyDataset
from biobank_core.model.kinds import (
    Action,
    DataCollection,
    DataMember,
    DataObject,
    DataSample,
    Port,
)
from biobank_core.model.registry import kinds

# A dataset in one of these states has no file yet, or never will.
_WITHOUT_FILE = frozenset({"new", "upload", "queued", "running", "paused", "discarded", "deferred"})


@dataclass(slots=True)
class Draft:
    """What one job becomes: objects by VID, those that others refer to first."""

    job_id: str
    action: Action | None
    objects: dict[str, Object]
    # Data whose label here is that of the copy which the making job put out.
    makers_labels: frozenset[str] = frozenset()
    # Inputs of the action that the rules know of; None where they say nothing of it.
    references: tuple[Port, ...] | None = None

    def with_action(self, action: Action) -> Draft:
        """The same with another state of its action."""
        return replace(self, action=action, objects={**self.objects, action.vid: action})


@dataclass(slots=True)
class Drafter:
    """Makes drafts. `study_of(history id, dataset tags)` gives the VID of a study."""

    server: str
    rules: Rules
    study_of: Callable[[str | None, tuple[str, ...]], str]
    unassigned: str
    ambiguous: Callable[[str], bool]
    # Ids of an archive mean nothing outside of it.
    keep_ids: bool = True
    candidates: dict[str, Candidate] = field(default_factory=dict)

    def draft(self, job: JobRecord, around: Gathered) -> Draft:
        """The objects of one job. Raises InputError for one that can't be recorded."""
        study = self.study_of(job.history_id, ())
        rule = self.rules.tool(job.tool_id)
        shapes = around.shapes
        inputs = {end.key: shapes[end.key] for end in job.input_collections if end.key in shapes}
        outputs = {end.key: shapes[end.key] for end in job.output_collections if end.key in shapes}
        done = translate(
            job,
            server=self.server,
            study=study,
            inputs=inputs,
            outputs=outputs,
            rule=rule,
            ambiguous=self.ambiguous(job.id or ""),
            keep_ids=self.keep_ids,
        )
        objects: dict[str, Object] = {done.device.vid: done.device}
        if done.setup is not None:
            objects[done.setup.vid] = done.setup
        roles = {port.object: port.role for port in done.action.outputs}
        for vid in _data_of(job, around):
            record = around.datasets.get(vid)
            if record is None:
                continue  # the catalog has it
            kind = _kind(rule, roles.get(vid))
            for obj in self._data(vid, record, study=study, kind=kind):
                objects[obj.vid] = obj
        for obj in self._placed(done.action, around):
            objects[obj.vid] = obj
        for key in (*inputs, *outputs):
            for obj in self._collections(key, around, study):
                objects.setdefault(obj.vid, obj)
        objects[done.action.vid] = done.action
        self._note_candidates(job, done.action, around, objects)
        return Draft(
            job_id=job.id or "",
            action=done.action,
            objects=objects,
            makers_labels=frozenset(roles),
        )

    def _data(
        self,
        vid: str,
        record: DatasetRecord,
        *,
        study: str,
        kind: str,
    ) -> Iterator[Object]:
        uuid = record.uuid
        own = self.study_of(record.history_id, record.tags) if record.id else study
        cls = kinds()[kind]
        yield cls(
            vid=vid,
            label=safe_label(record.name, f"dataset {uuid}"),
            study=own,  # type: ignore[call-arg]
            galaxy=GalaxyDataset(
                server=self.server,
                dataset_uuid=uuid,
                extension=safe_text(record.extension) if record.extension else None,
                deleted=record.deleted,
                purged=record.purged,
                as_of=record.as_of,
            ),
        )
        if record.id is not None and record.state not in _WITHOUT_FILE:
            yield DataObject(
                vid=identity.data_object_vid(self.server, uuid),
                sample=vid,
                uri=identity.data_object_uri(self.server, uuid),
                size_bytes=record.size_bytes,
                sha256=record.sha256,
            )

    def _placed(self, action: Action, around: Gathered) -> Iterator[DataSample]:
        """Data that an earlier run could not place in a study, and that this one can."""
        if action.study == self.unassigned:
            return
        for port in action.outputs:
            standing = around.known.get(port.object)
            sample = standing.object if standing else None
            if isinstance(sample, DataSample) and sample.study == self.unassigned:
                yield msgspec.structs.replace(sample, study=action.study)

    def _collections(self, key: str, around: Gathered, study: str) -> Iterator[DataCollection]:
        record = around.collections.get(key)
        own = study
        if record is not None and record.history_id is not None:
            own = self.study_of(record.history_id, ())
        for identifier, shape in around.shapes[key].with_inner():
            name = identifier if identifier is not None else record.name if record else None
            outer = identifier is None
            yield DataCollection(
                vid=shape.vid,
                label=safe_label(name, f"{shape.collection_type} collection"),
                study=own,
                items=tuple(DataMember(role=role, object=vid) for role, vid in shape.items),
                galaxy=GalaxyCollection(
                    server=self.server,
                    hdca_id=record.id if record and outer and self.keep_ids else None,
                    collection_type=shape.collection_type,
                ),
            )

    def _note_candidates(
        self, job: JobRecord, action: Action, around: Gathered, objects: Mapping[str, Object]
    ) -> None:
        """Remember what the rules may tell of data that came in, or that nothing went into."""
        seen: dict[str, set[str]] = {}
        columns: dict[str, set[tuple[str, str]]] = {}
        for key in (e.key for e in (*job.input_collections, *job.output_collections)):
            if key in around.shapes:
                for vid, path in around.shapes[key].leaves.items():
                    seen.setdefault(vid, set()).update(path)
            record = around.collections.get(key)
            for element in record.elements if record else ():
                for leaf in element.leaves() if element.columns else ():
                    if leaf.dataset_uuid:
                        vid = identity.data_sample_vid(leaf.dataset_uuid)
                        columns.setdefault(vid, set()).update(element.columns)
        for role, identifier in job.element_identifiers.items():
            ends = [end for end in job.inputs if end.role == role and end.uuid]
            if len(ends) == 1 and ends[0].uuid:
                vid = identity.data_sample_vid(ends[0].uuid)
                seen.setdefault(vid, set()).add(safe_text(identifier))
        for vid in _data_of(job, around):
            seen.setdefault(vid, set())
        for vid, identifiers in seen.items():
            told = around.datasets.get(vid)
            known = around.known.get(vid)
            sample = objects.get(vid) or (known.object if known else None)
            if not isinstance(sample, DataSample):
                continue
            time = told.create_time if told and told.create_time else job.create_time
            candidate = self.candidates.setdefault(
                vid, Candidate(vid=vid, study=sample.study, time=time)
            )
            candidate.identifiers |= identifiers
            candidate.columns |= columns.get(vid, set())
            if told is not None:
                candidate.tags.update(told.tags)


def _data_of(job: JobRecord, around: Gathered) -> Iterator[str]:
    """The VIDs of all data that a job's objects refer to."""
    for end in (*job.outputs, *job.inputs):
        if end.uuid:
            yield identity.data_sample_vid(end.uuid)
    for key in (e.key for e in (*job.input_collections, *job.output_collections)):
        record = around.collections.get(key)
        for leaf in record.leaves() if record else ():
            if leaf.dataset_uuid:
                yield identity.data_sample_vid(leaf.dataset_uuid)


def _kind(rule: ToolRule | None, role: str | None) -> str:
    return (rule.kind_of(role) if rule and role is not None else None) or "DataSample"
