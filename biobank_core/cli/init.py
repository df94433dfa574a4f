"""`biobank init`."""

from __future__ import annotations

import click

from biobank_core.cli.common import catalog_options, stores_of


@click.command()
@catalog_options
@click.pass_context
def command(ctx: click.Context) -> None:
    """Make a catalog, or bring one to the newest schema.

    What is in it stays. Prints the catalog's address.
    """
    with stores_of(ctx, write=True, init=True) as stores:
        click.echo(stores.catalog.url)
