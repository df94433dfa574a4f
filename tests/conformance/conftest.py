"""Imports omero-py as it wants to be imported, or leaves these tests out where it is not there."""

from __future__ import annotations

import os

collect_ignore_glob: list[str] = []
try:
    # First of all: its modules find one another only when this one began.
    import omero.clients  # noqa: F401
except ImportError:
    if os.environ.get("REQUIRE_SERVICES") == "1":
        raise
    collect_ignore_glob.append("test_*.py")
