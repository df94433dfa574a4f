"""The command line `biobank`. Each subcommand is a module here, imported only when it is called."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, NoReturn

import click

from biobank_core.errors import BiobankError

# What `biobank --help` says of each command, so that it need not import any of them. A test holds
# each line to the first sentence of the command's own help.
COMMANDS: Final = {
    "init": "Make a catalog, or bring one to the newest schema.",
    "status": "Count what the catalog holds; say whether the lineage index is up to date.",
    "schema": "Print the JSON Schema of the lines that load and dump use.",
    "load": "Load objects from a JSON Lines file, all or nothing.",
    "dump": "Write all objects as JSON Lines.",
    "register": "Register studies, individuals, consents, tubes and others from a TSV file.",
    "consent": "Give or withdraw the consent of an individual in a study.",
    "record": "Record the jobs of a Galaxy server, or of an exported archive, as actions.",
    "unlinked": "List data that belong to no known biological sample.",
    "link": "Tie data to the biological sample they came from.",
    "register-data": "Tie data of a Galaxy history to their samples, from a job that runs in it.",
    "lineage": "Show what objects came from and what was made of them.",
    "select": "Select the samples that need reanalysis, each with the reason.",
    "fetch": "Fetch the files behind data, each verified by its SHA-256.",
    "store": "Store the files behind data in OMERO, each verified by its SHA-256.",
    "reanalyse": "Plan, run and report a reanalysis campaign.",
    "summarize": "Count what a study holds and what was done in it.",
    "history": "Show who changed what of an object, and when.",
    "map-ids": "Turn labels into VIDs, and VIDs into labels.",
    "delete": "Delete objects; of each a tombstone stays, without what is personal.",
    "verify": "Compare the lineage index with the catalog, both ways.",
    "rebuild": "Make the lineage index anew from the catalog.",
    "omero-uninstall": "Remove biobank's catalog from the named groups of OMERO, and nothing else.",
    "galaxy-tables": "Write the data tables from which Galaxy's forms offer studies and devices.",
    "install-galaxy-dependency": "Make this program the requirement of biobank's Galaxy tools.",
    "completion": "Print the script that makes a shell complete commands and options.",
}

EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
EXIT_CLOSED_PIPE: Final = 141  # 128 + SIGPIPE
EXIT_BUG: Final = 70  # EX_SOFTWARE of sysexits.h; 1 would read as "findings"


class BiobankGroup(click.Group):
    """A lazy group whose `main` turns every error into a short text and an exit code.

    `lines` says what `--help` shows of each command; each is a module of `package`.
    """

    lines: ClassVar[Mapping[str, str]] = COMMANDS
    package: ClassVar[str] = __name__

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all subcommands, in the order of the work."""
        return list(self.lines)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand, imported now; None for an unknown name."""
        if cmd_name not in self.lines:
            return None
        module = importlib.import_module(f"{self.package}.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The subcommand and its arguments, with those from `--arguments-from`."""
        name, command, rest = super().resolve_command(ctx, args)
        file = ctx.params.get("arguments_from")
        if file is not None and command is not None:
            from biobank_core.cli.arguments import expanded  # noqa: PLC0415

            rest = expanded(command, rest, file)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.lines.items()))

    def main(  # type: ignore[override]  # it always exits, whatever standalone_mode says
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        **extra: Any,
    ) -> NoReturn:
        """Run the command line and exit with its code."""
        extra["standalone_mode"] = False
        sys.exit(_exit_code_of(lambda: super(BiobankGroup, self).main(args, prog_name, **extra)))

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the subcommand; a closed pipe is told apart before click makes an exit 1 of it."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as exc:
            raise _ClosedPipeError from exc


class _ClosedPipeError(Exception):
    """Who read our output has gone (`biobank dump | head`)."""


def _exit_code_of(run: Any) -> int:
    if sys.stdout is None:  # started with a closed stdout (`>&-`): nobody wants the result
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        code = run()
        sys.stdout.flush()
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        return EXIT_INTERRUPTED
    except (_ClosedPipeError, BrokenPipeError):
        # What is left in the buffer can't be written; Python must not try at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_CLOSED_PIPE
    except BiobankError as exc:
        _traceback_if_wanted()
        _say(f"error: {exc}")
        return exc.exit_code
    except OSError as exc:
        # A file that the user named: missing, a folder, not readable, disk full.
        _traceback_if_wanted()
        _say(f"error: {_of_file(exc)}")
        return EXIT_USAGE
    except Exception as exc:  # noqa: BLE001  # the outermost frame: nobody above could do better
        _traceback_if_wanted()
        _say(
            f"this is a bug in biobank: {type(exc).__name__}. Set BIOBANK_DEBUG=1 and run it "
            "again to see where it happened (what is printed then may show data, not secrets)."
        )
        return EXIT_BUG
    return code if isinstance(code, int) else 0


def _traceback_if_wanted() -> None:
    if os.environ.get("BIOBANK_DEBUG"):
        traceback.print_exc()


def _of_file(exc: OSError) -> str:
    reason = exc.strerror or type(exc).__name__
    return f"{exc.filename}: {reason}" if exc.filename is not None else reason


def _say(text: str) -> None:
    click.echo(f"biobank: {text}", err=True)


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        number = version("galaxy-biobank")
    except PackageNotFoundError:
        number = "of a source tree that is not installed"
    click.echo(f"biobank {number}")
    ctx.exit()


def remember(name: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    """A callback that keeps an option's value for `settings_of`, unless it was not given."""

    def callback(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.meta[f"biobank.{name}"] = value

    return callback


@click.group(
    cls=BiobankGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--catalog",
    metavar="URL",
    expose_value=False,
    callback=remember("catalog"),
    help="Where the catalog is, such as sqlite:///biobank.db.",
)
@click.option(
    "--index",
    metavar="URL",
    expose_value=False,
    callback=remember("index"),
    help="Where the lineage index is; default: in the catalog's own file.",
)
@click.option(
    "--arguments-from",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Take options and arguments of the command from this JSON object; those of the command "
    "line win.",
)
@click.option(
    "-v", "--verbose", is_flag=True, help="Say on stderr what is being done, not only what fails."
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli(verbose: bool, arguments_from: str | None) -> None:
    """Trace samples, Galaxy jobs and results; find what needs reanalysis, and run it again.

    Results go to stdout or --output; progress, log and errors to stderr. Exit codes: 0 ok,
    1 findings, 2 wrong usage or input, 3 a server can't be reached, 4 not permitted, 5 conflict.
    """
    import logging  # noqa: PLC0415  # not needed for --help

    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, format="biobank: %(message)s", stream=sys.stderr)
    logging.getLogger("biobank_core").setLevel(level)


def main() -> NoReturn:
    """Entry point of the console script."""
    cli.main(prog_name="biobank")
