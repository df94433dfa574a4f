"""`biobank reanalyse`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from biobank_core.cli.select import criteria_of, criteria_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from biobank_core.catalog.port import Catalog
    from biobank_core.galaxy.client import GalaxyClient
    from biobank_core.galaxy.reanalysis.plan import Plan
    from biobank_core.galaxy.reanalysis.workflow import Workflow
    from biobank_core.model.kinds import CampaignItem, DataCollection, DataSample

_GALAXY_OPTION = click.option(
    "--galaxy", metavar="URL", help="The Galaxy server; default: GALAXY_URL."
)
_GALAXY_NAME_OPTION = click.option(
    "--galaxy-name",
    metavar="NAME",
    help="What the server is called in the catalog; default: the host in its URL.",
)


@click.group()
def command() -> None:
    """Plan, run and report a reanalysis campaign.

    A campaign runs a workflow once for each selected sample, with the tools as they are installed
    now, and links the new results to those they supersede.
    """


@command.command()
@criteria_options
@click.option(
    "--workflow",
    "workflow_address",
    metavar="ID|FILE",
    required=True,
    help="A workflow's id in Galaxy, or a .ga or format2 file. It is not changed: a copy is run.",
)
@click.option("--name", required=True, metavar="NAME", help="What to call the campaign.")
@click.option(
    "--set",
    "settings",
    metavar="STEP.PARAM=VALUE",
    multiple=True,
    help="Set a parameter of a step (its label or number; inner ones as mode|depth), or, as "
    "NAME=VALUE, of the workflow itself. May be repeated.",
)
@click.option(
    "--input",
    "inputs",
    metavar="NAME=OBJECT",
    multiple=True,
    help="Give a data input of the workflow the same data for all samples (VID or study:label).",
)
@click.option(
    "--tool-version",
    "tool_versions",
    metavar="TOOL=VERSION",
    multiple=True,
    help="Run this version of a tool; default: the newest that is installed.",
)
@_GALAXY_OPTION
@_GALAXY_NAME_OPTION
@output_option
@catalog_options
@click.pass_context
def plan(
    ctx: click.Context,
    /,
    *,
    workflow_address: str,
    name: str,
    settings: tuple[str, ...],
    inputs: tuple[str, ...],
    tool_versions: tuple[str, ...],
    galaxy: str | None,
    galaxy_name: str | None,
    output: str | None,
    **selection_options: Any,
) -> None:
    """Plan a campaign: a dry run that says what would run, what is left out, and why.

    The plan is saved under its name for `run`; nothing happens in Galaxy. A parameter or output
    that the newer tools no longer have, and a name that Galaxy would silently ignore, is an error.

    Columns: sample (VID), label, state (planned, excluded), reason, results and sources (numbers).
    """
    import msgspec  # noqa: PLC0415

    from biobank_core.config import operator  # noqa: PLC0415
    from biobank_core.galaxy.reanalysis.plan import (  # noqa: PLC0415
        assign_inputs,
        make_plan,
        save_plan,
    )
    from biobank_core.galaxy.reanalysis.prepare import prepare  # noqa: PLC0415
    from biobank_core.galaxy.reanalysis.server import CampaignServer  # noqa: PLC0415
    from biobank_core.galaxy.reanalysis.toolbox import Toolbox  # noqa: PLC0415
    from biobank_core.selection.select import select  # noqa: PLC0415

    versions = _pairs(tool_versions, option="--tool-version")
    given = _pairs(inputs, option="--input")
    with stores_of(ctx, write=True) as stores:
        criteria = criteria_of(stores.catalog, **selection_options)
        client, server_key = _connected(ctx, galaxy, galaxy_name)
        server = CampaignServer(client)
        prepared = prepare(
            _workflow(workflow_address, server.workflow),
            toolbox=Toolbox(server.fetch_tool),
            versions=versions,
            settings=settings,
        )
        assigned = assign_inputs(
            prepared.workflow.data_inputs(),
            {label: _data(stores.catalog, address) for label, address in given.items()},
        )
        made = make_plan(
            select(stores.catalog, criteria),
            catalog=stores.catalog,
            index=stores.index,
            prepared=prepared,
            inputs=assigned,
            name=name,
            study=criteria.study,
            asked=msgspec.to_builtins(criteria),
            settings=settings,
            server=server_key,
            galaxy_url=client.url,
            now=datetime.now(UTC),
        )
        if made.items:
            save_plan(made, catalog=stores.catalog, by=operator())
    with open_output(output) as stream:
        table = tsv_writer(stream, ("sample", "label", "state", "reason", "results", "sources"))
        for item in made.items:
            table.row(
                (
                    item.sample,
                    item.sample_label,
                    "planned",
                    item.reason,
                    len(item.old),
                    len(item.sources),
                )
            )
        for out in made.left_out:
            table.row((out.sample, out.label, "excluded", out.reason, None, None))
    _tell_plan(made, criteria.tool, criteria.release)


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
@click.option("--rules", metavar="FILE", help="Rules for recording, as of `biobank record`.")
@_GALAXY_OPTION
@_GALAXY_NAME_OPTION
@catalog_options
@click.pass_context
def run(
    ctx: click.Context,
    *,
    campaign: str,
    jobs: int,
    use_cache: bool,
    rules: str | None,
    galaxy: str | None,
    galaxy_name: str | None,
) -> None:
    """Run a campaign, or go on with one that was broken off: nothing runs twice.

    Each sample gets a history of its own, named and tagged. When its jobs have ended they are
    recorded, and new results are linked to the old ones. Prints a table as `status` does.
    """
    from biobank_core.config import operator  # noqa: PLC0415
    from biobank_core.galaxy.reanalysis import status as standing  # noqa: PLC0415
    from biobank_core.galaxy.reanalysis.campaigns import (  # noqa: PLC0415
        FINAL_STATES,
        item_of,
        load_campaign,
    )
    from biobank_core.galaxy.reanalysis.run import run_campaign  # noqa: PLC0415

    with stores_of(ctx, write=True) as stores:
        loaded = load_campaign(stores.catalog, campaign)
        client, server_key = _connected(
            ctx, galaxy, galaxy_name or loaded.campaign.galaxy_server, loaded.workflow.galaxy_url
        )
        left = sum(item_of(entry).state not in FINAL_STATES for entry in loaded.items)
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
@_GALAXY_OPTION
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
        client, server_key = _connected(
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


def _connected(
    ctx: click.Context, url: str | None, name: str | None, planned_url: str | None = None
) -> tuple[GalaxyClient, str]:
    """A client, and the key of its server in the catalog."""
    from biobank_core.galaxy.client import GalaxyClient, server_key  # noqa: PLC0415

    settings = settings_of(ctx)
    where = url or settings.galaxy_url or planned_url or settings.require_galaxy_url()
    client = GalaxyClient.connect(where, settings.require_secret("GALAXY_API_KEY").reveal())
    return client, name or server_key(where)


def _workflow(address: str, fetch: Callable[[str], dict[str, Any]]) -> Workflow:
    from biobank_core.errors import InputError, NotFoundError  # noqa: PLC0415
    from biobank_core.galaxy.reanalysis.workflow import (  # noqa: PLC0415
        as_workflow,
        read_workflow,
    )

    path = Path(address)
    if path.exists() or path.suffix or "/" in address:
        return read_workflow(path)
    try:
        return as_workflow(fetch(address), source=f"Galaxy workflow {address}")
    except (NotFoundError, InputError) as exc:
        raise InputError(
            f"no such file, and no workflow of this id in Galaxy that can be read ({exc})",
            field="workflow",
            value=address,
        ) from exc


def _pairs(options: Sequence[str], *, option: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise click.BadParameter(f"write {option} NAME=VALUE, not {text!r}")
        if name in found:
            raise click.BadParameter(f"{option} {name} is given twice")
        found[name] = value
    return found


def _data(catalog: Catalog, address: str) -> DataSample | DataCollection:
    from biobank_core.addressing import resolve  # noqa: PLC0415
    from biobank_core.model.kinds import DataCollection, DataSample  # noqa: PLC0415

    found = resolve(catalog, address, kinds=("DataSample", "DataCollection")).object
    assert isinstance(found, DataSample | DataCollection)
    return found


def _tell_plan(made: Plan, tool: str | None, release: str | None) -> None:
    from biobank_core.selection import tools  # noqa: PLC0415
    from biobank_core.selection.releases import matches  # noqa: PLC0415

    for change in made.tools:
        old = change.old or "no version"
        how = "stays at" if change.old == change.new else f"goes from {old} to"
        click.echo(f"step {change.step!r}: {change.tool} {how} {change.new}", err=True)
        asked = tool is not None and tools.matches(change.tool, tool)
        if asked and release is not None and matches(change.new, release):
            click.echo(
                f"biobank: {change.tool} {change.new} is itself in the range {release!r}: is the "
                "newer release installed?",
                err=True,
            )
    out = len(made.left_out)
    click.echo(f"{len(made.items)} planned, {out} left out", err=True)
    if made.items:
        click.echo(
            f"campaign {made.campaign.label!r} is saved; run it with `biobank reanalyse run "
            f"{made.campaign.vid}`",
            err=True,
        )
    else:
        click.echo("nothing to run, so no campaign is saved", err=True)


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
