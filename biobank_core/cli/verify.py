"""`biobank verify`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from biobank_core.cli.common import (
    catalog_options,
    open_output,
    output_option,
    progress,
    settings_of,
    stores_of,
    total_of,
    tsv_cell,
    tsv_writer,
)

if TYPE_CHECKING:
    from biobank_core.catalog.port import Catalog
    from biobank_core.galaxy import wire

EXIT_FINDINGS: Final = 1
_MAX_TOLD: Final = 20


@click.command()
@click.option("--repair", is_flag=True, help="Mend what is found, all or nothing.")
@click.option(
    "--galaxy",
    metavar="URL",
    help="Compare also this Galaxy's ended jobs with the catalog; --repair records them.",
)
@click.option(
    "--galaxy-name",
    metavar="NAME",
    help="What the server is called in the catalog; default: the host in its URL.",
)
@click.option(
    "--rules",
    "rules_file",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="With --galaxy: the rules by which it is recorded. What they leave out is not missed.",
)
@output_option
@catalog_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    repair: bool,
    galaxy: str | None,
    galaxy_name: str | None,
    rules_file: str | None,
    output: str | None,
) -> None:
    """Compare the lineage index with the catalog, both ways.

    Every object is compared with what the index holds of it; a line of TSV for each finding: what
    (missing, stale or extra in the index; foreign: changed in OMERO by another program; damaged:
    the file itself, or the log in OMERO; unrecorded: a job of Galaxy without an action), vid, kind,
    detail. Exit code 0 when nothing was found or all was mended, else 1. A damaged file is not
    mended: `biobank dump` saves what can be read.
    """
    from biobank_core.catalog.port import Watchable  # noqa: PLC0415
    from biobank_core.lineage.verify import What, verify  # noqa: PLC0415

    found = damaged = left = 0
    # Damage is looked for before anything else is read.
    with stores_of(ctx, write=False, up_to_date=False) as stores, open_output(output) as out:
        rows = tsv_writer(out, ["what", "vid", "kind", "detail"])
        with progress("verify", total=total_of(stores.catalog)) as told:
            for finding in verify(stores.catalog, stores.index, repair=repair, advance=told):
                rows.row([finding.what, finding.vid, finding.kind, finding.detail])
                found += 1
                damaged += finding.what is What.DAMAGED
                left += finding.left
        if galaxy is not None and not damaged:
            jobs = _Jobs(ctx, stores.catalog, galaxy, galaxy_name, rules_file)
            for vid, text in jobs.missed():
                rows.row(["unrecorded", vid, "Action", text])
                found += 1
            left += jobs.record() if repair else 0
        waiting = 0 if damaged else stores.lineage.how_fresh().pending_changes
    if waiting:
        click.echo(f"{waiting:,} changes have not reached the index yet", err=True)
    mended = repair and not damaged and not left
    lost = damaged > 0 and not isinstance(stores.catalog, Watchable)
    click.echo(_summary(found, lost=lost, mended=mended, left=left), err=True)
    if found and not mended:
        ctx.exit(EXIT_FINDINGS)


class _Jobs:
    """The jobs of a Galaxy that have ended and are not in the catalog."""

    def __init__(
        self,
        ctx: click.Context,
        catalog: Catalog,
        url: str,
        name: str | None,
        rules_file: str | None,
    ) -> None:
        from biobank_core.galaxy.client import GalaxyClient, server_key  # noqa: PLC0415
        from biobank_core.galaxy.live import LiveSource  # noqa: PLC0415
        from biobank_core.galaxy.rules import load_rules  # noqa: PLC0415

        self._catalog = catalog
        self._server = name or server_key(url)
        self._rules = load_rules(rules_file)
        key = settings_of(ctx).require_secret("GALAXY_API_KEY")
        self._source = LiveSource(GalaxyClient.connect(url, key.reveal()))
        self._rows: list[wire.JobRow] = []

    def missed(self) -> Iterator[tuple[str, str]]:
        """(VID, what job it is) of each."""
        from biobank_core.galaxy.unrecorded import unrecorded  # noqa: PLC0415

        found = unrecorded(self._catalog, self._source, server=self._server, rules=self._rules)
        for vid, row in found:
            self._rows.append(row)
            time = row.update_time.isoformat(timespec="seconds")
            yield vid, f"job {row.id} of {row.tool_id}, {row.state} since {time}"

    def record(self) -> int:
        """Record them; how many could not be."""
        from biobank_core.config import operator  # noqa: PLC0415
        from biobank_core.galaxy.recorder import Recorder, Scope  # noqa: PLC0415

        recorder = Recorder(
            self._catalog,
            self._source,
            server=self._server,
            scope=Scope(),
            rules=self._rules,
            study=None,
            by=operator(),
        )
        summary = recorder.run(recorder.these(self._rows))
        for job_id, reason in sorted(summary.failed.items())[:_MAX_TOLD]:
            click.echo(f"biobank: job {job_id} was not recorded: {tsv_cell(reason)}", err=True)
        return len(summary.failed)


def _summary(found: int, *, lost: bool, mended: bool, left: int) -> str:
    if not found:
        return "nothing found"
    if left:
        return f"{found:,} found; {left:,} of them could not be mended"
    if lost:
        return f"{found:,} found: the file is damaged; save what can be read with `biobank dump`"
    hint = "mended" if mended else "`biobank verify --repair` mends it"
    return f"{found:,} found; {hint}"
