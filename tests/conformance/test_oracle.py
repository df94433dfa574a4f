"""Hibernate's own parser agrees with what a genuine server takes and refuses."""

from __future__ import annotations

import pytest

from tests.conformance.test_queries import _ILLEGAL, _LEGAL, _UNUSABLE
from tests.servers.missing import service_is_missing
from tests.servers.omero.oracle import refusals
from tests.servers.processes import MissingService


@pytest.fixture(scope="module")
def refused() -> set[str]:
    """All queries of the HQL tests that Hibernate refuses."""
    queries = [*(hql for hql, _ in _LEGAL.values()), *_ILLEGAL.values(), *_UNUSABLE.values()]
    try:
        return set(refusals(queries))
    except MissingService as error:
        service_is_missing(str(error))


def test_what_a_genuine_server_answers_hibernate_takes(refused: set[str]) -> None:
    assert refused & {hql for hql, _ in _LEGAL.values()} == set()


def test_what_is_a_query_exception_there_hibernate_refuses(refused: set[str]) -> None:
    assert refused - set(_UNUSABLE.values()) == set(_ILLEGAL.values())
