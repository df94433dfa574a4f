"""`biobank install-galaxy-dependency`."""

from __future__ import annotations

import click


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False))
def command(*, folder: str) -> None:
    """Make this program the requirement of biobank's Galaxy tools.

    DIR is Galaxy's `tool_dependency_dir`, with the resolver `galaxy_packages` in
    `dependency_resolvers`. Written is DIR/galaxy-biobank/VERSION; run it again after each upgrade.
    The environment that this program is installed in must be there on the machines that run jobs.
    """
    from pathlib import Path  # noqa: PLC0415

    from biobank_core.galaxy.tool_data import install_dependency  # noqa: PLC0415

    click.echo(install_dependency(Path(folder)))
