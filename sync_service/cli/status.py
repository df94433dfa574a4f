"""`biobank-sync status`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from biobank_core.cli.common import format_option, open_output, output_option
from sync_service.cli.common import session_of, settings_of


@click.command()
@format_option("text", "json")
@output_option
@click.pass_context
def command(ctx: click.Context, *, format: str, output: str | None) -> None:
    """Say how far the index is behind, and what waits where."""
    import msgspec  # noqa: PLC0415

    from biobank_core.catalog.registry import open_catalog  # noqa: PLC0415
    from biobank_core.lineage.follow import pending  # noqa: PLC0415
    from sync_service import topology  # noqa: PLC0415
    from sync_service.service import open_sync_index  # noqa: PLC0415
    from sync_service.watcher import last_told  # noqa: PLC0415

    settings = settings_of(ctx)
    with (
        session_of(settings) as session,
        open_catalog(settings.catalog) as catalog,
        open_sync_index(settings) as index,
    ):
        found = pending(catalog, index)
        age_s = (datetime.now(UTC) - found.oldest).total_seconds() if found.oldest else 0.0
        told: dict[str, Any] = {
            "catalog": catalog.url,
            "index": index.url,
            "broker": settings.broker,
            "pending_changes": found.changes,
            "lag_s": round(max(0.0, age_s), 1),
            "refused_changes": len(found.refused),
            "queued_messages": session.depth(topology.QUEUE),
            "dead_letters": session.depth(topology.DEAD_QUEUE),
        }
        if (watched := last_told(catalog)) is not None:
            told["foreign_changes"] = watched.foreign
            told["looked_at"] = watched.looked.isoformat(timespec="seconds")
            told["reconciled_at"] = watched.reconciled.isoformat(timespec="seconds")
    with open_output(output) as stream:
        if format == "json":
            stream.write(msgspec.json.format(msgspec.json.encode(told)).decode() + "\n")
        else:
            width = max(map(len, told))
            stream.writelines(
                f"{name.replace('_', ' '):<{width}}  {value}\n" for name, value in told.items()
            )
