"""`biobank reanalyse`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from biobank_core.cli.common import (
    catalog_options,
    open_output,
    output_option,
    progress,
    stores_of,
    tsv_writer,
)
from biobank_core.cli.reanalyse_galaxy import GALAXY_NAME_OPTION, GALAXY_OPTION, connected
from biobank_core.cli.reanalyse_plan import plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from biobank_core.catalog.port import Catalog
    from biobank_core.galaxy.client import GalaxyClient
    from biobank_core.model.kinds import CampaignItem


@click.group()
def command() -> None:
    """Plan, run and report a reanalysis campaign.

    A campaign runs a workflow once for each selected sample, with the tools as they are installed
    now, and links the new results to those they supersede.
    """


command.add_command(plan)


@command.command()
@click.argument("campaign")
@click.option(
    "--jobs",
    type=click.IntRange(min=1, max=1000),
    default=4,
    show_default=True,
    help="How many samples may be under way in Galaxy at a time.",
)
@click.option(
    "--use-cache",
    is_flag=True,
    help="Let Galaxy hand back results of equal jobs that ran before; these count as unchanged.",
)
@click.option(
    "--retry",
    is_flag=True,
    help="Run the failed samples again, each once; a retry that was broken off goes on.",
)
@click.option("--rules", metavar="FILE", help="Rules for recording, as of `biobank record`.")
@GALAXY_OPTION
@GALAXY_NAME_OPTION
@catalog_options
@click.pass_context
def run(
    ctx: click.Context,
    *,
    campaign: str,
    jobs: int,
    use_cache: bool,
    retry: bool,
    rules: str | None,
    galaxy: str | None,
    galaxy_name: str | None,
) -> None:
    """Run a campaign, or go on with one that was broken off: nothing runs twice.

    Each sample gets a history of its own, named and tagged. When its jobs have ended they are
    recorded, and new results are linked to the old ones. A failed sample stays failed until it is
    run with --retry. Prints a table as `status` does.
    """
    from biobank_core.config import operator  # noqa: PLC0415
    from biobank_core.galaxy.reanalysis import status as standing  # noqa: PLC0415
    from biobank_core.galaxy.reanalysis.campaigns import (  # noqa: PLC0415
        FINAL_STATES,
        item_of,
        load_campaign,
    )
    from biobank_core.galaxy.reanalysis.rounds import due_items, round_of  # noqa: PLC0415
    from biobank_core.galaxy.reanalysis.run import run_campaign  # noqa: PLC0415

    with stores_of(ctx, write=True) as stores:
        loaded = load_campaign(stores.catalog, campaign)
        client, server_key = connected(
            ctx, galaxy, galaxy_name or loaded.campaign.galaxy_server, loaded.workflow.galaxy_url
        )
        items = [item_of(entry) for entry in loaded.items]
        left = len(due_items(items, round=round_of(loaded, retry=retry)))
        try:
            with progress("reanalysing", total=left) as advance:

                def told(item: CampaignItem) -> None:
                    advance(1 if item.state in FINAL_STATES else 0)

                run_campaign(
                    stores.catalog,
                    loaded.campaign.vid,
                    index=stores.index,
                    client=client,
                    record=_recorder(
                        stores.catalog, client, server_key, loaded.campaign.study, rules
                    ),
                    server_key=server_key,
                    by=operator(),
                    jobs=jobs,
                    use_cache=use_cache,
                    retry=retry,
                    progress=told,
                )
        except KeyboardInterrupt:
            click.echo(
                "biobank: what runs in Galaxy goes on; run the campaign again to go on with it",
                err=True,
            )
            raise
        _tell_status(stores.catalog, loaded.campaign.vid, None)
        click.echo(standing.summary(load_campaign(stores.catalog, loaded.campaign.vid)), err=True)


@command.command()
@click.argument("campaign")
@output_option
@catalog_options
@click.pass_context
def status(ctx: click.Context, *, campaign: str, output: str | None) -> None:
    """Show where each sample of a campaign stands. Galaxy is not asked."""
    from biobank_core.galaxy.reanalysis import status as standing  # noqa: PLC0415
    from biobank_core.galaxy.reanalysis.campaigns import load_campaign  # noqa: PLC0415

    with stores_of(ctx, write=False) as stores:
        _tell_status(stores.catalog, campaign, output)
        click.echo(standing.summary(load_campaign(stores.catalog, campaign)), err=True)


@command.command()
@click.argument("campaign")
@click.option("--html", metavar="FILE", type=click.Path(dir_okay=False), help="Write a page.")
@click.option(
    "--tsv",
    metavar="FILE",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write a table, one row a change; - for stdout.",
)
@GALAXY_OPTION
@catalog_options
@click.pass_context
def report(
    ctx: click.Context,
    *,
    campaign: str,
    html: str | None,
    tsv: str | None,
    galaxy: str | None,
) -> None:
    """Report what a campaign changed, sample by sample.

    Results are compared by SHA-256; tables with a common key column also cell by cell, with the
    columns that came and went apart. Content that has to be compared is read from Galaxy.

    Columns of tsv: sample (VID), label, result (the output's name), change (file, cell,
    column-gone, column-new, row-gone, row-new, no-counterpart, failed, open, left-out), row,
    column, old, new.
    """
    from biobank_core.galaxy.reanalysis import report as reports  # noqa: PLC0415
    from biobank_core.galaxy.reanalysis.campaigns import load_campaign  # noqa: PLC0415
    from biobank_core.galaxy.reanalysis.compare import Comparer  # noqa: PLC0415
    from biobank_core.galaxy.reanalysis.html import render_html  # noqa: PLC0415
    from biobank_core.galaxy.reanalysis.locate import Locator  # noqa: PLC0415
    from biobank_core.galaxy.reanalysis.server import CampaignServer  # noqa: PLC0415

    if html is None and tsv is None:
        raise click.UsageError("say where to write the report: --html FILE, --tsv FILE, or both")
    with stores_of(ctx, write=False) as stores:
        loaded = load_campaign(stores.catalog, campaign)
        client, server_key = connected(
            ctx, galaxy, loaded.campaign.galaxy_server, loaded.workflow.galaxy_url
        )
        server = CampaignServer(client)
        locator = Locator(stores.catalog, server, server_key=server_key)
        with progress("comparing", total=len(loaded.items)) as advance:
            made = reports.gather(
                stores.catalog,
                loaded,
                comparer=Comparer(stores.catalog, server, locator),
                now=datetime.now(UTC),
                progress=lambda: advance(1),
            )
    if html is not None:
        with open_output(html) as stream:
            stream.write(render_html(made))
    if tsv is not None:
        with open_output(tsv) as stream:
            table = tsv_writer(stream, reports.COLUMNS)
            for row in reports.tsv_rows(made):
                table.row(row)
    told = ", ".join(f"{count} {outcome}" for outcome, count in made.outcomes.items() if count)
    click.echo(f"campaign {made.name!r}: {told or 'no samples'}", err=True)


def _tell_status(catalog: Catalog, campaign: str, output: str | None) -> None:
    from biobank_core.galaxy.reanalysis import status as standing  # noqa: PLC0415
    from biobank_core.galaxy.reanalysis.campaigns import load_campaign  # noqa: PLC0415

    loaded = load_campaign(catalog, campaign)
    with open_output(output) as stream:
        table = tsv_writer(stream, standing.COLUMNS)
        for row in standing.rows(loaded):
            table.row(row)


def _recorder(
    catalog: Catalog, client: GalaxyClient, server_key: str, study: str, rules_file: str | None
) -> Callable[[str], None]:
    """What records the jobs of one history; a job that can't be recorded is an error."""
    from biobank_core.config import operator  # noqa: PLC0415
    from biobank_core.errors import InputError  # noqa: PLC0415
    from biobank_core.galaxy.live import LiveSource  # noqa: PLC0415
    from biobank_core.galaxy.recorder import Recorder, Scope  # noqa: PLC0415
    from biobank_core.galaxy.rules import load_rules  # noqa: PLC0415

    rules = load_rules(rules_file)

    def record(history: str) -> None:
        # A source remembers what it was told of invocations; each history is asked about anew.
        recorder = Recorder(
            catalog,
            LiveSource(client),
            server=server_key,
            scope=Scope(history_id=history),
            rules=rules,
            study=study,
            by=operator(),
        )
        done = recorder.run(recorder.prepare())
        for job, why in done.failed.items():
            raise InputError(f"job {job} could not be recorded: {why}")

    return record
