"""All of a catalog as JSON Lines, in one order."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Final

from biobank_core.catalog.port import Catalog
from biobank_core.model.codec import encode
from biobank_core.model.kinds import Cursor

_LINES_A_WRITE: Final = 500


def dump(
    catalog: Catalog, out: IO[bytes], *, progress: Callable[[float], None] | None = None
) -> int:
    """Write every object but cursors, by VID; gives how many. One snapshot where the driver can.

    Loaded into a new catalog and dumped again, the bytes are the same. `progress` is told the
    number of objects written since its last call.
    """
    written = 0
    lines: list[bytes] = []

    def flush() -> None:
        nonlocal written
        if lines:
            out.write(b"\n".join(lines) + b"\n")
            written += len(lines)
            if progress is not None:
                progress(len(lines))
            lines.clear()

    for known in catalog.iterate():
        if isinstance(known.object, Cursor):
            continue
        lines.append(encode(known.object))
        if len(lines) >= _LINES_A_WRITE:
            flush()
    flush()
    return written
