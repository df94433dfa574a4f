"""What a lineage index does, whatever keeps it.

Nodes are objects (Individual, Vessel, DataSample, Collection); edges run from input to output
(PRODUCED), from member to collection (COLLECTED_IN) and from new to old (SUPERSEDES, not walked).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from types import TracebackType
from typing import Final, Self, TypeAlias

import msgspec

from biobank_core.catalog.port import Position, Receipt
from biobank_core.errors import InputError, RefusedError, TimeoutExceededError
from biobank_core.lineage.events import IndexEvent
from biobank_core.model.ids import is_vid

# Beyond this many edges (inputs x outputs) an action gets an implicit collection between its
# inputs and its outputs: 300 x 300 would be 90,000 edges that say nothing more than 600.
MAX_EDGES_OF_ACTION: Final = 10_000

# While waiting, between two looks at the ledger: others do the applying. Short at first, so that
# who waits for one small write does not notice; then longer, so that many waiters are no load.
_FIRST_WAIT_S: Final = 0.01
_LONGEST_WAIT_S: Final = 0.25

# A reason is for people to read in a list; a whole traceback belongs into the dead letter itself.
MAX_REASON_CHARS: Final = 500

# The kind of that node; its VID is derived_vid("ImplicitCollection", action VID).
IMPLICIT_COLLECTION: Final = "ImplicitCollection"


class Direction(Enum):
    """Where a walk goes. BOTH is upstream and downstream of the start, not its siblings."""

    UPSTREAM = "upstream"
    DOWNSTREAM = "downstream"
    BOTH = "both"


class Relation(Enum):
    """What an edge says."""

    PRODUCED = "PRODUCED"
    COLLECTED_IN = "COLLECTED_IN"
    SUPERSEDES = "SUPERSEDES"

    # Enum's own is written in Python; edges are hashed by the million.
    __hash__ = object.__hash__


class Maker(msgspec.Struct, frozen=True, gc=False):
    """The action that made a node, as the index knows it. `tool` is the device's label."""

    action: str
    category: str
    device: str | None
    tool: str | None
    release: str | None
    setup: str | None
    status: str
    end: datetime | None


class Node(msgspec.Struct, frozen=True, gc=False):
    """A node and how far it is from the start: the least number of edges, unfiltered."""

    vid: str
    kind: str
    label: str
    study: str | None
    groups: frozenset[str]
    deleted: bool
    depth: int = 0
    makers: tuple[Maker, ...] = ()


class Edge(msgspec.Struct, frozen=True, gc=False):
    """One edge. `action` is None unless the relation is PRODUCED; roles are sorted, each once."""

    source: str
    target: str
    relation: Relation
    action: str | None = None
    maker: Maker | None = None
    source_roles: tuple[str, ...] = ()
    target_roles: tuple[str, ...] = ()


class Use(msgspec.Struct, frozen=True, gc=False):
    """An input of an action that has no outputs: what left the house."""

    action: str
    node: str
    role: str
    maker: Maker


class Refusal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """This state of an object could not be taken in and was set aside as a dead letter.

    `time` is when. `discarded`: somebody decided that it never will be taken in; it is no longer
    counted, but who waits for it is still told at once. `sent_again`: its dead letter was replayed,
    so it is pending, wherever the `checked` mark is, and who waits for it waits; `time` is then
    that of the commit.
    """

    log: str
    vid: str
    version: int
    reason: str
    time: datetime
    discarded: bool = False
    sent_again: bool = False


# A version of an object in one log; with None in place of the log, in any.
Needed: TypeAlias = Mapping[tuple[str | None, str], int]


def edge_order(edge: Edge) -> tuple[str, str, str, str]:
    """The order of edges in answers and streams."""
    # `_value_`: `value` is a slow property, and an answer has thousands of edges.
    return edge.source, edge.target, edge.relation._value_, edge.action or ""


def use_order(use: Use) -> tuple[str, str, str]:
    """The order of uses in answers."""
    return use.action, use.node, use.role


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked. Filters choose what is returned, never where the walk goes.

    `tool` matches by full id, id without version, or its last part; `release` is a range such as
    `<3` (see biobank_core.selection.releases); `since`/`until` bound the end of the producing
    action; `groups` are those that the user may read (None: all). A start that is unknown is left
    out of the answer.
    """

    starts: tuple[str, ...]
    direction: Direction = Direction.BOTH
    depth: int | None = None
    kinds: frozenset[str] = frozenset()
    study: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    categories: frozenset[str] = frozenset()
    tool: str | None = None
    release: str | None = None
    via_tool: str | None = None
    groups: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Nodes by depth, then VID (starts first, depth 0); all edges whose two ends are returned.

    `superseded` are those of the nodes that a living node, returned or not, takes the place of.
    """

    starts: tuple[str, ...]
    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()
    uses: tuple[Use, ...] = field(default=())
    superseded: frozenset[str] = frozenset()


class LineageIndex(ABC):
    """The port. Every method raises errors of biobank_core.errors only."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Its address, without secrets."""

    @abstractmethod
    def schema_version(self) -> int:
        """The version of the storage; 0 where nothing was made yet."""

    @abstractmethod
    def migrate(self) -> None:
        """Bring the storage to the newest schema. Idempotent."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def apply(self, batch: Sequence[IndexEvent]) -> None:
        """Take in states of objects, in one transaction; any order, any number of times.

        An edge whose end is not known yet makes a placeholder, which is neither returned nor in
        the digest.
        """

    @abstractmethod
    def connected(self, question: Question) -> Answer:
        """What is connected with the starts, breadth-first, each node once."""

    @abstractmethod
    def versions(self, vids: Iterable[str], *, log: str | None = None) -> dict[str, int]:
        """The applied version of each VID (nodes, actions, devices, supersessions); bulk.

        In this log; with None the greatest of any log. Versions count per log: with several, only
        the version in the log of a change says whether that change was applied.
        """

    # How far the feed was taken in, and what could not be

    @abstractmethod
    def checked(self) -> Position:
        """Up to here all changes of the feed were seen to be applied or refused; {}: from none on.

        A lower bound: what lies beyond may be applied as well (`follow.pending` looks).
        """

    @abstractmethod
    def set_checked(self, position: Position, *, exactly: bool = False) -> None:
        """Remember that, for who has looked (`follow.advance_checked`).

        Each log's number only grows, and logs not named keep theirs, whatever the order in which
        several callers do it; with `exactly` (a rebuild) `position` takes the place of what was.
        """

    @abstractmethod
    def refuse(self, refusals: Sequence[Refusal]) -> None:
        """Remember that these states were set aside; of one (log, VID) the greatest version stays.

        Of equal versions the later call counts: so a refusal becomes a discarded one, or
        one that is sent again. `apply` of an
        equal or greater version in that log ends a refusal, also when the ledger held it already;
        `clear` ends all. Nothing of this is in the digest. Long reasons are shortened. Raises
        InputError for a VID that is none.
        """

    @abstractmethod
    def refused(self, vids: Iterable[str] | None = None) -> dict[tuple[str, str], Refusal]:
        """The refusals that stand, by (log, VID): of these VIDs, or all; discarded ones too."""

    @abstractmethod
    def forget_refusals(self, refusals: Iterable[Refusal]) -> None:
        """End the refusals of these (log, VID), unless of a greater version than the one given.

        `checked` stays; what it has passed is no longer counted as pending.
        """

    def wait(self, receipt: Receipt, *, timeout_s: float) -> None:
        """Until every (vid, version) of the receipt is applied; give only what the graph holds.

        Raises RefusedError as soon as one of them is known to be refused, TimeoutExceededError.
        """
        needed: dict[tuple[str | None, str], int] = {}
        for one in (receipt, *receipt.others):
            # A unit is of one log; a position that names several does not say which.
            log = one.log or (next(iter(one.position)) if len(one.position) == 1 else None)
            needed.update(((log, vid), version) for vid, version in one.versions.items())
        self.wait_for(needed, timeout_s=timeout_s)

    def wait_for(self, needed: Needed, *, timeout_s: float) -> None:
        """Until all of these versions, or later ones, are applied. Raises as `wait`."""
        give_up_at = time.monotonic() + timeout_s
        pause_s = _FIRST_WAIT_S
        missing = dict(needed)
        while True:
            missing = self._still_missing(missing)
            if not missing:
                return
            self._stop_if_refused(missing)
            left_s = give_up_at - time.monotonic()
            if left_s <= 0:
                (_, vid), version = next(iter(missing.items()))
                raise TimeoutExceededError(
                    f"the lineage index {self.url} still lacks {len(missing)} changes after "
                    f"{timeout_s:g} s, among them version {version} of {vid}; try again later"
                )
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LONGEST_WAIT_S)

    def _still_missing(self, needed: Needed) -> dict[tuple[str | None, str], int]:
        missing: dict[tuple[str | None, str], int] = {}
        for log in {log for log, _ in needed}:
            wanted = {vid: version for (own, vid), version in needed.items() if own == log}
            applied = self.versions(wanted, log=log)
            missing.update(
                ((log, vid), version)
                for vid, version in wanted.items()
                if applied.get(vid, 0) < version
            )
        return missing

    def _stop_if_refused(self, missing: Needed) -> None:
        for (log, vid), refusal in self.refused({vid for _, vid in missing}).items():
            if refusal.sent_again:
                continue
            key = (log, vid) if (log, vid) in missing else (None, vid)
            version = missing.get(key)
            if version is None or version > refusal.version:
                continue
            # Asked once more: a later version may have come before this one was set aside.
            if self._still_missing({key: version}):
                raise RefusedError(
                    f"version {refusal.version} of {vid} will not reach the lineage index "
                    f"{self.url}: it was set aside ({refusal.reason}); see `biobank-sync "
                    "dead-letters list`, or ask with --freshness source"
                )

    @abstractmethod
    def nodes(self) -> Iterator[Node]:
        """All nodes by VID, tombstones too, placeholders not; streaming."""

    @abstractmethod
    def edges(self) -> Iterator[Edge]:
        """All edges between known nodes by (source, target, relation, action); streaming."""

    @abstractmethod
    def uses(self) -> Iterator[Use]:
        """All inputs of actions without outputs; streaming."""

    def content(self) -> Iterator[Node | Edge | Use]:
        """All that `nodes`, `edges` and `uses` give, in any order; streaming.

        For digest and verify: a driver may read everything in one pass.
        """
        yield from self.nodes()
        yield from self.edges()
        yield from self.uses()

    @abstractmethod
    def clear(self) -> None:
        """Empty the index, for a rebuild."""

    @abstractmethod
    def forget(self, vids: Iterable[str]) -> None:
        """Take these objects out, with what they give to the graph, as if never told of them.

        For a repair: `apply` then takes in any version of them. Edges that other objects give stay;
        only supersessions of a node go with it, and are to be told of again.
        """

    def damage(self) -> Iterator[str]:
        """What is wrong with the storage itself, a sentence each; nothing where it can't tell."""
        return iter(())

    def digest(self) -> str:
        """SHA-256 (hex) over the content without versions, positions and recording times.

        Equal for equal graphs, whatever the driver or the order of events.
        """
        from biobank_core.lineage.digest import digest_of  # noqa: PLC0415 (digest imports Node)

        return digest_of(self.content())

    def count(self) -> Mapping[str, int]:
        """How many nodes and edges of each relation there are."""
        counts = {"nodes": sum(1 for _ in self.nodes())}
        for edge in self.edges():
            counts[edge.relation.value] = counts.get(edge.relation.value, 0) + 1
        return counts


def checked_refusals(refusals: Iterable[Refusal]) -> list[Refusal]:
    """Refusals as a driver keeps them: reasons of a bounded length, one a (log, VID).

    Raises InputError for a VID that is none.
    """
    found: dict[tuple[str, str], Refusal] = {}
    for refusal in refusals:
        if not is_vid(refusal.vid):
            raise InputError("not a VID", field="vid", value=refusal.vid)
        key = (refusal.log, refusal.vid)
        if key not in found or refusal.version >= found[key].version:
            reason = refusal.reason[:MAX_REASON_CHARS]
            found[key] = msgspec.structs.replace(refusal, reason=reason)
    return list(found.values())
