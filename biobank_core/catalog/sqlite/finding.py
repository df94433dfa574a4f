"""From the criteria of `find` to one SQL query that starts at the best index."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from biobank_core.catalog.criteria import wanted_values
from biobank_core.catalog.sqlite.schema import column_of
from biobank_core.catalog.sqlite.state import Links
from biobank_core.model.registry import bases, with_subkinds

BODY: Final = "CAST(o.body AS BLOB)"
COLUMNS: Final = f"o.vid, o.version, {BODY}"

_IN_COLUMN: Final = {
    "handle": "{o}.handle IN (SELECT value FROM json_each(?))",
    "label": "{o}.label IN (SELECT value FROM json_each(?))",
}
_IN_BODY: Final = "json_extract(o.body, ?) IN (SELECT value FROM json_each(?))"
_IN_BODY_OR_NONE: Final = (
    "(json_extract(o.body, ?) IS NULL"
    " OR json_extract(o.body, ?) IN (SELECT value FROM json_each(?)))"
)
_IN_REFERENCE: Final = (
    "{o}.id IN (SELECT r.source FROM json_each(?) j CROSS JOIN object t ON t.vid = j.value"
    " CROSS JOIN reference r ON r.target = t.id"
    " AND r.link IN (SELECT value FROM json_each(?)))"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Criterion:
    """One condition. `rank` says how good an index it has (0: the best, None: no index).

    `{o}` in `sql` is the start of a column's name: a plus in front of it (SQLite's way) keeps the
    planner from using that index.
    """

    sql: str
    parameters: tuple[Any, ...]
    rank: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Query:
    """A statement that gives COLUMNS, by VID."""

    sql: str
    parameters: tuple[Any, ...]


def queries(
    kind: str, where: Mapping[str, Any], links: Links, *, in_order: bool = True
) -> list[Query]:
    """Queries whose answers, merged by VID, are what `Catalog.find` gives.

    With `in_order` false they come as they lie in the file, which spares a sort.

    One query where an index picks the objects; else one for each concrete kind, so that each
    streams from the index over kinds and nothing is sorted. Raises InputError.
    """
    concrete = _concrete(kind)
    criteria = sorted(
        (_criterion(kind, concrete, name, value, links) for name, value in where.items()),
        key=lambda criterion: 99 if criterion.rank is None else criterion.rank,
    )
    deleted = int(kind == "Tombstone")
    if criteria and criteria[0].rank is not None:
        first, *others = criteria
        parts = [first.sql.format(o="o"), *(other.sql.format(o="+o") for other in others)]
        parts.append(f"+o.deleted = {deleted}")
        parameters = [value for criterion in criteria for value in criterion.parameters]
        if not deleted:
            parts.append("+o.kind IN (SELECT value FROM json_each(?))")
            parameters.append(json.dumps(sorted(concrete)))
        return [_query(parts, parameters, in_order=in_order)]
    filters = [criterion.sql.format(o="+o") for criterion in criteria]
    values = [value for criterion in criteria for value in criterion.parameters]
    if deleted:
        return [_query(["o.deleted = 1", *filters], values, in_order=in_order)]
    return [
        _query(["o.deleted = 0", "o.kind = ?", *filters], [name, *values], in_order=in_order)
        for name in sorted(concrete)
    ]


def queries_of_kinds(kinds: Iterable[str] | None) -> list[Query]:
    """Queries whose answers, merged by VID, are all objects of exactly these kinds."""
    if kinds is None:
        return [_query(["1"], [])]
    found: list[Query] = []
    for kind in sorted(set(kinds)):
        bases(kind)
        if kind == "Tombstone":
            found.append(_query(["o.deleted = 1"], []))
        else:
            found.append(_query(["o.deleted = 0", "o.kind = ?"], [kind]))
    return found


def _query(parts: list[str], parameters: Iterable[Any], *, in_order: bool = True) -> Query:
    condition = " AND ".join(parts)
    order = " ORDER BY o.vid" if in_order else ""
    return Query(
        f"SELECT {COLUMNS} FROM object o WHERE {condition}{order}",  # noqa: S608
        tuple(parameters),
    )


def _concrete(kind: str) -> frozenset[str]:
    concrete = with_subkinds(kind)
    return concrete if kind == "Tombstone" else concrete - {"Tombstone"}


def _criterion(
    kind: str, concrete: frozenset[str], name: str, value: object, links: Links
) -> Criterion:
    values = [
        # SQLite's JSON functions give 1 and 0.
        int(part) if isinstance(part, bool) else part
        for part in wanted_values(kind, name, value)
    ]
    wanted = json.dumps([part for part in values if part is not None], ensure_ascii=False)
    with_none = None in values
    if name == "vid":
        return Criterion("{o}.vid IN (SELECT value FROM json_each(?))", (wanted,), 0)
    if kind == "Tombstone" and name == "of":
        return Criterion("{o}.kind IN (SELECT value FROM json_each(?))", (wanted,), None)
    if not with_none:
        numbers = [
            links.numbers[one, name] for one in sorted(concrete) if (one, name) in links.numbers
        ]
        if numbers:
            # A study has very many objects, anything else fewer.
            rank = 4 if name == "study" else 3
            return Criterion(_IN_REFERENCE, (wanted, json.dumps(numbers)), rank)
        columns = {column_of(one, name) for one in concrete}
        column = columns.pop()
        if not columns and column is not None:
            return Criterion(
                _IN_COLUMN[column],
                (wanted,),
                1 if column == "handle" else 2,
            )
    path = "$" + "".join(f'."{part}"' for part in name.split("."))
    if with_none:
        return Criterion(_IN_BODY_OR_NONE, (path, path, wanted), None)
    return Criterion(_IN_BODY, (path, wanted), None)
