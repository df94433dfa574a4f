"""`biobank lineage`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, TextIO

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
    from biobank_core.lineage.port import Answer
    from biobank_core.lineage.service import FreshnessReport, Lineage

_DIRECTIONS = ("both", "upstream", "downstream")
_FRESHNESS = ("any", "wait", "source")


@click.command()
@click.argument("objects", metavar="OBJECT...", nargs=-1, required=True)
@click.option(
    "--direction",
    type=click.Choice(_DIRECTIONS),
    default="both",
    show_default=True,
    help="upstream: what it came from; downstream: what was made of it.",
)
@click.option("--depth", type=click.IntRange(min=0), help="At most this many edges away.")
@click.option(
    "--kind", "kinds", metavar="K", multiple=True, help="Only this kind (a Tube is a Vessel, too)."
)
@click.option("--study", metavar="LABEL", help="Only objects of this study.")
@click.option("--category", "categories", metavar="C", multiple=True, help="Only made by such.")
@click.option("--tool", metavar="ID", help="Only made by this tool: full id or its last part.")
@click.option("--release", metavar="SPEC", help="Only made by such a release, as '<3'.")
@click.option("--via-tool", metavar="ID", help="Only with this tool on a path from the start.")
@click.option("--since", metavar="T", help="Only made at this time or later (ISO 8601, UTC).")
@click.option("--until", metavar="T", help="Only made at this time or before.")
@click.option(
    "--to", "target", metavar="OBJECT", help="Only what is on a path from the start to this one."
)
@click.option(
    "--freshness",
    type=click.Choice(_FRESHNESS),
    default="any",
    show_default=True,
    help="any: what the index holds now; wait: until it holds all; source: walk the catalog.",
)
@click.option(
    "--timeout",
    "timeout_s",
    metavar="S",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="With --freshness wait, give up after so many seconds (exit code 3).",
)
@format_option("tsv", "json", "svg", "dot", "graphml")
@output_option
@catalog_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    objects: tuple[str, ...],
    direction: str,
    depth: int | None,
    kinds: tuple[str, ...],
    study: str | None,
    categories: tuple[str, ...],
    tool: str | None,
    release: str | None,
    via_tool: str | None,
    since: str | None,
    until: str | None,
    target: str | None,
    freshness: str,
    timeout_s: float,
    format: str,
    output: str | None,
) -> None:
    """Show what objects came from and what was made of them.

    OBJECT is a VID or STUDY:LABEL (an individual: STUDY:CODE); an action stands for its outputs, a
    data object for its data. Filters choose what is shown, never where the walk goes.

    Example: biobank lineage KPN:T1 --direction downstream --format svg -o t1.svg
    """
    from biobank_core import addressing  # noqa: PLC0415
    from biobank_core.lineage.port import Direction, Question  # noqa: PLC0415
    from biobank_core.lineage.service import Freshness  # noqa: PLC0415

    with stores_of(ctx, write=False) as stores:
        question = Question(
            starts=tuple(addressing.resolve(stores.catalog, text).object.vid for text in objects),
            direction=Direction(direction),
            depth=depth,
            kinds=frozenset(kinds),
            study=None if study is None else addressing.study(stores.catalog, study).vid,
            categories=frozenset(_category(name) for name in categories),
            tool=tool,
            release=release,
            via_tool=via_tool,
            since=_time(since, "--since"),
            until=_time(until, "--until"),
        )
        mode = Freshness(freshness)
        end = None if target is None else addressing.resolve(stores.catalog, target).object.vid
        answer, report = stores.lineage.inquire(
            question, to=end, freshness=mode, timeout_s=timeout_s
        )
        _say_how_fresh(report)
        with open_output(output) as stream:
            _write(stream, format, stores.lineage, answer, report)


def _say_how_fresh(report: FreshnessReport) -> None:
    """On stderr, where the answer is not all that the catalog holds or was had another way."""
    if report.warning:
        click.echo(f"biobank: warning: {report.warning}", err=True)
    elif report.in_step is False:
        refused = f", {report.refused_changes:,} set aside" if report.refused_changes else ""
        click.echo(
            f"biobank: the lineage index lacks {report.pending_changes:,} changes{refused}; "
            f"the oldest is {report.age_s:,.0f} s old (--freshness wait, or source)",
            err=True,
        )


def _write(
    stream: TextIO, form: str, lineage: Lineage, answer: Answer, report: FreshnessReport
) -> None:
    names = lineage.names(answer)
    if form == "tsv":
        from biobank_core.export.lineage import COLUMNS, as_rows  # noqa: PLC0415

        writer = tsv_writer(stream, COLUMNS)
        for row in as_rows(answer, names):
            writer.row(row)
    elif form == "json":
        from biobank_core.export.lineage import json_text  # noqa: PLC0415

        stream.writelines(json_text(answer, names, report))
    elif form == "graphml":
        from biobank_core.export.graphml import graphml  # noqa: PLC0415

        stream.writelines(graphml(answer, names))
    else:
        from biobank_core.export import drawing, picture  # noqa: PLC0415
        from biobank_core.export.stale import stale_nodes  # noqa: PLC0415

        stale = stale_nodes(lineage, answer, freshness=report.freshness)
        drawn = drawing.drawing(answer, names, stale=stale)
        stream.write(picture.svg(drawn) if form == "svg" else picture.dot(drawn))


def _category(name: str) -> str:
    from biobank_core.errors import InputError  # noqa: PLC0415
    from biobank_core.model.kinds import ActionCategory  # noqa: PLC0415

    known = [category.value for category in ActionCategory]
    if name.upper() not in known:
        raise InputError(f"allowed are {', '.join(known)}", field="--category", value=name)
    return name.upper()


def _time(text: str | None, option: str) -> datetime | None:
    from datetime import UTC  # noqa: PLC0415

    from biobank_core.errors import InputError  # noqa: PLC0415

    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as exc:
        raise InputError(
            "not a time such as 2026-01-31 or 2026-01-31T12:00:00Z", field=option, value=text
        ) from exc
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
