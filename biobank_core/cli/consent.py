"""`biobank consent give|withdraw`."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING

import click

from biobank_core.cli.common import catalog_options, stores_of, tsv_cell

if TYPE_CHECKING:
    from biobank_core.consent import ConsentChange


_DAY = click.DateTime(formats=["%Y-%m-%d"])
_scope = click.option(
    "--scope", metavar="S", default="research", show_default=True, help="What the consent is for."
)


@click.group()
def command() -> None:
    """Give or withdraw the consent of an individual in a study.

    Of a scope, the consent with the latest `from` day counts; on one day a withdrawal outweighs a
    consent. Days are UTC. What was given and withdrawn before stays in the catalog.
    """


@command.command()
@click.argument("individual", metavar="STUDY:CODE")
@_scope
@click.option(
    "--date",
    "day",
    metavar="DAY",
    type=_DAY,
    help="From this day on (2026-01-31); default: today (UTC).",
)
@click.option(
    "--until", metavar="DAY", type=_DAY, help="Its last day (2026-01-31); default: no end."
)
@catalog_options
@click.pass_context
def give(
    ctx: click.Context, *, individual: str, scope: str, day: datetime | None, until: datetime | None
) -> None:
    """Give a consent; nothing changes where it stands already."""
    from biobank_core import addressing, consent  # noqa: PLC0415
    from biobank_core.config import operator  # noqa: PLC0415

    with stores_of(ctx, write=True) as stores:
        enrolled = addressing.enrollment(stores.catalog, individual)
        change = consent.give(
            stores.catalog,
            enrollment=enrolled.vid,
            name=individual,
            scope=scope,
            on=_date(day),
            until=_date(until),
            by=operator(),
        )
    _say(individual, change)


@command.command()
@click.argument("individual", metavar="STUDY:CODE")
@_scope
@click.option(
    "--date",
    "day",
    metavar="DAY",
    type=_DAY,
    help="From this day on (2026-01-31); default: today (UTC).",
)
@catalog_options
@click.pass_context
def withdraw(ctx: click.Context, *, individual: str, scope: str, day: datetime | None) -> None:
    """Withdraw a consent; nothing changes where it is withdrawn already."""
    from biobank_core import addressing, consent  # noqa: PLC0415
    from biobank_core.config import operator  # noqa: PLC0415

    with stores_of(ctx, write=True) as stores:
        enrolled = addressing.enrollment(stores.catalog, individual)
        change = consent.withdraw(
            stores.catalog,
            enrollment=enrolled.vid,
            name=individual,
            scope=scope,
            on=_date(day),
            by=operator(),
        )
    _say(individual, change)


def _date(moment: datetime | None) -> date | None:
    return moment.date() if moment is not None else None


def _say(individual: str, change: ConsentChange) -> None:
    made = change.consent
    begins = f" from {made.valid_from}" if made.valid_from else ""
    ends = f" until {made.until}" if made.until else ""
    already = "" if change.changed else "already "
    click.echo(
        f"{tsv_cell(individual)}: {tsv_cell(made.scope)} {already}{made.status.value}{begins}{ends}"
        f"; today: {change.today.value}"
    )
