"""A hash over the graph's content, the same for every driver and every order of events."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import msgspec

from biobank_core.lineage.port import Edge, Maker, Node, Use

# Row hashes are added modulo 2**256: that needs no sorting and no memory, and, unlike XOR, two
# equal rows do not cancel each other.
_MODULUS: Final = 2**256

# Rows are arrays of text, booleans and null in a fixed order: plain JSON says such a one in just
# one way, so nothing need be made canonical.
_encode: Final = msgspec.json.Encoder().encode

_Row: TypeAlias = tuple[object, ...]


def digest_of(content: Iterable[Node | Edge | Use]) -> str:
    """SHA-256-based digest (64 hex digits) of a graph, streaming; order does not matter.

    Groups are left out: they are the ids of a catalog's logs, and a dump loaded elsewhere is the
    same graph.
    """
    total = 0
    for item in content:
        hashed = hashlib.sha256(_encode(_ROWS[type(item)](item))).digest()
        total = (total + int.from_bytes(hashed, "big")) % _MODULUS
    return f"{total:064x}"


def _node_row(node: Node) -> _Row:
    makers = sorted(map(_maker_row, node.makers), key=_encode)
    return "node", node.vid, node.kind, node.label, node.study, node.deleted, makers


def _edge_row(edge: Edge) -> _Row:
    return (
        "edge",
        edge.source,
        edge.target,
        edge.relation.value,
        edge.action,
        _maker_row(edge.maker) if edge.maker else None,
        edge.source_roles,
        edge.target_roles,
    )


def _use_row(use: Use) -> _Row:
    return "use", use.action, use.node, use.role, _maker_row(use.maker)


def _maker_row(maker: Maker) -> _Row:
    return (
        maker.action,
        maker.category,
        maker.tool,
        maker.release,
        maker.setup,
        maker.status,
        maker.end.isoformat() if maker.end else None,
    )


_ROWS: Final[dict[type[Any], Callable[[Any], _Row]]] = {
    Node: _node_row,
    Edge: _edge_row,
    Use: _use_row,
}
