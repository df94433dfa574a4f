"""`biobank-sync dead-letters`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from biobank_core.cli.common import (
    format_option,
    open_output,
    output_option,
    tsv_cell,
    tsv_writer,
)
from biobank_core.errors import InputError
from sync_service.cli.common import session_of, settings_of

if TYPE_CHECKING:
    from biobank_core.lineage.port import LineageIndex
    from sync_service.broker import Session
    from sync_service.dead_letters import DeadLetter

# A poison message may be megabytes of anything.
_SHOWN_BYTES: Final = 10_000
_COLUMNS: Final = ("id", "vid", "about", "reason", "tries", "first", "last", "bytes")


@click.group()
def command() -> None:
    """List, show, replay or discard messages that were set aside.

    A message that could not be read, or that failed in the index again and again, waits here until
    somebody decides. An ID is what `list` shows, or the VID that the message is about.
    """


@command.command("list")
@format_option("tsv", "json")
@output_option
@click.pass_context
def list_(ctx: click.Context, *, format: str, output: str | None) -> None:
    """List the dead letters: why, how often tried, when first and last."""
    import msgspec  # noqa: PLC0415

    from sync_service.dead_letters import letters  # noqa: PLC0415

    with session_of(settings_of(ctx)) as session, open_output(output) as stream:
        if format == "json":
            for letter in letters(session):
                row = dict(zip(_COLUMNS, _cells(letter), strict=True))
                stream.write(msgspec.json.encode(row).decode() + "\n")
            return
        rows = tsv_writer(stream, _COLUMNS)
        for letter in letters(session):
            rows.row(_cells(letter))


@command.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@output_option
@click.pass_context
def show(ctx: click.Context, ids: tuple[str, ...], *, output: str | None) -> None:
    """Show dead letters with what they hold; only the beginning of a very long one."""
    with _found(ctx, ids) as (_, found), open_output(output) as stream:
        for letter in found:
            for name, value in zip(_COLUMNS, _cells(letter), strict=True):
                stream.write(f"{name}: {tsv_cell(value)}\n")
            text = letter.body[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
            more = len(letter.body) - _SHOWN_BYTES
            stream.write(f"body: {tsv_cell(text)}{f'... {more:,} more bytes' * (more > 0)}\n\n")


@command.command()
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that are there now.")
@click.pass_context
def replay(ctx: click.Context, ids: tuple[str, ...], *, everything: bool) -> None:
    """Send dead letters to the consumers again, after what was wrong has been mended."""
    from sync_service import dead_letters  # noqa: PLC0415

    with _chosen(ctx, ids, everything=everything) as (session, found), _index(ctx) as index:
        for letter in found:
            dead_letters.replay(session, letter, index=index)
    click.echo(f"{len(found):,} sent again", err=True)


@command.command()
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that are there now.")
@click.option("--why", required=True, metavar="TEXT", help="For the log: why nobody needs it.")
@click.option("--by", metavar="NAME", help="For the log: who decides; default: this account.")
@click.option(
    "--log",
    "book",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append who and why to this file; default: discards.jsonl in the account's state folder.",
)
@click.pass_context
def discard(
    ctx: click.Context,
    ids: tuple[str, ...],
    *,
    everything: bool,
    why: str,
    by: str | None,
    book: Path | None,
) -> None:
    """Throw dead letters away. The change is then missing in the index until `biobank verify
    --repair` or a later change of the object.
    """
    from biobank_core.config import operator  # noqa: PLC0415
    from sync_service import dead_letters  # noqa: PLC0415
    from sync_service.state import state_folder  # noqa: PLC0415

    if not why.strip():
        raise InputError("say why", field="--why")
    with _chosen(ctx, ids, everything=everything) as (session, found), _index(ctx) as index:
        for letter in found:
            dead_letters.discard(
                session,
                letter,
                index=index,
                by=by or operator(),
                why=why,
                book=book or state_folder() / "discards.jsonl",
            )
    click.echo(f"{len(found):,} discarded", err=True)


@contextmanager
def _chosen(
    ctx: click.Context, ids: tuple[str, ...], *, everything: bool
) -> Iterator[tuple[Session, list[DeadLetter]]]:
    if bool(ids) == everything:
        raise click.UsageError("give either IDs or --all")
    with _found(ctx, ids) as found:
        yield found


@contextmanager
def _found(ctx: click.Context, ids: tuple[str, ...]) -> Iterator[tuple[Session, list[DeadLetter]]]:
    """The dead letters of these ids (none: all). Raises InputError for one that is not there."""
    from sync_service.dead_letters import letters  # noqa: PLC0415

    with session_of(settings_of(ctx)) as session:
        wanted = set(ids)
        found = [
            letter for letter in letters(session) if not ids or wanted & {letter.id, letter.vid}
        ]
        known = {name for letter in found for name in (letter.id, letter.vid)}
        if missing := sorted(wanted - known):
            raise InputError("no dead letter of this id", value=missing[0])
        yield session, found


@contextmanager
def _index(ctx: click.Context) -> Iterator[LineageIndex]:
    from sync_service.service import open_sync_index  # noqa: PLC0415

    with open_sync_index(settings_of(ctx)) as index:
        yield index


def _cells(letter: DeadLetter) -> tuple[object, ...]:
    about = letter.routing_key.removeprefix("lineage.")
    return (
        letter.id,
        letter.vid or "",
        about,
        letter.reason,
        letter.tries,
        letter.first,
        letter.last,
        len(letter.body),
    )
