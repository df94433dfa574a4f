"""Questions of lineage as a user asks them: about any object, with a say on freshness.

The index answers; what comes back can be turned into real objects, loaded in bulk.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from biobank_core.catalog.port import Catalog, Receipt, Versioned
from biobank_core.errors import InputError, UnreachableError
from biobank_core.lineage import source
from biobank_core.lineage.follow import KeepsPosition, catch_up, pending, wait_for_all
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

_log: Final = logging.getLogger(__name__)

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
    """How new an answer is. None: unknown.

    `freshness` is the one it was answered with: SOURCE also where another was asked for and the
    index was down (`warning` says so). `pending_changes` of `behind_units` commits are not in the
    index yet, `refused_changes` were set aside as dead letters. `as_of` is the time of the oldest
    commit that is missing, `age_s` how long ago that was: 0 when nothing is missing.
    """

    freshness: Freshness
    in_step: bool | None
    behind_units: int | None = None
    as_of: datetime | None = None
    age_s: float | None = None
    pending_changes: int | None = None
    refused_changes: int = 0
    warning: str | None = None


_FROM_SOURCE: Final = FreshnessReport(
    Freshness.SOURCE, in_step=True, behind_units=0, age_s=0.0, pending_changes=0
)


def _down(exc: UnreachableError) -> str:
    return f"{exc}; answered from the catalog itself"


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
        writer's own commit), else everything. When the index is down, the catalog itself is walked;
        `inquire` says whether. Raises InputError for a start of another kind, RefusedError,
        TimeoutExceededError.
        """
        try:
            if freshness is Freshness.WAIT:
                self._wait(receipt, timeout_s=timeout_s)
            return self._ask(question, freshness)
        except UnreachableError as exc:
            if freshness is Freshness.SOURCE:
                raise
            _log.warning("%s", _down(exc))
            return self._ask(question, Freshness.SOURCE)

    def inquire(
        self,
        question: Question,
        *,
        to: str | None = None,
        freshness: Freshness = Freshness.ANY,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        receipt: Receipt | None = None,
    ) -> tuple[Answer, FreshnessReport]:
        """The answer of `ask` (with `to`: of `between`) and how new it is.

        The report is of the moment before the answer, so the answer is never older than it says.
        """
        try:
            if freshness is Freshness.WAIT:
                self._wait(receipt, timeout_s=timeout_s)
            report = self._report(freshness)
            answer = self._ask_or_between(question, to, freshness)
        except UnreachableError as exc:
            if freshness is Freshness.SOURCE:
                raise
            report = replace(_FROM_SOURCE, warning=_down(exc))
            answer = self._ask_or_between(question, to, Freshness.SOURCE)
        return answer, report

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

        def ask(part: Question) -> Answer:
            return self.ask(part, freshness=freshness, timeout_s=timeout_s)

        return self._between(question, target, ask)

    def how_fresh(self, freshness: Freshness = Freshness.ANY) -> FreshnessReport:
        """How new an answer with this freshness is, now."""
        if freshness is Freshness.SOURCE:
            return _FROM_SOURCE
        try:
            return self._report(freshness)
        except UnreachableError as exc:
            return replace(_FROM_SOURCE, warning=_down(exc))

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

    def _ask(self, question: Question, freshness: Freshness) -> Answer:
        """The answer as it is now; nothing is waited for."""
        question = replace(question, starts=self._starts(question.starts))
        if question.groups is None and self._index.url != self._catalog.url:
            # An index that several logs feed answers a user with what their catalog shows.
            question = replace(question, groups=frozenset(self._catalog.head()))
        if freshness is Freshness.SOURCE:
            return source.connected(self._catalog, question)
        return self._index.connected(question)

    def _ask_or_between(
        self, question: Question, target: str | None, freshness: Freshness
    ) -> Answer:
        if target is None:
            return self._ask(question, freshness)
        return self._between(question, target, lambda part: self._ask(part, freshness))

    def _between(
        self, question: Question, target: str, ask: Callable[[Question], Answer]
    ) -> Answer:
        nodes: dict[str, Node] = {}
        edges: dict[Edge, None] = {}
        uses: dict[Use, None] = {}
        superseded: set[str] = set()
        answer = Answer(starts=())
        for way, back in _BACK.items():
            if question.direction in (way, Direction.BOTH):
                away = Question(starts=(target,), direction=back, groups=question.groups)
                there = ask(away)
                joined = {node.vid for node in there.nodes}
                answer = ask(replace(question, direction=way))
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

    def _report(self, freshness: Freshness) -> FreshnessReport:
        if freshness is Freshness.SOURCE:
            return _FROM_SOURCE
        found = pending(self._catalog, self._index)
        times = [refusal.time for refusal in found.refused]
        oldest = min(times if found.oldest is None else [found.oldest, *times], default=None)
        return FreshnessReport(
            freshness=freshness,
            in_step=oldest is None,
            behind_units=found.units,
            as_of=oldest,
            # A clock that jumped back makes no answer come from the future.
            age_s=0.0 if oldest is None else max(0.0, (datetime.now(UTC) - oldest).total_seconds()),
            pending_changes=found.changes,
            refused_changes=len(found.refused),
        )

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
            wait_for_all(self._catalog, self._index, timeout_s=timeout_s)
        else:
            self._index.wait(self._in_graph(receipt), timeout_s=timeout_s)

    def _in_graph(self, receipt: Receipt) -> Receipt:
        """The part of a receipt that the graph holds: a Study's VID would never come."""
        everything = {*receipt.versions, *(vid for one in receipt.others for vid in one.versions)}
        found = self._catalog.get(everything)
        return self._known_of(receipt, found)

    def _known_of(self, receipt: Receipt, found: Mapping[str, Versioned]) -> Receipt:
        versions = {
            vid: version
            for vid, version in receipt.versions.items()
            if vid in found and project(found[vid].object, version=version, log="") is not None
        }
        others = tuple(self._known_of(one, found) for one in receipt.others)
        return replace(receipt, versions=versions, others=others)
