"""What a test does when a server can't be had here."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def service_is_missing(reason: str) -> NoReturn:
    """Skip the test at hand; with REQUIRE_SERVICES=1, as in CI, fail it instead."""
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(f"REQUIRE_SERVICES=1, but {reason}", pytrace=False)
    pytest.skip(reason)
