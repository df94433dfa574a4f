"""`biobank dump`."""

from __future__ import annotations

import click

from biobank_core.cli.common import (
    catalog_options,
    open_output,
    output_option,
    progress,
    settings_of,
    total_of,
)


@click.command()
@output_option
@catalog_options
@click.pass_context
def command(ctx: click.Context, *, output: str | None) -> None:
    """Write all objects as JSON Lines.

    Deleted objects (as tombstones) and campaigns are among them. Loaded into an empty catalog, they
    give the same catalog and the same lineage. Of a damaged file, all objects that can be read are
    written; how many can't is said, and the exit code is 2.
    """
    from biobank_core.catalog.registry import open_catalog  # noqa: PLC0415
    from biobank_core.errors import StorageError  # noqa: PLC0415
    from biobank_core.interchange import dump  # noqa: PLC0415

    url, damage = settings_of(ctx).catalog, None
    # The lineage index is not even opened: it may be what is damaged.
    try:
        opened = open_catalog(url)
    except StorageError as exc:
        opened, damage = open_catalog(url, salvage=True), exc
    with opened as catalog:
        with open_output(output) as stream, progress("dump", total=total_of(catalog)) as told:
            report = dump(catalog, stream.buffer, rescue=True, progress=told)
        damage = report.damage or damage
        if damage is not None:
            click.echo(f"biobank: {damage}", err=True)
            click.echo(
                f"biobank: {report.lost:,} objects could not be read; {report.written:,} were "
                "written",
                err=True,
            )
            ctx.exit(StorageError.exit_code)
