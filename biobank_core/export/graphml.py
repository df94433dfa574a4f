"""A lineage answer as GraphML, for programs that lay out or measure graphs."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from typing import Final

from biobank_core.export.lineage import shown_label
from biobank_core.lineage.port import Answer
from biobank_core.lineage.service import Names

_NODE_KEYS: Final = {
    "vid": "string",
    "kind": "string",
    "label": "string",
    "depth": "int",
    "study": "string",
    "deleted": "boolean",
    "superseded": "boolean",
}
_EDGE_KEYS: Final = {
    "relation": "string",
    "action": "string",
    "tool": "string",
    "release": "string",
    "status": "string",
}

# XML 1.0 can't say these at all, or (a carriage return) reads them back as something else.
_UNSPEAKABLE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

_HEAD: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">\n'
)


def graphml(answer: Answer, names: Names) -> Iterator[str]:
    """The document in pieces, so that a large answer need not stand in memory twice.

    A node's id is its VID; what is not known is left out. Text is data only: no entity, no outside
    reference; characters that XML can't hold become U+FFFD.
    """
    yield _HEAD
    for group, keys in (("node", _NODE_KEYS), ("edge", _EDGE_KEYS)):
        for name, kind in keys.items():
            key = {"id": f"{group}_{name}", "for": group, "attr.name": name, "attr.type": kind}
            yield _line(ET.Element("key", key))
    yield '<graph id="lineage" edgedefault="directed">\n'
    for node in answer.nodes:
        element = ET.Element("node", {"id": node.vid})
        values = {
            "vid": node.vid,
            "kind": node.kind,
            "label": shown_label(node, names),
            "depth": str(node.depth),
            "study": names.studies.get(node.study, node.study) if node.study else None,
            "deleted": _boolean(node.deleted),
            "superseded": _boolean(node.vid in answer.superseded),
        }
        yield _line(_with_data(element, "node", values.items()))
    for edge in answer.edges:
        element = ET.Element("edge", {"source": edge.source, "target": edge.target})
        made = edge.maker
        values = {
            "relation": edge.relation.value,
            "action": edge.action,
            "tool": made.tool if made else None,
            "release": made.release if made else None,
            "status": made.status if made else None,
        }
        yield _line(_with_data(element, "edge", values.items()))
    yield "</graph>\n</graphml>\n"


def _with_data(
    element: ET.Element, group: str, values: Iterable[tuple[str, str | None]]
) -> ET.Element:
    for name, value in values:
        if value is not None:
            data = ET.SubElement(element, "data", {"key": f"{group}_{name}"})
            data.text = _UNSPEAKABLE.sub("\ufffd", value)
    return element


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _line(element: ET.Element) -> str:
    return ET.tostring(element, encoding="unicode") + "\n"
