"""What a lineage index does, whatever keeps it.

Nodes are objects (Individual, Vessel, DataSample, Collection); edges run from input to output
(PRODUCED), from member to collection (COLLECTED_IN) and from new to old (SUPERSEDES, not walked).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from types import TracebackType
from typing import Final, Self

import msgspec

from biobank_core.catalog.port import Receipt
from biobank_core.lineage.events import IndexEvent

# Beyond this many edges (inputs x outputs) an action gets an implicit collection between its
# inputs and its outputs: 300 x 300 would be 90,000 edges that say nothing more than 600.
MAX_EDGES_OF_ACTION: Final = 10_000

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
    def versions(self, vids: Iterable[str]) -> dict[str, int]:
        """The applied version of each VID (nodes, actions, devices, supersessions); bulk."""

    @abstractmethod
    def wait(self, receipt: Receipt, *, timeout_s: float) -> None:
        """Until every (vid, version) of the receipt that the graph holds is applied.

        Raises TimeoutExceededError.
        """

    @abstractmethod
    def nodes(self) -> Iterator[Node]:
        """All nodes by VID, tombstones too, placeholders not; streaming."""

    @abstractmethod
    def edges(self) -> Iterator[Edge]:
        """All edges between known nodes by (source, target, relation, action); streaming."""

    @abstractmethod
    def uses(self) -> Iterator[Use]:
        """All inputs of actions without outputs; streaming."""

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

        return digest_of(self.nodes(), self.edges(), self.uses())

    def count(self) -> Mapping[str, int]:
        """How many nodes and edges of each relation there are."""
        counts = {"nodes": sum(1 for _ in self.nodes())}
        for edge in self.edges():
            counts[edge.relation.value] = counts.get(edge.relation.value, 0) + 1
        return counts
