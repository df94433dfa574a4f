"""The lineage index in an SQLite file, the catalog's own or another."""

from biobank_core.lineage.sqlite.index import SqliteLineage, open_index

__all__ = ["SqliteLineage", "open_index"]
