"""`biobank dump`."""

from __future__ import annotations

import click

from biobank_core.cli.common import (
    catalog_options,
    open_output,
    output_option,
    progress,
    stores_of,
)


@click.command()
@output_option
@catalog_options
@click.pass_context
def command(ctx: click.Context, *, output: str | None) -> None:
    """Write all objects as JSON Lines.

    Deleted objects (as tombstones) and campaigns are among them. Loaded into an empty catalog, they
    give the same catalog and the same lineage.
    """
    from biobank_core.interchange import dump  # noqa: PLC0415

    with stores_of(ctx, write=False) as stores:
        total = sum(stores.catalog.count().values())
        with (
            open_output(output) as stream,
            progress("dump", total=total) as told,
        ):
            dump(stores.catalog, stream.buffer, progress=told)
