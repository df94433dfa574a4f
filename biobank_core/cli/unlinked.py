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
@click.option(
    "--references",
    is_flag=True,
    help="Instead: reference data that jobs were run on, by --rules, and that are not registered.",
)
@click.option(
    "--rules",
    "rules_file",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="With --references: the rules that the jobs were recorded with.",
)
@output_option
@catalog_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    study: str | None,
    references: bool,
    rules_file: str | None,
    output: str | None,
) -> None:
    """List data that belong to no known biological sample.

    Listed are the data that everything else was computed from (uploads, imports): linking these
    links the rest. `biobank link DATA SAMPLE` ties them; a header is always written.

    With --references: what to register (`biobank register DataSample`), with how many objects have
    that label now; the next recording ties the jobs to it.
    """
    if references != (rules_file is not None):
        raise click.UsageError("--references needs --rules FILE, and --rules goes with it only")
    if rules_file is not None:
        _references(ctx, study, rules_file, output)
        return
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


def _references(ctx: click.Context, study: str | None, rules_file: str, output: str | None) -> None:
    from biobank_core import addressing  # noqa: PLC0415
    from biobank_core.galaxy.references import missing  # noqa: PLC0415
    from biobank_core.galaxy.rules import load_rules  # noqa: PLC0415

    rules = load_rules(rules_file)
    with stores_of(ctx, write=False) as stores, open_output(output) as out:
        vid = addressing.study(stores.catalog, study).vid if study else None
        rows = tsv_writer(out, ["reference", "study", "parameter", "tool", "jobs", "objects"])
        for row in missing(stores.catalog, rules, study=vid):
            rows.row([row.label, row.study, row.parameter, row.tool, row.actions, row.found])
