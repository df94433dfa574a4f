"""`biobank omero-uninstall`."""

from __future__ import annotations

import click

from biobank_core.cli.common import catalog_options, progress, settings_of


@click.command()
@click.option("--dry-run", is_flag=True, help="Only count what would be removed.")
@click.option("--yes", is_flag=True, help="Remove it; nothing is asked.")
@catalog_options
@click.pass_context
def command(ctx: click.Context, *, dry_run: bool, yes: bool) -> None:
    """Remove biobank's catalog from the named groups of OMERO, and nothing else.

    Prints how much there is of what. Its owner or an administrator may do this. What was removed
    can't be brought back: `biobank dump` it first. Interrupted, it is run again.
    """
    from biobank_core.catalog.port import Removable  # noqa: PLC0415
    from biobank_core.catalog.registry import open_catalog  # noqa: PLC0415
    from biobank_core.errors import InputError  # noqa: PLC0415

    if dry_run == yes:
        raise click.UsageError("give either --dry-run or --yes")
    settings = settings_of(ctx)
    with open_catalog(settings.catalog, settings=settings) as catalog:
        if not isinstance(catalog, Removable):
            raise InputError("is no catalog on OMERO; remove its file", value=catalog.url)
        counts = catalog.holdings()
        for what, count in counts.items():
            click.echo(f"{count}\t{what}")
        if yes:
            with progress("remove", total=sum(counts.values())) as told:
                catalog.remove_all(told)
