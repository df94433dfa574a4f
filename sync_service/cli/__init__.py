"""The command line `biobank-sync`. Errors and exit codes are those of `biobank`."""

from __future__ import annotations

from typing import Any, Final, NoReturn

import click

from biobank_core.cli import BiobankGroup, remember
from biobank_core.errors import ConfigurationError

COMMANDS: Final = {
    "run": "Keep the lineage index in step with the catalog, until told to stop.",
    "status": "Say how far the index is behind, and what waits where.",
    "dead-letters": "List, show, replay or discard messages that were set aside.",
}
# The packages of the extra [sync].
_OF_THE_EXTRA: Final = ("pika", "prometheus_client")


class SyncGroup(BiobankGroup):
    """Lazy, as that of `biobank`; the same errors and exit codes."""

    lines = COMMANDS
    package = __name__

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the subcommand; says which extra is missing, where one is."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as exc:
            if exc.name not in _OF_THE_EXTRA:
                raise
            raise ConfigurationError(
                f"biobank-sync needs {exc.name}: install 'galaxy-biobank[sync]'"
            ) from exc


@click.group(
    cls=SyncGroup,
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
    help="Where the lineage index is, such as neo4j://neo4j.example.org.",
)
@click.option(
    "--broker",
    metavar="URL",
    expose_value=False,
    callback=remember("broker"),
    help="Where RabbitMQ is, such as amqp://rabbitmq.example.org/; user and password come from "
    "RABBITMQ_USER and RABBITMQ_PASSWORD.",
)
@click.option(
    "--log-format",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="How to write the log: plain lines, or a JSON object a line.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log more, for looking into a trouble.")
def cli(*, log_format: str, verbose: bool) -> None:
    """Keep a lineage index in step with a catalog, by events over RabbitMQ.

    Only for an index of its own, such as Neo4j; one in the catalog's own SQLite file needs no
    service. Without options the settings come from BIOBANK_CATALOG, BIOBANK_INDEX and
    BIOBANK_BROKER, else from the config file. The log goes to stderr.
    """
    from sync_service.logs import set_up  # noqa: PLC0415  # not needed for --help

    set_up(as_json=log_format == "json", verbose=verbose)


def main() -> NoReturn:
    """Entry point of the console script."""
    cli.main(prog_name="biobank-sync")
