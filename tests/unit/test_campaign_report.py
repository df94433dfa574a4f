"""The report: what it says, and that no value in it can do anything."""

from __future__ import annotations

import dataclasses
import io
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biobank_core.cli.common import tsv_writer
from biobank_core.galaxy.reanalysis import report as reports
from biobank_core.galaxy.reanalysis.campaigns import LeftOut, ToolChange
from biobank_core.galaxy.reanalysis.compare import FileChange, Verdict
from biobank_core.galaxy.reanalysis.html import is_reordered, pieces, render_html
from biobank_core.galaxy.reanalysis.report import ColumnCount, Report, SampleReport
from biobank_core.galaxy.reanalysis.results import Result
from biobank_core.galaxy.reanalysis.tables import compare_tables, parse_table
from biobank_core.model.ids import derived_vid
from biobank_core.model.kinds import Attempt, ItemState

GALAXY = "https://galaxy.example"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><script>alert(1)</script>",
    '=HYPERLINK("http://x.example")',
    "+1+cmd|' /C calc'!A0",
    "@SUM(1)",
    "-2+3",
    "{{ 7*7 }} {% raw %}",
    "\u202eevil\u202c",
    "a\tb\nc\rd\x00\x1b[31m",
    "試料 “quoted” & <b>",
]


def make_report(*texts: str) -> Report:
    """A report with every free text taken from `texts`, in turn."""
    place = iter(range(10**6))

    def text() -> str:
        return texts[next(place) % len(texts)]

    def result(vid: str, release: str) -> Result:
        return Result(
            vid=derived_vid("DataSample", vid),
            label=text(),
            tool=text(),
            role=text(),
            release=text() + release,
            step=text(),
        )

    key, column = text() + "k", text() + "c"
    old = parse_table("a\tb\tgone\nx\t1\t2\ny\t3\t4\n")
    new = parse_table("a\tb\tcame\nx\t9\t2\ny\t8\t4\n")
    assert old is not None
    assert new is not None
    change = compare_tables(old, new)
    cells = tuple(type(cell)(text(), column, text() + "1", text() + "2") for cell in change.cells)
    change = type(change)(key, cells, 4, (text(),), (text(),), (text(),), (text(),), True)
    file = FileChange(
        old=result("1", "2"),
        new=result("2", "3"),
        verdict=Verdict.DIFFERENT,
        old_sha256="0" * 64,
        new_sha256="1" * 64,
        table=change,
        note=text(),
    )
    unread = FileChange(
        old=result("3", "2"), new=result("4", "3"), verdict=Verdict.NOT_READ, note=text()
    )
    samples = tuple(
        SampleReport(
            vid=derived_vid("Tube", str(number)),
            label=text(),
            state=state,
            reason=text(),
            error=text() if state is ItemState.FAILED else None,
            files=(file, unread) if state is ItemState.OK else (),
            old_alone=(result("5", ""),),
            new_alone=(result("6", ""),),
            history_id=text(),
            kept=((text(), text()),),
            attempts=(Attempt(round=0, history_id=text(), error=text()),),
        )
        for number, state in enumerate(ItemState)
    )
    return Report(
        name=text(),
        vid=derived_vid("Campaign", "x"),
        study=text(),
        created=datetime(2026, 1, 1, tzinfo=UTC),
        made=datetime(2026, 1, 2, tzinfo=UTC),
        galaxy_server=text(),
        workflow=text(),
        tools=(ToolChange(step=text(), tool=text(), old=text(), new=text() + "n"),),
        settings=(text(),),
        asked=(("tool", text()),),
        samples=samples,
        left_out=(LeftOut(sample=None, label=text(), code=text(), reason=text()),),
        columns=(ColumnCount(text(), text(), 2),),
        came=(ColumnCount(text(), text(), 2),),
        went=(ColumnCount(text(), text(), 2),),
        outcomes={"changed": 1, "failed": 1, "open": 1, "left out": 1},
        galaxy_url=GALAXY,
        replaced=((text(), text(), 1), (text(), None, 2)),
    )


class _Page(HTMLParser):
    """Collects the tags, their attributes and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


# What the template itself uses; anything else came out of a value.
_TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p"),
    *("section", "div", "span", "b", "ul", "li", "dl", "dt", "dd", "br", "del", "ins", "details"),
    *("summary", "table", "thead", "tbody", "tr", "th", "td", "code", "pre", "header", "footer"),
    "a",
}  # fmt: skip


# To a sample's part of the page, to its end, to the Galaxy server.
_HISTORY = r"/histories/view\?id=[A-Za-z0-9%_.+/~-]*"
_LINK = re.compile(rf"#V0[0-9A-F]{{32}}|#left-out|{GALAXY}({_HISTORY})?")


def _check_inert(page: str) -> _Page:
    parsed = _Page(page)
    for tag, attributes in parsed.tags:
        assert tag in _TAGS
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("src", "srcdoc", "xlink:href", "action")
            if name == "href":
                assert tag == "a"
                assert value is not None
                assert _LINK.fullmatch(value), value
            if name == "style":
                assert value is not None
                assert value.startswith("width: ")
    assert "default-src 'none'" in page
    return parsed


@pytest.mark.parametrize("text", HOSTILE)
def test_no_value_of_the_html_report_becomes_markup(text: str) -> None:
    _check_inert(render_html(make_report(text)))


# A page of all kinds of entries takes longer than a deadline for small things.
@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=8))
def test_no_text_whatever_becomes_markup(texts: list[str]) -> None:
    page = render_html(make_report(*texts))
    _check_inert(page)
    assert "\x00" not in page


@pytest.mark.parametrize("url", ["", "javascript:alert(1)", 'https://x.example/" onx="', "ftp://x"])
def test_only_an_address_of_a_web_server_is_linked_to(url: str) -> None:
    page = render_html(dataclasses.replace(make_report("x"), galaxy_url=url))
    hrefs = [attributes["href"] for tag, attributes in _Page(page).tags if tag == "a"]
    assert hrefs
    assert all(href is not None and href.startswith("#") for href in hrefs)


def test_the_summary_comes_first_and_each_sample_is_linked_to_its_part() -> None:
    page = render_html(make_report("x"))
    order = [page.index(f">{title}<") for title in ("At a glance", "All samples", "What was run")]
    assert order == sorted(order)
    for sample in make_report("x").samples:
        assert page.count(f'href="#{sample.vid}"') == page.count(f'id="{sample.vid}"') == 1
    assert "--retry" in page


def test_what_needs_somebody_comes_first_then_natural_order() -> None:
    assert sorted(["T10", "T2", "a", "T1"], key=reports.natural) == ["T1", "T2", "T10", "a"]


def test_a_value_is_shown_as_it_is_written() -> None:
    page = _check_inert(render_html(make_report("<b>試料</b> & “co”")))
    assert "<b>試料</b> & “co”" in page.text


def test_direction_and_control_characters_are_shown_not_obeyed() -> None:
    page = render_html(make_report("x\u202ey\x1bz"))
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "x\\u202ey\\u001bz" in page


@pytest.mark.parametrize("text", HOSTILE)
def test_no_cell_of_the_tsv_report_starts_a_formula_or_breaks_a_line(text: str) -> None:
    stream = io.StringIO()
    table = tsv_writer(stream, reports.COLUMNS)
    rows = list(reports.tsv_rows(make_report(text)))
    for row in rows:
        table.row(row)
    lines = stream.getvalue().split("\n")
    assert len(lines) == len(rows) + 2
    for line in lines[1:-1]:
        cells = line.split("\t")
        assert len(cells) == len(reports.COLUMNS)
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)


def test_the_tsv_has_a_line_for_each_kind_of_change() -> None:
    changes = {row[3] for row in reports.tsv_rows(make_report("x"))}
    assert changes == {
        "file", "cell", "column-gone", "column-new", "row-gone", "row-new", "no-counterpart",
        "failed", "open", "left-out",
    }  # fmt: skip


@given(st.text(max_size=60), st.text(max_size=60))
def test_marking_what_differs_loses_no_character(old: str, new: str) -> None:
    assert "".join(piece.text for piece in pieces(old, new)) == old
    if old == new:
        assert not any(piece.marked for piece in pieces(old, new))


def test_only_the_part_of_a_list_that_differs_is_marked() -> None:
    marked = [piece.text for piece in pieces("aac(3)-IIa;strA;sul1", "strA;sul1") if piece.marked]
    assert marked == ["aac(3)-IIa;"]


def test_a_list_in_another_order_has_no_mark_but_is_said_to_be_reordered() -> None:
    old, new = "rmtB;strA;sul1", "sul1;rmtB;strA"
    assert not any(piece.marked for piece in (*pieces(old, new), *pieces(new, old)))
    assert is_reordered(old, new)
    assert not is_reordered("rmtB;strA", "rmtB;strB")
