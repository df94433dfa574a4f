"""The catalog and its lineage index, opened together from the settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from biobank_core.catalog.port import Catalog
from biobank_core.catalog.registry import open_catalog
from biobank_core.config import Settings
from biobank_core.errors import ConfigurationError
from biobank_core.lineage.port import LineageIndex
from biobank_core.lineage.registry import open_index
from biobank_core.model.registry import missing_kinds

if TYPE_CHECKING:
    from biobank_core.lineage.service import Lineage


@dataclass(frozen=True, slots=True)
class Stores:
    """An opened catalog, its index, and the lineage questions asked of the two."""

    catalog: Catalog
    index: LineageIndex
    lineage: Lineage


@contextmanager
def open_stores(
    settings: Settings, *, write: bool, up_to_date: bool = True, init: bool = False
) -> Iterator[Stores]:
    """The stores that the settings name, closed at the end of the block.

    With `write` a missing SQLite catalog is made, folder and all; else it is refused with
    InputError. A catalog on a server is only made with `init`. An index in a file of its own is
    first brought up to date from the catalog's feed, unless `up_to_date` is False (who makes the
    index anew, or looks for damage first).
    """
    from biobank_core.lineage.follow import catch_up  # noqa: PLC0415  # see `Lineage` above
    from biobank_core.lineage.service import Lineage  # noqa: PLC0415

    with ExitStack() as opened:
        create = init or (write and settings.catalog.startswith("sqlite:"))
        catalog = opened.enter_context(
            open_catalog(settings.catalog, create=create, settings=settings)
        )
        url = settings.index or _own_index(catalog)
        index = opened.enter_context(open_index(url, catalog=catalog, settings=settings))
        if up_to_date:
            catch_up(catalog, index)
        yield Stores(catalog=catalog, index=index, lineage=Lineage(catalog, index))


def _own_index(catalog: Catalog) -> str:
    if not catalog.url.startswith("sqlite:"):
        raise ConfigurationError(
            f"the catalog {catalog.url} holds no lineage index; name one with --index or "
            "BIOBANK_INDEX, such as sqlite:///index.db"
        )
    return catalog.url


@dataclass(frozen=True, slots=True)
class Status:
    """What `biobank status` says. `edges` counts by relation; None: unknown.

    `warning` is set, and all of the index unknown or 0, when the index can't be reached. The rest
    is as of `FreshnessReport`.
    """

    catalog: str
    catalog_schema: int
    counts: Mapping[str, int]
    missing_kinds: tuple[str, ...]
    index: str
    index_schema: int | None
    nodes: int
    edges: Mapping[str, int]
    in_step: bool | None
    behind_units: int | None
    as_of: datetime | None
    age_s: float | None = None
    pending_changes: int | None = None
    refused_changes: int = 0
    warning: str | None = None


def status_of(stores: Stores) -> Status:
    """The counts of an opened catalog and index, and how far the index is behind."""
    fresh = stores.lineage.how_fresh()
    edges: dict[str, int] = {}
    index_schema: int | None = None
    if fresh.warning is None:
        edges = dict(stores.index.count())
        index_schema = stores.index.schema_version()
    nodes = edges.pop("nodes", 0)
    return Status(
        catalog=stores.catalog.url,
        catalog_schema=stores.catalog.schema_version(),
        counts={kind: count for kind, count in sorted(stores.catalog.count().items()) if count},
        missing_kinds=missing_kinds(),
        index=stores.index.url,
        index_schema=index_schema,
        nodes=nodes,
        edges=edges,
        in_step=None if fresh.warning else fresh.in_step,
        behind_units=None if fresh.warning else fresh.behind_units,
        as_of=fresh.as_of,
        age_s=None if fresh.warning else fresh.age_s,
        pending_changes=None if fresh.warning else fresh.pending_changes,
        refused_changes=fresh.refused_changes,
        warning=fresh.warning,
    )
