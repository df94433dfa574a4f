"""`biobank verify`."""

from __future__ import annotations

from typing import Final

import click

from biobank_core.cli.common import (
    catalog_options,
    open_output,
    output_option,
    progress,
    stores_of,
    total_of,
    tsv_writer,
)

EXIT_FINDINGS: Final = 1


@click.command()
@click.option("--repair", is_flag=True, help="Mend what is found, all or nothing.")
@output_option
@catalog_options
@click.pass_context
def command(ctx: click.Context, *, repair: bool, output: str | None) -> None:
    """Compare the lineage index with the catalog, both ways.

    Every object is compared with what the index holds of it; a line of TSV for each finding: what
    (missing, stale or extra in the index; damaged: the file itself), vid, kind, detail. Exit code 0
    when nothing was found or all was mended, else 1. A damaged file is not mended: `biobank dump`
    saves what can be read.
    """
    from biobank_core.lineage.verify import What, verify  # noqa: PLC0415

    found = damaged = 0
    # Damage is looked for before anything else is read.
    with stores_of(ctx, write=False, up_to_date=False) as stores, open_output(output) as out:
        rows = tsv_writer(out, ["what", "vid", "kind", "detail"])
        with progress("verify", total=total_of(stores.catalog)) as told:
            for finding in verify(stores.catalog, stores.index, repair=repair, advance=told):
                rows.row([finding.what, finding.vid, finding.kind, finding.detail])
                found += 1
                damaged += finding.what is What.DAMAGED
    mended = repair and not damaged
    click.echo(_summary(found, damaged=damaged, mended=mended), err=True)
    if found and not mended:
        ctx.exit(EXIT_FINDINGS)


def _summary(found: int, *, damaged: int, mended: bool) -> str:
    if not found:
        return "nothing found"
    if damaged:
        return f"{found:,} found: the file is damaged; save what can be read with `biobank dump`"
    hint = "mended" if mended else "`biobank verify --repair` mends it"
    return f"{found:,} found; {hint}"
