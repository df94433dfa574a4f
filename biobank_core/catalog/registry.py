"""Opens a catalog by its URL; the only place that knows which drivers there are.

A driver's entry point is `open_catalog(url, *, create, account)`: `account` gives the user's name
and the secrets that the settings hold, by the name of their environment variable.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any, Final

from biobank_core.catalog.port import Catalog
from biobank_core.config import Settings, load_settings
from biobank_core.errors import ConfigurationError, InputError

GROUP: Final = "biobank.catalogs"

# The drivers that are always there, also where the package is not installed but only on the path.
_BUILT_IN: Final = {
    "sqlite": "biobank_core.catalog.sqlite:open_catalog",
    "omero": "biobank_core.catalog.omero:open_catalog",
}
# Drivers that come with an extra of galaxy-biobank.
_EXTRAS: Final = {"omero": "omero"}


def schemes() -> list[str]:
    """The URL schemes that can be opened here."""
    return sorted({*_BUILT_IN, *(entry.name for entry in entry_points(group=GROUP))})


def open_catalog(
    url: str, *, create: bool = False, salvage: bool = False, settings: Settings | None = None
) -> Catalog:
    """The catalog at this URL, with the newest schema; made if missing where `create` allows.

    With `salvage` a damaged file is opened if its objects may still be read, for `dump` alone.
    `settings`: where a server's user and password come from; None: from the environment.
    Raises InputError for a URL that no driver knows or a catalog that is not there.
    """
    scheme, mark, _ = url.partition("://")
    if not mark:
        raise InputError("a catalog is named by a URL such as sqlite:///file.db", value=url)
    opener = _opener(scheme)
    catalog: Catalog
    if scheme == "sqlite":  # a file asks for no account
        catalog = opener(url, create=create, salvage=salvage)
    else:
        account = (settings or load_settings()).account
        catalog = opener(url, create=create, account=account)
    return catalog


def _opener(scheme: str) -> Any:
    for entry in entry_points(group=GROUP, name=scheme):
        try:
            return entry.load()
        except ImportError as exc:
            raise ConfigurationError(
                f"the catalog driver {scheme!r} can't be loaded ({exc}); install "
                f"'galaxy-biobank[{_EXTRAS.get(scheme, scheme)}]'"
            ) from exc
    if scheme in _BUILT_IN:
        module, _, name = _BUILT_IN[scheme].partition(":")
        return getattr(importlib.import_module(module), name)
    extra = f"; install 'galaxy-biobank[{_EXTRAS[scheme]}]' for it" if scheme in _EXTRAS else ""
    raise InputError(f"no catalog driver {scheme!r}; known are {', '.join(schemes())}{extra}")
