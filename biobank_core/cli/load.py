"""`biobank load`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from biobank_core.cli.common import catalog_options, progress, stores_of


@click.command()
@click.argument("file", metavar="FILE.jsonl")
@click.option(
    "--update",
    is_flag=True,
    help="Save other content over what stands; without it that is a conflict.",
)
@catalog_options
@click.pass_context
def command(ctx: click.Context, *, file: str, update: bool) -> None:
    """Load objects from a JSON Lines file, all or nothing.

    One object a line, in any order; `-` reads stdin. What stands already with equal content is
    left alone. What is wrong anywhere in the file is found before anything is saved.
    """
    from biobank_core.config import operator  # noqa: PLC0415
    from biobank_core.interchange import load  # noqa: PLC0415

    # The file is read twice: to check all of it, then to save it.
    size_bytes = None if file == "-" else _size_bytes(file)
    total = None if size_bytes is None else 2 * size_bytes
    with stores_of(ctx, write=True) as stores, progress("load", total=total, unit="bytes") as told:
        source = sys.stdin.buffer if file == "-" else file
        report = load(stores.catalog, source, by=operator(), update=update, progress=told)
    click.echo(
        f"{report.created:,} created, {report.updated:,} updated, {report.deleted:,} deleted, "
        f"{report.unchanged:,} unchanged",
        err=True,
    )


def _size_bytes(file: str) -> int | None:
    path = Path(file)
    return path.stat().st_size if path.is_file() else None
