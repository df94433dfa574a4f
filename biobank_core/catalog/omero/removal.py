"""Everything of ours in a group of OMERO, counted and removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from biobank_core.catalog.omero.names import (
    COMMIT,
    CONTENT,
    HISTORY,
    KIND,
    OBJECT,
    ROOT,
    TEXT,
    TOKEN,
    TOMBSTONE,
    VIEW,
)
from biobank_core.catalog.omero.rows import Scope
from biobank_core.catalog.omero.session import pages

# The first commits go last: until then the catalog can be opened, and the removal run again.
_ORDER: Final = (
    ("objects", f"{OBJECT}%"),
    ("tombstones", f"{TOMBSTONE}%"),
    ("former versions", HISTORY),
    ("long texts", TEXT),
    ("views", f"{VIEW}%"),
    # With the last annotation of a file OMERO deletes the file.
    ("stored files", CONTENT),
    ("kinds", KIND),
    ("commits", COMMIT),
    ("logs", ROOT),
)
# Annotations of one deleting call: about a second of the server.
_PAGE: Final = 500


def holdings(scope: Scope) -> dict[str, int]:
    """How many annotations of each sort there are, and tokens that no commit points to."""
    counts = {what: len(_ids(scope, ns)) for what, ns in _ORDER}
    counts["unused tokens"] = len(_tokens(scope))
    return {what: count for what, count in counts.items() if count}


def remove_all(scope: Scope, advance: Callable[[int], None]) -> None:
    """Delete all of them, in pages. Raises NotPermittedError for who may not delete others'."""
    for group in scope.groups:
        here = Scope(scope.session, [group])
        for _, ns in _ORDER:
            for page in pages(_ids(here, ns), _PAGE):
                here.session.delete({"Annotation": list(page)}, group=group)
                advance(len(page))
        for page in pages(_tokens(here), _PAGE):
            here.session.delete({"ExternalInfo": list(page)}, group=group)
            advance(len(page))


def _ids(scope: Scope, ns: str) -> list[int]:
    rows = scope.rows("select a.id from Annotation a", "a.ns like :ns", ns=ns)
    return [number for (number,) in rows]


def _tokens(scope: Scope) -> list[int]:
    rows = scope.session.projection(
        "select e.id from ExternalInfo e where e.entityType = :token"
        " and e.details.group.id in (:groups) and not exists"
        " (select a.id from Annotation a where a.details.externalInfo.id = e.id)",
        {"token": TOKEN, "groups": list(scope.groups)},
        group=scope.context,
    )
    return [number for (number,) in rows]
