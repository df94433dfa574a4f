"""What the subcommands share: options, opening the stores, output, progress and TSV.

A command module has `command`, a thin click command over library functions:

    @click.command()
    @catalog_options
    @output_option
    @click.pass_context
    def command(ctx: click.Context, output: str | None) -> None:
        with stores_of(ctx, write=False) as stores, open_output(output) as out:
            rows = tsv_writer(out, ["vid", "label"])
            rows.row(["V0…", "T1"])
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal, TextIO, TypeVar

import click

from biobank_core.cli import remember

if TYPE_CHECKING:
    from biobank_core.catalog.port import Catalog
    from biobank_core.config import Settings
    from biobank_core.stores import Stores

F = TypeVar("F", bound=Callable[..., Any])


def catalog_options(function: F) -> F:
    """Adds --catalog and --index; what stands before the subcommand holds unless given here.

    The values do not reach the function: `settings_of` and `stores_of` find them in the context.
    """
    for name, text in (
        ("index", "Where the lineage index is; default: in the catalog's own file."),
        ("catalog", "Where the catalog is, such as sqlite:///biobank.db."),
    ):
        function = click.option(
            f"--{name}",
            metavar="URL",
            expose_value=False,
            callback=remember(name),
            help=text,
        )(function)
    return function


def output_option(function: F) -> F:
    """Adds `--output FILE` (parameter `output: str | None`), for `open_output`."""
    return click.option(
        "-o",
        "--output",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        help="Write to this file instead of stdout; it is replaced only when all went well.",
    )(function)


def format_option(*formats: str) -> Callable[[F], F]:
    """Adds `--format` with these choices, the first one the default (parameter `format`)."""

    def decorate(function: F) -> F:
        return click.option(
            "--format",
            type=click.Choice(formats),
            default=formats[0],
            show_default=True,
            help="How to write the result.",
        )(function)

    return decorate


def settings_of(ctx: click.Context) -> Settings:
    """The settings: options of this command line, else environment, config file, defaults."""
    from biobank_core.config import load_settings  # noqa: PLC0415  # heavy imports are for commands

    return load_settings(
        catalog=ctx.meta.get("biobank.catalog"), index=ctx.meta.get("biobank.index")
    )


@contextmanager
def stores_of(
    ctx: click.Context, *, write: bool, up_to_date: bool = True, init: bool = False
) -> Iterator[Stores]:
    """The opened catalog, index and lineage (`stores.Stores`) of this command line.

    With `write` a missing SQLite catalog is made; else it is refused (InputError). `up_to_date` and
    `init` as of `open_stores`.
    """
    from biobank_core.stores import open_stores  # noqa: PLC0415

    with open_stores(settings_of(ctx), write=write, up_to_date=up_to_date, init=init) as stores:
        yield stores


@contextmanager
def open_output(path: str | None) -> Iterator[TextIO]:
    """A UTF-8 text stream to a file or, with None or `-`, to stdout; `.buffer` takes bytes.

    A file appears, or is replaced, only when the block ends without an error.
    """
    if path is None or path == "-":
        _settle_stdout()
        yield sys.stdout
        sys.stdout.flush()
        return
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        # A device or a named pipe: replacing it by a file would be a surprise.
        with target.open("w", encoding="utf-8", newline="\n") as stream:
            yield stream
        return
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            yield stream
        temporary.chmod(mode)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def progress(
    text: str, *, total: float | None, unit: Literal["items", "bytes"] = "items"
) -> Iterator[Callable[[float], None]]:
    """A progress bar on stderr, only when that is a terminal; yields `advance(by)`.

    `total` is in items or bytes; None where it is not known.
    """
    if not sys.stderr.isatty():
        yield lambda _by: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    amount: ProgressColumn = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda by: bar.advance(task, by)


@contextmanager
def stopping_at_signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call `stop` once, which must be fit for a signal handler.

    `stop` asks for a clean end; who is in a hurry sends the signal again.
    """
    import signal  # noqa: PLC0415

    def handle(number: int, _frame: object) -> None:
        signal.signal(number, signal.default_int_handler)
        stop()

    before = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def total_of(catalog: Catalog) -> int | None:
    """How many objects there are, for `progress`; None where a damaged file can't tell."""
    from biobank_core.errors import StorageError  # noqa: PLC0415

    try:
        return sum(catalog.count().values())
    except StorageError:
        return None


class TsvWriter:
    """Writes rows of tab-separated values that no program mistakes for something else."""

    def __init__(self, stream: IO[str], header: Sequence[str]) -> None:
        self._stream = stream
        self._columns = len(header)
        stream.write("\t".join(header) + "\n")

    def row(self, cells: Iterable[object]) -> None:
        """Write one row; cells as in `tsv_cell`. Raises ValueError for a wrong number of cells."""
        texts = [tsv_cell(cell) for cell in cells]
        if len(texts) != self._columns:
            raise ValueError(f"{len(texts)} cells for {self._columns} columns")
        self._stream.write("\t".join(texts) + "\n")


def tsv_writer(stream: IO[str], header: Sequence[str]) -> TsvWriter:
    """A writer whose header (names of ours) is written at once."""
    return TsvWriter(stream, header)


# A leading one of these makes a spreadsheet read the cell as a formula (OWASP, "CSV Injection").
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")
_PLAIN_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z", re.ASCII)
# Controls (a terminal may obey them) and the line ends that only some programs see as such.
_UNSAFE: Final = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SHORT_ESCAPES: Final = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


def tsv_cell(value: object) -> str:
    r"""One cell: None is empty; backslash, tab, line ends and controls become `\\ \t \n \xNN`.

    A cell that a spreadsheet would read as a formula gets a leading `'`, unless it is a number.
    """
    text = _plain(value)
    formula = text.startswith(_FORMULA_STARTS) and not _PLAIN_NUMBER.match(text)
    text = _UNSAFE.sub(lambda found: _escaped(found[0]), text)
    return f"'{text}" if formula else text


def _plain(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case Enum():
            return _plain(value.value)
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case date():
            return value.isoformat()
    return str(value)


def _escaped(char: str) -> str:
    code = ord(char)
    return _SHORT_ESCAPES.get(char) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def _settle_stdout() -> None:
    # Galaxy and cron run with LANG=C; what we write is UTF-8 whatever the locale.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
