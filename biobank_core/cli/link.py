"""`biobank link`."""

from __future__ import annotations

import click

from biobank_core.cli.common import catalog_options, stores_of

_CATEGORIES = ("MEASUREMENT", "IMPORT", "CREATION", "PROCESSING", "UPDATE")


@click.command()
@click.argument("data", metavar="DATA")
@click.argument("sample", metavar="SAMPLE")
@click.option(
    "--category",
    type=click.Choice(_CATEGORIES),
    default=_CATEGORIES[0],
    show_default=True,
    help="How the data came from the sample.",
)
@catalog_options
@click.pass_context
def command(ctx: click.Context, *, data: str, sample: str, category: str) -> None:
    """Tie data to the biological sample they came from.

    DATA (data or a collection of data) and SAMPLE (a vessel or an individual) are VIDs or
    study:label. Doing it twice is one link.
    """
    from biobank_core import addressing  # noqa: PLC0415
    from biobank_core.config import operator  # noqa: PLC0415
    from biobank_core.galaxy.linking import link  # noqa: PLC0415
    from biobank_core.model.kinds import ActionCategory  # noqa: PLC0415

    with stores_of(ctx, write=False) as stores:
        catalog = stores.catalog
        found = addressing.resolve(catalog, data, kinds=["DataSample", "DataCollection"])
        origin = addressing.resolve(catalog, sample, kinds=["Vessel", "Individual"])
        action, new = link(
            catalog,
            data=found.object.vid,
            sample=origin.object.vid,
            by=operator(),
            category=ActionCategory(category),
        )
    click.echo(f"{action.vid}\t{'linked' if new else 'was linked already'}")
