"""`biobank store`."""

from __future__ import annotations

from typing import Final

import click

from biobank_core.cli.common import (
    catalog_options,
    open_output,
    output_option,
    progress,
    stores_of,
    tsv_writer,
)
from biobank_core.cli.fetch import (
    request_options,
    requested,
    source_options,
    sources_of,
    tell_failed,
    total_bytes,
)

COLUMNS: Final = (
    *("identifier", "vid", "object", "uri", "size_bytes", "sha256", "verified", "what"),
)


@click.command()
@request_options
@source_options
@output_option
@catalog_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    addresses: tuple[str, ...],
    file: str | None,
    column: str | None,
    galaxy: str | None,
    galaxy_name: str | None,
    files_below: str | None,
    output: str | None,
) -> None:
    """Store the files behind data in OMERO, each verified by its SHA-256.

    OBJECT is a VID or STUDY:LABEL of data, of a collection of data (with all that is in it) or of
    one file. What is stored is one more file of the data, beside those that are known; `biobank
    fetch` finds it. Data of which a file is stored already are left alone. What comes and is not
    what the catalog says is not kept (exit code 5). Deleting the data deletes the stored file.

    Only a catalog on OMERO keeps files. Columns: identifier, vid, object, uri, size_bytes, sha256,
    verified (sha256, size or no), what (stored, unchanged).
    """
    from biobank_core.catalog.port import KeepsContent  # noqa: PLC0415
    from biobank_core.config import operator  # noqa: PLC0415
    from biobank_core.errors import InputError  # noqa: PLC0415
    from biobank_core.fetch.store import store  # noqa: PLC0415
    from biobank_core.fetch.wanted import wanted  # noqa: PLC0415

    requests = requested(addresses, file=file, column=column)
    with stores_of(ctx, write=False) as stores:
        catalog = stores.catalog
        if not isinstance(catalog, KeepsContent):
            raise InputError("keeps no files; a catalog on OMERO does", value=catalog.url)
        items = wanted(catalog, requests)
        with progress("storing", total=total_bytes(items), unit="bytes") as advance:
            outcome = store(
                catalog,
                catalog.content,
                items,
                sources=sources_of(
                    ctx, catalog, galaxy=galaxy, galaxy_name=galaxy_name, files_below=files_below
                ),
                by=operator(),
                advance=advance,
            )
    with open_output(output) as stream:
        rows = tsv_writer(stream, COLUMNS)
        for kept in outcome.files:
            held = kept.file
            rows.row(
                (
                    "/".join(kept.identifiers),
                    held.sample,
                    held.vid,
                    held.uri,
                    held.size_bytes,
                    held.sha256,
                    kept.verified,
                    "stored" if kept.new else "unchanged",
                )
            )
    new = sum(kept.new for kept in outcome.files)
    click.echo(
        f"{new} stored, {len(outcome.files) - new} there already, {len(outcome.failed)} failed",
        err=True,
    )
    tell_failed(ctx, outcome.failed)
