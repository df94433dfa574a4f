"""Comparing two tables cell by cell. Pure functions over text."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# A typing table has some hundred columns, a large one 10,000 rows; beyond this a person is not
# helped by a list of cells.
MAX_CELLS: Final = 5_000_000


@dataclass(frozen=True, slots=True)
class Table:
    """A header of different names, and rows of as many cells."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, name: str) -> tuple[str, ...]:
        """The cells under a name."""
        place = self.header.index(name)
        return tuple(row[place] for row in self.rows)


@dataclass(frozen=True, slots=True)
class CellChange:
    """A cell that differs: in the row that `row` (the key column's value) names."""

    row: str
    column: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class TableChange:
    """How a table became another. `key`: the column that rows are known by; None: no rows compared.

    `cells` are those of rows and columns that both have; `equal_cells` is how many of these are
    the same.
    """

    key: str | None
    cells: tuple[CellChange, ...]
    equal_cells: int
    columns_gone: tuple[str, ...]
    columns_new: tuple[str, ...]
    rows_gone: tuple[str, ...]
    rows_new: tuple[str, ...]
    reordered: bool

    @property
    def is_same(self) -> bool:
        """Whether the tables hold the same, but for the order of rows and columns."""
        return self.key is not None and not (
            self.cells or self.columns_gone or self.columns_new or self.rows_gone or self.rows_new
        )


def parse_table(text: str, *, delimiter: str = "\t") -> Table | None:
    """The table in a text with a header line; None where it is no table.

    Rows shorter than the header are filled with empty cells (trailing tabs get lost), longer ones
    make it no table. A name that is there twice gets a number. Quotes mean something in CSV only.
    """
    lines = _cells(text, delimiter)
    if not lines or len(lines[0]) < 2:
        return None
    header = _different(lines[0])
    width = len(header)
    rows = []
    for cells in lines[1:]:
        if len(cells) > width or (width - len(cells)) > width // 2:
            return None
        rows.append((*cells, *[""] * (width - len(cells))))
    if width * len(rows) > MAX_CELLS:
        return None
    return Table(tuple(header), tuple(rows))


def compare_tables(old: Table, new: Table) -> TableChange:
    """What changed from one table to the other, in the order of the old one."""
    in_new, in_old = set(new.header), set(old.header)
    shared = [name for name in old.header if name in in_new]
    columns_gone = tuple(name for name in old.header if name not in in_new)
    columns_new = tuple(name for name in new.header if name not in in_old)
    key = _key(old, new, shared)
    if key is None:
        return TableChange(None, (), 0, columns_gone, columns_new, (), (), False)
    # Two tables of one row are about the same thing, even if it has another name now.
    alone = len(old.rows) == 1 and len(new.rows) == 1
    names = old.column(key)
    by_key = dict(zip(names if alone else new.column(key), new.rows, strict=True))
    old_place = {name: place for place, name in enumerate(old.header)}
    new_place = {name: place for place, name in enumerate(new.header)}
    cells: list[CellChange] = []
    equal = 0
    for name, row in zip(names, old.rows, strict=True):
        other = by_key.get(name)
        if other is None:
            continue
        for column in shared:
            was, now = row[old_place[column]], other[new_place[column]]
            if was == now:
                equal += 1
            else:
                cells.append(CellChange(name, column, was, now))
    here = set(names)
    return TableChange(
        key=key,
        cells=tuple(cells),
        equal_cells=equal,
        columns_gone=columns_gone,
        columns_new=columns_new,
        rows_gone=tuple(name for name in names if name not in by_key),
        rows_new=tuple(name for name in by_key if name not in here),
        reordered=_order(old.header, in_new) != _order(new.header, in_old)
        or [name for name in names if name in by_key] != [name for name in by_key if name in here],
    )


def _cells(text: str, delimiter: str) -> list[list[str]]:
    if delimiter == ",":
        try:
            return [row for row in csv.reader(io.StringIO(text, newline="")) if row]
        except csv.Error:
            return []
    # Not splitlines(): that breaks at characters which are part of a cell.
    lines = text.replace("\r\n", "\n").split("\n")
    return [line.split(delimiter) for line in lines if line]


def _different(names: Sequence[str]) -> list[str]:
    """The names, each made its own: `a`, `a (2)`."""
    taken = set(names)
    seen: Counter[str] = Counter()
    made = []
    for name in names:
        seen[name] += 1
        unique = name
        while seen[name] > 1 and unique in taken:
            unique = f"{name} ({seen[name]})"
            if unique in taken:
                seen[name] += 1
        taken.add(unique)
        made.append(unique)
    return made


def _key(old: Table, new: Table, shared: Sequence[str]) -> str | None:
    """The first shared column that tells the rows of both apart and has a value in common."""
    if len(old.rows) == 1 and len(new.rows) == 1:
        return shared[0] if shared else None
    for name in shared:
        was, now = old.column(name), new.column(name)
        if len(set(was)) == len(was) and len(set(now)) == len(now):
            both_empty = not was and not now
            if both_empty or set(was) & set(now) - {""}:
                return name
    return None


def _order(names: Sequence[str], wanted: set[str]) -> list[str]:
    return [name for name in names if name in wanted]
