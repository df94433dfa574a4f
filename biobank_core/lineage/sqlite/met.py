"""What a walk meets, held in memory: nodes, and links with their ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from itertools import chain
from typing import Any, Final, TypeAlias

# Node, link, and the roles of the node there as JSON text; more may follow.
Port: TypeAlias = tuple[Any, ...]

NODE: Final = 0
LINK: Final = 1
ROLES: Final = 2
VID: Final = 3
KIND: Final = 4


class Met:
    """Nodes, the links that put them out with all these outputs, and those links' inputs.

    `known` holds the whole row of each node that the graph knows; `made_by` the links by node,
    `outputs` and `inputs` the ports by link.
    """

    def __init__(self) -> None:
        self.nodes: set[int] = set()
        self.known: dict[int, Port] = {}
        self.made_by: defaultdict[int, list[int]] = defaultdict(list)
        self.outputs: defaultdict[int, list[Port]] = defaultdict(list)
        self.inputs: defaultdict[int, list[Port]] = defaultdict(list)
        self._used_by: defaultdict[int, list[int]] = defaultdict(list)

    def add(self, rows: Iterable[Port]) -> None:
        """Take in nodes: one row for each link that put it out, or one without a link."""
        before = self.nodes
        seen: set[int] = set()
        known, made_by, outputs = self.known, self.made_by, self.outputs
        for row in rows:
            node = row[NODE]
            if node in before:
                continue
            seen.add(node)
            link = row[LINK]
            if link is not None:
                made_by[node].append(link)
                outputs[link].append(row)
            if row[KIND] is not None:
                known[node] = row
        self.nodes = before | seen if before else seen

    def add_inputs(self, ports: Iterable[Port]) -> None:
        """Take in the inputs of links."""
        used_by, inputs = self._used_by, self.inputs
        for port in ports:
            node, link, _ = port
            used_by[node].append(link)
            inputs[link].append(port)

    def links(self, nodes: Iterable[int], *, downstream: bool) -> Iterable[int]:
        """See `walk.Steps`."""
        links = self._used_by if downstream else self.made_by
        return chain.from_iterable([links[node] for node in nodes if node in links])

    def far_ends(self, links: Collection[int], *, downstream: bool) -> Iterable[int]:
        """See `walk.Steps`."""
        ends = self.outputs if downstream else self.inputs
        return [port[NODE] for link in links if link in ends for port in ends[link]]
