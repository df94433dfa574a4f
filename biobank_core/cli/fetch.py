"""`biobank fetch`, and what `biobank select --to` shares with it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from biobank_core.cli.common import (
    catalog_options,
    open_output,
    output_option,
    progress,
    settings_of,
    stores_of,
    tsv_writer,
)

if TYPE_CHECKING:
    from biobank_core.catalog.port import Catalog
    from biobank_core.errors import BiobankError
    from biobank_core.fetch.fetch import Outcome
    from biobank_core.fetch.sources import Source, Sources
    from biobank_core.fetch.wanted import Request, Wanted

F = TypeVar("F", bound=Callable[..., Any])

COLUMNS: Final = ("identifier", "vid", "path", "size_bytes", "sha256", "verified", "what")
_MAX_TOLD: Final = 20


def source_options(function: F) -> F:
    """Adds --galaxy, --galaxy-name, --files-below, for `sources_of`."""
    for decorate in reversed(
        (
            click.option("--galaxy", metavar="URL", help="The Galaxy server; default: GALAXY_URL."),
            click.option(
                "--galaxy-name",
                metavar="NAME",
                help="What the server is called in the catalog; default: the host in its URL.",
            ),
            click.option(
                "--files-below",
                metavar="DIR",
                help="Read file:// addresses only below this folder; an empty one: none at all.",
            ),
        )
    ):
        function = decorate(function)
    return function


def content_options(function: F) -> F:
    """Adds --manifest, --galaxy-json and those of `source_options`.

    `bring` takes what they hold.
    """
    for decorate in reversed(
        (
            click.option(
                "--manifest",
                metavar="FILE",
                type=click.Path(dir_okay=False),
                help="Where to write what was fetched (JSON Lines); default: manifest.jsonl in "
                "the folder.",
            ),
            click.option(
                "--galaxy-json",
                metavar="FILE",
                type=click.Path(dir_okay=False),
                help="Tell Galaxy, whose tool this runs in, what its collection `files` holds.",
            ),
            source_options,
        )
    ):
        function = decorate(function)
    return function


def request_options(function: F) -> F:
    """Adds OBJECT..., --from and --column, for `requested`."""
    for decorate in reversed(
        (
            click.argument("addresses", metavar="[OBJECT]...", nargs=-1),
            click.option(
                "--from",
                "file",
                metavar="FILE",
                help="Take the objects from a table (that of `select`, or one with a column vid) "
                "or from a list, one a line; - reads stdin.",
            ),
            click.option(
                "--column", metavar="NAME", help="The table's column that names the objects."
            ),
        )
    ):
        function = decorate(function)
    return function


def requested(
    addresses: Sequence[str], *, file: str | None, column: str | None
) -> Sequence[Request]:
    """What was asked for, by name or in a file."""
    from biobank_core.fetch.wanted import Request  # noqa: PLC0415

    if bool(addresses) == (file is not None):
        raise click.UsageError("name objects or give --from FILE, one of the two")
    if column is not None and file is None:
        raise click.UsageError("--column goes with --from")
    if file is None:
        return [Request(address) for address in addresses]
    from biobank_core.fetch.tables import requests_in  # noqa: PLC0415

    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    return requests_in(data, name="stdin" if file == "-" else file, column=column)


@click.command()
@request_options
@click.option(
    "--to",
    "folder",
    metavar="DIR",
    required=True,
    type=click.Path(file_okay=False),
    help="The folder to fetch into; it is made if it is missing.",
)
@content_options
@output_option
@catalog_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    addresses: tuple[str, ...],
    file: str | None,
    column: str | None,
    folder: str,
    output: str | None,
    **content: str | None,
) -> None:
    """Fetch the files behind data, each verified by its SHA-256.

    OBJECT is a VID or STUDY:LABEL of data, of a collection of data (with all that is in it) or of
    one file. A file that is there, and right, is not fetched again; one that comes and is not what
    the catalog says is removed (exit code 5). Where no SHA-256 is known, that is said.

    Columns: identifier, vid, path, size_bytes, sha256, verified (sha256, size or no), what
    (fetched, unchanged). Files of Galaxy are read with GALAXY_API_KEY.
    """
    requests = requested(addresses, file=file, column=column)
    with stores_of(ctx, write=False) as stores:
        outcome = bring(ctx, stores.catalog, requests, folder=folder, **content)
    with open_output(output) as stream:
        rows = tsv_writer(stream, COLUMNS)
        for done in outcome.files:
            entry = done.entry
            rows.row(
                (
                    "/".join(entry.identifiers),
                    entry.vid,
                    entry.path,
                    entry.size_bytes,
                    entry.sha256,
                    entry.verified,
                    "fetched" if done.new else "unchanged",
                )
            )
    leave(ctx, outcome)


def bring(
    ctx: click.Context,
    catalog: Catalog,
    requests: Sequence[Request],
    *,
    folder: str,
    manifest: str | None,
    galaxy_json: str | None,
    galaxy: str | None,
    galaxy_name: str | None,
    files_below: str | None,
) -> Outcome:
    """Fetch what is asked for into the folder; `leave` says what failed."""
    from biobank_core.fetch import galaxy_json as galaxy_file  # noqa: PLC0415
    from biobank_core.fetch.fetch import fetch  # noqa: PLC0415
    from biobank_core.fetch.manifest import MANIFEST_NAME  # noqa: PLC0415
    from biobank_core.fetch.wanted import wanted  # noqa: PLC0415

    items = wanted(catalog, requests)
    target = Path(folder)
    with progress("fetching", total=total_bytes(items), unit="bytes") as advance:
        outcome = fetch(
            items,
            sources=sources_of(
                ctx, catalog, galaxy=galaxy, galaxy_name=galaxy_name, files_below=files_below
            ),
            folder=target,
            manifest_file=Path(manifest) if manifest else target / MANIFEST_NAME,
            elements=galaxy_file.element_identifiers(items) if galaxy_json else None,
            advance=advance,
        )
    if galaxy_json:
        with open_output(galaxy_json) as stream:
            entries = [done.entry for done in outcome.files]
            galaxy_file.write(stream, entries, output="files", folder=target)
    return outcome


def total_bytes(items: Sequence[Wanted]) -> int | None:
    """How much all of it is; None where the catalog does not know."""
    sizes = [item.files[0].size_bytes if item.files else 0 for item in items]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def leave(ctx: click.Context, outcome: Outcome) -> None:
    """Say on stderr what came and what did not; exit with the greatest code of what failed."""
    new = sum(done.new for done in outcome.files)
    text = f"{new} fetched, {len(outcome.files) - new} there already, {len(outcome.failed)} failed"
    unsure = sum(done.entry.verified != "sha256" for done in outcome.files)
    if unsure:
        text += f"; of {unsure} no SHA-256 was known, so they could not be verified"
    click.echo(text, err=True)
    tell_failed(ctx, outcome.failed)


def tell_failed(ctx: click.Context, failed: Mapping[str, BiobankError]) -> None:
    """Say on stderr why, and exit with the greatest code; nothing where nothing failed."""
    for error in list(failed.values())[:_MAX_TOLD]:
        click.echo(f"biobank: error: {error}", err=True)
    if len(failed) > _MAX_TOLD:
        click.echo(f"biobank: and {len(failed) - _MAX_TOLD} more", err=True)
    if failed:
        ctx.exit(max(error.exit_code for error in failed.values()))


def sources_of(
    ctx: click.Context,
    catalog: Catalog,
    *,
    galaxy: str | None,
    galaxy_name: str | None,
    files_below: str | None,
) -> Sources:
    """Where files are read from: this machine, Galaxy, the catalog itself where it keeps any."""
    from biobank_core.catalog.port import KeepsContent  # noqa: PLC0415
    from biobank_core.fetch.sources import KeptFiles, LocalFiles, Sources  # noqa: PLC0415

    def of_galaxy() -> Source:
        from biobank_core.fetch.galaxy_source import GalaxyFiles  # noqa: PLC0415
        from biobank_core.galaxy.client import GalaxyClient, server_key  # noqa: PLC0415

        settings = settings_of(ctx)
        where = galaxy or settings.require_galaxy_url()
        client = GalaxyClient.connect(where, settings.require_secret("GALAXY_API_KEY").reveal())
        return GalaxyFiles(catalog, client, server_key=galaxy_name or server_key(where))

    makers: dict[str, Callable[[], Source]] = {
        "file": lambda: LocalFiles(below=files_below),
        "galaxy": of_galaxy,
    }
    if isinstance(catalog, KeepsContent):
        store = catalog.content
        makers["omero"] = lambda: KeptFiles(store)
    return Sources(makers)
