"""`biobank galaxy-tables`."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import click

from biobank_core.cli.common import catalog_options, open_output, stores_of

_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,50}\Z", re.ASCII)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, exists=True))
@click.option(
    "--publish",
    "studies",
    metavar="LABEL",
    multiple=True,
    help="A study that every user of this Galaxy may know of. May be repeated.",
)
@click.option(
    "--catalog-id",
    metavar="ID",
    required=True,
    help="What this catalog is called in the column `value` of biobank_catalogs.loc.",
)
@catalog_options
@click.pass_context
def command(ctx: click.Context, *, folder: str, studies: tuple[str, ...], catalog_id: str) -> None:
    """Write the data tables from which Galaxy's forms offer studies and devices.

    DIR gets biobank_studies.loc and biobank_devices.loc: the published studies, and the devices
    that were used in them. Rows of other catalogs (--catalog-id) stay. Every user of Galaxy sees
    these tables; a study that is not in them is typed into the form. Reload the tables in Galaxy
    afterwards (Admin > Data Tables).
    """
    from biobank_core.galaxy.tool_data import table_rows  # noqa: PLC0415

    if not _ID.match(catalog_id):
        raise click.BadParameter(
            "letters, digits, '_', '.' and '-' only", param_hint="--catalog-id"
        )
    with stores_of(ctx, write=False) as stores:
        tables = table_rows(stores.catalog, studies, catalog_id=catalog_id)
    write(Path(folder), tables, catalog_id)
    for name, rows in tables.items():
        click.echo(f"{Path(folder) / name}\t{len(rows)}")


def write(folder: Path, tables: Mapping[str, Sequence[Sequence[str]]], catalog_id: str) -> None:
    """Put these rows by file name into the tables in place of those that the catalog has there."""
    from biobank_core.galaxy.tool_data import table_text  # noqa: PLC0415

    with _alone(folder):
        for name, rows in tables.items():
            path = folder / name
            others = _others(path, catalog_id)
            with open_output(str(path)) as stream:
                stream.write(table_text(name, [*others, *rows]))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Runs for other catalogs wait: each reads the tables and writes them anew."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems lock no folder.
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _others(path: Path, catalog_id: str) -> list[list[str]]:
    """The rows of other catalogs, which other runs wrote."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]
    return [row for row in rows if row[-1] != catalog_id]
