"""What the commands of `biobank reanalyse` share: which Galaxy server, and a client of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from biobank_core.cli.common import settings_of

if TYPE_CHECKING:
    from biobank_core.galaxy.client import GalaxyClient

GALAXY_OPTION = click.option(
    "--galaxy", metavar="URL", help="The Galaxy server; default: GALAXY_URL."
)
GALAXY_NAME_OPTION = click.option(
    "--galaxy-name",
    metavar="NAME",
    help="What the server is called in the catalog; default: the host in its URL.",
)


def connected(
    ctx: click.Context, url: str | None, name: str | None, planned_url: str | None = None
) -> tuple[GalaxyClient, str]:
    """A client, and the key of its server in the catalog."""
    from biobank_core.galaxy.client import GalaxyClient, server_key  # noqa: PLC0415

    settings = settings_of(ctx)
    where = url or settings.galaxy_url or planned_url or settings.require_galaxy_url()
    client = GalaxyClient.connect(where, settings.require_secret("GALAXY_API_KEY").reveal())
    return client, name or server_key(where)
