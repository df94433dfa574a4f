"""`biobank rebuild`."""

from __future__ import annotations

import click

from biobank_core.cli.common import catalog_options, progress, stores_of


@click.command()
@catalog_options
@click.pass_context
def command(ctx: click.Context) -> None:
    """Make the lineage index anew from the catalog.

    For an index that `biobank verify` finds wrong in many places. The catalog is only read. In a
    file, others who read the index see the old one until the new one is complete; when it is
    interrupted, the old one stays. In Neo4j it is made anew piece by piece while it is in use; when
    it is interrupted, the next rebuild goes on there.
    """
    from biobank_core.lineage.follow import rebuild  # noqa: PLC0415

    with stores_of(ctx, write=False, up_to_date=False) as stores:
        total = sum(stores.catalog.count().values())
        with progress("rebuild", total=total) as told:
            rebuild(stores.catalog, stores.index, advance=told)
        counts = dict(stores.index.count())
        nodes = counts.pop("nodes", 0)
        edges = ", ".join(f"{count:,} {relation}" for relation, count in sorted(counts.items()))
    click.echo(
        f"{total:,} objects read; the index holds {nodes:,} nodes, edges: {edges or 'none'}",
        err=True,
    )
