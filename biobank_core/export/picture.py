"""A drawing as DOT and as SVG, laid out by Graphviz's `dot`.

The SVG stands alone and is inert: no script, no link, no outside reference. Labels come from
people and from Galaxy; they reach Graphviz as escaped HTML-like text and nothing else of theirs
does (identifiers are ours, titles are put in afterwards by an XML library).
"""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET
from itertools import pairwise
from typing import Final

import graphviz

from biobank_core.errors import ConfigurationError, InputError
from biobank_core.export.drawing import (
    DELETED,
    STALE,
    SUPERSEDED,
    Drawing,
    Family,
    Item,
    Line,
    Step,
)
from biobank_core.lineage.port import Relation

# `dot` needs minutes beyond this, and nobody could read the result.
MAX_ITEMS: Final = 2_000
# What is wider than a screen and than this many times its height is laid out the other way too,
# unless that takes `dot` long.
_PAGE_PT: Final = 1_300
_MAX_RIBBON: Final = 4
_MAX_TWICE: Final = 300
# Longer labels are shortened with an ellipsis; the title has the whole.
_LABEL_CHARS: Final = 34
_FONT: Final = "Helvetica,Arial,sans-serif"
_SVG: Final = "http://www.w3.org/2000/svg"
# Not allowed in XML 1.0; and what reverses the writing direction of the text around it.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\uf8fe\ud800-\udfff\ufffe\uffff\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)

# Stands for a backslash until `dot` has run: it replaces \\N, \\G and their like even in HTML-like
# labels and behind entities. A character for private use; in people's text it is unsafe.
_BACKSLASH: Final = "\uf8fe"

_INK: Final = "#1F2933"
_FAINT: Final = "#616E7C"
_FAILED: Final = "#B42318"
_GONE: Final = "#52606D"
_NEWER: Final = "#8A4B00"
_STALE: Final = "#B54708"
# What stands before the word for a mark, and its ink.
_SIGNS: Final = {SUPERSEDED: "⇢", STALE: "↻", DELETED: "∅"}
_INKS: Final = {SUPERSEDED: _NEWER, STALE: _STALE, DELETED: _GONE}


# Shape, fill, outline: chosen to differ in grey, and for the colour-blind.
_FAMILIES: Final = {
    Family.INDIVIDUAL: ("ellipse", "#F4E6F5", "#7A3E86"),
    Family.VESSEL: ("cylinder", "#DFF3EC", "#1D7A63"),
    Family.DATA: ("note", "#E6F0FB", "#2A66B0"),
    Family.COLLECTION: ("folder", "#FDF1D8", "#A86A10"),
}
_LEGEND: Final = {
    Family.INDIVIDUAL: ("Individual", "donor or isolate"),
    Family.VESSEL: ("Vessel", "tube, well, plate"),
    Family.DATA: ("Data", "dataset or result"),
    Family.COLLECTION: ("Collection", "members by diamonds"),
}
_MEANINGS: Final = {
    SUPERSEDED: "A newer one exists",
    STALE: "Made from a superseded one",
    DELETED: "Only a trace is left",
}
# Width of one entry of the legend, in points, as it is drawn at the legend's scale.
_LEGEND_SCALE: Final = 0.9
_LEGEND_ENTRY_PT: Final = 118


def dot(drawing: Drawing) -> str:
    """The drawing in Graphviz's own language."""
    # A word joiner keeps the backslash from what follows.
    return str(_graph(drawing).source).replace(_BACKSLASH, "\\\N{WORD JOINER}")


def svg(drawing: Drawing) -> str:
    """The drawing as a stand-alone SVG with a legend.

    Raises ConfigurationError where there is no `dot`, InputError for more than can be drawn.
    """
    items = len(drawing.items)
    if items > MAX_ITEMS:
        raise InputError(
            f"{drawing.nodes} nodes are {items} even after collapsing, which nobody could read; "
            "narrow the question with --depth, --kind or --tool, or use --format tsv"
        )
    root = _best_laid_out(drawing)
    titles = {item.key: item.title for item in drawing.items}
    titles |= {step.key: step.title for step in drawing.steps}
    titles |= {f"e{index}": line.title for index, line in enumerate(drawing.lines)}
    _retitle(root, drawing.title, titles)
    per_row = max(4, int(_size(root)[0] / _LEGEND_ENTRY_PT))
    _add_legend(root, _laid_out(_legend(drawing, per_row=per_row)))
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


# DOT


def _graph(drawing: Drawing, *, rankdir: str = "LR") -> graphviz.Digraph:
    graph = _empty("lineage")
    graph.attr(rankdir=rankdir)
    graph.attr(label=f"<<B>{_text(drawing.title, 120)}</B>>", labelloc="t", labeljust="l")
    for item in drawing.items:
        _add_item(graph, item)
    for step in drawing.steps:
        _add_step(graph, step)
    for index, line in enumerate(drawing.lines):
        _add_line(graph, line, f"e{index}")
    return graph


def _empty(name: str) -> graphviz.Digraph:
    return graphviz.Digraph(
        name,
        graph_attr={
            "rankdir": "LR",
            "nodesep": "0.22",
            "ranksep": "0.38",
            "pad": "0.15",
            "fontname": _FONT,
            "fontsize": "14",
            "fontcolor": _INK,
            "bgcolor": "white",
            "nslimit": "4",
        },
        node_attr={
            "fontname": _FONT,
            "fontsize": "11",
            "fontcolor": _INK,
            "margin": "0.12,0.075",
            "height": "0.4",
        },
        edge_attr={
            "fontname": _FONT,
            "fontsize": "9",
            "color": _FAINT,
            "fontcolor": _FAINT,
            "arrowsize": "0.6",
            "penwidth": "1.1",
        },
    )


def _add_item(graph: graphviz.Digraph, item: Item) -> None:
    shape, fill, outline = _FAMILIES[item.family]
    style, width, ink = "filled", 1.1, _INK
    # Each state has its own outline, sign and word: colours alone do not print or reach everybody.
    if STALE in item.marks:
        outline, width = _STALE, 2.4
    if SUPERSEDED in item.marks:
        style, fill, ink = "filled,dashed", "#F3F4F6", _GONE
    if DELETED in item.marks:
        style, fill, outline, ink = "filled,dotted", "#FFFFFF", _GONE, _GONE
    failed = [mark for mark in item.marks if mark not in _SIGNS]
    if failed:
        outline, width = _FAILED, 1.6
    if item.start:
        width = 3.2
    lines = []
    if shape == "cylinder":
        # Its lid takes room that Graphviz does not leave free.
        lines.append('<FONT POINT-SIZE="5"> </FONT>')
    if item.count > 1:
        number = f"{item.count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
        lines.append(f"<B>{number} × {_text(item.kind)}</B>")
        lines.extend(_small(text, _FAINT) for text in (item.label,) if text)
    else:
        lines.append(f"<B>{_text(item.label)}</B>")
        lines.extend(_small(text, _FAINT) for text in (item.kind, item.made) if text)
    lines.extend(_small(f"✗ {mark}", _FAILED, bold=True) for mark in failed)
    lines.extend(
        _small(f"{_SIGNS[mark]} {mark}", _INKS[mark], bold=True)
        for mark in item.marks
        if mark in _SIGNS
    )
    if item.start:
        lines.append(_small("START", outline, bold=True))
    graph.node(
        item.key,
        label=f"<{'<BR/>'.join(lines)}>",
        id=item.key,
        shape=shape,
        style=style,
        fillcolor=fill,
        color=outline,
        fontcolor=ink,
        penwidth=f"{width}",
    )


def _add_step(graph: graphviz.Digraph, step: Step) -> None:
    _add_step_box(graph, step)
    look = {"color": _FAILED, "style": "dashed"} if step.failed else {}
    for source in step.inputs:
        graph.edge(source, step.key, arrowhead="none", **look)
    for target in step.outputs:
        graph.edge(step.key, target, **look)


def _add_step_box(graph: graphviz.Digraph, step: Step) -> None:
    label = _text(step.label)
    if step.count > 1:
        label += f" <B>× {step.count}</B>"
    if step.failed:
        label += f'<BR/><FONT COLOR="{_FAILED}"><B>✗ {_text(step.failed)}</B></FONT>'
    elif not step.outputs:
        label += f'<BR/><FONT COLOR="{_FAINT}">no output kept</FONT>'
    graph.node(
        step.key,
        label=f"<{label}>",
        id=step.key,
        shape="box",
        style="rounded,filled" + (",dashed" if step.failed else ""),
        fillcolor="#F5F7FA",
        color=_FAILED if step.failed else "#9AA5B1",
        fontsize="9",
        height="0.22",
        margin="0.07,0.055" if "<BR/>" in label else "0.07,0.03",
        penwidth="1.3" if step.failed else "0.8",
    )


def _add_line(graph: graphviz.Digraph, line: Line, key: str) -> None:
    if line.relation is Relation.SUPERSEDES:
        # It points back in time; it must not pull the old result to the right of the new.
        graph.edge(
            line.source,
            line.target,
            id=key,
            style="dashed",
            color=_NEWER,
            arrowhead="empty",
            constraint="false",
        )
    else:
        graph.edge(line.source, line.target, id=key, color="#A86A10", arrowhead="odiamond")


def _legend(drawing: Drawing, *, per_row: int) -> graphviz.Digraph:
    """Rows of what the drawing uses, drawn by the same code."""
    graph = _empty("legend")
    graph.attr(ranksep="0.15", nodesep="0.12")
    families = {item.family for item in drawing.items}
    entries = [
        Item(f"k{family.value}", family, *_LEGEND[family], "")
        for family in Family
        if family in families
    ]
    if any(item.start for item in drawing.items):
        entries.append(Item("kstart", Family.DATA, "Asked for", "thick outline", "", start=True))
    if any(item.count > 1 for item in drawing.items):
        entries.append(Item("kmany", Family.DATA, "", "alike, drawn as one", "", count=12))
    marks = {mark for item in drawing.items for mark in item.marks}
    entries += [
        Item(f"k{mark}", Family.DATA, text, "", "", marks=(mark,))
        for mark, text in _MEANINGS.items()
        if mark in marks
    ]
    steps = [Step("kstep", "action: tool and release", "", (), ("-",))] if drawing.steps else []
    failed = next((step.failed for step in drawing.steps if step.failed), None)
    if failed:
        steps.append(Step("kfail", "did not succeed", "", (), ("-",), failed=failed))
    all_entries: list[Item | Step | Line] = [*entries, *steps]
    if any(line.relation is Relation.SUPERSEDES for line in drawing.lines):
        all_entries.append(Line("ksnew", "ksold", Relation.SUPERSEDES))
    rows = [all_entries[start : start + per_row] for start in range(0, len(all_entries), per_row)]
    # Graphviz puts the first row at the bottom.
    for row in reversed(rows):
        for entry in row:
            _add_entry(graph, entry)
        keys = [entry.source if isinstance(entry, Line) else entry.key for entry in row]
        for left, right in pairwise(keys):
            graph.edge(left, right, style="invis")
    return graph


def _add_entry(graph: graphviz.Digraph, entry: Item | Step | Line) -> None:
    if isinstance(entry, Item):
        _add_item(graph, entry)
    elif isinstance(entry, Step):
        _add_step_box(graph, entry)
    else:
        for key, text in ((entry.source, "new"), (entry.target, "supersedes old")):
            graph.node(key, label=text, shape="plaintext", fontsize="9", margin="0.02")
        _add_line(graph, entry, "")
        graph.edge(entry.source, entry.target, style="invis")


def _small(text: str, colour: str, *, bold: bool = False) -> str:
    inner = _text(text)
    inner = f"<B>{inner}</B>" if bold else inner
    return f'<FONT POINT-SIZE="9.5" COLOR="{colour}">{inner}</FONT>'


def _text(text: str, most: int = _LABEL_CHARS) -> str:
    """Any text, safe inside an HTML-like label and shortened where it is long."""
    clean = _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", re.sub(r"\s+", " ", text))
    if len(clean) > most:
        head = most * 2 // 3
        clean = f"{clean[:head]}…{clean[-(most - head - 1) :]}"
    return html.escape(clean.replace("\\", _BACKSLASH), quote=True) or " "


# SVG


def _best_laid_out(drawing: Drawing) -> ET.Element:
    """From left to right, as people read; top down where that would be a ribbon."""
    across = _laid_out(_graph(drawing))
    fits = _size(across)[0] <= _PAGE_PT or _ribbon(across) <= _MAX_RIBBON
    if fits or len(drawing.items) > _MAX_TWICE:
        return across
    down = _laid_out(_graph(drawing, rankdir="TB"))
    return down if _ribbon(down) < _ribbon(across) else across


def _ribbon(root: ET.Element) -> float:
    """How many times longer than wide, whichever way it lies."""
    width, height = _size(root)
    return max(width / height, height / width)


def _laid_out(graph: graphviz.Digraph) -> ET.Element:
    try:
        data = graph.pipe(format="svg", encoding="utf-8", quiet=True)
    except graphviz.ExecutableNotFound as exc:
        raise ConfigurationError(
            "drawing needs the program `dot`: install the Debian package `graphviz` or the conda "
            "package `graphviz`; --format tsv and json work without it"
        ) from exc
    except graphviz.CalledProcessError as exc:
        raise ConfigurationError(f"`dot` failed with exit code {exc.returncode}") from exc
    ET.register_namespace("", _SVG)
    # The text is dot's own, from escaped labels; it has no entities of its own making.
    return ET.fromstring(data.replace(_BACKSLASH, "\\"))  # noqa: S314


def _retitle(root: ET.Element, title: str, titles: dict[str, str]) -> None:
    """Titles (what a pointer shows, what a screen reader says) in place of dot's names."""
    for group in root.iter(f"{{{_SVG}}}g"):
        element = group.find(f"{{{_SVG}}}title")
        if element is None:
            continue
        text = titles.get(group.get("id", ""), "")
        if group.get("class") == "graph":
            text = title
        if text:
            element.text = _UNSAFE_IN_TITLE.sub("\N{REPLACEMENT CHARACTER}", text)
        else:
            group.remove(element)
    root.set("role", "img")


_UNSAFE_IN_TITLE: Final = re.compile(_UNSAFE.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))


def _add_legend(root: ET.Element, legend: ET.Element) -> None:
    """Put the legend below the drawing, and make the page large enough."""
    width, height = _size(root)
    legend_width, legend_height = _size(legend)
    group = legend.find(f"{{{_SVG}}}g")
    if group is None:
        return
    for element in list(group.iter()):
        for child in list(element):
            if child.tag == f"{{{_SVG}}}title":
                element.remove(child)
        element.attrib.pop("id", None)
    frame = ET.SubElement(root, f"{{{_SVG}}}g", {"class": "legend"})
    frame.set("transform", f"translate(0 {height:.2f}) scale({_LEGEND_SCALE})")
    frame.append(group)
    total_width = max(width, legend_width * _LEGEND_SCALE)
    total_height = height + legend_height * _LEGEND_SCALE
    root.set("width", f"{total_width:.0f}pt")
    root.set("height", f"{total_height:.0f}pt")
    root.set("viewBox", f"0 0 {total_width:.2f} {total_height:.2f}")


def _size(root: ET.Element) -> tuple[float, float]:
    _, _, width, height = (float(number) for number in root.get("viewBox", "0 0 0 0").split())
    return width, height
