"""Does the index hold what the catalog says? Both ways, by content; and mending what it does not.

Both sides are read as rows: nodes, who made them, edges, uses. The first look keeps one sum of row
hashes for each of some thousand buckets, so it needs no sorting and next to no memory, and tells
in which buckets the two differ. A second look, with both stores locked, reads the rows of those
buckets only, as many at once as fit into memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from itertools import chain, islice
from typing import Final

from biobank_core.catalog.port import Catalog, ChangedObject, Position
from biobank_core.errors import StorageError
from biobank_core.garbage import no_collector
from biobank_core.lineage import rows
from biobank_core.lineage.follow import (
    BATCH,
    KeepsPosition,
    catch_up,
    lacking,
    rebuild,
    unit_batches,
)
from biobank_core.lineage.links import implicit_vid
from biobank_core.lineage.port import LineageIndex
from biobank_core.lineage.projection import project
from biobank_core.model.registry import is_a

# A change that the sync service was told of is applied within seconds; after this it is missing.
GRACE_S: Final = 60.0

_BUCKETS: Final = 4096
# Rows of both sides that a second look keeps at once: some 200 MB.
_ROWS_AT_ONCE: Final = 250_000


class What(Enum):
    """What is wrong. DAMAGED is the storage itself, which no repair of ours mends.

    FOREIGN is an object that another program changed in the catalog's own storage.
    """

    MISSING = "missing"
    STALE = "stale"
    EXTRA = "extra"
    DAMAGED = "damaged"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong; `vid` is the object that gives the row to the graph, if known.

    `left`: it was to be mended, and could not be.
    """

    what: What
    vid: str
    kind: str
    detail: str
    left: bool = False


def verify(
    catalog: Catalog,
    index: LineageIndex,
    *,
    repair: bool = False,
    advance: rows.Advance = lambda _count: None,
) -> Iterator[Finding]:
    """What the index lacks, holds in another way, or has too much; streaming.

    With `repair` just that is mended, all in one transaction, before the stream ends; an index
    that can't be mended so (fed by several logs, or its tables contradict each other) is rebuilt.
    An index in a file of its own is first brought up to date. One that the sync service feeds is
    not locked: what was committed while it was looked at, or less than GRACE_S ago and not applied
    yet, is on its way and no finding. A damaged file ends the stream with
    what was found of the damage. `advance` is told how many objects were read since the last call.
    """
    for drift in catalog.drift(repair=repair):
        yield Finding(What.FOREIGN, drift.vid, drift.kind, drift.detail, drift.left)
    damaged = False
    for text in chain(catalog.damage(), index.damage()):
        damaged = True
        yield Finding(What.DAMAGED, "", "", text)
    if damaged:
        return
    try:
        catch_up(catalog, index)
        if not _differing(catalog, index, advance):
            return
        if not isinstance(index, KeepsPosition):
            yield from _looked_closely(catalog, index, repair=repair)
            return
        with ExitStack() as locked:
            # Others may have written during the first look; now nobody does.
            locked.enter_context(catalog.transaction())
            locked.enter_context(index.transaction())
            catch_up(catalog, index)
            yield from _looked_closely(catalog, index, repair=repair)
    except StorageError as exc:
        if repair:
            raise  # a full disk is no damage
        yield Finding(What.DAMAGED, "", "", str(exc))


def _looked_closely(catalog: Catalog, index: LineageIndex, *, repair: bool) -> Iterator[Finding]:
    found, hopeless = False, False
    moment = _now(catalog, index)
    for buckets in _rounds(_differing(catalog, index, lambda _count: None)):
        wrong: set[str] = set()
        for finding, vids in _confirmed(catalog, index, buckets, moment):
            found = True
            wrong.update(vids)
            yield finding
        if repair and not hopeless:
            hopeless = not _mended(catalog, index, wrong)
    if repair and found and (hopeless or _still_wrong(catalog, index)):
        rebuild(catalog, index)


def _still_wrong(catalog: Catalog, index: LineageIndex) -> bool:
    moment = _now(catalog, index)
    return any(
        True
        for buckets in _rounds(_differing(catalog, index, lambda _count: None))
        for _ in _confirmed(catalog, index, buckets, moment)
    )


@dataclass(frozen=True, slots=True)
class _Moment:
    """Where the feed stood before a look, and what of it was on its way to the index then.

    `late` is as `_givers` gives it.
    """

    head: Position
    late: frozenset[str]


def _now(catalog: Catalog, index: LineageIndex) -> _Moment:
    head = catalog.head()
    late: set[str] = set()
    if not isinstance(index, KeepsPosition):
        recently = datetime.now(UTC) - timedelta(seconds=GRACE_S)
        for some in unit_batches(catalog.changes(index.checked())):
            recent = [unit for unit in some if unit.time >= recently]
            missed = {vid for (_, vid), _ in lacking(index, recent)} if recent else set()
            late |= _givers(one for unit in recent for one in unit.changes if one.vid in missed)
    return _Moment(head, frozenset(late))


def _givers(changes: Iterable[ChangedObject]) -> set[str]:
    """The VIDs of these; with "" where one gives an edge that does not say who gives it."""
    found: set[str] = set()
    for change in changes:
        found.add(change.vid)
        if is_a(change.kind, "Supersession"):
            found.add("")
    return found


def _confirmed(
    catalog: Catalog, index: LineageIndex, buckets: Collection[int], moment: _Moment
) -> Iterator[tuple[Finding, tuple[str, ...]]]:
    """What `_compared` gives, without what was on its way or was changed since that moment.

    What was on its way may be applied by now, after its rows were read: nobody could tell any more.
    """
    compared = _compared(catalog, index, buckets)
    if isinstance(index, KeepsPosition):
        yield from ((finding, vids) for finding, vids, _ in compared)
        return
    several = list(compared)
    if not several:
        return
    since = chain.from_iterable(unit.changes for unit in catalog.changes(moment.head))
    moving = moment.late | _givers(since)
    for finding, vids, named in several:
        if moving.isdisjoint((finding.vid, *vids)) and moving.isdisjoint(named):
            yield finding, vids


def _differing(catalog: Catalog, index: LineageIndex, advance: rows.Advance) -> dict[int, int]:
    """The buckets in which the two sides differ -> how many rows they have on both."""
    sums, counts = [0] * _BUCKETS, [0] * _BUCKETS
    key_of = rows.bucket_key
    with no_collector():
        for row, _, _ in rows.expected(catalog, index, advance):
            bucket = hash(key_of[type(row)](row)) % _BUCKETS
            sums[bucket] += hash(row)
            counts[bucket] += 1
        for row in rows.held(catalog, index):
            bucket = hash(key_of[type(row)](row)) % _BUCKETS
            sums[bucket] -= hash(row)
            counts[bucket] += 1
    return {bucket: counts[bucket] for bucket, rest in enumerate(sums) if rest}


def _rounds(counts: dict[int, int]) -> Iterator[frozenset[int]]:
    some: list[int] = []
    size = 0
    for bucket, count in counts.items():
        if some and size + count > _ROWS_AT_ONCE:
            yield frozenset(some)
            some, size = [], 0
        some.append(bucket)
        size += count
    if some:
        yield frozenset(some)


def _compared(
    catalog: Catalog, index: LineageIndex, buckets: Collection[int]
) -> Iterator[tuple[Finding, tuple[str, ...], Collection[str]]]:
    """What differs in these buckets, each with the VIDs to tell the index of anew, and what else
    the row names."""
    key_of = rows.bucket_key
    right: dict[rows.Key, rows.Given] = {}
    for row, vid, kind in rows.expected(catalog, index, lambda _count: None):
        if hash(key_of[type(row)](row)) % _BUCKETS in buckets:
            right[rows.key(row)] = row, vid, kind
    surplus: list[rows.Row] = []
    stale: list[tuple[rows.Row, rows.Given]] = []
    for row in rows.held(catalog, index):
        if hash(key_of[type(row)](row)) % _BUCKETS not in buckets:
            continue
        given = right.pop(rows.key(row), None)
        if given is None:
            surplus.append(row)
        elif given[0] != row:
            stale.append((row, given))
    for given in right.values():
        row, vid, kind = given
        if isinstance(row, rows.Ahead):
            text = f"the index holds version {row.held}, the catalog {row.version}"
            yield Finding(What.STALE, vid, kind, text), (vid,), ()
        else:
            text = rows.described(row)
            yield Finding(What.MISSING, vid, kind, text), (vid,), rows.named(row)
    for row, (wanted, vid, kind) in stale:
        text = rows.difference(row, wanted)
        yield Finding(What.STALE, vid, kind, text), (vid,), rows.named(wanted)
    for row in surplus:
        vid, kind = rows.giver(row)
        vids = (vid,) if vid else rows.ends(row)
        yield Finding(What.EXTRA, vid, kind, rows.described(row)), vids, rows.named(row)


def _mended(catalog: Catalog, index: LineageIndex, vids: Collection[str]) -> bool:
    """Tell the index anew of these objects; False, and nothing done, where that can't be."""
    log = rows.only_log(catalog)
    if log is None:
        return False  # objects do not say which of several logs hold them; a rebuild reads the feed
    try:
        with index.transaction() if isinstance(index, KeepsPosition) else nullcontext():
            rest = iter(sorted(vids))
            while some := list(islice(rest, BATCH)):
                _tell_anew(catalog, index, some, log=log)
    except StorageError:
        return False  # its tables contradict each other (a full disk will stop the rebuild, too)
    return True


def _tell_anew(catalog: Catalog, index: LineageIndex, vids: list[str], *, log: str) -> None:
    # A node takes its supersessions with it; an action may have a collection of its own.
    wanted = {*vids, *_superseding(catalog, vids)}
    index.forget([*sorted(wanted), *map(implicit_vid, wanted)])
    # Asked again: one that arrived since then went with its node, too.
    wanted |= _superseding(catalog, wanted)
    found = catalog.get(sorted(wanted)).values()
    events = (project(item.object, version=item.version, log=log) for item in found)
    index.apply([event for event in events if event is not None])


def _superseding(catalog: Catalog, vids: Collection[str]) -> set[str]:
    return {item.vid for item in catalog.referring(vids, ["Supersession"])}
