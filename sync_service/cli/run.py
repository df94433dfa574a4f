"""`biobank-sync run`."""

from __future__ import annotations

from pathlib import Path

import click

from sync_service.cli.common import settings_of


@click.command()
@click.option(
    "--only",
    type=click.Choice(("relay", "consumer", "recorder")),
    help="Run this part alone; any number of each may run, on any machine.",
)
@click.option(
    "--galaxy",
    metavar="URL",
    help="Record this Galaxy too. With --only recorder the default is GALAXY_URL. The key comes "
    "from GALAXY_API_KEY.",
)
@click.option("--galaxy-name", metavar="NAME", help="As of `biobank record`.")
@click.option("--study", metavar="LABEL", help="As of `biobank record`.")
@click.option(
    "--rules",
    metavar="FILE",
    type=click.Path(dir_okay=False, exists=True),
    help="As of `biobank record`; also says which users, histories and tools are left out.",
)
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(2, 3600),
    default=60.0,
    show_default=True,
    help="Look at Galaxy at least so often; its events make it sooner.",
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Answer /healthz and Prometheus' /metrics there, over plain HTTP.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 20_000),
    default=2_000,
    show_default=True,
    help="Messages of one transaction of the index.",
)
@click.option(
    "--state",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the relay remembers how far it has read; default: in the account's state folder. "
    "Losing it costs one reading of the whole feed.",
)
@click.option(
    "--reconcile-every",
    metavar="HOURS",
    type=click.FloatRange(0.01, 168),
    default=24.0,
    show_default=True,
    help="Of a catalog on OMERO, compare all with its log so often: OMERO does not log a change of "
    "pairs alone. Everything else that other clients do there is found within seconds.",
)
@click.option(
    "--stalled-after",
    metavar="SECONDS",
    type=click.FloatRange(1),
    default=60.0,
    show_default=True,
    help="Not healthy when something waits and nothing has moved for so long.",
)
@click.pass_context
def command(
    ctx: click.Context,
    *,
    only: str | None,
    galaxy: str | None,
    galaxy_name: str | None,
    study: str | None,
    rules: str | None,
    interval: float,
    listen: str | None,
    batch: int,
    state: Path | None,
    stalled_after: float,
    reconcile_every: float,
) -> None:
    """Keep the lineage index in step with the catalog, until told to stop.

    The recorder (with --galaxy, or alone) records Galaxy's jobs into the catalog; the relay reads
    the catalog's changes and sends them to RabbitMQ; the consumer takes them into the index. A
    server that is away is waited for. With the relay goes a watcher: what other clients of OMERO do
    to the catalog is told in the log and by `status`; `biobank verify --repair` mends it. SIGTERM
    finishes the batch in hand.
    """
    from sync_service.recorder import RecorderOptions  # noqa: PLC0415
    from sync_service.service import (  # noqa: PLC0415
        PARTS,
        Options,
        Service,
        stopped_by_signals,
    )

    parts = {only} if only else set(PARTS) if galaxy else set(PARTS) - {"recorder"}
    service = Service(
        settings_of(ctx, galaxy_url=galaxy),
        Options(
            parts=frozenset(parts),
            recorder=RecorderOptions(
                galaxy_name=galaxy_name, study=study, rules_file=rules, interval_s=interval
            ),
            batch=batch,
            state=state,
            listen=listen,
            stalled_after_s=stalled_after,
            reconcile_every_h=reconcile_every,
        ),
    )
    with stopped_by_signals(service.stopping):
        service.run()
