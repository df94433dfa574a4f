"""Jobs that have ended in Galaxy, that the rules want, and that the catalog has no action of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from biobank_core.catalog.port import Catalog
from biobank_core.galaxy import identity, wire
from biobank_core.galaxy.records import FINAL_STATES, UNKNOWN_TOOL, safe_text, utc
from biobank_core.galaxy.rules import Rules
from biobank_core.galaxy.source import Source
from biobank_core.model.kinds import Action

_PAGE: Final = 500


def unrecorded(
    catalog: Catalog, source: Source, *, server: str, rules: Rules
) -> Iterator[tuple[str, wire.JobRow]]:
    """(VID that its action would have, line of Galaxy's list) of each, newest first.

    Galaxy is asked the list alone. An action that people deleted is known.
    """
    rows = source.jobs()
    while page := list(islice(rows, _PAGE)):
        ended = [row for row in page if row.state in FINAL_STATES and wanted(rules, source, row)]
        yield from _missing(catalog, ended, server)


def wanted(rules: Rules, source: Source, row: wire.JobRow) -> bool:
    """Whether the rules want this job recorded."""
    if not rules.chooses:
        return True
    history = source.history(row.history_id) if row.history_id else None
    user = row.user_email or source.client.user.email
    return rules.wants(tool_id=row.tool_id or "", user=user, history=history)


def _missing(
    catalog: Catalog, rows: Sequence[wire.JobRow], server: str
) -> Iterator[tuple[str, wire.JobRow]]:
    by_vid: dict[str, list[wire.JobRow]] = {}
    for row in rows:
        tool_id = safe_text(row.tool_id or UNKNOWN_TOOL)
        by_vid.setdefault(identity.action_vid(server, tool_id, utc(row.create_time)), []).append(
            row
        )
    standing = catalog.get(by_vid)
    # Of jobs that share tool and time each has a VID of its own, which the list does not tell.
    left = {
        row.id: (vid, row)
        for vid, found in by_vid.items()
        for row in found
        if vid not in standing or len(found) > 1
    }
    if not left:
        return
    where = {"galaxy.server": server, "galaxy.job_id": tuple(sorted(left))}
    for item in catalog.find("Action", where):
        galaxy = item.object.galaxy if isinstance(item.object, Action) else None
        if galaxy is not None and galaxy.job_id is not None:
            left.pop(galaxy.job_id, None)
    yield from left.values()
