"""Brings files into a folder, verified, so that a second run fetches only what is not there."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import msgspec

from biobank_core.errors import BiobankError, ConflictError, NotFoundError
from biobank_core.fetch import manifest
from biobank_core.fetch.manifest import Entry, Verified
from biobank_core.fetch.names import FileNames
from biobank_core.fetch.sources import CHUNK_BYTES, Content, Sources
from biobank_core.fetch.wanted import Wanted
from biobank_core.model.kinds import DataObject

_NAMES_OF_OURS: Final = (manifest.MANIFEST_NAME,)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What is now in the folder. `new` is false for a file that was there, and right, already."""

    entry: Entry
    new: bool


@dataclass(slots=True)
class Outcome:
    """The files that are there now, in the order asked for, and by VID why others are not."""

    files: list[Fetched] = field(default_factory=list)
    failed: dict[str, BiobankError] = field(default_factory=dict)


def fetch(
    wanted: Sequence[Wanted],
    *,
    sources: Sources,
    folder: Path,
    manifest_file: Path,
    elements: Mapping[Wanted, str] | None = None,
    advance: Callable[[float], object] = lambda _bytes: None,
) -> Outcome:
    """Fetch all of it below `folder`; `advance` is told of bytes.

    A file that is there with the SHA-256 that the catalog knows is not fetched again. What is
    fetched and is not what the catalog says is removed again. The manifest grows with each file,
    and names in the end what is there. What fails for one file does not stop the others, unless
    the server is gone (UnreachableError).
    """
    folder.mkdir(parents=True, exist_ok=True)
    former = _standing(manifest_file)
    names = FileNames(_NAMES_OF_OURS)
    outcome = Outcome()
    for item in wanted:
        path = names.file(item.identifiers, extension=item.extension).as_posix()
        try:
            done = _one(
                item, path, former.get(path), sources=sources, folder=folder, advance=advance
            )
        except BiobankError as exc:
            if exc.retryable:
                raise
            outcome.failed.setdefault(item.vid, exc)
            continue
        if elements is not None:
            entry = msgspec.structs.replace(done.entry, element=elements[item])
            done = Fetched(entry, done.new)
        outcome.files.append(done)
        with _part(manifest_file, wait=True):
            manifest.append(manifest_file, done.entry)
    _settle(manifest_file, folder, outcome)
    return outcome


def _one(
    item: Wanted,
    path: str,
    former: Entry | None,
    *,
    sources: Sources,
    folder: Path,
    advance: Callable[[float], object],
) -> Fetched:
    if not item.files:
        raise NotFoundError(f"{item.vid}: the catalog knows no file of it")
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() or target.is_symlink():
        entry = _right_already(item, target, path, former)
        if entry is not None:
            advance(entry.size_bytes)
            return Fetched(entry, new=False)
    error: BiobankError | None = None
    for file in item.files:
        try:
            sha256, size, verified = _copy(file, sources, target, advance)
        except BiobankError as exc:
            # Another replica may be whole; the first reason is the one to tell.
            error = error or exc
            continue
        entry = Entry(
            vid=item.vid,
            object=file.vid,
            identifiers=item.identifiers,
            path=path,
            sha256=sha256,
            size_bytes=size,
            extension=item.extension,
            verified=verified,
        )
        return Fetched(entry, new=True)
    assert error is not None
    raise error


def _right_already(item: Wanted, target: Path, path: str, former: Entry | None) -> Entry | None:
    """The entry of a file that need not be fetched; None when it may be replaced.

    Raises ConflictError for a file that this folder's manifest does not name: it is not ours.
    """
    ours = former is not None and former.vid == item.vid
    if target.is_file() and not target.is_symlink():
        sha256, size = _sums(target)
        for file in item.files:
            if file.sha256 == sha256:
                return Entry(
                    vid=item.vid,
                    object=file.vid,
                    identifiers=item.identifiers,
                    path=path,
                    sha256=sha256,
                    size_bytes=size,
                    extension=item.extension,
                    verified="sha256",
                )
        if ours and former is not None and former.verified == "sha256" and former.sha256 == sha256:
            return msgspec.structs.replace(former, identifiers=item.identifiers)
    if not ours:
        raise ConflictError(
            f"{target} stands already and is not {item.vid}; fetch into another folder, or move it"
        )
    return None


def _copy(
    file: DataObject, sources: Sources, target: Path, advance: Callable[[float], object]
) -> tuple[str, int, Verified]:
    """Bring one replica into place, whole and right or not at all."""
    with _part(target) as (path, part), sources.of(file).open(file) as content:
        sha256, size = _received(content, part, advance)
        verified = verified_as(file, content, sha256=sha256, size=size)
        part.flush()
        path.replace(target)
    return sha256, size, verified


def _received(
    content: Content, part: IO[bytes], advance: Callable[[float], object]
) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    for chunk in content.chunks:
        part.write(chunk)
        digest.update(chunk)
        size += len(chunk)
        advance(len(chunk))
    return digest.hexdigest(), size


def verified_as(file: DataObject, content: Content, *, sha256: str, size: int) -> Verified:
    """How sure we are of what came.

    Raises ConflictError for content that is not what was recorded.
    """
    if file.size_bytes is not None and file.size_bytes != size:
        raise ConflictError(
            f"{file.uri}: {size} bytes came, and the catalog says {file.size_bytes}; what came "
            "was removed"
        )
    for known, who in ((file.sha256, "the catalog"), (content.sha256, "its server")):
        if known is not None and known != sha256:
            raise ConflictError(
                f"{file.uri}: what came has SHA-256 {sha256}, and {who} says {known}; it was "
                "removed"
            )
    if file.sha256 or content.sha256:
        return "sha256"
    return "size" if file.size_bytes is not None else "no"


@contextmanager
def _part(target: Path, *, wait: bool = False) -> Iterator[tuple[Path, IO[bytes]]]:
    """The file that becomes `target`; locked, so that two programs never write one file.

    With `wait` another program that has it is waited for.
    """
    path = target.with_name(f".{target.name}.part")
    try:
        part = _locked(path, wait=wait)
    except BlockingIOError as exc:
        raise ConflictError(f"{target} is being fetched by another program just now") from exc
    with part:
        part.truncate(0)
        try:
            yield path, part
        finally:
            # In its place already, it has another name; what is called so now is another's.
            if _is_called(part, path):
                path.unlink()


def _locked(path: Path, *, wait: bool) -> IO[bytes]:
    """The file that is called so once it is locked: who had it before us may have renamed it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        part = os.fdopen(os.open(path, flags, 0o666), "r+b")
        try:
            fcntl.flock(part, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_called(part, path):
                return part
        except BaseException:
            part.close()
            raise
        part.close()


def _is_called(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _sums(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def _standing(path: Path) -> dict[str, Entry]:
    """What the manifest names, by path."""
    with _part(path, wait=True):
        return {entry.path: entry for entry in manifest.standing(path)}


def _settle(path: Path, folder: Path, outcome: Outcome) -> None:
    """The manifest names what was fetched now, then what other runs left in the folder."""
    now = {done.entry.path: done.entry for done in outcome.files}
    with _part(path, wait=True) as (part, stream):
        others = {entry.path: entry for entry in manifest.standing(path)}
        kept = [
            entry
            for entry in others.values()
            if entry.path not in now and (folder / entry.path).is_file()
        ]
        stream.write(manifest.text([*now.values(), *kept]))
        stream.flush()
        part.replace(path)
