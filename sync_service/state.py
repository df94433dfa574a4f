"""How far a relay has read the feed, in a file of its own.

Never in the catalog: nothing that the relay writes may be in the feed it reads. Losing the file
costs a reconcile from the beginning of the feed, nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from pathlib import Path
from typing import Final

import msgspec
import platformdirs

from biobank_core.catalog.port import Position
from biobank_core.config import APPLICATION
from biobank_core.errors import StorageError

_FORMAT: Final = 1

log = logging.getLogger(__name__)


class _Content(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    catalog: str
    position: dict[str, int]


def state_folder() -> Path:
    """The folder of this account for what the service remembers."""
    return platformdirs.user_state_path(APPLICATION, appauthor=False)


def default_path(catalog_url: str, broker_url: str) -> Path:
    """A file for this catalog and this broker: another broker has not got what went to this one."""
    name = hashlib.sha256(f"{catalog_url}\n{broker_url}".encode()).hexdigest()[:16]
    return state_folder() / f"relay-{name}.json"


class RelayState:
    """The file; written anew each time, and replaced only when it is whole and on the disk."""

    def __init__(self, path: Path, *, catalog_url: str) -> None:
        self.path = path
        self._catalog_url = catalog_url

    def load(self) -> dict[str, int]:
        """The position; the feed's beginning where the file is missing, damaged or another's."""
        try:
            content = msgspec.json.decode(self.path.read_bytes(), type=_Content)
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise StorageError(f"{self.path}: {exc.strerror}") from exc
        except (msgspec.DecodeError, UnicodeDecodeError):
            log.warning("%s is damaged: reading the feed from its beginning", self.path)
            return {}
        if content.format != _FORMAT or content.catalog != self._catalog_url:
            log.warning(
                "%s is of another catalog or release: reading the feed from its beginning",
                self.path,
            )
            return {}
        return content.position

    def save(self, position: Position) -> None:
        """Remember it, whatever happens to this process or machine next. Raises StorageError."""
        content = _Content(_FORMAT, self._catalog_url, dict(position))
        write_whole(self.path, msgspec.json.encode(content))


def write_whole(path: Path, content: bytes) -> None:
    """Put this in the file's place, on the disk before anybody sees it. Raises StorageError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as exc:
        raise StorageError(f"{path}: {exc.strerror}") from exc
