"""Which lineage driver serves a URL: the scheme names an entry point of `biobank.indexes`.

A driver's entry point is `open_index(url, *, create, beside, account)`: `beside` is the opened
catalog, or None; a driver that can keep the index in the catalog's own transaction does so.
`account` gives the user or the secret of a name (`NEO4J_PASSWORD`), or None.
"""

from __future__ import annotations

import importlib.metadata
from typing import Final

from biobank_core.catalog.port import Catalog
from biobank_core.config import Settings, load_settings
from biobank_core.errors import ConfigurationError
from biobank_core.lineage.port import LineageIndex

GROUP: Final = "biobank.indexes"

# Serves a source tree that was never installed, as tests and containers have it.
_NEO4J: Final = "biobank_core.lineage.neo4j:open_index"
_BUILT_IN: Final = {
    "sqlite": "biobank_core.lineage.sqlite:open_index",
    "neo4j": _NEO4J,
    "neo4j+s": _NEO4J,
    "neo4j+ssc": _NEO4J,
    "bolt": _NEO4J,
    "bolt+s": _NEO4J,
    "bolt+ssc": _NEO4J,
}
# Drivers that come with an extra of galaxy-biobank.
_EXTRAS: Final = dict.fromkeys((scheme for scheme in _BUILT_IN if scheme != "sqlite"), "neo4j")


def open_index(
    url: str,
    *,
    catalog: Catalog | None = None,
    create: bool = True,
    settings: Settings | None = None,
) -> LineageIndex:
    """The index at this URL, at the newest schema; with `create` made when it is missing.

    `catalog`: when it is in the same file the two are updated in one transaction. `settings`: where
    a server's user and password come from; None: from the environment. Raises ConfigurationError
    for a scheme that no installed driver serves.
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
        extra = _EXTRAS.get(scheme)
        needed = f"pip install 'galaxy-biobank[{extra}]'" if extra else "install what it needs"
        raise ConfigurationError(
            f"the lineage index driver {scheme!r} can't be loaded: {exc}; {needed}"
        ) from exc
    account = (settings or load_settings()).account
    index: LineageIndex = opener(url, create=create, beside=catalog, account=account)
    return index
