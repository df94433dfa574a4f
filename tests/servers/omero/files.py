"""RawFileStore: the bytes of OriginalFiles."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Any

import omero
from omero.rtypes import rlong

from tests.servers.omero.caller import Owned
from tests.servers.omero.calls import Call, Servant, servant
from tests.servers.omero.errors import api_usage, no_row, security, validation
from tests.servers.omero.loading import Loader, Model

_HASHERS = {"SHA1-160": "sha1", "MD5-128": "md5"}


@servant(omero.api.RawFileStore)
class RawFileStoreServant(Servant):
    """One open store; like OMERO's it lets two writers write over one another without a word."""

    _file_id: int | None = None
    _may_write = False
    _modified = False

    def set_file_id(self, call: Call, file_id: int) -> None:
        row = call.connection.execute(
            "select owner_id, group_id from originalfile where id = %s", [file_id]
        ).fetchone()
        if row is None:
            raise validation(no_row("ome.model.core.OriginalFile", file_id))
        owned = Owned(*row)
        if not call.caller.may_read(owned):
            raise security(f"Cannot read ome.model.core.OriginalFile:Id_{file_id}")
        self._file_id = file_id
        self._may_write = call.caller.may_change(owned)
        self._modified = False

    def get_file_id(self, _call: Call) -> Any:
        return rlong(self._file_id) if self._file_id is not None else None

    def exists(self, call: Call) -> bool:
        return self._path(call).exists()

    def size(self, call: Call) -> int:
        path = self._path(call)
        return path.stat().st_size if path.exists() else 0

    def read(self, call: Call, position: int, length: int) -> bytes:
        path = self._path(call)
        content = b""
        if path.exists():
            if call.world.faults.take("RawFileStore.read", "short-read"):
                length = (length + 1) // 2
            with path.open("rb") as handle:
                handle.seek(position)
                content = handle.read(length)
        return content.ljust(length, b"\0")  # a buffer of that length, however much there was

    def write(self, call: Call, content: bytes, position: int, length: int) -> None:
        path = self._path(call)
        self._check_writable()
        path.touch()
        with path.open("r+b") as handle:
            handle.seek(position)
            handle.write(content[:length])
        self._modified = True

    def truncate(self, call: Call, length: int) -> bool:
        path = self._path(call)
        self._check_writable()
        if not path.exists() or path.stat().st_size <= length:
            return False
        with path.open("r+b") as handle:
            handle.truncate(length)
        self._modified = True
        return True

    def save(self, call: Call) -> Model | None:
        if self._file_id is None or not (self._modified or self.size(call) == 0):
            return None
        path = self._path(call)
        path.touch()
        row = call.connection.execute(
            "select h.value from originalfile f left join checksumalgorithm h on h.id = f.hasher"
            " where f.id = %s",
            [self._file_id],
        ).fetchone()
        digest = _digest(path, row[0] if row is not None else None)
        call.connection.execute(
            "update originalfile set size = %s, mtime = %s, hash = coalesce(%s, hash),"
            " update_id = %s where id = %s",
            [
                path.stat().st_size,
                int(path.stat().st_mtime * 1000),
                digest,
                call.events.event_id,
                self._file_id,
            ],
        )
        self._modified = False
        loader = Loader(call.connection, call.caller)
        loader.load("OriginalFile", [self._file_id])
        loader.connect()
        return loader.get("OriginalFile", self._file_id)

    def close(self, call: Call) -> None:
        if self._modified:
            self.save(call)
        self._file_id = None
        self.session.stateful.pop(call.current.id.name, None)

    def _path(self, call: Call) -> Path:
        if self._file_id is None:
            raise api_usage(
                "This RawFileStore has not been properly initialized.\n"
                "Please set the file id before executing any other methods.\n"
            )
        return call.world.files / str(self._file_id)

    def _check_writable(self) -> None:
        if not self._may_write:
            raise security("File not writeable!")


def _digest(path: Path, hasher: str | None) -> str | None:
    """Return the content's checksum, or None where the file names no way to make one."""
    if hasher is None:
        return None
    content = path.read_bytes()
    if hasher in _HASHERS:
        return hashlib.new(_HASHERS[hasher], content).hexdigest()
    if hasher == "CRC-32":
        return f"{zlib.crc32(content):08x}"
    if hasher == "Adler-32":
        return f"{zlib.adler32(content):08x}"
    raise api_usage(f"the stand-in has no {hasher}")
