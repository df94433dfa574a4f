"""`biobank select`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from biobank_core.cli.common import (
    catalog_options,
    format_option,
    open_output,
    output_option,
    stores_of,
    tsv_writer,
)
from biobank_core.cli.fetch import bring, content_options, leave

if TYPE_CHECKING:
    from biobank_core.catalog.port import Catalog
    from biobank_core.fetch.wanted import Request
    from biobank_core.selection.criteria import Criteria, Selection

F = TypeVar("F", bound=Callable[..., Any])

EXIT_NOTHING_SELECTED: Final = 1


def _moment(
    of_day: time,
) -> Callable[[click.Context, click.Parameter, str | None], datetime | None]:
    """A callback for a day (UTC), taken at its time `of_day`, or a time with its zone."""

    def callback(
        _ctx: click.Context, _param: click.Parameter, value: str | None
    ) -> datetime | None:
        if value is None:
            return None
        try:
            if len(value) == len("2026-01-31"):
                return datetime.combine(date.fromisoformat(value), of_day, tzinfo=UTC)
            moment = datetime.fromisoformat(value)
        except ValueError as exc:
            text = f"{value!r} is no time; write 2026-01-31 or 2026-01-31T12:00:00Z"
            raise click.BadParameter(text) from exc
        if moment.tzinfo is None:
            raise click.BadParameter(f"{value!r} needs a time zone, such as {value}Z")
        return moment.astimezone(UTC)

    return callback


def _pairs(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str], ...]:
    pairs = []
    for text in values:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{text!r} is not NAME=VALUE")
        pairs.append((name, value))
    return tuple(pairs)


def criteria_options(function: F) -> F:
    """Adds --study, --tool, --release, --param, --reference, --since, --until, --scope.

    `criteria_of` takes what they hold.
    """
    for decorate in reversed(
        (
            click.option("--study", metavar="LABEL", required=True, help="The study, or its VID."),
            click.option(
                "--tool",
                metavar="ID",
                help="What made the results: a tool's full id, without version, or its last part.",
            ),
            click.option(
                "--release",
                metavar="RANGE",
                help="Releases of the tool, such as '<3' or '>=2,<3'; one alone means that one.",
            ),
            click.option(
                "--param",
                metavar="NAME=VALUE",
                multiple=True,
                callback=_pairs,
                help="What it was run with; nested names are joined by dots. May be repeated: all.",
            ),
            click.option(
                "--reference",
                metavar="OBJECT",
                help="Data it was given, alone or in a collection: a VID or study:label.",
            ),
            click.option(
                "--since",
                metavar="TIME",
                callback=_moment(time.min),
                help="Only what was made then or later: a day (UTC) or a time with zone.",
            ),
            click.option(
                "--until",
                metavar="TIME",
                callback=_moment(time.max),
                help="Only what was made then or before; a day is taken whole.",
            ),
            click.option(
                "--scope",
                default="research",
                show_default=True,
                help="What the individuals' consent must allow today.",
            ),
        )
    ):
        function = decorate(function)
    return function


def criteria_of(
    catalog: Catalog,
    *,
    study: str,
    tool: str | None,
    release: str | None,
    param: tuple[tuple[str, str], ...],
    reference: str | None,
    since: datetime | None,
    until: datetime | None,
    scope: str,
) -> Criteria:
    """The criteria that the options of `criteria_options` describe."""
    from biobank_core import addressing  # noqa: PLC0415
    from biobank_core.selection.criteria import Criteria  # noqa: PLC0415

    wanted = None
    if reference is not None:
        wanted = addressing.resolve(catalog, reference, kinds=("DataSample", "Collection"))
    return Criteria(
        params=param,
        reference=wanted.object.vid if wanted else None,
        study=addressing.study(catalog, study).vid,
        tool=tool,
        release=release,
        since=since,
        until=until,
        scope=scope,
    )


@click.command()
@criteria_options
@click.option("--all", "show_all", is_flag=True, help="Show also what is left out, and why.")
@click.option("--require", is_flag=True, help="Exit with 1 if nothing is selected.")
@click.option(
    "--to",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Fetch the selected samples' data into this folder, too, as `biobank fetch` does, each "
    "under its sample's label.",
)
@click.option(
    "--data",
    type=click.Choice(("sources", "results")),
    default="sources",
    show_default=True,
    help="With --to: what the results were made of, or the results themselves.",
)
@content_options
@format_option("tsv", "json")
@output_option
@catalog_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    study: str,
    tool: str | None,
    release: str | None,
    param: tuple[tuple[str, str], ...],
    reference: str | None,
    since: datetime | None,
    until: datetime | None,
    scope: str,
    show_all: bool,
    require: bool,
    folder: str | None,
    data: str,
    format: str,
    output: str | None,
    **content: str | None,
) -> None:
    """Select the samples that need reanalysis, each with the reason.

    A sample is the nearest vessel that a matching result came from. Left out, with the reason
    (--all): what is superseded, done already with a release outside the range or without the
    parameter or reference, tied to no sample, or without consent, and what is pooled with such.

    Columns of tsv: sample (VID), label, study, donor (enrollment codes), reason, tool, release,
    results and sources (VIDs, joined by ;), and with --all also state (selected, excluded) and
    code.
    """
    import json  # noqa: PLC0415

    from biobank_core.selection import table  # noqa: PLC0415
    from biobank_core.selection.select import select  # noqa: PLC0415

    with stores_of(ctx, write=False) as stores:
        criteria = criteria_of(
            stores.catalog,
            study=study,
            tool=tool,
            release=release,
            param=param,
            reference=reference,
            since=since,
            until=until,
            scope=scope,
        )
        selection = select(stores.catalog, criteria)
        fetched = None
        if folder is not None:
            requests = requests_of(selection, data)
            fetched = bring(ctx, stores.catalog, requests, folder=folder, **content)
    with open_output(output) as stream:
        if format == "json":
            document = table.as_json(selection, include_excluded=show_all)
            stream.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        else:
            rows = tsv_writer(stream, table.COLUMNS_OF_ALL if show_all else table.COLUMNS)
            for row in table.table(selection, include_excluded=show_all):
                rows.row(row)
    click.echo(table.summary(selection), err=True)
    if fetched is not None:
        leave(ctx, fetched)
    if require and not selection.rows:
        ctx.exit(EXIT_NOTHING_SELECTED)


def requests_of(selection: Selection, data: str) -> list[Request]:
    """The `sources` or `results` of the selected samples, under the samples' labels."""
    from biobank_core.fetch.tables import named_requests  # noqa: PLC0415

    found: list[Request] = []
    for row in selection.rows:
        vids = row.sources if data == "sources" else [result.vid for result in row.results]
        found += named_requests(row.label, list(dict.fromkeys(vids)))
    return found
