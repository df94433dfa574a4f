"""Asks a live server again about data that are known: in bulk, a history at a time.

What is asked: whether all copies are deleted or purged, the label of the original, the hash. What
people set stays, and the known is never replaced by the unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Final

import msgspec
from msgspec.structs import replace

from biobank_core.catalog.port import Catalog, Save, Versioned
from biobank_core.errors import BiobankError, StaleVersionError, UnreachableError
from biobank_core.galaxy import identity
from biobank_core.galaxy.client import GalaxyFaultError
from biobank_core.galaxy.live import LiveSource
from biobank_core.galaxy.merge import renamed
from biobank_core.galaxy.records import DatasetRecord, safe_label
from biobank_core.model.kinds import Action, DataCollection, DataObject, DataSample

log = logging.getLogger(__name__)

# A unit stays small enough for every catalog; a sample and its file are two objects.
_DATA_A_UNIT: Final = 200
_PAGE: Final = 1000
_TRIES: Final = 8


class Copies(msgspec.Struct, gc=False):
    """What all copies of a dataset that were seen say together.

    `hda_id` is a copy that is not purged, or None; `label` the original's, else the oldest copy's.
    """

    uuid: str
    deleted: bool
    purged: bool
    as_of: datetime | None
    label: str | None
    label_rank: tuple[bool, str]
    sha256: str | None = None
    size_bytes: int | None = None
    hda_id: str | None = None
    state: str | None = None


@dataclass(slots=True)
class Refreshed:
    """What a refresh did. `hidden` are ids of histories that Galaxy does not show this user."""

    data: int = 0
    changed: int = 0
    differing: int = 0
    hidden: set[str] = field(default_factory=set)


class Refresher:
    """Brings data of one server up to date. `by` is who is written into the history."""

    def __init__(self, catalog: Catalog, source: LiveSource, *, server: str, by: str) -> None:
        self._catalog = catalog
        self._source = source
        self._server = server
        self._by = by
        self.done = Refreshed()

    def all_histories(self) -> set[str]:
        """The histories of all jobs that are recorded of this server."""
        lines = self._catalog.lines("Action", {"galaxy.server": self._server})
        found = (msgspec.json.decode(line, type=_ActionLine).galaxy.history_id for line in lines)
        return {history_id for history_id in found if history_id is not None}

    def histories_of(self, data: Iterable[str]) -> set[str]:
        """The histories of the jobs that used or made these data, alone or in a collection."""
        found: set[str] = set()
        asked: set[str] = set()
        wanted = list(data)
        while wanted:
            asked.update(wanted)
            refers = [
                referrer
                for part in _batched(wanted, _PAGE)
                for referrer in self._catalog.referring(part, kinds=["Action", "DataCollection"])
            ]
            wanted = []
            for vids in _batched({referrer.vid for referrer in refers}, _PAGE):
                for item in self._catalog.get(vids).values():
                    obj = item.object
                    if isinstance(obj, DataCollection) and obj.vid not in asked:
                        wanted.append(obj.vid)
                    galaxy = obj.galaxy if isinstance(obj, Action) else None
                    if galaxy and galaxy.server == self._server and galaxy.history_id:
                        found.add(galaxy.history_id)
        return found

    def copies(
        self,
        histories: Collection[str],
        *,
        only: Collection[str] | None = None,
        advance: Callable[[int], object] = lambda _by: None,
    ) -> dict[str, Copies]:
        """What the copies in these histories say, by the VID of the data.

        With `only` these data alone, and no more of a history than it takes to see one copy of
        each. `advance` is told of each history that was read. Raises UnreachableError when the
        server is gone.
        """
        found: dict[str, Copies] = {}
        for history_id in sorted(histories):
            missing = set(only) - found.keys() if only is not None else None
            try:
                for record in self._source.copies(history_id):
                    vid = identity.data_sample_vid(record.uuid)
                    if missing is None or vid in missing:
                        found[vid] = _joined(found.get(vid), record)
                    if missing is not None:
                        missing.discard(vid)
                        if not missing:
                            break
            except BiobankError as exc:
                if isinstance(exc, UnreachableError) and not isinstance(exc, GalaxyFaultError):
                    raise
                self.done.hidden.add(history_id)
            advance(1)
        return found

    def refresh(self, found: Mapping[str, Copies]) -> None:
        """Save what these say and the catalog does not have."""
        for vids in _batched(found, _DATA_A_UNIT):
            self._save({vid: found[vid] for vid in vids})

    def fill_hashes(self, hashes: Mapping[str, str]) -> None:
        """Save SHA-256s by the VID of the data; one that is known stays."""
        for vids in _batched(hashes, _DATA_A_UNIT):
            self._try(lambda vids=vids: self._with_hashes({v: hashes[v] for v in vids}))  # type: ignore[misc]

    def without_hash(self, max_bytes: int | None) -> Iterator[str]:
        """The VIDs of data whose file has no hash yet, and is not known to be larger or purged."""
        for part in _batched(self._files_without_hash(max_bytes), _PAGE):
            for vid, item in self._catalog.get(part).items():
                galaxy = item.object.galaxy if isinstance(item.object, DataSample) else None
                if galaxy and galaxy.server == self._server and not galaxy.purged:
                    yield vid

    def _files_without_hash(self, max_bytes: int | None) -> Iterator[str]:
        start = identity.data_object_uri(self._server, "")
        for line in self._catalog.lines("DataObject"):
            file = msgspec.json.decode(line, type=_FileLine)
            too_large = max_bytes is not None and (file.size_bytes or 0) > max_bytes
            if file.sha256 is None and not too_large and file.uri.startswith(start):
                yield file.sample

    def _save(self, found: Mapping[str, Copies]) -> None:
        def changes() -> list[Save]:
            files = {vid: identity.data_object_vid(self._server, found[vid].uuid) for vid in found}
            standing = self._catalog.get([*found, *files.values()])
            saves: list[Save] = []
            for vid, copies in found.items():
                item, file = standing.get(vid), standing.get(files[vid])
                if item is None or not isinstance(item.object, DataSample):
                    continue
                saves += _changed(item, self._refreshed(item.object, copies))
                if file is not None and isinstance(file.object, DataObject):
                    saves += _changed(file, self._filled(file.object, copies))
            return saves

        self._try(changes)
        self.done.data += len(found)

    def _with_hashes(self, hashes: Mapping[str, str]) -> list[Save]:
        saves: list[Save] = []
        samples = self._catalog.get(hashes)
        uuids = {
            vid: item.object.galaxy.dataset_uuid
            for vid, item in samples.items()
            if isinstance(item.object, DataSample) and item.object.galaxy
        }
        files = {
            identity.data_object_vid(self._server, uuid): vid for vid, uuid in uuids.items() if uuid
        }
        for vid, item in self._catalog.get(files).items():
            if isinstance(item.object, DataObject) and item.object.sha256 is None:
                saves += _changed(item, replace(item.object, sha256=hashes[files[vid]]))
        return saves

    def _try(self, changes: Callable[[], list[Save]]) -> None:
        for attempt in range(_TRIES):
            saves = changes()
            try:
                if saves:
                    self._catalog.commit(saves, by=self._by)
            except StaleVersionError:
                # Somebody wrote in between: look again.
                if attempt == _TRIES - 1:
                    raise
            else:
                self.done.changed += len(saves)
                return

    def _refreshed(self, sample: DataSample, copies: Copies) -> DataSample:
        galaxy = sample.galaxy
        if galaxy is None or galaxy.server != self._server:
            return sample
        if galaxy.as_of and copies.as_of and copies.as_of < galaxy.as_of:
            # Another one asked later and saved sooner.
            return sample
        label = sample.label
        if copies.label is not None and copies.label != label:
            label = label if renamed(sample, self._catalog.history) else copies.label
        asked = (copies.deleted, copies.purged)
        if label == sample.label and asked == (galaxy.deleted, galaxy.purged):
            return sample
        deleted, purged = asked
        told = replace(galaxy, deleted=deleted, purged=purged, as_of=copies.as_of)
        return replace(sample, label=label, galaxy=told)

    def _filled(self, file: DataObject, copies: Copies) -> DataObject:
        if file.sha256 and copies.sha256 and file.sha256 != copies.sha256:
            self.done.differing += 1
            log.warning(
                "%s: Galaxy has another SHA-256 now (%s); the recorded one stays",
                file.uri,
                copies.sha256,
            )
        return replace(
            file,
            sha256=file.sha256 or copies.sha256,
            size_bytes=copies.size_bytes if file.size_bytes is None else file.size_bytes,
        )


class _GalaxyLine(msgspec.Struct):
    history_id: str | None = None


class _ActionLine(msgspec.Struct):
    galaxy: _GalaxyLine


class _FileLine(msgspec.Struct):
    sample: str
    uri: str
    size_bytes: int | None = None
    sha256: str | None = None


def _batched(items: Iterable[str], size: int) -> Iterator[tuple[str, ...]]:
    source = iter(items)
    while part := tuple(islice(source, size)):
        yield part


def _changed(item: Versioned, new: DataSample | DataObject) -> list[Save]:
    return [Save(object=new, based_on=item.version)] if new != item.object else []


def _joined(known: Copies | None, record: DatasetRecord) -> Copies:
    # Not a copy before a copy, then the oldest.
    rank = (record.is_copy, record.create_time.isoformat() if record.create_time else "~")
    label = safe_label(record.name, "") or None
    deleted, purged = record.deleted is True, record.purged is True
    if known is None:
        known = Copies(
            uuid=record.uuid,
            deleted=deleted,
            purged=purged,
            as_of=record.as_of,
            label=label,
            label_rank=rank,
        )
    elif rank < known.label_rank:
        known.label, known.label_rank = label, rank
    known.deleted = known.deleted and deleted
    known.purged = known.purged and purged
    known.sha256 = known.sha256 or record.sha256
    if not purged:
        known.size_bytes, known.hda_id, known.state = record.size_bytes, record.id, record.state
    return known
