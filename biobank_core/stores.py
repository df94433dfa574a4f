"""The catalog and its lineage index, opened together from the settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from biobank_core.catalog.port import Catalog
from biobank_core.catalog.registry import open_catalog
from biobank_core.config import Settings
from biobank_core.errors import ConfigurationError
from biobank_core.lineage.port import LineageIndex
from biobank_core.lineage.registry import open_index

if TYPE_CHECKING:
    from biobank_core.lineage.service import Lineage


@dataclass(frozen=True, slots=True)
class Stores:
    """An opened catalog, its index, and the lineage questions asked of the two."""

    catalog: Catalog
    index: LineageIndex
    lineage: Lineage


@contextmanager
def open_stores(settings: Settings, *, write: bool) -> Iterator[Stores]:
    """The stores that the settings name, closed at the end of the block.

    With `write` a missing SQLite catalog is made, folder and all; else it is refused with
    InputError. An index in a file of its own is first brought up to date from the catalog's feed.
    """
    from biobank_core.lineage.follow import catch_up  # noqa: PLC0415  # see `Lineage` above
    from biobank_core.lineage.service import Lineage  # noqa: PLC0415

    with ExitStack() as opened:
        catalog = opened.enter_context(open_catalog(settings.catalog, create=write))
        url = settings.index or _own_index(catalog)
        index = opened.enter_context(open_index(url, catalog=catalog))
        catch_up(catalog, index)
        yield Stores(catalog=catalog, index=index, lineage=Lineage(catalog, index))


def _own_index(catalog: Catalog) -> str:
    if not catalog.url.startswith("sqlite:"):
        raise ConfigurationError(
            f"the catalog {catalog.url} holds no lineage index; name one with --index or "
            "BIOBANK_INDEX, such as sqlite:///index.db"
        )
    return catalog.url
