"""The catalog in one SQLite file."""

from biobank_core.catalog.sqlite.catalog import SqliteCatalog, open_catalog

__all__ = ["SqliteCatalog", "open_catalog"]
