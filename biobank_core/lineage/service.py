"""Questions of lineage as a user asks them: about any object, with a say on freshness.

The index answers; what comes back can be turned into real objects, loaded in bulk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Final

from biobank_core.catalog.port import Catalog, Receipt, Versioned
from biobank_core.errors import InputError, TimeoutExceededError
from biobank_core.lineage import source
from biobank_core.lineage.follow import KeepsPosition, catch_up
from biobank_core.lineage.port import (
    IMPLICIT_COLLECTION,
    Answer,
    Direction,
    Edge,
    LineageIndex,
    Node,
    Question,
    Use,
    edge_order,
    use_order,
)
from biobank_core.lineage.projection import project
from biobank_core.model.kinds import Action, DataObject, Enrollment, Study
from biobank_core.model.registry import is_node

DEFAULT_TIMEOUT_S: Final = 30.0

_BACK: Final = {
    Direction.UPSTREAM: Direction.DOWNSTREAM,
    Direction.DOWNSTREAM: Direction.UPSTREAM,
}


class Freshness(Enum):
    """How new an answer must be."""

    ANY = "any"  # what the index holds now; the answer says how old that is
    WAIT = "wait"  # wait until the index holds all that the catalog now holds
    SOURCE = "source"  # walk the catalog itself: slow, and works when the index is down


@dataclass(frozen=True, slots=True)
class FreshnessReport:
    """How new an answer is. `behind_units` counts commits that the index lacks (None: unknown).

    `as_of` is the time of the oldest commit that is missing; None when nothing is.
    """

    freshness: Freshness
    in_step: bool | None
    behind_units: int | None = None
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class Names:
    """What people call things: codes `study:code` of individuals, labels of studies, by VID."""

    codes: dict[str, tuple[str, ...]]
    studies: dict[str, str]


class Lineage:
    """A catalog and its index, asked together."""

    def __init__(self, catalog: Catalog, index: LineageIndex) -> None:
        self._catalog = catalog
        self._index = index

    def ask(
        self,
        question: Question,
        *,
        freshness: Freshness = Freshness.ANY,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        receipt: Receipt | None = None,
    ) -> Answer:
        """The answer; starts may be any objects that have a place in the graph.

        An Action stands for its outputs, a DataObject for its DataSample, an Enrollment for its
        Individual; what is unknown is left out. With WAIT, `receipt` says what to wait for (a
        writer's own commit), else everything. Raises InputError for a start of another kind,
        TimeoutExceededError.
        """
        question = replace(question, starts=self._starts(question.starts))
        if question.groups is None and self._index.url != self._catalog.url:
            # An index that several logs feed answers a user with what their catalog shows.
            question = replace(question, groups=frozenset(self._catalog.head()))
        if freshness is Freshness.SOURCE:
            return source.connected(self._catalog, question)
        if freshness is Freshness.WAIT:
            self._wait(receipt, timeout_s=timeout_s)
        return self._index.connected(question)

    def between(
        self,
        question: Question,
        target: str,
        *,
        freshness: Freshness = Freshness.ANY,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> Answer:
        """The part of the answer that is on some path between the starts and `target`.

        Depth counts from the starts; they alone are returned when no path joins them to it.
        """
        nodes: dict[str, Node] = {}
        edges: dict[Edge, None] = {}
        uses: dict[Use, None] = {}
        superseded: set[str] = set()
        answer = Answer(starts=())
        for way, back in _BACK.items():
            if question.direction in (way, Direction.BOTH):
                away = Question(starts=(target,), direction=back, groups=question.groups)
                there = self.ask(away, freshness=freshness, timeout_s=timeout_s)
                joined = {node.vid for node in there.nodes}
                answer = self.ask(
                    replace(question, direction=way), freshness=freshness, timeout_s=timeout_s
                )
                kept = {
                    node.vid: node for node in answer.nodes if node.depth == 0 or node.vid in joined
                }
                nodes.update(kept)
                edges |= dict.fromkeys(
                    edge for edge in answer.edges if edge.source in kept and edge.target in kept
                )
                uses |= dict.fromkeys(use for use in answer.uses if use.node in kept)
                superseded |= answer.superseded & kept.keys()
        return Answer(
            starts=answer.starts,
            nodes=tuple(sorted(nodes.values(), key=lambda node: (node.depth, node.vid))),
            edges=tuple(sorted(edges, key=edge_order)),
            uses=tuple(sorted(uses, key=use_order)),
            superseded=frozenset(superseded),
        )

    def how_fresh(self, freshness: Freshness = Freshness.ANY) -> FreshnessReport:
        """How new an answer with this freshness is, now."""
        if freshness is Freshness.SOURCE:
            return FreshnessReport(freshness, in_step=True, behind_units=0)
        if not isinstance(self._index, KeepsPosition):
            return FreshnessReport(freshness, in_step=None)
        behind, first = 0, None
        for unit in self._catalog.changes(self._index.position()):
            behind += 1
            first = first or unit.time
        return FreshnessReport(freshness, in_step=behind == 0, behind_units=behind, as_of=first)

    def objects(self, answer: Answer) -> dict[str, Versioned]:
        """The real objects of an answer's nodes, loaded in bulk; a deleted one as its Tombstone.

        What the catalog does not show this user, and implicit collections, are left out.
        """
        return self._catalog.get(
            node.vid for node in answer.nodes if node.kind != IMPLICIT_COLLECTION
        )

    def names(self, answer: Answer) -> Names:
        """The codes of the answer's individuals and the labels of its studies, in bulk."""
        people = [node.vid for node in answer.nodes if node.kind == "Individual"]
        enrollments = [
            found.object
            for found in self._catalog.get(
                referrer.vid for referrer in self._catalog.referring(people, ["Enrollment"])
            ).values()
            if isinstance(found.object, Enrollment)
        ]
        wanted = {node.study for node in answer.nodes if node.study is not None}
        wanted.update(enrollment.study for enrollment in enrollments)
        studies = {
            vid: found.object.label
            for vid, found in self._catalog.get(sorted(wanted)).items()
            if isinstance(found.object, Study)
        }
        codes: dict[str, list[str]] = defaultdict(list)
        for enrollment in enrollments:
            study = studies.get(enrollment.study, enrollment.study)
            codes[enrollment.individual].append(f"{study}:{enrollment.code}")
        return Names({vid: tuple(sorted(some)) for vid, some in codes.items()}, studies)

    def _starts(self, vids: Iterable[str]) -> tuple[str, ...]:
        wanted = list(dict.fromkeys(vids))
        found = self._catalog.get(wanted)
        starts: list[str] = []
        for vid in wanted:
            if vid not in found:
                continue
            obj = found[vid].object
            if isinstance(obj, Action):
                starts.extend(port.object for port in obj.outputs)
            elif isinstance(obj, DataObject):
                starts.append(obj.sample)
            elif isinstance(obj, Enrollment):
                starts.append(obj.individual)
            elif obj.kind == "Tombstone" or is_node(obj.kind):
                starts.append(vid)
            else:
                raise InputError(
                    f"a {obj.kind} has no place in the lineage; give an individual, a vessel, "
                    "data, a collection, a data object or an action",
                    value=vid,
                )
        return tuple(dict.fromkeys(starts))

    def _wait(self, receipt: Receipt | None, *, timeout_s: float) -> None:
        if isinstance(self._index, KeepsPosition):
            # Nobody else feeds it: waiting is doing.
            catch_up(self._catalog, self._index)
            return
        if receipt is None:
            raise TimeoutExceededError(
                f"{self._index.url} can't say whether it holds everything; wait for a receipt"
            )
        self._index.wait(self._in_graph(receipt), timeout_s=timeout_s)

    def _in_graph(self, receipt: Receipt) -> Receipt:
        """The part of a receipt that the graph holds: a Study's VID would never come."""
        found = self._catalog.get(receipt.versions)
        versions = {
            vid: version
            for vid, version in receipt.versions.items()
            if vid in found and project(found[vid].object, version=version, log="") is not None
        }
        return Receipt(versions, receipt.position)
