"""`biobank register`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from biobank_core.cli.common import (
    catalog_options,
    open_output,
    output_option,
    progress,
    stores_of,
    tsv_writer,
)

if TYPE_CHECKING:
    from biobank_core.register import Registered

HEADER = ("line", "kind", "vid", "label", "what")


@click.command()
@click.argument("kind")
@click.argument("file", metavar="FILE.tsv")
@click.option("--study", metavar="LABEL", help="The study of the rows that name none.")
@click.option(
    "--column",
    "columns",
    metavar="FIELD=COLUMN",
    multiple=True,
    help="Which column holds a field, by its name in the header or its number. May be repeated; "
    "then other columns are left out.",
)
@click.option(
    "--problems",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Write all wrong rows to this file, too (TSV: line, problem).",
)
@click.option("--dry-run", is_flag=True, help="Save nothing; say what would be saved.")
@output_option
@catalog_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    kind: str,
    file: str,
    study: str | None,
    columns: tuple[str, ...],
    problems: str | None,
    dry_run: bool,
    output: str | None,
) -> None:
    """Register studies, individuals, consents, tubes and others from a TSV file.

    The header names the fields, as in `biobank schema`. A `code` column of Individual makes the
    enrollment in the study; `source` (labels, codes or VIDs, `;` between several), `category` and
    `begin` of a vessel make the action that it came by. All rows are saved or none; a row that
    stands already is unchanged, one that says otherwise is a conflict (exit code 5).
    """
    found: list[tuple[int, str]] = []
    try:
        done = _registered(
            ctx,
            file=file,
            kind=kind,
            study=study,
            dry_run=dry_run,
            mapping=_mapping(columns),
            on_problem=lambda line, text: found.append((line, text)),
        )
    finally:
        if problems is not None:
            with open_output(problems) as stream:
                wrong = tsv_writer(stream, ("line", "problem"))
                for problem in found:
                    wrong.row(problem)
    new = "would create" if dry_run else "created"
    with open_output(output) as stream:
        rows = tsv_writer(stream, HEADER)
        for item in done:
            what = new if item.new else "unchanged"
            # What is not made yet has no VID yet.
            vid = None if dry_run and item.new else item.vid
            rows.row([item.line, item.kind, vid, item.label, what])
    made = sum(item.new for item in done)
    click.echo(f"{made} {new}, {len(done) - made} unchanged", err=True)


def _registered(
    ctx: click.Context,
    *,
    file: str,
    kind: str,
    study: str | None,
    dry_run: bool,
    mapping: dict[str, str],
    on_problem: Callable[[int, str], object],
) -> list[Registered]:
    from biobank_core.config import operator  # noqa: PLC0415
    from biobank_core.register import register  # noqa: PLC0415

    # How many rows there are is not known before the file is read: the bar only says "at work".
    with stores_of(ctx, write=not dry_run) as stores, progress("register", total=None):
        return register(
            stores.catalog,
            file=file,
            kind=kind,
            study=study,
            by=operator(),
            dry_run=dry_run,
            mapping=mapping,
            on_problem=on_problem,
        )


def _mapping(columns: tuple[str, ...]) -> dict[str, str]:
    mapping: dict[str, str] = {}
    for text in columns:
        field, equals, column = text.partition("=")
        if not (field and equals and column):
            raise click.BadParameter(f"{text!r} is not FIELD=COLUMN", param_hint="--column")
        if field in mapping:
            raise click.BadParameter(f"{field} is given twice", param_hint="--column")
        mapping[field] = column
    return mapping
