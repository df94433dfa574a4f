"""What to fetch, read from a file: a table of `biobank select`, any table with VIDs, or a list."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import Final

from biobank_core.errors import InputError
from biobank_core.fetch.wanted import Request
from biobank_core.identifiers import addresses_in
from biobank_core.model.ids import is_vid

# The columns that are looked for, in this order: a selection's, then that of other tables.
_DATA_COLUMNS: Final = ("sources", "vid")
_NAME_COLUMN: Final = "label"
_ESCAPE: Final = re.compile(r"\\(?:([tnr\\])|x([0-9a-f]{2})|u([0-9a-f]{4}))")
_SHORT: Final = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}


def requests_in(data: bytes, *, name: str, column: str | None = None) -> list[Request]:
    """The requests of a file: TSV with a header, or addresses, one a line.

    A table's addresses are in `column`, else in `sources` or `vid`, several joined by `;`; its
    column `label` names the data, `label_2` and so on where a row has several. Raises InputError
    with file and line for what is no UTF-8, has no such column or has too few cells.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InputError("is not UTF-8 text", file=name) from exc
    lines = text.split("\n")
    header = lines[0].rstrip("\r").split("\t")
    chosen = column or next((known for known in _DATA_COLUMNS if known in header), None)
    if chosen is None and len(header) == 1:
        return [Request(address) for address in addresses_in(io.BytesIO(data), name=name)]
    if chosen is None or chosen not in header:
        wanted = f"{column!r}" if column else " or ".join(map(repr, _DATA_COLUMNS))
        raise InputError(f"has no column {wanted}", file=name, line=1)
    where = header.index(chosen)
    named = header.index(_NAME_COLUMN) if _NAME_COLUMN in header else None
    return list(_rows(lines[1:], where, named, file=name))


def _rows(lines: list[str], where: int, named: int | None, *, file: str) -> Iterator[Request]:
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        cells = line.rstrip("\r").split("\t")
        if len(cells) <= max(where, named or 0):
            raise InputError(f"has only {len(cells)} cells", file=file, line=number)
        text = plain_cell(cells[where]).strip()
        parts = text.split(";")
        # A label may hold a semicolon, too.
        addresses = parts if all(map(is_vid, parts)) else [text]
        label = plain_cell(cells[named]) if named is not None else ""
        yield from named_requests(label, [address for address in addresses if address])


def named_requests(label: str, addresses: Sequence[str]) -> Iterator[Request]:
    """Several pieces of data under one label: `label`, `label_2` and so on; empty: their own."""
    for place, address in enumerate(addresses, start=1):
        name = label if place == 1 else f"{label}_{place}"
        yield Request(address, (name,) if label else None)


def plain_cell(cell: str) -> str:
    r"""What a cell that `biobank` wrote says: without the leading `'`, `\\t` a tab again."""
    if cell[:1] == "'" and cell[1:2] in ("=", "+", "-", "@", "\\"):
        cell = cell[1:]
    return _ESCAPE.sub(_char, cell)


def _char(found: re.Match[str]) -> str:
    short, byte, unit = found.groups()
    return _SHORT[short] if short else chr(int(byte or unit, 16))
