"""`biobank summarize`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from biobank_core.cli.common import (
    catalog_options,
    format_option,
    open_output,
    output_option,
    stores_of,
    tsv_writer,
)

if TYPE_CHECKING:
    from biobank_core.summary import Summary


@click.command()
@click.option("--study", metavar="LABEL", required=True, help="The study to count in.")
@click.option("--html", metavar="FILE", type=click.Path(dir_okay=False), help="Write a page, too.")
@format_option("tsv", "json")
@output_option
@catalog_options
@click.pass_context
def command(
    ctx: click.Context, *, study: str, html: str | None, format: str, output: str | None
) -> None:
    """Count what a study holds and what was done in it.

    Columns of tsv: by (kind; of the actions tool, status, category and month), value, release (of
    a tool), count. Months are those in which actions began (UTC).
    """
    import json  # noqa: PLC0415

    from biobank_core import addressing  # noqa: PLC0415
    from biobank_core.summary import summarize  # noqa: PLC0415

    with stores_of(ctx, write=False) as stores:
        summary = summarize(stores.catalog, addressing.study(stores.catalog, study))
    if html is not None:
        from biobank_core.export.summary_page import summary_page  # noqa: PLC0415

        with open_output(html) as stream:
            stream.write(summary_page(summary))
    with open_output(output) as stream:
        if format == "json":
            stream.write(json.dumps(_json(summary), indent=2, ensure_ascii=False) + "\n")
        else:
            writer = tsv_writer(stream, ["by", "value", "release", "count"])
            for row in _rows(summary):
                writer.row(row)


def _rows(summary: Summary) -> Iterator[tuple[object, ...]]:
    for kind, count in summary.kinds.items():
        yield "kind", kind, None, count
    for tool, count in summary.tools.items():
        yield "tool", tool.label, tool.release, count
    for by, counts in (
        ("status", summary.statuses),
        ("category", summary.categories),
        ("month", summary.months),
    ):
        for value, count in counts.items():
            yield by, value, None, count


def _json(summary: Summary) -> dict[str, Any]:
    return {
        "study": {"vid": summary.study.vid, "label": summary.study.label},
        "kinds": summary.kinds,
        "tools": [
            {"tool": tool.label, "release": tool.release, "count": count}
            for tool, count in summary.tools.items()
        ],
        "statuses": summary.statuses,
        "categories": summary.categories,
        "months": summary.months,
    }
