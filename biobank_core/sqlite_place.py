"""Where an SQLite file lies, and how it can be opened there."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from biobank_core.errors import StorageError

_log = logging.getLogger(__name__)

# Options of SQLite's URI. `rw`: a file that vanished in between must not come back empty.
AS_USUAL: Final = "mode=rw"
_SHARED: Final = "mode=ro"
AS_IT_LIES: Final = "mode=ro&immutable=1"

# WAL needs shared memory between the processes, which these do not give.
_NETWORK_FILE_SYSTEMS: Final = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "gpfs", "beegfs", "9p")
)


def how_to_open(path: Path) -> str:
    """The options of SQLite's URI for this file.

    Reading, too, makes files beside it: the write-ahead log, and what readers share. Where that
    may not be, and nobody else has the file open, it is read as it lies. Raises StorageError when
    changes stand in the log alone.
    """
    file = path.absolute()
    if os.access(file.parent, os.W_OK):
        return AS_USUAL
    log, shared = (Path(f"{file}{end}") for end in ("-wal", "-shm"))
    if log.exists() and shared.exists():
        return _SHARED
    if log.exists() and log.stat().st_size:
        raise StorageError(
            f"{path}: {file.parent} may not be written, and {log.name} holds changes that are not "
            "in the file yet: copy both to another folder and read them there"
        )
    _log.warning(
        "%s is read as it lies, because %s may not be written: what others change meanwhile is "
        "not seen",
        path,
        file.parent,
    )
    return AS_IT_LIES


def network_file_system(path: Path) -> str | None:
    """The type of the network file system that the path is on; None when local or unknown."""
    try:
        folder = os.fspath(path.absolute().parent.resolve())
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    best, system = "", ""
    for line in mounts.splitlines():
        parts = line.split(" ")
        if len(parts) < 3:
            continue
        point = parts[1].replace("\\040", " ")
        inside = folder == point or folder.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, system = point, parts[2]
    network = system in _NETWORK_FILE_SYSTEMS or system.startswith("fuse.ssh")
    return system if network else None
