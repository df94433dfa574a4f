"""Reads a table of tab-separated values as people make it: plain, UTF-8, a header line.

Plain means: a tab ends a cell, a line end ends a row, and nothing else has a meaning; quotes are
part of the text. A byte order mark and CRLF line ends are taken as they come, spaces around a cell
are dropped, an empty cell is "unknown", and a row of empty cells is no row.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from biobank_core.errors import InputError


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its line number in the file (the header is line 1) and its cells, empty ones out."""

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """A table that was read; `problems` are the rows that could not be (each with its line)."""

    file: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    problems: tuple[InputError, ...]


def read_table(path: str, *, mapping: Mapping[str, str] | None = None) -> Table:
    """The table in a file. Raises InputError for one that is damaged or has no usable header.

    `mapping` says which column holds a field, by its name in the header or its number, from 1;
    then the other columns are left out, and only the chosen ones need a name.
    """
    lines = _lines(path)
    header = tuple(cell.strip() for cell in lines[0].split("\t"))
    places = _places(header, mapping or {}, path)
    columns = tuple(places) or header
    for number, name in enumerate(columns, start=1):
        if not name:
            raise InputError(f"column {number} has no name", file=path, line=1)
        if columns.count(name) > 1:
            raise InputError("the header has this column twice", file=path, line=1, field=name)
    rows: list[Row] = []
    problems: list[InputError] = []
    for number, line in enumerate(lines[1:], start=2):
        cells = [cell.strip() for cell in line.split("\t")]
        if not any(cells):
            continue
        if len(cells) != len(header):
            reason = f"the row has {len(cells)} cells, the header has {len(header)}"
            problems.append(InputError(reason, file=path, line=number))
            continue
        chosen = [cells[place] for place in places.values()] if places else cells
        named = zip(columns, chosen, strict=True)
        rows.append(Row(number, {name: cell for name, cell in named if cell}))
    return Table(path, columns, tuple(rows), tuple(problems))


def _places(header: tuple[str, ...], mapping: Mapping[str, str], path: str) -> dict[str, int]:
    """field -> index of its column."""
    places: dict[str, int] = {}
    for field, column in mapping.items():
        if column in header:
            if header.count(column) > 1:
                raise InputError(
                    "the header has this column twice; give its number",
                    file=path,
                    line=1,
                    field=column,
                )
            places[field] = header.index(column)
        elif column.isascii() and column.isdigit() and 1 <= int(column) <= len(header):
            places[field] = int(column) - 1
        else:
            raise InputError(
                f"there is no such column for {field!r}: the header has {len(header)}, "
                f"{', '.join(header)}",
                file=path,
                line=1,
                value=column,
            )
    return places


def _lines(path: str) -> list[str]:
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        raise InputError(f"can't be read: {exc.strerror}", file=path) from exc
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError("is UTF-16; save it as UTF-8 text, separated by tabs", file=path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise InputError(
            "is not UTF-8 text; save it as UTF-8, separated by tabs",
            file=path,
            line=line,
            value=data[exc.start : exc.start + 1],
        ) from exc
    if (place := text.find("\x00")) >= 0:
        line = text.count("\n", 0, place) + 1
        raise InputError("holds a NUL character; it is no text file", file=path, line=line)
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if not lines[0].strip():
        raise InputError("needs a header line with the names of its columns", file=path, line=1)
    for number, content in enumerate(lines, start=1):
        if "\r" in content:
            raise InputError(
                "holds a carriage return inside a line; lines end with LF or CRLF",
                file=path,
                line=number,
            )
    return lines
