"""All of a catalog as JSON Lines, in one order; of a damaged one, all that can be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Final

from biobank_core.catalog.port import Catalog
from biobank_core.errors import StorageError
from biobank_core.model.base import Object
from biobank_core.model.codec import encode
from biobank_core.model.kinds import Cursor

_LINES_A_WRITE: Final = 500


@dataclass(frozen=True, slots=True)
class DumpReport:
    """How many objects were written; of a damaged catalog, what was found and how many are lost."""

    written: int
    lost: int = 0
    damage: StorageError | None = None


def dump(
    catalog: Catalog,
    out: IO[bytes],
    *,
    rescue: bool = False,
    progress: Callable[[float], None] | None = None,
) -> DumpReport:
    """Write every object but cursors, by VID. One snapshot where the driver can.

    Loaded into a new catalog and dumped again, the bytes are the same. Raises StorageError when
    the catalog can't be read to its end; with `rescue` all that can be read is written instead,
    what lies behind the damage in any order. `progress` is told the number of objects written
    since its last call.
    """
    writer = _Writer(out, progress)
    last = ""
    try:
        for known in catalog.iterate():
            last = known.object.vid
            writer.write(known.object)
    except StorageError as exc:
        if not rescue:
            raise
        lost = 0
        for left in catalog.rescue(last):
            if left is None:
                lost += 1
            else:
                writer.write(left.object)
        return DumpReport(writer.flushed(), lost, exc)
    return DumpReport(writer.flushed())


class _Writer:
    def __init__(self, out: IO[bytes], progress: Callable[[float], None] | None) -> None:
        self._out = out
        self._progress = progress
        self._lines: list[bytes] = []
        self._written = 0

    def write(self, obj: Object) -> None:
        if isinstance(obj, Cursor):
            return
        self._lines.append(encode(obj))
        if len(self._lines) >= _LINES_A_WRITE:
            self.flushed()

    def flushed(self) -> int:
        """How many were written, with those that waited."""
        if self._lines:
            self._out.write(b"\n".join(self._lines) + b"\n")
            self._written += len(self._lines)
            if self._progress is not None:
                self._progress(len(self._lines))
            self._lines.clear()
        return self._written
