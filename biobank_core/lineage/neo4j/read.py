"""Answering questions: one Cypher query a question, and streams by pages of VIDs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, TypeAlias

from biobank_core.lineage import filters
from biobank_core.lineage.neo4j.connection import Connection
from biobank_core.lineage.port import (
    IMPLICIT_COLLECTION,
    Answer,
    Direction,
    Edge,
    Maker,
    Node,
    Question,
    Relation,
    Use,
    edge_order,
    use_order,
)
from biobank_core.lineage.walk import walk
from biobank_core.model.registry import with_subkinds

_VISIBLE: Final = "($groups IS NULL OR any(name IN {}.groups WHERE name IN $groups))"

# `min(length(p))` and nothing else of the path: so the planner makes it one breadth-first search
# that meets each node once (VarLengthExpand(Pruning,BFS)). Any other use of the path would walk
# along every single one of them.
_WALK: Final = "MATCH p = (s){to}[:PRODUCED|COLLECTED_IN*0..{depth}]{into}(n)"
_WAYS: Final = {
    Direction.DOWNSTREAM: (("-", "->"),),
    Direction.UPSTREAM: (("<-", "-"),),
    Direction.BOTH: (("<-", "-"), ("-", "->")),
}

# An edge from or to a node, as a list; `_maker_of` reads [2:10], `_roles` the two after that.
EDGE: Final = (
    "[type(e), m.vid, e.action, e.category, e.device, e.tool, e.release, e.setup, e.status, e.end, "
    "e.source_roles, e.target_roles, m.kind IS NOT NULL]"
)
# The same of an edge that only says who made the node.
MADE_BY: Final = (
    "[type(e), null, e.action, e.category, e.device, e.tool, e.release, e.setup, e.status, e.end]"
)
# Of a SUPERSEDES edge: whether its newer end lives and the user may read it.
_NEWER: Final = (
    "[type(e), m.vid, m.kind IS NOT NULL AND NOT m.deleted AND " + _VISIBLE.format("m") + "]"
)
# Which side of the nodes the edges are read from: the one that stays inside what was walked. What
# an action says of itself comes once an action (_MAKERS), not with each of its edges.
_EDGES_INTO: Final = f"""
OPTIONAL MATCH (n)<-[e:PRODUCED|COLLECTED_IN|MADE|USED|SUPERSEDES]-(m)
WITH n, depth, [] AS outs, collect(CASE type(e) WHEN 'SUPERSEDES' THEN {_NEWER}
  ELSE [type(e), m.vid, e.action, e.source_roles, e.target_roles] END) AS ins
"""
_EDGES_OUT_OF: Final = f"""
OPTIONAL MATCH (n)-[e:PRODUCED|COLLECTED_IN]->(m)
WITH n, depth, collect([type(e), m.vid, e.action, e.source_roles, e.target_roles]) AS outs
OPTIONAL MATCH (n)<-[e:PRODUCED|MADE|USED|SUPERSEDES]-(m)
WITH n, depth, outs, collect(DISTINCT CASE type(e) WHEN 'SUPERSEDES' THEN {_NEWER}
  WHEN 'PRODUCED' THEN [type(e), null, e.action]
  ELSE [type(e), null, e.action, e.source_roles] END) AS ins
"""
_MAKERS: Final = """
MATCH (n)<-[e:PRODUCED|MADE|USED]-()
WITH e.action AS action, head(collect(e)) AS e
RETURN [action, e.category, e.device, e.tool, e.release, e.setup, e.status, e.end] AS row
"""
COLUMNS: Final = "n.vid, n.kind, n.label, n.study, n.groups, n.deleted, depth, ins, outs"
# A record costs the driver some 30 us however small it is, so rows come by the hundred.
CHUNKS: Final = """
WITH collect(row) AS rows
UNWIND range(0, size(rows) - 1, 500) AS first
RETURN rows[first..first + 500]
"""

Row: TypeAlias = list[Any]


def question_text(question: Question) -> str:
    """The Cypher of a question; all that comes from the user is a parameter, but the depth.

    (Bounds of a path can't be parameters; it is an integer.) One text for each shape of question,
    so that the server plans it once.
    """
    via = question.via_tool is not None
    depth = "" if question.depth is None or via else str(int(question.depth))
    ways = " UNION ALL ".join(
        f"{_WALK.format(to=to, into=into, depth=depth)} RETURN n, min(length(p)) AS steps"
        for to, into in _WAYS[question.direction]
    )
    # For `via_tool` also what is hidden is needed: the walk goes on through it.
    kept = "" if via else f"WHERE n.kind IS NOT NULL AND {_VISIBLE.format('n')}"
    if not via and question.kinds:
        kept += " AND (depth = 0 OR n.kind IN $kinds)"
    if not via and question.study is not None:
        kept += " AND (depth = 0 OR n.study = $study)"
    return f"""
UNWIND $starts AS vid
MATCH (s:Object {{vid: vid}}) WHERE s.kind IS NOT NULL AND {_VISIBLE.format("s")}
CALL (s) {{ {ways} }}
WITH n, min(steps) AS depth {kept}
WITH collect([n, depth]) AS met
CALL (met) {{
  UNWIND met AS one WITH one[0] AS n, one[1] AS depth
  {_EDGES_OUT_OF if question.direction is Direction.DOWNSTREAM else _EDGES_INTO}
  RETURN [{COLUMNS}] AS row
  UNION ALL
  UNWIND met AS one WITH one[0] AS n
  {_MAKERS}
}}
{CHUNKS}
"""


def parameters_of(question: Question) -> dict[str, object]:
    """The parameters of `question_text`."""
    return {
        "starts": list(dict.fromkeys(question.starts)),
        "groups": None if question.groups is None else sorted(question.groups),
        "kinds": sorted(_kinds(question.kinds)),
        "study": question.study,
    }


def connected(connection: Connection, question: Question) -> Answer:
    """See `LineageIndex.connected`."""
    filters.check(question)
    text, parameters = question_text(question), parameters_of(question)
    met = Met()
    rows = chunked(connection, text, parameters)
    for row in rows:
        if len(row) == _MAKER_COLUMNS:
            met.add_maker(*row)
    for row in rows:
        if len(row) != _MAKER_COLUMNS:
            met.add(row)
    nodes = list(met.nodes.values())
    starts = [vid for vid in dict.fromkeys(question.starts) if _is_start(met.nodes.get(vid))]
    if question.via_tool is not None:
        depths = _via(met, question, starts)
        nodes = [
            Node(
                node.vid,
                node.kind,
                node.label,
                node.study,
                node.groups,
                node.deleted,
                depths[node.vid],
                node.makers,
            )
            for node in nodes
            if node.vid in depths
        ]
    kept = filters.returned(nodes, question)
    vids = {node.vid for node in kept}
    edges = [edge for edge in met.edges() if edge.source in vids and edge.target in vids]
    edges += [Edge(*pair, Relation.SUPERSEDES) for pair in met.newer if vids.issuperset(pair)]
    edges.sort(key=edge_order)
    uses = [use for use in met.uses if use.node in vids]
    uses.sort(key=use_order)
    return Answer(
        starts=tuple(starts),
        nodes=tuple(kept),
        edges=tuple(edges),
        uses=tuple(uses),
        superseded=frozenset(met.superseded & vids),
    )


def chunked(connection: Connection, text: str, parameters: dict[str, object]) -> list[Row]:
    """The rows of a query that gives them in CHUNKS."""
    return [row for (chunk,) in connection.rows(text, parameters) for row in chunk]


def _is_start(node: Node | None) -> bool:
    return node is not None and node.depth == 0


def _kinds(wanted: Collection[str]) -> set[str]:
    found = set(wanted)
    for kind in wanted:
        if kind != IMPLICIT_COLLECTION:
            found.update(with_subkinds(kind))
    return found


class Met:
    """What a query gave: nodes, edges, makers. Placeholders have only their edges."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.uses: list[Use] = []
        self.newer: set[tuple[str, str]] = set()
        self.superseded: set[str] = set()
        # (source, target, relation, action, roles of the source, of the target)
        self.links: list[tuple[str, str, str, str | None, Row | None, Row | None]] = []
        self.makers: dict[str | None, Maker] = {}
        self._groups: dict[tuple[str, ...], frozenset[str]] = {}

    def add(self, row: Row) -> None:
        """One row of a query (see _RETURN): a node with its edges."""
        vid, kind, label, study, groups, deleted, depth, ins, outs = row
        makers: dict[str, Maker] = {}
        for link in ins:
            relation, source, action = link[:3]
            if relation == "SUPERSEDES":
                self.newer.add((source, vid))
                if action:  # here: whether the newer one counts
                    self.superseded.add(vid)
            elif relation == "COLLECTED_IN":
                self.links.append((source, vid, relation, None, link[3], None))
            elif relation is not None:
                maker = self.makers.get(action)
                if maker is None:
                    continue  # its action was taken out while this was read
                if relation == "USED":
                    self.uses += [Use(action, vid, role, maker) for role in link[3]]
                    continue
                makers[action] = maker
                if relation == "PRODUCED" and source is not None:
                    self.links.append((source, vid, relation, action, link[3], link[4]))
        for relation, target, action, source_roles, target_roles in outs:
            # Without a maker its target was not met, or its action was taken out meanwhile.
            if relation == "COLLECTED_IN" or (relation == "PRODUCED" and action in self.makers):
                self.links.append((vid, target, relation, action, source_roles, target_roles))
        if kind is None:
            return
        names = tuple(groups)
        self.nodes[vid] = Node(
            vid,
            kind,
            label,
            study,
            self._groups.setdefault(names, frozenset(names)),
            deleted,
            depth,
            tuple(sorted(makers.values(), key=_by_action)) if makers else (),
        )

    def edges(self) -> Iterator[Edge]:
        """The edges, their makers filled in; only those whose target is among the nodes."""
        for source, target, relation, action, source_roles, target_roles in self.links:
            if target in self.nodes:
                yield Edge(
                    source,
                    target,
                    RELATIONS[relation],
                    action,
                    None if action is None else self.makers[action],
                    tuple(source_roles) if source_roles else (),
                    tuple(target_roles) if target_roles else (),
                )

    def add_maker(self, action: str | None, category: str, *about: Any) -> None:
        """What an action says of itself; see _MAKERS."""
        if action not in self.makers:
            device, tool, release, setup, status, end = about
            ended = None if end is None else datetime.fromisoformat(end)
            self.makers[action] = Maker(
                action or "", category, device, tool, release, setup, status, ended
            )

    def slim(self, link: Row) -> Row:
        """A full edge (see EDGE) as `add` takes it; its action is added."""
        if link[0] in _BY_ACTION:
            self.add_maker(*link[2:10])
        return [link[0], link[1], link[2], *link[10:12]]


_BY_ACTION: Final = ("PRODUCED", "MADE", "USED")
_MAKER_COLUMNS: Final = 8
RELATIONS: Final = {relation.value: relation for relation in Relation}
_by_action: Final = attrgetter("action")


def _via(met: Met, question: Question, starts: list[str]) -> dict[str, int]:
    """The depth of what has the asked-for tool on some path from a start; see `walk`."""
    return walk(
        _Local(met, question),
        [*starts],
        direction=question.direction,
        depth=question.depth,
        via=True,
    )


class _Local:
    """What was met, as `walk.Steps`: nodes by VID, each edge a link (its number as text)."""

    def __init__(self, met: Met, question: Question) -> None:
        self._met = met
        self._question = question
        self._after: dict[str, list[str]] = defaultdict(list)
        self._before: dict[str, list[str]] = defaultdict(list)
        for number, link in enumerate(met.links):
            self._after[link[0]].append(str(number))
            self._before[link[1]].append(str(number))

    def links(self, nodes: Collection[str], *, downstream: bool) -> Iterable[str]:
        """See `walk.Steps`."""
        side = self._after if downstream else self._before
        for node in nodes:
            yield from side.get(node, ())

    def far_ends(self, links: Collection[str], *, downstream: bool) -> Iterable[str]:
        """See `walk.Steps`."""
        for link in links:
            source, target, *_ = self._met.links[int(link)]
            yield target if downstream else source

    def asked_for(self, links: Collection[str]) -> Iterable[str]:
        """See `walk.Steps`."""
        for link in links:
            maker = self._met.makers.get(self._met.links[int(link)][3])
            if maker is not None and filters.made_by_tool(maker.tool, self._question):
                yield link
