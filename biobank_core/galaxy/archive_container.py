"""Reads a few members of an archive that a stranger may have made; nothing is put on disk.

A tar.gz is read as a stream, a zip through its directory. What is unsafe anywhere in it (a name
that leads out of it, a link, a device, a bomb) makes all of it refused.
"""

from __future__ import annotations

import gzip
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import IO, Final

import msgspec

from biobank_core.errors import InputError

_CHUNK_BYTES: Final = 1024 * 1024
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZIP_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06")
_NAME_CHARS: Final = 4096
_UNSAFE_NAME: Final = re.compile("[\x00-\x1f\x7f\\\\]|\\A[A-Za-z]:")
_ENCRYPTED: Final = 0x1
# Names of members are not Galaxy's alone: a bag has a folder of its own, and `data` inside.
_FOLDER: Final = re.compile(r"(?:[^/]+/){0,2}\Z")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of an archive is read at most.

    A history of a thousand jobs has about 5 MB of JSON; its data may be any number of gigabytes,
    which are passed over.
    """

    members: int = 1_000_000
    unpacked_bytes: int = 1024**4
    # Deflate can't do better than 1,032; Galaxy's JSON is at 10 to 50, empty images may be at 500.
    ratio: int = 200
    # Small files may be of any ratio.
    ratio_from_bytes: int = 256 * 1024 * 1024
    json_bytes: int = 512 * 1024 * 1024
    # A long name or a list of extended headers before one member of a tar.
    header_bytes: int = 1024 * 1024
    directory_bytes: int = 128 * 1024 * 1024


def read_members(
    path: Path, wanted: Collection[str], *, mark: str, limits: Limits | None = None
) -> dict[str, bytes]:
    """The members with these names that lie in the folder which holds the member `mark`.

    Raises InputError naming file, member and limit for what is no archive, or an unsafe one.
    """
    limits = limits or Limits()
    with _refusing(path):
        with path.open("rb") as file:
            start = file.read(4)
        if start[:2] == _GZIP_MAGIC:
            found = _read_tar(path, wanted, limits)
        elif start in _ZIP_MAGIC:
            found = _read_zip(path, wanted, limits)
        else:
            raise InputError("not an archive of Galaxy's: neither a tar.gz nor a zip")
        folders = sorted({folder for folder, name in found if name == mark})
        if not folders:
            raise InputError(f"not an export of Galaxy's: it has no member {mark}")
        if len(folders) > 1:
            raise InputError(f"several members {mark}: {', '.join(map(repr, folders[:3]))}")
        return {name: data for (folder, name), data in found.items() if folder == folders[0]}


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """What the libraries raise on damaged archives, as InputError with the file's name."""
    try:
        yield
    except InputError as exc:
        raise exc.at(file=str(path)) from exc
    except FileNotFoundError as exc:
        raise InputError("there is no such file", file=str(path)) from exc
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        OSError,
        ValueError,
        OverflowError,
        IndexError,
        RecursionError,
        NotImplementedError,
        RuntimeError,
    ) as exc:
        reason = f"truncated or damaged ({type(exc).__name__}: {exc})"
        raise InputError(reason, file=str(path)) from exc


class _Wanted:
    """Collects what was asked for, and refuses what is unsafe or too much."""

    def __init__(self, names: Collection[str], limits: Limits) -> None:
        self._names = frozenset(names)
        self._limits = limits
        self._seen: set[str] = set()
        self._json_bytes = 0
        self._members = 0
        self.found: dict[tuple[str, str], bytes] = {}

    def place(self, name: str) -> tuple[str, str] | None:
        """(folder, name) of a member to be read; None for one to be passed over."""
        self._members += 1
        if self._members > self._limits.members:
            raise InputError(f"more than {self._limits.members} members (limit)")
        name = name.removeprefix("./").rstrip("/")
        if name in ("", "."):
            return None
        parts = name.split("/")
        if len(name) > _NAME_CHARS:
            raise InputError(f"member {name[:80]!r}...: a name over {_NAME_CHARS} characters")
        if _UNSAFE_NAME.search(name) or any(part in ("", ".", "..") for part in parts):
            raise InputError(f"member {name!r}: its name leads out of the archive, or is unsafe")
        folder, base = name[: -len(parts[-1])], parts[-1]
        if base not in self._names or not _FOLDER.match(folder):
            return None
        if name in self._seen:
            raise InputError(f"member {name!r}: there twice")
        self._seen.add(name)
        return folder, base

    def take(self, place: tuple[str, str], stream: IO[bytes], size: int | None) -> None:
        """Read a member; `size` is what the archive says it has, None where it does not."""
        name = "".join(place)
        chunks: list[bytes] = []
        got = 0
        while chunk := stream.read(_CHUNK_BYTES):
            got += len(chunk)
            self._json_bytes += len(chunk)
            if self._json_bytes > self._limits.json_bytes:
                limit = self._limits.json_bytes
                raise InputError(f"member {name!r}: over {limit} bytes of JSON (limit)")
            chunks.append(chunk)
        if size is not None and got != size:
            raise InputError(f"member {name!r}: said to have {size} bytes, has {got}")
        self.found[place] = b"".join(chunks)


class _Unpacked(RawIOBase):
    """The unpacked bytes of a gzip file, counted."""

    def __init__(self, file: IO[bytes], limits: Limits) -> None:
        self._file = file
        self._gzip = gzip.GzipFile(fileobj=file, mode="rb")
        self._limits = limits
        self._count = 0
        # What may still be read before somebody says that a member begins.
        self.header_left: int | None = None
        self.member = "the first"

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` unpacked bytes. Raises InputError over a limit."""
        data = self._gzip.read(_CHUNK_BYTES if size < 0 else min(size, _CHUNK_BYTES))
        self._count += len(data)
        limits = self._limits
        where = f"after member {self.member}"
        if self._count > limits.unpacked_bytes:
            raise InputError(f"{where}: over {limits.unpacked_bytes} bytes unpacked (limit)")
        packed = max(self._file.tell(), 1)
        if self._count > max(limits.ratio_from_bytes, packed * limits.ratio):
            raise InputError(f"{where}: unpacks to over {limits.ratio} times its size (limit)")
        if self.header_left is not None:
            self.header_left -= len(data)
            if self.header_left < 0:
                raise InputError(f"{where}: a header over {limits.header_bytes} bytes (limit)")
        return data


def _read_tar(path: Path, names: Collection[str], limits: Limits) -> dict[tuple[str, str], bytes]:
    wanted = _Wanted(names, limits)
    with path.open("rb") as file:
        unpacked = _Unpacked(file, limits)
        unpacked.header_left = limits.header_bytes
        with tarfile.open(fileobj=unpacked, mode="r|", encoding="utf-8") as tar:
            while (member := tar.next()) is not None:
                # The list of members, which only grows, is not needed.
                tar.members = []  # type: ignore[attr-defined]
                unpacked.member = repr(member.name[:200])
                place = wanted.place(member.name)
                if not (member.isdir() or member.isreg()) or member.issparse():
                    kind = "link" if member.islnk() or member.issym() else "special file"
                    raise InputError(f"member {member.name!r}: a {kind}, not a plain file")
                unpacked.header_left = None
                stream = tar.extractfile(member) if member.isreg() else None
                if stream is not None:
                    if place is not None:
                        wanted.take(place, stream, member.size)
                    else:
                        _pass_over(stream, member)
                elif place is not None:
                    raise InputError(f"member {member.name!r}: a folder, not a file")
                unpacked.header_left = limits.header_bytes
        # Up to the checksum at the end.
        unpacked.header_left = None
        while unpacked.read(_CHUNK_BYTES):
            pass
    return wanted.found


def _pass_over(stream: IO[bytes], member: tarfile.TarInfo) -> None:
    got = 0
    while chunk := stream.read(_CHUNK_BYTES):
        got += len(chunk)
    if got != member.size:
        raise InputError(f"member {member.name!r}: said to have {member.size} bytes, has {got}")


class _Directory(RawIOBase):
    """A zip file of which the directory can't be read when it is too large."""

    def __init__(self, file: BufferedReader, limit_bytes: int) -> None:
        self._file = file
        self._limit_bytes = limit_bytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """Raises InputError when more is asked for at once than a directory may have."""
        if size > self._limit_bytes:
            raise InputError(f"its directory has over {self._limit_bytes} bytes (limit)")
        return self._file.read(size)


def _read_zip(path: Path, names: Collection[str], limits: Limits) -> dict[tuple[str, str], bytes]:
    wanted = _Wanted(names, limits)
    with (
        path.open("rb") as file,
        zipfile.ZipFile(_Directory(file, limits.directory_bytes)) as zipped,
    ):
        packed = max(path.stat().st_size, 1)
        unpacked = 0
        places: list[tuple[tuple[str, str], zipfile.ZipInfo]] = []
        for info in zipped.infolist():
            place = wanted.place(info.filename)
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "link" if stat.S_ISLNK(mode) else "special file"
                raise InputError(f"member {info.filename!r}: a {kind}, not a plain file")
            if info.flag_bits & _ENCRYPTED:
                raise InputError(f"member {info.filename!r}: encrypted")
            unpacked += info.file_size
            if unpacked > limits.unpacked_bytes:
                limit = limits.unpacked_bytes
                raise InputError(f"member {info.filename!r}: over {limit} bytes unpacked (limit)")
            if unpacked > max(limits.ratio_from_bytes, packed * limits.ratio):
                raise InputError(
                    f"member {info.filename!r}: unpacks to over {limits.ratio} times"
                    " its size (limit)"
                )
            if place is not None:
                if info.is_dir():
                    raise InputError(f"member {info.filename!r}: a folder, not a file")
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise InputError(f"member {info.filename!r}: packed in a way Galaxy's are not")
                places.append((place, info))
        for place, info in places:
            with zipped.open(info) as stream:
                wanted.take(place, stream, info.file_size)
    return wanted.found
