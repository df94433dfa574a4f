"""The report as one HTML page: no script, nothing from the network, every value escaped."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import jinja2

from biobank_core.galaxy.reanalysis.compare import FileChange
from biobank_core.galaxy.reanalysis.report import Report
from biobank_core.selection import tools

# A list in a cell is told apart by these; what stands between them is one thing to a reader.
_SEPARATORS: Final = re.compile(r"([;,|]\s*|\s+)")
# Marking parts of longer values takes long and helps nobody.
_MAX_MARKED_CHARS: Final = 4000
_MAX_SHOWN_CHARS: Final = 2000
_MAX_LINE_CHARS: Final = 160
_WEB: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._~/-]*)?")
# Up to this many samples their tables are unfolded at first sight.
_OPEN_SAMPLES: Final = 6

# Order and meaning of the coloured bar; the classes stand in the template.
_OUTCOMES: Final = (
    ("changed", "changed", "new results differ"),
    ("unchanged", "unchanged", "the same bytes"),
    ("failed", "failed", "the old results stay"),
    ("open", "open", "not finished"),
    ("left out", "out", "left out by the plan"),
)


@dataclass(frozen=True, slots=True)
class _Segment:
    name: str
    css: str
    meaning: str
    count: int
    percent: float


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    marked: bool


def render_html(report: Report) -> str:
    """The page. Works from a file, prints well, folds without a script."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("biobank_core.galaxy.reanalysis", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    environment.filters["short_tool"] = tools.last_part
    environment.globals["pieces"] = pieces
    environment.globals["is_reordered"] = is_reordered
    environment.globals["by_row"] = _by_row
    environment.globals["first_line"] = _first_line
    return environment.get_template("report.html.j2").render(
        report=report,
        segments=_segments(report),
        most=max(1, len(report.samples)),
        open_samples=len(report.samples) <= _OPEN_SAMPLES,
        several_rows=_several_rows,
        galaxy_link=_link(report.galaxy_url),
    )


def _link(url: str) -> str | None:
    """A server's address to link to; nothing that is not plainly one."""
    return url.rstrip("/") if _WEB.fullmatch(url) else None


def _first_line(text: str | None) -> str:
    """Enough of an error to know which one it is."""
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    # What ended how, and the last word of its log.
    told = ": ".join(dict.fromkeys(line.rstrip(":") for line in (*lines[:1], *lines[-1:])))
    return told if len(told) <= _MAX_LINE_CHARS else f"{told[:_MAX_LINE_CHARS]}…"


def visible(value: object) -> str:
    """A text whose control and direction characters can be seen instead of obeyed."""
    text = str(value)
    if len(text) > _MAX_SHOWN_CHARS:
        text = f"{text[:_MAX_SHOWN_CHARS]}… ({len(text)} characters)"
    return "".join(_shown(char) for char in text)


def pieces(text: str, other: str) -> list[_Piece]:
    """The text cut into what the other has too and what it has not (marked).

    A list in another order has nothing marked.
    """
    if max(len(text), len(other)) > _MAX_MARKED_CHARS:
        return [_Piece(text, True)]
    left = Counter(_tokens(other))
    found: list[_Piece] = []
    for token in _tokens(text):
        # A separator is marked with the token before it.
        marked = found[-1].marked if found and _SEPARATORS.fullmatch(token) else not left[token]
        left[token] -= 1 if left[token] else 0
        if found and found[-1].marked == marked:
            found[-1] = _Piece(found[-1].text + token, marked)
        else:
            found.append(_Piece(token, marked))
    return found


def is_reordered(text: str, other: str) -> bool:
    """Whether two different values are lists of the same things."""
    return text != other and sorted(_things(text)) == sorted(_things(other))


def _things(text: str) -> list[str]:
    return [token for token in _tokens(text) if not _SEPARATORS.fullmatch(token)]


def _tokens(text: str) -> list[str]:
    return [token for token in _SEPARATORS.split(text) if token]


def _segments(report: Report) -> list[_Segment]:
    total = sum(report.outcomes.values()) or 1
    return [
        _Segment(name, css, meaning, count, round(100 * count / total, 3))
        for name, css, meaning in _OUTCOMES
        if (count := report.outcomes.get(name, 0))
    ]


def _several_rows(file: FileChange) -> bool:
    assert file.table is not None
    return len({cell.row for cell in file.table.cells}) > 1


def _by_row(file: FileChange) -> Sequence[tuple[str, list[object]]]:
    assert file.table is not None
    rows: dict[str, list[object]] = {}
    for cell in file.table.cells:
        rows.setdefault(cell.row, []).append(cell)
    return list(rows.items())


# Bidirectional controls reorder what follows them on the page (CVE-2021-42574, "Trojan Source").
_DIRECTIONS: Final = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


def _shown(char: str) -> str:
    if char == "\n":
        return char
    if char in _DIRECTIONS or ord(char) < 32 or 127 <= ord(char) < 160:
        return f"\\u{ord(char):04x}"
    if 0xD800 <= ord(char) < 0xE000:
        return "\ufffd"
    return char
