"""Finding objects by their fields, and streams that show one moment while others write.

A stream first asks which annotations there are and of what version: one query, hence one moment.
Their content follows in pages; of an object that was saved meanwhile the former version is read.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from biobank_core.catalog.criteria import wanted_values
from biobank_core.catalog.omero import mapping
from biobank_core.catalog.omero.feed import former
from biobank_core.catalog.omero.names import (
    MAX_PAIR_BYTES,
    OBJECT,
    PAGE,
    TOMBSTONE,
    parse_description,
    version_name,
)
from biobank_core.catalog.omero.rows import Full, Scope, newest, steadily
from biobank_core.catalog.omero.session import pages
from biobank_core.catalog.port import Versioned
from biobank_core.errors import StorageError
from biobank_core.model.registry import bases, with_subkinds

_LIST: Final = "select a.id, a.name, a.description from MapAnnotation a"


class Criterion(NamedTuple):
    """A field of `find` and the values, as in JSON, that it may have."""

    field: str
    values: tuple[Any, ...]

    def fits(self, raw: Mapping[str, Any]) -> bool:
        """Whether an object, as in JSON, has one of the values."""
        value: Any = raw
        for part in self.field.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value in self.values

    @property
    def texts(self) -> list[str] | None:
        """The values as they stand in pairs, where OMERO can look them up; else None."""
        if not self.values or not all(
            isinstance(value, str) and len(value.encode()) <= MAX_PAIR_BYTES
            for value in self.values
        ):
            return None
        return list(dict.fromkeys(self.values))


def find(scope: Scope, kind: str, where: Mapping[str, Any]) -> Iterator[Versioned]:
    """Objects of a kind whose fields have the given values, by VID. Raises InputError at once."""
    concrete = with_subkinds(kind)
    deleted = kind == "Tombstone"
    if not deleted:
        concrete -= {"Tombstone"}
    criteria = [_criterion(kind, name, value) for name, value in where.items()]
    return _found(scope, sorted(concrete), criteria, deleted=deleted)


def iterate(scope: Scope, kinds: Iterable[str] | None) -> Iterator[Versioned]:
    """All objects by VID, or those of exactly these kinds."""
    if kinds is None:
        conditions = [("(a.ns like :ours or a.ns like :gone)", _all_of_them())]
        return _streamed(scope, conditions, [])
    wanted = sorted(set(kinds))
    for kind in wanted:
        bases(kind)
    spaces = [f"{OBJECT}{kind}" for kind in wanted if kind != "Tombstone"]
    conditions = []
    if spaces:
        conditions.append(("a.ns in (:spaces)", {"spaces": spaces}))
    if "Tombstone" in wanted:
        conditions.append(("a.ns like :gone", {"gone": f"{TOMBSTONE}%"}))
    return _streamed(scope, conditions, [])


def count(scope: Scope) -> dict[str, int]:
    """How many objects there are of each kind, tombstones among them."""
    condition = scope.where("(a.ns like :ours or a.ns like :gone)")
    rows = scope.session.projection(
        f"select a.ns, count(distinct a.name) from MapAnnotation a{condition} group by a.ns",  # noqa: S608
        scope.parameters(_all_of_them()),
        group=scope.context,
    )
    counts: dict[str, int] = {}
    for ns, number in rows:
        kind = "Tombstone" if ns.startswith(TOMBSTONE) else ns[len(OBJECT) :]
        counts[kind] = counts.get(kind, 0) + number
    if len(scope.groups) > 1 and "Tombstone" in counts:
        counts["Tombstone"] -= _left_behind(scope)
    return dict(sorted((kind, number) for kind, number in counts.items() if number))


def _left_behind(scope: Scope) -> int:
    """How many tombstones stand where an object was that lives in another group now."""
    [[number]] = scope.rows(
        "select count(distinct a.name) from MapAnnotation a",
        "a.ns like :gone and exists (select b.id from MapAnnotation b"
        " where b.name = a.name and b.ns like :ours)",
        **_all_of_them(),
    )
    return int(number)


def _all_of_them() -> dict[str, Any]:
    return {"ours": f"{OBJECT}%", "gone": f"{TOMBSTONE}%"}


def _found(
    scope: Scope, kinds: list[str], criteria: list[Criterion], *, deleted: bool
) -> Iterator[Versioned]:
    if any(not criterion.values for criterion in criteria):
        return iter(())
    if deleted:
        condition = "a.ns like :gone"
        given: dict[str, Any] = {"gone": f"{TOMBSTONE}%"}
    else:
        condition = "a.ns in (:spaces)"
        given = {"spaces": [f"{OBJECT}{kind}" for kind in kinds]}
    conditions = []
    for more, parameters in _narrowed(criteria):
        conditions.append((f"{condition} and {more}", {**given, **parameters}))
    return _streamed(scope, conditions or [(condition, given)], criteria)


def _narrowed(criteria: list[Criterion]) -> list[tuple[str, dict[str, Any]]]:
    """Conditions for the criterion that leaves the fewest, in parts of its values."""
    able = [criterion for criterion in criteria if criterion.texts is not None]
    if not able:
        return []
    # A study has very many objects, anything else fewer; a VID is one.
    best = min(able, key=lambda c: (c.field != "vid", c.field == "study", c.field == "status"))
    texts = best.texts or []
    if best.field == "vid":
        return [("a.name in (:values)", {"values": list(page)}) for page in pages(texts, PAGE)]
    return [
        (
            "exists (select b.id from MapAnnotation b join b.mapValue mv"
            " where b.id = a.id and mv.name = :field and mv.value in (:values))",
            {"field": best.field, "values": list(page)},
        )
        for page in pages(texts, PAGE)
    ]


def _streamed(
    scope: Scope, conditions: Iterable[tuple[str, dict[str, Any]]], criteria: list[Criterion]
) -> Iterator[Versioned]:
    scope.session.refuse_closed()
    return _stream(scope, list(conditions), criteria)


def _stream(
    scope: Scope, conditions: list[tuple[str, dict[str, Any]]], criteria: list[Criterion]
) -> Iterator[Versioned]:
    listed: dict[str, tuple[int, int]] = {}
    for condition, given in conditions:
        for number, name, description in scope.rows(_LIST, condition, **given):
            known = parse_description(description)
            if known is None:
                raise StorageError(
                    f"{name}: the description of annotation {number} was changed in OMERO; "
                    "`biobank verify --repair` mends it"
                )
            if name not in listed or listed[name][1] < known[0]:
                listed[name] = (number, known[0])
    for page in pages(sorted(listed), PAGE):
        yield from _page(scope, {vid: listed[vid] for vid in page}, criteria)


def _page(
    scope: Scope, listed: Mapping[str, tuple[int, int]], criteria: list[Criterion]
) -> Iterator[Versioned]:
    fulls, objects = steadily(
        functools.partial(_as_listed, scope, listed), lambda fulls: (fulls, scope.objects(fulls))
    )
    if len(scope.groups) > 1:
        stones = [one.name for one in fulls if one.ns.startswith(TOMBSTONE)]
        for vid, known_now in newest(scope.found_everywhere(stones)).items():
            if not known_now.state.deleted:  # it lives in another group now
                objects.pop(vid, None)
    for vid in sorted(objects):
        found = objects[vid]
        if all(criterion.fits(_raw(found)) for criterion in criteria):
            yield found


def _as_listed(scope: Scope, listed: Mapping[str, tuple[int, int]]) -> list[Full]:
    """The annotations of these VIDs in these versions, whatever was saved since."""
    by_id = scope.full_by_id([number for number, _ in listed.values()])
    fulls: list[Full] = []
    saved_meanwhile: list[str] = []
    for vid, (number, version) in listed.items():
        one = by_id.get(number)
        known = parse_description(one.description) if one is not None else None
        if one is not None and known is not None and known[0] == version:
            fulls.append(one)
        else:
            saved_meanwhile.append(version_name(vid, version))
    for name, one in former(scope, saved_meanwhile).items() if saved_meanwhile else ():
        vid = name.partition("/")[0]
        # An emptied one was deleted meanwhile: it is not there any more.
        if not any(pair[0] == mapping.DELETED for pair in one.pairs):
            fulls.append(one._replace(name=vid))
    return fulls


def _raw(found: Versioned) -> dict[str, Any]:
    raw: dict[str, Any] = msgspec.to_builtins(found.object)
    return raw


def _criterion(kind: str, name: str, value: object) -> Criterion:
    return Criterion(name, wanted_values(kind, name, value))
