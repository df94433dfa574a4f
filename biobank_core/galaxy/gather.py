"""All that a batch of jobs needs: their records, collections and datasets, each asked for once.

What the catalog knows already is not asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from biobank_core.catalog.port import Catalog, Versioned
from biobank_core.errors import BiobankError, UnreachableError
from biobank_core.galaxy import identity
from biobank_core.galaxy.client import GalaxyFaultError
from biobank_core.galaxy.records import (
    SAMPLE_SHEET,
    CollectionEnd,
    CollectionRecord,
    DatasetRecord,
    JobRecord,
)
from biobank_core.galaxy.shapes import Shape, shape_of
from biobank_core.galaxy.source import Source
from biobank_core.galaxy.translate import action_vid_of
from biobank_core.model.kinds import DataCollection, DataObject, DataSample

R = TypeVar("R")

_PAIR: Final = ("forward", "reverse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """What belongs to a batch of jobs.

    `shapes` and `collections` by collection key (a shape may come from the catalog, without a
    record); `datasets` are the new ones by VID; `known` what the catalog has of those named;
    `growing` are the keys of collections that Galaxy has not filled yet.
    """

    shapes: Mapping[str, Shape]
    collections: Mapping[str, CollectionRecord]
    datasets: Mapping[str, DatasetRecord]
    known: Mapping[str, Versioned]
    growing: frozenset[str] = frozenset()


@dataclass(slots=True)
class Gatherer:
    """Collects for batch after batch; remembers the collections of this run.

    `sheets`: the columns of sample sheets are wanted, which the catalog does not keep.
    """

    source: Source
    catalog: Catalog
    server: str
    sheets: bool = False
    _shapes: dict[str, Shape] = field(default_factory=dict)
    _records: dict[str, CollectionRecord] = field(default_factory=dict)

    def jobs(self, ids: Sequence[str]) -> tuple[dict[str, JobRecord], dict[str, str]]:
        """(records by job id, reasons by the id of each job that Galaxy does not give).

        Raises UnreachableError when the server itself is gone.
        """
        found: dict[str, JobRecord] = {}
        failed: dict[str, str] = {}
        for job_id, answer in self.source.client.each(ids, self.source.job):
            if isinstance(answer, BiobankError):
                _raise_if_gone(answer)
                failed[job_id] = str(answer)
            else:
                found[job_id] = answer
        return found, failed

    def around(self, jobs: Sequence[JobRecord], *, ambiguous: Callable[[str], bool]) -> Gathered:
        """The collections and the new datasets of these jobs.

        `ambiguous` tells of a job id whether its action's VID needs more than tool and time.
        """
        growing = self._collections(jobs, ambiguous)
        keys = {
            end.key for job in jobs for end in (*job.input_collections, *job.output_collections)
        }
        for job in jobs:
            for end in job.input_collections:
                if end.inner_type is not None and end.key not in self._shapes:
                    shape = self._inner(end)
                    if shape is not None:
                        self._shapes[end.key] = shape
        records = {key: self._records[key] for key in keys if key in self._records}
        datasets, known = self._datasets(jobs, records.values())
        return Gathered(
            shapes={key: self._shapes[key] for key in keys if key in self._shapes},
            collections=records,
            datasets=datasets,
            known=known,
            growing=growing,
        )

    def _collections(
        self, jobs: Sequence[JobRecord], ambiguous: Callable[[str], bool]
    ) -> frozenset[str]:
        makers: dict[str, tuple[str | None, str]] = {}
        for job in jobs:
            for end in job.input_collections:
                if end.inner_type is None:
                    makers.setdefault(end.key, (None, end.role))
        for job in jobs:
            vid = action_vid_of(job, server=self.server, ambiguous=ambiguous(job.id or ""))
            for end in job.output_collections:
                makers[end.key] = (vid, end.role)
        wanted = [key for key in makers if key not in self._shapes]
        if self.source.live:
            self._shapes.update(self._from_catalog(wanted))
        missing = [key for key in wanted if key not in self._shapes]
        growing: set[str] = set()
        for key, record in self._asked(missing, self.source.collection).items():
            maker, role = makers[key]
            # A collection that is still growing has no content to name it by yet.
            if not record.populated:
                growing.add(key)
                continue
            shape = shape_of(record, maker=maker, output=role)
            if shape is not None:
                self._shapes[key] = shape
                self._records[key] = record
        return frozenset(growing)

    def _from_catalog(self, keys: Sequence[str]) -> dict[str, Shape]:
        if not keys:
            return {}
        where = {"galaxy.hdca_id": tuple(keys), "galaxy.server": self.server}
        found: dict[str, Shape] = {}
        for item in self.catalog.find("DataCollection", where):
            collection = item.object
            if isinstance(collection, DataCollection) and collection.galaxy:
                if self.sheets and _is_sheet(collection.galaxy.collection_type):
                    continue
                shape = self._standing_shape(collection)
                if collection.galaxy.hdca_id and shape:
                    found[collection.galaxy.hdca_id] = shape
        return found

    def _standing_shape(self, collection: DataCollection) -> Shape | None:
        if collection.galaxy is None or collection.galaxy.collection_type is None:
            return None
        members = self.catalog.get([item.object for item in collection.items])
        inner: list[tuple[str, Shape]] = []
        leaves: dict[str, tuple[str, ...]] = {}
        for item in collection.items:
            member = members[item.object].object if item.object in members else None
            if isinstance(member, DataCollection):
                shape = self._standing_shape(member)
                if shape is None:
                    return None
                inner.append((item.role, shape))
                leaves |= {leaf: (item.role, *path) for leaf, path in shape.leaves.items()}
            else:
                leaves[item.object] = (item.role,)
        return Shape(
            vid=collection.vid,
            collection_type=collection.galaxy.collection_type,
            items=tuple((item.role, item.object) for item in collection.items),
            inner=tuple(inner),
            leaves=leaves,
        )

    def _inner(self, end: CollectionEnd) -> Shape | None:
        """An element of a collection that went in by itself: Galaxy tells its datasets only."""
        members = tuple(
            identity.data_sample_vid(member.uuid) for member in end.members if member.uuid
        )
        if not members or len(members) != len(end.members):
            return None
        if end.inner_type == "paired" and len(members) == len(_PAIR):
            items = tuple(zip(_PAIR, members, strict=True))
            return Shape(
                vid=identity.collection_vid("paired", items),
                collection_type="paired",
                items=items,
                leaves={vid: (role,) for role, vid in items},
            )
        for known in self._shapes.values():
            for _, shape in known.with_inner():
                if shape.collection_type == end.inner_type and tuple(shape.leaves) == members:
                    return shape
        return self._standing_inner(end.inner_type or "", members)

    def _standing_inner(self, collection_type: str, members: tuple[str, ...]) -> Shape | None:
        vids = {r.vid for r in self.catalog.referring(members[:1], kinds=["DataCollection"])}
        for item in self.catalog.get(vids).values():
            if isinstance(item.object, DataCollection):
                shape = self._standing_shape(item.object)
                if shape is None or shape.collection_type != collection_type:
                    continue
                if tuple(shape.leaves) == members:
                    return shape
        return None

    def _datasets(
        self, jobs: Sequence[JobRecord], collections: Iterable[CollectionRecord]
    ) -> tuple[dict[str, DatasetRecord], Mapping[str, Versioned]]:
        copies: dict[str, str | None] = {}  # VID -> the copy to ask for; the maker's before others
        uuids: dict[str, str] = {}
        ends = [end for job in jobs for end in job.outputs]
        ends += [end for job in jobs for end in job.inputs]
        leaves = [leaf for record in collections for leaf in record.leaves()]
        for uuid, copy in (
            *((end.uuid, end.id) for end in ends),
            *((leaf.dataset_uuid, leaf.dataset_id) for leaf in leaves),
        ):
            if uuid is not None:
                vid = identity.data_sample_vid(uuid)
                uuids[vid] = uuid
                if copies.get(vid) is None:
                    copies[vid] = copy
        known = self.catalog.get(copies)
        again = self._worth_asking_again(jobs, known) | _told_by_no_server(known)
        missing = {
            copy: vid for vid, copy in copies.items() if copy and (vid not in known or vid in again)
        }
        datasets = {vid: DatasetRecord(uuid=uuids[vid]) for vid in copies if vid not in known}
        for copy, record in self._asked(list(missing), self.source.dataset).items():
            # Galaxy is not believed blindly: the answer must be about what was asked.
            if record is not None and identity.data_sample_vid(record.uuid) == missing[copy]:
                datasets[missing[copy]] = record
        return datasets, known

    def _worth_asking_again(
        self, jobs: Sequence[JobRecord], known: Mapping[str, Versioned]
    ) -> set[str]:
        """Outputs known from a copy only (the making job names its own), or without their hash."""
        outputs = {
            identity.data_sample_vid(end.uuid): end.uuid
            for job in jobs
            if not job.is_cached
            for end in job.outputs
            if end.uuid
        }
        standing = [vid for vid in outputs if vid in known]
        if not standing:
            return set()
        referrers = self.catalog.referring(standing, kinds=["Action"])
        without_maker = set(standing) - {r.target for r in referrers if r.field == "outputs"}
        if not self.source.hashes:
            return without_maker
        files = {identity.data_object_vid(self.server, outputs[vid]): vid for vid in standing}
        found = self.catalog.get(files)
        return without_maker | {
            vid
            for file, vid in files.items()
            if file in found
            and isinstance(obj := found[file].object, DataObject)
            and obj.sha256 is None
        }

    def _asked(self, ids: Sequence[str], ask: Callable[[str], R]) -> dict[str, R]:
        found: dict[str, R] = {}
        for item_id, answer in self.source.client.each(ids, ask):
            if isinstance(answer, BiobankError):
                _raise_if_gone(answer)
            else:
                found[item_id] = answer
        return found


def _is_sheet(collection_type: str | None) -> bool:
    return (collection_type or "").startswith(SAMPLE_SHEET)


def _told_by_no_server(known: Mapping[str, Versioned]) -> set[str]:
    """Data known from an archive only, which tells no size, and nothing of what was purged."""
    return {
        vid
        for vid, item in known.items()
        if isinstance(item.object, DataSample)
        and item.object.galaxy is not None
        and item.object.galaxy.as_of is None
    }


def _raise_if_gone(error: BiobankError) -> None:
    """One thing that Galaxy does not give must not stop the rest; a server that is gone does."""
    if isinstance(error, UnreachableError) and not isinstance(error, GalaxyFaultError):
        raise error
