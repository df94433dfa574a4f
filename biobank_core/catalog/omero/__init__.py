"""The catalog on an OMERO server (5.6 or later, as it comes)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from biobank_core.errors import ConfigurationError

if TYPE_CHECKING:
    from biobank_core.catalog.omero.catalog import OmeroCatalog

_HOW_TO_INSTALL = (
    "the catalog on OMERO needs omero-py: install 'galaxy-biobank[omero]'. Its Ice library "
    "(zeroc-ice 3.6.5) has to be compiled where no wheel is found: Glencoe Software publishes "
    "wheels for Linux, macOS and Windows, which pip takes with --find-links"
)


def open_catalog(
    url: str, *, create: bool = False, account: Callable[[str], str | None] = os.environ.get
) -> OmeroCatalog:
    """The catalog at `omero://host:port/?group=NAME`; with `create` its log is opened if missing.

    `account` gives OMERO_USER and OMERO_PASSWORD, or OMERO_SESSION_KEY. Raises ConfigurationError
    where omero-py is not installed or no account is named, InputError for a group that holds no
    catalog, UnreachableError, NotPermittedError.
    """
    try:
        import omero.clients  # noqa: F401, PLC0415  (only who opens such a catalog needs it)
    except ImportError as exc:
        raise ConfigurationError(f"{_HOW_TO_INSTALL} ({exc})") from exc
    from biobank_core.catalog.omero.opening import open_at  # noqa: PLC0415

    return open_at(url, create=create, named=account)


__all__ = ["open_catalog"]
