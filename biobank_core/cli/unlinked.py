"""`biobank unlinked`."""

from __future__ import annotations

import click

from biobank_core.cli.common import (
    catalog_options,
    open_output,
    output_option,
    stores_of,
    tsv_writer,
)


@click.command()
@click.option("--study", metavar="LABEL", help="Only data of this study.")
@output_option
@catalog_options
@click.pass_context
def command(ctx: click.Context, *, study: str | None, output: str | None) -> None:
    """List data that belong to no known biological sample.

    Listed are the data that everything else was computed from (uploads, imports): linking these
    links the rest. `biobank link DATA SAMPLE` ties them; a header is always written.
    """
    from biobank_core import addressing  # noqa: PLC0415
    from biobank_core.galaxy.linking import unlinked  # noqa: PLC0415
    from biobank_core.model.kinds import Study  # noqa: PLC0415

    with stores_of(ctx, write=False) as stores, open_output(output) as out:
        catalog = stores.catalog
        vid = addressing.study(catalog, study).vid if study else None
        labels = {
            item.object.vid: item.object.label
            for item in catalog.find("Study")
            if isinstance(item.object, Study)
        }
        rows = tsv_writer(out, ["vid", "kind", "label", "study", "extension", "deleted"])
        for sample in unlinked(catalog, study=vid):
            galaxy = sample.galaxy
            rows.row(
                [
                    sample.vid,
                    sample.kind,
                    sample.label,
                    labels.get(sample.study, sample.study),
                    galaxy.extension if galaxy else None,
                    galaxy.deleted if galaxy else None,
                ]
            )
