"""The same questions answered by walking the catalog itself: slow, and needs no index.

Level by level, in bulk. An answer equals the one of an index that is in step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Final

from biobank_core.catalog.port import Catalog, Referrer
from biobank_core.lineage import filters
from biobank_core.lineage.events import (
    ActionEvent,
    DeviceEvent,
    IndexEvent,
    NodeEvent,
    SupersessionEvent,
)
from biobank_core.lineage.ledger import Shown, shown
from biobank_core.lineage.links import ImplicitCollection, Link, part_of
from biobank_core.lineage.port import (
    Answer,
    Edge,
    Maker,
    Node,
    Question,
    Relation,
    Use,
    edge_order,
    use_order,
)
from biobank_core.lineage.projection import project
from biobank_core.lineage.walk import walk

_REFERRING: Final = ("Action", "Collection", "Supersession")


def connected(catalog: Catalog, question: Question) -> Answer:
    """What is connected with the starts, as `LineageIndex.connected` says."""
    filters.check(question)
    graph = _CatalogGraph(catalog, question)
    graph.load(question.starts)
    known = graph.nodes(dict.fromkeys(question.starts, 0))
    readable = [node.vid for node in known if filters.visible(node.groups, question)]
    depths = walk(
        graph,
        readable,
        direction=question.direction,
        depth=question.depth,
        via=question.via_tool is not None,
    )
    # The last level was only named so far.
    graph.load(depths)
    graph.ask_who_refers(depths)
    kept = filters.returned(graph.nodes(depths), question)
    vids = {node.vid for node in kept}
    return Answer(
        starts=tuple(readable),
        nodes=tuple(kept),
        edges=tuple(sorted(graph.edges(vids), key=edge_order)),
        uses=tuple(sorted(graph.uses(vids), key=use_order)),
        superseded=graph.superseded(vids),
    )


class _CatalogGraph:
    """The part of the catalog that was met, as events and links; `walk.Steps` by VID."""

    def __init__(self, catalog: Catalog, question: Question) -> None:
        self._catalog = catalog
        self._question = question
        # Objects do not say their log; with several, the least stands for all.
        self._log = min(catalog.head(), default="")
        self._states: dict[str, Shown | None] = {}
        self._links: dict[str, Link] = {}
        self._implicit: dict[str, ImplicitCollection] = {}
        self._referrers: dict[str, list[Referrer]] = {}

    # walk.Steps

    def links(self, nodes: Collection[str], *, downstream: bool) -> Iterable[str]:
        """See `walk.Steps`."""
        self.ask_who_refers(nodes)
        self.load(nodes)
        for node in nodes:
            for link in self._links_at(node):
                near = self._links[link].inputs if downstream else self._links[link].outputs
                if any(vid == node for vid, _ in near):
                    yield link

    def far_ends(self, links: Collection[str], *, downstream: bool) -> Iterable[str]:
        """See `walk.Steps`."""
        for link in links:
            ends = self._links[link].outputs if downstream else self._links[link].inputs
            yield from (vid for vid, _ in ends)

    def asked_for(self, links: Collection[str]) -> Iterable[str]:
        """See `walk.Steps`."""
        for link in links:
            maker = self._maker(link)
            if maker is not None and filters.made_by_tool(maker.tool, self._question):
                yield link

    # What was met

    def load(self, vids: Iterable[str]) -> None:
        """Know these objects, their links and the devices of actions."""
        unknown = [vid for vid in dict.fromkeys(vids) if vid not in self._states]
        unknown = [vid for vid in unknown if vid not in self._implicit]
        if not unknown:
            return
        found = self._catalog.get(unknown)
        devices = []
        for vid in unknown:
            event: IndexEvent | None = None
            if vid in found:
                event = project(found[vid].object, version=found[vid].version, log=self._log)
            self._states[vid] = None if event is None else shown([event])
            if event is None:
                continue
            part = part_of(event)
            self._links.update((link.vid, link) for link in part.links)
            if part.implicit is not None:
                self._implicit[part.implicit.vid] = part.implicit
            if isinstance(event, ActionEvent) and event.device is not None:
                devices.append(event.device)
        self.load(devices)

    def ask_who_refers(self, nodes: Iterable[str]) -> None:
        """Know who refers to these nodes, and load them."""
        new = [
            node
            for node in dict.fromkeys(nodes)
            if node not in self._referrers and node not in self._implicit
        ]
        if not new:
            return
        self._referrers.update((node, []) for node in new)
        for referrer in self._catalog.referring(new, _REFERRING):
            self._referrers[referrer.target].append(referrer)
        self.load(referrer.vid for node in new for referrer in self._referrers[node])
        superseding = [self._event(vid) for node in new for vid in self._naming(node)]
        self.load(event.new for event in superseding if isinstance(event, SupersessionEvent))

    def nodes(self, depths: dict[str, int]) -> list[Node]:
        """Those of these VIDs that are nodes, with their makers."""
        made = defaultdict(set)
        for node in depths:
            for vid in self._naming(node):
                event = self._event(vid)
                if isinstance(event, ActionEvent) and any(
                    member.node == node for member in event.outputs
                ):
                    made[node].add(vid)
        found = []
        for vid, depth in depths.items():
            implicit = self._implicit.get(vid)
            if implicit is not None:
                action = self._states[implicit.action]
                groups = action.groups if action else frozenset[str]()
                found.append(
                    Node(vid, implicit.kind, implicit.label, implicit.study, groups, False, depth)
                )
                continue
            state = self._states.get(vid)
            if state is None or not isinstance(state.event, NodeEvent):
                continue
            event = state.event
            makers = (self._maker(action) for action in sorted(made[vid]))
            found.append(
                Node(
                    vid=vid,
                    kind=event.kind,
                    label=event.label,
                    study=event.study,
                    groups=state.groups,
                    deleted=event.deleted,
                    depth=depth,
                    makers=tuple(maker for maker in makers if maker is not None),
                )
            )
        return found

    def edges(self, nodes: Collection[str]) -> Iterable[Edge]:
        """All edges between these nodes."""
        for link in self._links.values():
            maker = self._maker(link.vid)
            for source, source_roles in link.inputs:
                if source not in nodes:
                    continue
                for target, target_roles in link.outputs:
                    if target in nodes:
                        yield Edge(
                            source=source,
                            target=target,
                            relation=link.relation,
                            action=None if maker is None else maker.action,
                            maker=maker,
                            source_roles=source_roles,
                            target_roles=target_roles,
                        )
        for new, old in sorted(self._superseding(nodes)):
            if new in nodes:
                yield Edge(new, old, Relation.SUPERSEDES)

    def uses(self, nodes: Collection[str]) -> Iterable[Use]:
        """The uses of these nodes."""
        for state in list(self._states.values()):
            if state is None:
                continue
            maker = self._maker(state.event.vid)
            if maker is not None:
                for node, roles in part_of(state.event).uses:
                    if node in nodes:
                        yield from (Use(maker.action, node, role, maker) for role in roles)

    def superseded(self, nodes: Collection[str]) -> frozenset[str]:
        """Those of these nodes that a living, readable node takes the place of."""
        found = set()
        for new, old in self._superseding(nodes):
            state = self._states.get(new)
            if (
                state is not None
                and not state.event.deleted
                and filters.visible(state.groups, self._question)
            ):
                found.add(old)
        return frozenset(found)

    # Helpers

    def _event(self, vid: str) -> IndexEvent | None:
        state = self._states.get(vid)
        return None if state is None else state.event

    def _naming(self, node: str) -> list[str]:
        return list(dict.fromkeys(referrer.vid for referrer in self._referrers.get(node, ())))

    def _links_at(self, node: str) -> Iterable[str]:
        """The links that may have this node at an end."""
        if node in self._implicit:
            return (node, self._implicit[node].action)
        found = [node]
        for vid in self._naming(node):
            found.append(vid)
            event = self._event(vid)
            if isinstance(event, ActionEvent):
                implicit = part_of(event).implicit
                if implicit is not None:
                    found.append(implicit.vid)
        return [link for link in found if link in self._links]

    def _superseding(self, nodes: Collection[str]) -> set[tuple[str, str]]:
        events = (self._event(vid) for node in nodes for vid in self._naming(node))
        return {
            (event.new, event.old)
            for event in events
            if isinstance(event, SupersessionEvent) and not event.deleted and event.old in nodes
        }

    def _maker(self, vid: str) -> Maker | None:
        event = self._event(vid)
        if not isinstance(event, ActionEvent) or event.deleted:
            return None
        device = None if event.device is None else self._event(event.device)
        known = device if isinstance(device, DeviceEvent) and not device.deleted else None
        return Maker(
            action=event.vid,
            category=event.category,
            device=event.device,
            tool=known.label if known else None,
            release=known.release if known else None,
            setup=event.setup,
            status=event.status,
            end=event.end,
        )
