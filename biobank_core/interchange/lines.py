"""Lines of a file that can be read twice, and what is wrong with a line before its meaning."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, NamedTuple, Self

from biobank_core.errors import InputError, StorageError

# An action with 100,000 inputs is about 8 MB; longer lines come from mistakes or attacks.
MAX_LINE_BYTES: Final = 16 * 1024 * 1024

_UTF8_MARK: Final = b"\xef\xbb\xbf"
_NOT_TEXT: Final = {
    b"\x1f\x8b": "is compressed with gzip; unpack it first",
    b"\xff\xfe": "is UTF-16; save it as UTF-8",
    b"\xfe\xff": "is UTF-16; save it as UTF-8",
    b"PK": "is a ZIP archive; unpack it first",
    b"SQLite": "is an SQLite file; name it with --catalog and use `biobank dump`",
}
# One string of a line without backslashes, and whether it is a name (a colon follows).
_STRING: Final = re.compile(rb'"([^"]*)"(\s*:)?')


class Line(NamedTuple):
    """A line that is not empty: its number from 1, where it starts, its text without line end."""

    number: int
    offset: int
    data: bytes


class LineFile:
    """A file of lines, opened for reading in order and then by offset; use as a context.

    A path or a binary stream; what can't be read twice (a pipe) is copied to a temporary file.
    Raises InputError for what can't be opened or is no text.
    """

    def __init__(self, source: str | os.PathLike[str] | IO[bytes]) -> None:
        self.name: Final = _name_of(source)
        self._ours: list[IO[bytes]] = []
        try:
            if isinstance(source, str | os.PathLike):
                stream: IO[bytes] = Path(source).open("rb")  # noqa: SIM115 (closed by `close`)
                self._ours.append(stream)
            else:
                stream = source
            if not _seekable(stream):
                stream = self._spooled(stream)
        except OSError as exc:
            self.close()
            raise InputError(f"can't be read: {exc.strerror or exc}", file=self.name) from exc
        except BaseException:
            self.close()
            raise
        self._stream = stream
        self._start = stream.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened here; a stream that was given stays open."""
        for stream in self._ours:
            with suppress(OSError):
                stream.close()

    def __iter__(self) -> Iterator[Line]:
        try:
            self._stream.seek(self._start)
            offset, number = self._start, 0
            while data := self._stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                size = len(data)
                if size > MAX_LINE_BYTES:
                    raise InputError(
                        f"the line is longer than {MAX_LINE_BYTES:,} bytes",
                        file=self.name,
                        line=number,
                    )
                start = offset
                if number == 1:
                    self._refuse_no_text(data)
                    if data.startswith(_UTF8_MARK):
                        start += len(_UTF8_MARK)
                        data = data[len(_UTF8_MARK) :]
                offset += size
                if text := data.strip(b" \t\r\n"):
                    yield Line(number, start, text)
        except OSError as exc:
            raise InputError(f"can't be read: {exc.strerror or exc}", file=self.name) from exc

    def at(self, offset: int) -> bytes:
        """The text of the line that starts here."""
        try:
            self._stream.seek(offset)
            return self._stream.readline(MAX_LINE_BYTES + 1).strip(b" \t\r\n")
        except OSError as exc:
            raise InputError(f"can't be read: {exc.strerror or exc}", file=self.name) from exc

    def _refuse_no_text(self, data: bytes) -> None:
        for mark, reason in _NOT_TEXT.items():
            if data.startswith(mark):
                raise InputError(reason, file=self.name)

    def _spooled(self, stream: IO[bytes]) -> IO[bytes]:
        copy = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        self._ours.append(copy)
        try:
            shutil.copyfileobj(stream, copy)
        except OSError as exc:
            raise StorageError(
                f"{self.name}: can't be copied to {tempfile.gettempdir()}: {exc.strerror or exc}"
            ) from exc
        copy.seek(0)
        return copy


def refuse_repeated_names(data: bytes) -> None:
    """Raises InputError when an object of this JSON text has one name twice.

    JSON programs differ in which of the two they take. The text must be valid JSON.
    """
    if b"\\" not in data:
        names = [text for text, colon in _STRING.findall(data) if colon]
        if len(names) == len(set(names)):
            return
    # The sure way is slow; it is needed where objects repeat inside lists, or names are escaped.
    try:
        json.loads(data, object_pairs_hook=_pairs, parse_int=str, parse_float=str)
    except RecursionError as exc:
        raise InputError("JSON is nested too deeply") from exc


def _pairs(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise InputError("this name stands twice in one JSON object", field=name)
        seen.add(name)


def _name_of(source: str | os.PathLike[str] | IO[bytes]) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "<stream>"


def _seekable(stream: IO[bytes]) -> bool:
    try:
        return stream.seekable()
    except (AttributeError, ValueError):
        return False
