"""What the subcommands share: settings, and a session at the broker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from biobank_core.config import load_settings

if TYPE_CHECKING:
    from biobank_core.config import Settings
    from sync_service.broker import Session


def settings_of(ctx: click.Context, *, galaxy_url: str | None = None) -> Settings:
    """The settings: options of this command line, else environment, config file, defaults."""
    return load_settings(
        catalog=ctx.meta.get("biobank.catalog"),
        index=ctx.meta.get("biobank.index"),
        broker=ctx.meta.get("biobank.broker"),
        galaxy_url=galaxy_url,
    )


@contextmanager
def session_of(settings: Settings) -> Iterator[Session]:
    """A session at the broker of the settings."""
    from sync_service.broker import Session  # noqa: PLC0415
    from sync_service.topology import BrokerAddress  # noqa: PLC0415

    with Session(BrokerAddress.of(settings), name="biobank-sync command") as session:
        yield session
