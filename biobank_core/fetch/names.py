"""File names for what people and Galaxy call data: nothing leaves the folder, no two are one."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from pathlib import PurePosixPath
from typing import Final

# ext4, APFS and NTFS allow 255 bytes or characters; we put a dot and `.part` around a name.
MAX_NAME_BYTES: Final = 200

# Path separators, what Windows forbids, controls, and surrogates, which no UTF-8 name can hold.
_UNSAFE: Final = re.compile('[/\\\\<>:"|?*\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
_EXTENSION: Final = re.compile(r"[A-Za-z0-9_]{1,30}(\.[A-Za-z0-9_]{1,30}){0,3}\Z", re.ASCII)


class FileNames:
    """Gives each identifier path a file of its own below one folder, the same ones every time.

    `reserved`: names that are taken already. Names that differ only in case count as one, as they
    do on macOS and Windows.
    """

    def __init__(self, reserved: tuple[str, ...] = ()) -> None:
        self._folders: dict[tuple[PurePosixPath, str], PurePosixPath] = {}
        self._taken: dict[PurePosixPath, set[str]] = defaultdict(set)
        self._taken[PurePosixPath()].update(name.casefold() for name in reserved)

    def file(self, identifiers: tuple[str, ...], *, extension: str | None) -> PurePosixPath:
        """The relative path for the last identifier, in folders named by those before it."""
        folder = PurePosixPath()
        for identifier in identifiers[:-1]:
            if (folder, identifier) not in self._folders:
                name = self._free(folder, identifier, "")
                self._folders[folder, identifier] = folder / name
            folder = self._folders[folder, identifier]
        suffix = f".{extension}" if extension and is_extension(extension) else ""
        stem = identifiers[-1]
        if suffix and stem.casefold().endswith(suffix.casefold()):
            stem = stem[: -len(suffix)]
        return folder / self._free(folder, stem, suffix)

    def _free(self, folder: PurePosixPath, stem: str, suffix: str) -> str:
        taken = self._taken[folder]
        number = 1
        while True:
            more = "" if number == 1 else f" ({number})"
            name = safe_name(stem, suffix=f"{more}{suffix}")
            if name.casefold() not in taken:
                taken.add(name.casefold())
                return name
            number += 1


def safe_name(text: str, *, suffix: str = "") -> str:
    """One file name that every file system takes, at most MAX_NAME_BYTES; never hidden, never `..`.

    A name that a program could take for an option (`-rf`) gets another first character, too.
    """
    text = _UNSAFE.sub("_", unicodedata.normalize("NFC", text))
    text = text.strip()
    if text[:1] in (".", "-", "~"):
        text = f"_{text[1:]}"
    room = MAX_NAME_BYTES - len(suffix.encode())
    text = text.encode()[:room].decode(errors="ignore")
    if not suffix:
        text = text.rstrip(". ")  # Windows drops them, and then finds no such file
    return f"{text or '_'}{suffix}"


def is_extension(text: str) -> bool:
    """Whether it is spelled like a file's extension, without the dot: `fasta`, `vcf.gz`."""
    return _EXTENSION.match(text) is not None
