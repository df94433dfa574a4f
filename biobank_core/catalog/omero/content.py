"""Files kept in OMERO: the bytes of an OriginalFile behind a FileAnnotation that names its object.

OMERO shows no bare OriginalFile, and deletes one, bytes and all, with its last FileAnnotation. The
file's own checksum is SHA1-160, the strongest that OMERO has; the SHA-256 stands in the DataObject.
What was put and never named by a saved DataObject (a kill in between), or whose DataObject was
deleted, is left over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from omero.model import ChecksumAlgorithmI, FileAnnotationI, OriginalFileI
from omero.rtypes import rlong, rstring

from biobank_core.catalog.omero.names import CONTENT, PAGE
from biobank_core.catalog.omero.rows import Scope
from biobank_core.catalog.omero.session import LostRace, Session, UnknownFate, pages, quietly
from biobank_core.catalog.port import Stored
from biobank_core.errors import InputError, NotFoundError, StorageError, UnreachableError
from biobank_core.model.kinds import DataObject

T = TypeVar("T")

# One call; Ice takes 64 MB, and a chunk that is lost is sent again.
_CHUNK_BYTES: Final = 4 << 20
_HASHER: Final = "SHA1-160"
_DEFAULT_MIMETYPE: Final = "application/octet-stream"
_PATH: Final = "OriginalFile"
# OMERO's columns take 255 characters.
_MOST_CHARS: Final = 255
# Whoever puts a file has named it by then, however large it is.
LEFT_OVER_AFTER_MS: Final = 24 * 3600 * 1000


class Contents:
    """The files of one server. `uri` of a DataObject: `omero://<database uuid>/OriginalFile/<id>`.

    The server's own name may change; the UUID of its database does not.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._session: Session = scope.session
        self._server: str | None = None

    @property
    def _uuid(self) -> str:
        if self._server is None:
            self._server = str(
                self._session.call(lambda factory: factory.getConfigService().getDatabaseUuid())
            )
        return self._server

    def put(
        self,
        vid: str,
        *,
        beside: str,
        name: str,
        mimetype: str | None,
        chunks: Iterable[bytes],
        advance: Callable[[float], object],
    ) -> Stored:
        """See `port.ContentStore`."""
        group = self._group_of(beside)
        file_id = self._new_file(vid, name=name, mimetype=mimetype, group=group)
        try:
            stored = self._filled(file_id, group, chunks, advance)
        except BaseException:
            # Also after Ctrl-C: half a file is of no use to anybody.
            quietly(lambda: self._remove(vid, only=file_id))
            raise
        return stored

    def _filled(
        self,
        file_id: int,
        group: int,
        chunks: Iterable[bytes],
        advance: Callable[[float], object],
    ) -> Stored:
        store = _FileStore(self._session, file_id, group)
        sha1, sha256, size = hashlib.sha1(usedforsecurity=False), hashlib.sha256(), 0
        for chunk in _gathered(chunks):
            store.write(chunk, size)
            sha1.update(chunk)
            sha256.update(chunk)
            size += len(chunk)
            advance(len(chunk))
        store.save()
        store.close()
        [[kept_size, kept_hash]] = self._session.projection(
            "select f.size, f.hash from OriginalFile f where f.id = :id",
            {"id": file_id},
            group=group,
        )
        # Of an empty file, into which nothing was written, OMERO need not have noted a checksum.
        right = (sha1.hexdigest(),) if size else (sha1.hexdigest(), None)
        if kept_size != size or kept_hash not in right:
            raise StorageError(
                f"{self._session.address.server}: of {size} bytes with SHA-1 {sha1.hexdigest()} "
                f"it kept {kept_size} with {kept_hash}; the file was removed"
            )
        return Stored(f"omero://{self._uuid}/{_PATH}/{file_id}", size, sha256.hexdigest())

    def read(self, file: DataObject) -> Generator[bytes]:
        """See `port.ContentStore`."""
        file_id = self._id_in(file.uri)
        rows = self._scope.session.projection(
            "select f.size, f.details.group.id from OriginalFile f where f.id = :id",
            {"id": file_id},
            group=-1,
        )
        if not rows:
            raise NotFoundError(f"{file.uri}: OMERO has no such file, or not for this account")
        [[size, group]] = rows
        store = _FileStore(self._session, file_id, group)
        position = 0
        try:
            while position < size:
                # OMERO pads what is asked for beyond the end, and may give less than was asked.
                chunk = store.read(position, min(_CHUNK_BYTES, size - position))
                if not chunk:
                    raise UnreachableError(
                        f"{file.uri}: OMERO gives nothing after {position} bytes"
                    )
                yield chunk
                position += len(chunk)
        finally:
            store.close()

    def remove(self, stored: Stored, vid: str) -> None:
        """See `port.ContentStore`."""
        self._remove(vid, only=self._id_in(stored.uri))

    def remove_of(self, vids: Collection[str]) -> None:
        """Remove the files of these objects, which were deleted; what can't be, is left over."""
        for page in pages(sorted(vids), PAGE):
            for annotation, _, group, _ in self._rows("a.name in (:names)", names=list(page)):
                self._delete(annotation, group)

    def remove_left_over(self) -> None:
        """Remove files that no object names, a day after they were put."""
        rows = self._rows("a.name like 'V0%'")
        if not rows:
            return
        named: set[int] = set()
        for page in pages(sorted({row[3] for row in rows}), PAGE):
            for item in self._scope.get(page).values():
                if isinstance(item.object, DataObject) and self._is_ours(item.object.uri):
                    named.add(self._id_in(item.object.uri))
        times: dict[int, int] = {}
        for ids in pages([row[0] for row in rows], PAGE):
            found = self._scope.rows(
                "select a.id, a.details.creationEvent.time from FileAnnotation a",
                "a.id in (:ids)",
                ids=list(ids),
            )
            times.update((number, made) for number, made in found)
        now = self._session.call(lambda factory: factory.getConfigService().getServerTime().val)
        for annotation, file_id, group, _ in rows:
            if file_id not in named and now - times.get(annotation, now) > LEFT_OVER_AFTER_MS:
                self._delete(annotation, group)

    def _group_of(self, vid: str) -> int:
        found = self._scope.found([vid]).get(vid)
        if found is None:
            raise NotFoundError(f"{vid} is unknown or may not be read")
        return found.group

    def _new_file(self, vid: str, *, name: str, mimetype: str | None, group: int) -> int:
        file = OriginalFileI()
        file.name = rstring(name[:_MOST_CHARS])
        file.path = rstring(CONTENT)
        file.mimetype = rstring((mimetype or _DEFAULT_MIMETYPE)[:_MOST_CHARS])
        file.size = rlong(0)
        file.hasher = ChecksumAlgorithmI()
        file.hasher.value = rstring(_HASHER)
        annotation = FileAnnotationI()
        annotation.ns = rstring(CONTENT)
        annotation.name = rstring(vid)
        annotation.file = file
        annotation_id = self._saved(annotation, group)
        rows = self._session.projection(
            "select a.file.id from FileAnnotation a where a.id = :id",
            {"id": annotation_id},
            group=group,
        )
        return int(rows[0][0])

    def _saved(self, annotation: Any, group: int) -> int:
        place = self._session.address.server
        for last in (False, True):
            try:
                return self._session.save_for_ids([annotation], group=group)[0]
            except UnknownFate as exc:
                self._session.reopen()
                raise UnreachableError(f"{place} breaks off; what it saved is left over") from exc
            except LostRace as exc:
                # The namespace is new, and somebody else made it at the same moment.
                if last:
                    raise StorageError(f"{place}: {exc}") from exc
        raise AssertionError

    def _remove(self, vid: str, *, only: int) -> None:
        for annotation, file_id, group, _ in self._rows("a.name = :name", name=vid):
            if file_id == only:
                self._session.delete({"FileAnnotation": [annotation]}, group=group)

    def _delete(self, annotation: int, group: int) -> None:
        quietly(lambda: self._session.delete({"FileAnnotation": [annotation]}, group=group))

    def _rows(self, condition: str, **given: Any) -> list[list[Any]]:
        return self._scope.rows(
            "select a.id, a.file.id, a.details.group.id, a.name from FileAnnotation a",
            f"a.ns = :ns and {condition}",
            ns=CONTENT,
            **given,
        )

    def _is_ours(self, uri: str) -> bool:
        try:
            self._id_in(uri)
        except InputError:
            return False
        return True

    def _id_in(self, uri: str) -> int:
        parts = urlsplit(uri)
        path, _, number = parts.path.lstrip("/").partition("/")
        if path != _PATH or not (number.isascii() and number.isdigit()) or len(number) > 18:
            raise InputError("is no address of a file in OMERO", field="uri", value=uri)
        if parts.netloc != self._uuid:
            raise InputError(
                f"is kept by another OMERO server than {self._session.address.server}",
                field="uri",
                value=uri,
            )
        return int(number)


class _FileStore:
    """OMERO's access to the bytes of one file, had anew where the session was lost.

    All of its calls may be repeated: positions are absolute.
    """

    def __init__(self, session: Session, file_id: int, group: int) -> None:
        self._session = session
        self._file_id = file_id
        self._context = {"omero.group": str(group)}
        self._factory: Any = None
        self._proxy: Any = None
        self._last: tuple[bytes, int] | None = None

    def read(self, position: int, length: int) -> bytes:
        """At most so many bytes from there."""
        found = self._call(lambda proxy: proxy.read(position, length, self._context))
        return bytes(found)[:length]

    def write(self, content: bytes, position: int) -> None:
        self._call(lambda proxy: self._put(proxy, content, position))
        self._last = (content, position)

    def save(self) -> None:
        """Let OMERO note size and checksum."""
        self._call(lambda proxy: proxy.save(self._context))

    def close(self) -> None:
        """Let go of it; that of a lost session is gone by itself."""
        proxy, self._proxy = self._proxy, None
        if proxy is not None:
            quietly(lambda: proxy.close(self._context))

    def _put(self, proxy: Any, content: bytes, position: int) -> None:
        proxy.write(content, position, len(content), self._context)

    def _call(self, work: Callable[[Any], T]) -> T:
        def done(factory: Any) -> T:
            if self._proxy is None or factory != self._factory:
                self._proxy = factory.createRawFileStore()
                self._factory = factory
                self._proxy.setFileId(self._file_id, self._context)
                if self._last is not None:
                    # OMERO notes size and checksum only where the same access wrote something.
                    self._put(self._proxy, *self._last)
            return work(self._proxy)

        return self._session.call(done)


def _gathered(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in chunks that are worth a call each."""
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        while len(waiting) >= _CHUNK_BYTES:
            yield bytes(waiting[:_CHUNK_BYTES])
            del waiting[:_CHUNK_BYTES]
    if waiting:
        yield bytes(waiting)
