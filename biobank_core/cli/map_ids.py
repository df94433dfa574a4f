"""`biobank map-ids`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from biobank_core.cli.common import (
    TsvWriter,
    catalog_options,
    open_output,
    output_option,
    stores_of,
    tsv_cell,
    tsv_writer,
)

if TYPE_CHECKING:
    from biobank_core.catalog.port import Catalog
    from biobank_core.identifiers import Named, Unresolved

EXIT_UNRESOLVED: Final = 2
_COLUMNS: Final = ("given", "vid", "kind", "label", "study")


@click.command()
@click.argument("addresses", metavar="[ADDRESS]...", nargs=-1)
@click.option("--from", "file", metavar="FILE", help="Addresses, one a line; `-` reads stdin.")
@click.option("--study", metavar="LABEL", help="With --kind: all objects of this study.")
@click.option(
    "--kind", metavar="K", help="What an address may name; without addresses: all of this kind."
)
@click.option(
    "--unresolved",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Write what names no object to this file (TSV: given, reason, detail) and exit with 0.",
)
@output_option
@catalog_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    addresses: tuple[str, ...],
    file: str | None,
    study: str | None,
    kind: str | None,
    unresolved: str | None,
    output: str | None,
) -> None:
    """Turn labels into VIDs, and VIDs into labels.

    ADDRESS is a VID or STUDY:LABEL (an individual: STUDY:CODE). Written is TSV: given, vid, kind,
    label (an individual's: its codes), study. What is unknown, fits several objects or is of
    another kind is said on stderr, with exit code 2, after the others are written.
    """
    if addresses and file is not None:
        raise click.UsageError("give addresses or --from, not both")
    given = addresses or file is not None
    if given and study is not None:
        raise click.UsageError("--study is for all of a --kind; an address names its study itself")
    if not given and kind is None:
        raise click.UsageError("give addresses, --from FILE, or --kind K for all of a kind")
    with ExitStack() as opened:
        catalog = opened.enter_context(stores_of(ctx, write=False)).catalog
        out = opened.enter_context(open_output(output))
        rest: TsvWriter | None = None
        if unresolved is not None:
            stream = opened.enter_context(open_output(unresolved))
            rest = tsv_writer(stream, ["given", "reason", "detail"])
        left = _write(
            _found(catalog, addresses, file, study, kind), tsv_writer(out, _COLUMNS), rest
        )
        out.flush()
    for text in left:
        click.echo(f"biobank: {text}", err=True)
    if left:
        ctx.exit(EXIT_UNRESOLVED)


def _found(
    catalog: Catalog,
    addresses: tuple[str, ...],
    file: str | None,
    study: str | None,
    kind: str | None,
) -> Iterator[Named | Unresolved]:
    from biobank_core.identifiers import addresses_in, all_ids, map_ids  # noqa: PLC0415

    if addresses:
        yield from map_ids(catalog, addresses, kind=kind)
    elif file == "-":
        yield from map_ids(catalog, addresses_in(sys.stdin.buffer, name="stdin"), kind=kind)
    elif file is not None:
        with Path(file).open("rb") as stream:
            yield from map_ids(catalog, addresses_in(stream, name=file), kind=kind)
    elif kind is not None:
        yield from all_ids(catalog, kind=kind, of_study=study)


def _write(
    found: Iterable[Named | Unresolved], rows: TsvWriter, rest: TsvWriter | None
) -> list[str]:
    """Writes the rows; gives what is to be said of addresses for which there is no file."""
    from biobank_core.identifiers import Named  # noqa: PLC0415

    left: list[str] = []
    for item in found:
        if isinstance(item, Named):
            rows.row([item.given, item.vid, item.kind, item.label, item.study])
        elif rest is not None:
            rest.row([item.given, item.reason, item.detail])
        else:
            left.append(tsv_cell(f"{item.reason.value}: {item.detail}"))
    return left
