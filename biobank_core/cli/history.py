"""`biobank history`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from biobank_core.cli.common import (
    catalog_options,
    format_option,
    open_output,
    output_option,
    stores_of,
    tsv_writer,
)

if TYPE_CHECKING:
    from biobank_core.history import VersionChange


@click.command()
@click.argument("address", metavar="OBJECT")
@format_option("tsv", "json")
@output_option
@catalog_options
@click.pass_context
def command(ctx: click.Context, *, address: str, format: str, output: str | None) -> None:
    """Show who changed what of an object, and when.

    OBJECT is a VID or STUDY:LABEL (an individual: STUDY:CODE); a deleted one goes by its VID.
    Columns of tsv: version, time, by, change (created, updated, deleted), field, old, new; a line
    for each field that changed. What an object held before it was deleted is not kept.
    """
    from biobank_core import addressing  # noqa: PLC0415
    from biobank_core.history import history_of  # noqa: PLC0415

    with stores_of(ctx, write=False) as stores:
        vid = addressing.resolve(stores.catalog, address).object.vid
        changes = history_of(stores.catalog, vid)
    with open_output(output) as stream:
        if format == "json":
            document = [_json(change) for change in changes]
            stream.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        else:
            columns = ["version", "time", "by", "change", "field", "old", "new"]
            writer = tsv_writer(stream, columns)
            for change in changes:
                for row in _rows(change):
                    writer.row(row)


def _rows(change: VersionChange) -> Iterator[tuple[object, ...]]:
    start = (change.version, change.time, change.by, change.happened)
    for field in change.fields or ():
        yield (*start, field.field, _cell(field.old), _cell(field.new))
    if not change.fields:
        yield (*start, None, None, None)


def _cell(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _json(change: VersionChange) -> dict[str, Any]:
    fields = None
    if change.fields is not None:
        fields = {field.field: {"old": field.old, "new": field.new} for field in change.fields}
    return {
        "version": change.version,
        "time": change.time.isoformat().replace("+00:00", "Z"),
        "by": change.by,
        "change": change.happened.value,
        "fields": fields,
    }
