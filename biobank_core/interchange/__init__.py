"""JSON Lines in and out: one object a line, in any order (`load`, `dump`, `json_schema`)."""

from biobank_core.interchange.dumping import DumpReport, dump
from biobank_core.interchange.loading import LoadReport, load
from biobank_core.interchange.schema import json_schema

__all__ = ["DumpReport", "LoadReport", "dump", "json_schema", "load"]
