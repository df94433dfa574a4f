"""Which samples need an analysis again, each with the reason, and which are left out and why.

The rules, in the order in which they leave a sample out:

1. An action *matches* if it ended ok, made something, its device is the tool, its release is in
   the range, its time in the span, and it had the parameters and the reference (`uses`). It is an
   action of the study, or one upstream of such, not only the last before a result.
2. Its *samples* are the nearest vessels upstream of what it made, on every path (individuals where
   no vessel is). Results that reach neither are `unlinked`.
3. A result that was `superseded` or `deleted` needs nothing; a sample with no other is left out.
4. `already-done`: an ok action of the same tool with a known release outside the range belongs to
   the same sample, is not older than all that match, and was not superseded altogether itself (an
   analysis that was itself replaced is no reason to keep what replaced it). Where parameters or a
   reference are asked for, one that is known not to have had them counts too, whatever its
   release.
5. Consent: every individual upstream of the sample, or of the data taken from it, must allow the
   scope on that day (`permission`). Material of which no individual is known allows nothing.

Actions that failed never match and never count as done.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from itertools import chain
from typing import TypeAlias

import msgspec

from biobank_core.catalog.port import Catalog
from biobank_core.consent import today as this_day
from biobank_core.garbage import no_collector
from biobank_core.model.kinds import ActionStatus
from biobank_core.selection import reasons, shapes
from biobank_core.selection.asked import Asked
from biobank_core.selection.criteria import (
    Criteria,
    OldResult,
    ReasonCode,
    SelectedSample,
    Selection,
)
from biobank_core.selection.graph import ActionInfo, Graph, NodeInfo, NodeKind, Output
from biobank_core.selection.loading import chunks, load_graph
from biobank_core.selection.permission import Permissions
from biobank_core.selection.upstream import Taken, Upstream
from biobank_core.selection.withheld import persons, why_not


def select(catalog: Catalog, criteria: Criteria, *, today: date | None = None) -> Selection:
    """The samples of the criteria; `today` (default: now, UTC) is the day that consent must stand.

    Reads in bulk: a fixed number of questions to the catalog per 10,000 objects.
    """
    with no_collector():
        graph = load_graph(catalog, criteria.study)
        return _Selecting(catalog, criteria, graph, today or this_day()).run()


@dataclass(frozen=True, slots=True)
class _Permitted:
    """The codes of some individuals, and why their material may not be used; None: it may."""

    donors: tuple[str, ...]
    refused: tuple[ReasonCode, str] | None


class _Match(msgspec.Struct, gc=False):
    """A matching action, for one sample: its outputs that stand, and those that do not."""

    action: ActionInfo
    live: tuple[Output, ...]
    superseded: tuple[Output, ...]


class _About(msgspec.Struct, gc=False):
    """What concerns one sample.

    `near` are the data taken from it, `sources` those of them that live matches were given.
    """

    matches: list[_Match] = []
    done: list[ActionInfo] = []
    failed: list[ActionInfo] = []
    near: set[NodeInfo] = set()
    sources: set[NodeInfo] = set()
    people: frozenset[NodeInfo] = frozenset()


_Found: TypeAlias = dict[NodeInfo, _About]
_People: TypeAlias = frozenset[NodeInfo]


class _Selecting:
    def __init__(self, catalog: Catalog, criteria: Criteria, graph: Graph, today: date) -> None:
        self._catalog = catalog
        self._criteria = criteria
        self._graph = graph
        self._upstream = Upstream(graph)
        self._asked = Asked(catalog, criteria, graph)
        self._permissions = Permissions(study=criteria.study, scope=criteria.scope, on=today)
        self._superseded = _supersessions(catalog)
        self._labels: dict[str, str] = {}
        self._permitted: dict[tuple[_People, str | None], _Permitted] = {}

    def run(self) -> Selection:
        found, unlinked = self._gather()
        self._load(found, unlinked)
        rows: list[SelectedSample] = []
        excluded: list[SelectedSample] = []
        for sample, about in found.items():
            row = self._judged(sample, about)
            (rows if row.is_selected else excluded).append(row)
        excluded += [self._unlinked(match) for match in unlinked]
        return Selection(tuple(sorted(rows, key=_order)), tuple(sorted(excluded, key=_order)))

    def _gather(self) -> tuple[_Found, list[_Match]]:
        """What concerns each sample that has a match, and the matches that reach no sample."""
        found: _Found = {}
        unlinked: list[_Match] = []
        others: list[ActionInfo] = []
        asked = self._asked
        only_taken = self._upstream.only_taken
        for action in self._graph.actions:
            tool = asked.tool(action)
            if not (tool.outside or tool.wanted or asked.of_use):
                continue
            if asked.is_other(action):
                others.append(action)
            elif asked.is_wanted(action):
                pair = only_taken(action)
                if pair is not None:
                    self._note_single(action, pair, found)
                    continue
                samples = self._upstream.samples_of(action)
                if not samples:
                    unlinked.append(self._match(action, action.outputs))
                self._note(action, samples, found)
        for action in others:
            pair = only_taken(action)
            for sample in self._upstream.samples_of(action) if pair is None else (pair[0],):
                about = found.get(sample)
                if about is not None:
                    ok = action.status is ActionStatus.OK
                    (about.done if ok else about.failed).append(action)
        return found, unlinked

    def _note_single(self, action: ActionInfo, pair: Taken, found: _Found) -> None:
        """`_note` where there is but one sample, and one data that was taken from it."""
        sample, data = pair
        match = self._match(action, action.outputs)
        about = found.get(sample)
        if about is None:
            about = found[sample] = _About()
        about.matches.append(match)
        about.near.add(data)
        if match.live:
            about.sources.add(data)

    def _note(self, action: ActionInfo, samples: frozenset[NodeInfo], found: _Found) -> None:
        taken = self._upstream.taken
        owners = {
            node: frozenset([sample for sample, _data in taken(node)])
            for node, _role in action.outputs
        }
        for sample in samples:
            match = self._match(
                action,
                [out for out in action.outputs if not owners[out[0]] or sample in owners[out[0]]],
            )
            about = found.get(sample)
            if about is None:
                about = found[sample] = _About()
            about.matches.append(match)
        for nodes, is_input in ((action.inputs, True), (owners, False)):
            for node in nodes:
                for sample, data in taken(node):
                    about = found.get(sample)
                    if about is not None and about.matches[-1].action is action:
                        about.near.add(data)
                        if is_input and about.matches[-1].live:
                            about.sources.add(data)

    def _match(self, action: ActionInfo, outputs: Iterable[Output]) -> _Match:
        superseded = self._superseded
        there = [out for out in outputs if not out[0].deleted]
        if not superseded:
            return _Match(action, live=tuple(there), superseded=())
        return _Match(
            action,
            live=tuple([out for out in there if out[0].vid not in superseded]),
            superseded=tuple([out for out in there if out[0].vid in superseded]),
        )

    def _load(self, found: _Found, unlinked: Iterable[_Match]) -> None:
        """Reads the individuals' consents, and the labels that sentences need."""
        people: set[NodeInfo] = set()
        labels: set[str] = {self._criteria.study}
        for sample, about in found.items():
            about.people = self._upstream.people_behind(sample, about.near)
            people |= about.people
            labels.add(sample.study or self._criteria.study)
            for match in about.matches:
                labels.update(self._superseded[node.vid] for node, _role in match.superseded)
        for match in unlinked:
            labels.update(node.study or "" for node, _role in match.action.outputs)
            labels.update(self._superseded[node.vid] for node, _role in match.superseded)
        labels.discard("")
        self._permissions.load(self._catalog, persons(people))
        for part in chunks(sorted(labels)):
            for vid, item in self._catalog.get(part).items():
                self._labels[vid] = getattr(item.object, "label", "")

    def _judged(self, sample: NodeInfo, about: _About) -> SelectedSample:
        study = sample.study or self._criteria.study
        matches = about.matches
        if len(matches) > 1:
            matches = sorted(matches, key=lambda match: match.action.vid)
            matches.sort(key=lambda match: match.action.time, reverse=True)
        live = [match for match in matches if match.live]
        results = [
            self._results(match, match.live or match.superseded) for match in live or matches
        ]
        code, reason = self._verdict(sample, about, matches, live, results)
        sources: Iterable[NodeInfo] = about.sources
        if len(about.sources) > 1:
            sources = sorted(sources, key=lambda node: (node.label, node.vid))
        is_person = sample.kind is NodeKind.PERSON
        return SelectedSample(
            sample=sample.vid,
            label=self._permissions.name(sample.vid, study) if is_person else sample.label,
            kind=sample.name,
            study=study,
            study_label=self._labels.get(study, ""),
            code=code,
            reason=reason,
            donors=self._permission(about.people, sample.study).donors,
            results=results[0] if len(results) == 1 else tuple(chain.from_iterable(results)),
            sources=tuple([node.vid for node in sources]),
        )

    def _verdict(
        self,
        sample: NodeInfo,
        about: _About,
        matches: list[_Match],
        live: list[_Match],
        results: list[tuple[OldResult, ...]],
    ) -> tuple[ReasonCode, str]:
        if sample.deleted:
            return ReasonCode.DELETED, "the sample was deleted"
        if not live:
            return self._nothing_left(matches)
        done = self._done(about, matches, live)
        if done is not None:
            tool = self._asked.tool(done)
            differs = not tool.outside and self._asked.differs(done)
            text = reasons.done_text(tool.label, tool.release, done, differs=differs)
            return ReasonCode.ALREADY_DONE, text
        refused = self._permission(about.people, sample.study).refused
        if refused is not None:
            return refused
        failed = max(self._tried(about, live), key=_when, default=None)
        tried = None
        if failed is not None:
            tool = self._asked.tool(failed)
            tried = reasons.failed_text(tool.label, tool.release, failed)
        made = [(match.action, made) for match, made in zip(live, results, strict=True)]
        wanted = self._criteria.reference
        if wanted is not None:
            node = self._graph.nodes.get(wanted)
            wanted = (node.label if node else "") or wanted
        text = reasons.match_text(made, self._criteria, tried, reference=wanted)
        return ReasonCode.MATCH, text

    def _permission(self, people: _People, study: str | None) -> _Permitted:
        """What these people allow with a sample of this study; many samples are of the same."""
        known = self._permitted.get((people, study))
        if known is None:
            name, own = self._permissions.name, study or self._criteria.study
            known = self._permitted[people, study] = _Permitted(
                donors=tuple(sorted({name(vid, own) for vid in persons(people)})),
                refused=why_not(people, study, permissions=self._permissions),
            )
        return known

    def _tried(self, about: _About, live: list[_Match]) -> list[ActionInfo]:
        if not self._asked.of_use or self._criteria.tool is not None:
            return about.failed
        # Of whatever tool is meant, most runs had not that parameter: they are no tries.
        tool = self._asked.tool
        labels = {tool(match.action).label for match in live}
        return [action for action in about.failed if tool(action).label in labels]

    def _nothing_left(self, matches: list[_Match]) -> tuple[ReasonCode, str]:
        pairs = [
            (node.label or node.vid, self._labels.get(new) or new)
            for match in matches
            for node, _role in match.superseded
            for new in (self._superseded[node.vid],)
        ]
        if not pairs:
            return ReasonCode.DELETED, "its results were deleted"
        return ReasonCode.SUPERSEDED, reasons.superseded_text(pairs)

    def _done(self, about: _About, matches: list[_Match], live: list[_Match]) -> ActionInfo | None:
        """The latest analysis that makes this one needless."""
        if not about.done:
            return None
        first = min(match.action.time for match in matches)
        tool = self._asked.tool
        labels = {tool(match.action).label for match in live}
        same_tool = self._criteria.tool is not None
        candidates = [
            action
            for action in about.done
            if action.time >= first
            and (same_tool or tool(action).label in labels)
            and not (
                action.outputs
                and all(node.vid in self._superseded for node, _role in action.outputs)
            )
        ]
        return max(candidates, key=_when, default=None)

    def _results(self, match: _Match, outputs: Iterable[Output]) -> tuple[OldResult, ...]:
        tool = self._asked.tool(match.action)
        action = match.action.vid
        return tuple(
            [
                OldResult(node.vid, node.label, role, action, tool.label, tool.release)
                for node, role in outputs
            ]
        )

    def _unlinked(self, match: _Match) -> SelectedSample:
        outputs = match.live or match.superseded or match.action.outputs
        node, _role = outputs[0]
        code, reason = ReasonCode.UNLINKED, reasons.unlinked_text()
        if not match.live:
            code, reason = self._nothing_left([match])
        return SelectedSample(
            sample=None,
            label=node.label,
            kind=node.name,
            study=node.study,
            study_label=self._labels.get(node.study or "", ""),
            code=code,
            reason=reason,
            results=self._results(match, outputs),
        )


def _supersessions(catalog: Catalog) -> dict[str, str]:
    """By old result the new one; of several always the same, the one that sorts last."""
    found: dict[str, str] = {}
    for line in shapes.read(catalog, shapes.SUPERSESSION, "Supersession"):
        found[line.old] = max(line.new, found.get(line.old, line.new))
    return found


def _when(action: ActionInfo) -> tuple[datetime, str]:
    return action.time, action.vid


def _order(row: SelectedSample) -> tuple[bool, str, str, str]:
    return (
        row.sample is None,
        row.label,
        row.sample or "",
        row.results[0].vid if row.results else "",
    )
