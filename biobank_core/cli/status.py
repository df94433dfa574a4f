"""`biobank status`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from biobank_core.cli.common import (
    catalog_options,
    format_option,
    open_output,
    output_option,
    stores_of,
    tsv_cell,
)

if TYPE_CHECKING:
    from biobank_core.stores import Status


@click.command()
@format_option("text", "json")
@output_option
@catalog_options
@click.pass_context
def command(ctx: click.Context, *, format: str, output: str | None) -> None:
    """Count what the catalog holds; say whether the lineage index is up to date."""
    import json  # noqa: PLC0415

    from biobank_core.stores import status_of  # noqa: PLC0415

    with stores_of(ctx, write=False) as stores:
        status = status_of(stores)
    with open_output(output) as stream:
        if format == "json":
            stream.write(json.dumps(_json(status), indent=2, ensure_ascii=False) + "\n")
        else:
            stream.writelines(f"{line}\n" for line in _text(status))


def _json(status: Status) -> dict[str, Any]:
    return {
        "catalog": {
            "url": status.catalog,
            "schema_version": status.catalog_schema,
            "counts": dict(status.counts),
            "missing_kinds": list(status.missing_kinds),
        },
        "index": {
            "url": status.index,
            "schema_version": status.index_schema,
            "nodes": status.nodes,
            "edges": dict(status.edges),
            "in_step": status.in_step,
            "behind_units": status.behind_units,
            "as_of": status.as_of.isoformat() if status.as_of else None,
            "age_s": None if status.age_s is None else round(status.age_s, 3),
            "pending_changes": status.pending_changes,
            "refused_changes": status.refused_changes,
            "warning": status.warning,
        },
    }


def _text(status: Status) -> Iterator[str]:
    yield f"catalog  {status.catalog} (schema {status.catalog_schema})"
    width = max((len(kind) for kind in status.counts), default=0)
    for kind, count in status.counts.items():
        yield f"  {tsv_cell(kind):<{width}}  {count:>9,}"
    if not status.counts:
        yield "  empty"
    if status.missing_kinds:
        kinds = ", ".join(tsv_cell(kind) for kind in status.missing_kinds)
        yield f"  kinds whose plug-in is not installed here: {kinds}"
    if status.warning is not None:
        yield f"index    {tsv_cell(status.warning)}"
        return
    edges = ", ".join(f"{count:,} {relation}" for relation, count in sorted(status.edges.items()))
    yield f"index    {status.index} (schema {status.index_schema})"
    yield f"  {status.nodes:,} nodes, edges: {edges or 'none'}"
    yield f"  {_freshness(status)}"


def _freshness(status: Status) -> str:
    if status.in_step is None:
        return "how far it is behind the catalog is unknown"
    if status.in_step:
        return "in step with the catalog"
    refused = f", {status.refused_changes:,} changes set aside" if status.refused_changes else ""
    since = f", the oldest of {status.as_of.isoformat()}" if status.as_of else ""
    return f"behind the catalog by {status.behind_units} commits{refused}{since}"
