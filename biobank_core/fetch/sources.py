"""Where the content of a DataObject is read from, by the scheme of its URI."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from biobank_core.catalog.port import ContentStore
from biobank_core.errors import InputError, NotFoundError, NotPermittedError
from biobank_core.model.kinds import DataObject

CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """A stream of bytes, and the SHA-256 that the source itself tells of it (None: none)."""

    chunks: Iterator[bytes]
    sha256: str | None = None


class Source(ABC):
    """One way to read content."""

    @abstractmethod
    @contextmanager
    def open(self, file: DataObject) -> Iterator[Content]:
        """The content, for as long as the block lasts.

        Raises NotFoundError (it is not there), NotPermittedError, InputError (a URI that says
        nothing here), UnreachableError (also while it is read).
        """


class Sources:
    """The source of each URI scheme, made when it is first needed."""

    def __init__(self, makers: Mapping[str, Callable[[], Source]]) -> None:
        self._makers = makers
        self._made: dict[str, Source] = {}

    def of(self, file: DataObject) -> Source:
        """The source for this file. Raises InputError when its scheme has none."""
        scheme = scheme_of(file.uri)
        if scheme not in self._makers:
            known = ", ".join(f"{name}://" for name in sorted(self._makers))
            raise InputError(
                f"there is no way to read this address; known are {known}",
                field="uri",
                value=file.uri,
            )
        if scheme not in self._made:
            self._made[scheme] = self._makers[scheme]()
        return self._made[scheme]


class LocalFiles(Source):
    """`file:///...` on this machine. `below`: only what lies in this folder, links resolved.

    A service that reads for others (a Galaxy tool) names a folder: else whoever may write a URI
    could read every file of that service's account. An empty name allows no file at all.
    """

    def __init__(self, *, below: str | None = None) -> None:
        self._below = below

    @contextmanager
    def open(self, file: DataObject) -> Iterator[Content]:
        """See Source."""
        path = self._path(file.uri)
        try:
            with path.open("rb") as stream:
                yield Content(iter(lambda: stream.read(CHUNK_BYTES), b""))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as exc:
            raise NotFoundError(f"{file.uri}: there is no such file") from exc
        except PermissionError as exc:
            raise NotPermittedError(f"{file.uri}: this account may not read it") from exc

    def _path(self, uri: str) -> Path:
        parts = urlsplit(uri)
        path = Path(unquote(parts.path))
        wrong_host = parts.netloc not in ("", "localhost")
        if wrong_host or not path.is_absolute() or "\x00" in unquote(parts.path):
            raise InputError(
                "needs a path of this machine, as file:///folder/file", field="uri", value=uri
            )
        if self._below is None:
            return path
        real = path.resolve()
        if not self._below or not real.is_relative_to(Path(self._below).resolve()):
            raise NotPermittedError(
                f"{uri}: files there may not be read from here; the administrator names the one "
                "folder that may"
            )
        return real


class KeptFiles(Source):
    """What the catalog keeps itself, such as `omero://...`."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store

    @contextmanager
    def open(self, file: DataObject) -> Iterator[Content]:
        """See Source."""
        with closing(self._store.read(file)) as chunks:
            yield Content(chunks)


def scheme_of(uri: str) -> str:
    """The scheme of a URI, lower-case; empty where it has none."""
    try:
        return urlsplit(uri).scheme.lower()
    except ValueError:
        return ""
