"""`biobank reanalyse plan`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from biobank_core.cli.common import (
    catalog_options,
    format_option,
    open_output,
    output_option,
    stores_of,
    tsv_writer,
)
from biobank_core.cli.reanalyse_galaxy import GALAXY_NAME_OPTION, GALAXY_OPTION, connected
from biobank_core.cli.select import criteria_of, criteria_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from biobank_core.catalog.port import Catalog
    from biobank_core.galaxy.reanalysis.plan import Plan
    from biobank_core.galaxy.reanalysis.workflow import Workflow
    from biobank_core.model.kinds import DataCollection, DataSample


@click.command()
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
    "--keep",
    "keeps",
    metavar="STEP.PARAM[=OLD]",
    multiple=True,
    help="Give a parameter, for each sample, the value its old results were made with: that of the "
    "same name, or of OLD ([TOOL.]PARAM). NAME[=OLD] for the workflow itself. May be repeated.",
)
@click.option(
    "--replaces",
    metavar="NEW=OLD",
    multiple=True,
    help="An output of the workflow (its label, or STEP.OUTPUT) replaces an old result of another "
    "name (OUTPUT, TOOL.OUTPUT or STEP.OUTPUT). May be repeated.",
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
@GALAXY_OPTION
@GALAXY_NAME_OPTION
@format_option("tsv", "json")
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
    keeps: tuple[str, ...],
    replaces: tuple[str, ...],
    inputs: tuple[str, ...],
    tool_versions: tuple[str, ...],
    galaxy: str | None,
    galaxy_name: str | None,
    format: str,
    output: str | None,
    **selection_options: Any,
) -> None:
    """Plan a campaign: a dry run that says what would run, what is left out, and why.

    The plan is saved under its name for `run`; nothing happens in Galaxy. A parameter or output
    that the newer tools no longer have, a name that Galaxy would silently ignore, and whatever is
    ambiguous is an error.

    An old result is replaced by the output of the same name of the same tool, unless --replaces
    says otherwise. Files that a workflow wants as pairs or records must have been recorded as such.

    Columns of tsv: sample (VID), label, state (planned, excluded), reason, results and sources
    (numbers), replaced (OLD>NEW), kept (STEP.PARAM=VALUE), code (why one is left out).
    """
    import json  # noqa: PLC0415

    import msgspec  # noqa: PLC0415

    from biobank_core.config import operator  # noqa: PLC0415
    from biobank_core.galaxy.reanalysis import plan_table  # noqa: PLC0415
    from biobank_core.galaxy.reanalysis.arrange import Arranger  # noqa: PLC0415
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
        client, server_key = connected(ctx, galaxy, galaxy_name)
        server = CampaignServer(client)
        prepared = prepare(
            _workflow(workflow_address, server.workflow),
            toolbox=Toolbox(server.fetch_tool),
            versions=versions,
            settings=settings,
            keeps=keeps,
        )
        assigned = assign_inputs(
            prepared.workflow.data_inputs(),
            {label: _data(stores.catalog, address) for label, address in given.items()},
            arranger=Arranger(stores.catalog),
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
            settings=(*settings, *(f"keep {text}" for text in keeps)),
            replaces=replaces,
            server=server_key,
            galaxy_url=client.url,
            now=datetime.now(UTC),
        )
        if made.items:
            save_plan(made, catalog=stores.catalog, by=operator())
    with open_output(output) as stream:
        if format == "json":
            document = plan_table.as_json(made)
            stream.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        else:
            table = tsv_writer(stream, plan_table.COLUMNS)
            for row in plan_table.rows(made):
                table.row(row)
    _tell_plan(made, criteria.tool, criteria.release)


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
    from biobank_core.galaxy.reanalysis.plan_table import replacement_lines  # noqa: PLC0415
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
    for line in replacement_lines(made):
        click.echo(line, err=True)
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
