"""The lineage index in a Neo4j database (5.26 or later; Community will do)."""

from biobank_core.lineage.neo4j.index import Neo4jLineage, open_index

__all__ = ["Neo4jLineage", "open_index"]
