"""`biobank register-data`."""

from __future__ import annotations

from typing import Final

import click

from biobank_core.cli.common import (
    catalog_options,
    open_output,
    output_option,
    settings_of,
    stores_of,
    tsv_writer,
)

COLUMNS: Final = ("identifier", "data", "label", "sample", "action", "what")
_CATEGORIES: Final = ("MEASUREMENT", "IMPORT")
_KINDS: Final = ("Vessel", "Individual")


@click.command()
@click.option("--galaxy", metavar="URL", help="The Galaxy server; default: GALAXY_URL.")
@click.option(
    "--galaxy-name",
    metavar="NAME",
    help="What the server is called in the catalog; default: the host in its URL.",
)
@click.option("--history", metavar="ID", required=True, help="The history where the job runs.")
@click.option(
    "--inputs-of",
    "output_uuid",
    metavar="UUID",
    required=True,
    help="The job whose inputs are meant, by the uuid of a dataset that it is to fill.",
)
@click.option(
    "--parameter",
    metavar="NAME",
    default="data",
    show_default=True,
    help="The job's parameter that holds the data.",
)
@click.option("--study", metavar="LABEL", help="The study of the data; default: the sample's.")
@click.option(
    "--sample",
    metavar="SAMPLE",
    help="All data come from this vessel or individual. Without: each from the vessel (or the "
    "individual) of the study that its element identifier names, or its name.",
)
@click.option(
    "--kind", type=click.Choice(_KINDS), help="What a name may mean; default: a vessel or a code."
)
@click.option(
    "--category",
    type=click.Choice(_CATEGORIES),
    default=_CATEGORIES[0],
    show_default=True,
    help="How the data came from the sample.",
)
@output_option
@catalog_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    galaxy: str | None,
    galaxy_name: str | None,
    history: str,
    output_uuid: str,
    parameter: str,
    study: str | None,
    sample: str | None,
    kind: str | None,
    category: str,
    output: str | None,
) -> None:
    """Tie data of a Galaxy history to their samples, from a job that runs in it.

    For Galaxy's tools: what a person chose in a form are the inputs of the job that runs this.
    Data that were not recorded yet are made known. All are tied or none; doing it twice is one
    link. Columns: identifier, data (VID), label, sample (VID), action, what (tied, unchanged). The
    key is GALAXY_API_KEY.
    """
    from biobank_core import addressing  # noqa: PLC0415
    from biobank_core.config import operator  # noqa: PLC0415
    from biobank_core.galaxy.client import GalaxyClient, server_key  # noqa: PLC0415
    from biobank_core.galaxy.live import LiveSource  # noqa: PLC0415
    from biobank_core.galaxy.tying import job_with_output, tie_inputs  # noqa: PLC0415
    from biobank_core.model.kinds import ActionCategory  # noqa: PLC0415

    settings = settings_of(ctx)
    url = galaxy or settings.require_galaxy_url()
    client = GalaxyClient.connect(url, settings.require_secret("GALAXY_API_KEY").reveal())
    source = LiveSource(client)
    with stores_of(ctx, write=False) as stores:
        catalog = stores.catalog
        done = tie_inputs(
            catalog,
            source,
            job_with_output(source, history_id=history, uuid=output_uuid),
            server=galaxy_name or server_key(url),
            parameter=parameter,
            study=addressing.study(catalog, study).vid if study else None,
            sample=sample,
            kinds=(kind,) if kind else _KINDS,
            category=ActionCategory(category),
            by=operator(),
        )
    with open_output(output) as stream:
        rows = tsv_writer(stream, COLUMNS)
        for tie in done:
            what = "tied" if tie.new else "unchanged"
            identifier = "/".join(tie.identifiers) or tie.label
            rows.row((identifier, tie.data, tie.label, tie.sample, tie.action, what))
    new = sum(tie.new for tie in done)
    click.echo(f"{new} tied, {len(done) - new} unchanged", err=True)
