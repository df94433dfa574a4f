"""`biobank delete`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from biobank_core.cli.common import (
    catalog_options,
    open_output,
    output_option,
    stores_of,
    tsv_writer,
)

if TYPE_CHECKING:
    from biobank_core.deletion import Plan

_WORDS = {True: "would be deleted", False: "deleted"}
_COLUMNS = ("what", "vid", "kind", "label", "because")


@click.command()
@click.argument("objects", metavar="OBJECT...", nargs=-1, required=True)
@click.option(
    "--cascade",
    is_flag=True,
    help="Delete parts with it; actions and collections go on naming what was deleted.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go, and what refers to it.")
@output_option
@catalog_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    objects: tuple[str, ...],
    cascade: bool,
    dry_run: bool,
    output: str | None,
) -> None:
    """Delete objects; of each a tombstone stays, without what is personal.

    OBJECT is a VID or STUDY:LABEL (an individual: STUDY:CODE). All go or none. Refused (exit code
    5) while anything else refers to them. With --cascade parts go too: a data object with its data,
    enrollments with their individual, consents with their enrollment; and actions, collections and
    supersessions keep naming them, so that lineage leads through the tombstones. A study with
    objects in it, or a device that made something, is never deleted.

    Columns: what (deleted; with --dry-run would delete, refuses, keeps naming), vid, kind, label,
    because.
    """
    from biobank_core import addressing, deletion  # noqa: PLC0415
    from biobank_core.config import operator  # noqa: PLC0415
    from biobank_core.errors import ConflictError  # noqa: PLC0415

    with stores_of(ctx, write=False) as stores:
        catalog = stores.catalog
        found = [addressing.resolve(catalog, text) for text in objects]
        plan = deletion.plan(catalog, found, cascade=cascade)
        if dry_run:
            rows = list(_planned(plan))
        else:
            gone = deletion.delete(catalog, found, cascade=cascade, by=operator())
            rows = [
                ("deleted", item.vid, item.kind, item.label, _taken_along(item.with_vid))
                for item in gone
            ]
    with open_output(output) as stream:
        writer = tsv_writer(stream, _COLUMNS)
        for row in rows:
            writer.row(row)
    click.echo(f"{len(plan.going) if dry_run else len(rows):,} {_WORDS[dry_run]}", err=True)
    if dry_run and plan.refuses:
        click.echo(f"biobank: refused: {len(plan.refuses):,} references to them stand", err=True)
        ctx.exit(ConflictError.exit_code)


def _planned(plan: Plan) -> Iterator[tuple[str, str, str, str, str]]:
    for item in plan.going:
        yield "would delete", item.vid, item.kind, item.label, _taken_along(item.with_vid)
    for what, referrers in (("refuses", plan.refuses), ("keeps naming", plan.keeps)):
        for one in referrers:
            yield what, one.vid, one.kind, "", f"{one.field}: {one.target}"


def _taken_along(vid: str | None) -> str:
    return f"part of {vid}" if vid else ""
