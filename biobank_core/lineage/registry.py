"""Which lineage driver serves a URL: the scheme names an entry point of `biobank.indexes`.

A driver's entry point is `open_index(url, *, create, beside)`: `beside` is the opened catalog, or
None; a driver that can keep the index in the catalog's own transaction does so.
"""

from __future__ import annotations

import importlib.metadata
from typing import Final

from biobank_core.catalog.port import Catalog
from biobank_core.errors import ConfigurationError
from biobank_core.lineage.port import LineageIndex

GROUP: Final = "biobank.indexes"

# Serves a source tree that was never installed, as tests and containers have it.
_BUILT_IN: Final = {"sqlite": "biobank_core.lineage.sqlite:open_index"}


def open_index(url: str, *, catalog: Catalog | None = None, create: bool = True) -> LineageIndex:
    """The index at this URL, at the newest schema; with `create` made when it is missing.

    `catalog`: when it is in the same file the two are updated in one transaction. Raises
    ConfigurationError for a scheme that no installed driver serves.
    """
    scheme, mark, _ = url.partition("://")
    entries = {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}
    if mark and scheme not in entries and scheme in _BUILT_IN:
        entries[scheme] = importlib.metadata.EntryPoint(scheme, _BUILT_IN[scheme], GROUP)
    if not mark or scheme not in entries:
        known = ", ".join(sorted(entries.keys() | _BUILT_IN.keys()))
        raise ConfigurationError(
            f"no lineage index driver for {scheme + '://' if mark else 'this URL'} "
            f"(installed: {known}); an index URL looks like sqlite:///index.db"
        )
    try:
        opener = entries[scheme].load()
    except (ImportError, AttributeError) as exc:
        raise ConfigurationError(
            f"the lineage index driver {scheme!r} can't be loaded: {exc}; install what it needs"
        ) from exc
    index: LineageIndex = opener(url, create=create, beside=catalog)
    return index
