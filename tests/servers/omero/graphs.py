"""A client's objects as they came over the wire: which are new, which refer to which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import omero
import omero.rtypes

from tests.servers.omero.errors import validation
from tests.servers.omero.loading import Model
from tests.servers.omero.model import Entity, Field, Kind, entities

_NUL = "\x00"


def entity_of(sent: Model) -> Entity:
    """Return the class of one of omero-py's objects."""
    return entities()[type(sent).__name__.removesuffix("I")]


def column_values(entity: Entity, sent: Model, *, required: bool) -> dict[str, Any]:
    """Return an object's plain columns; with `required`, a null where none may be is an error."""
    values: dict[str, Any] = {}
    for item in entity.of_kind(Kind.VALUE):
        held = getattr(sent, f"_{item.name}")
        values[item.column] = None if held is None else checked(held.val)
        if required and item.required and held is None:
            raise validation(
                f"not-null property references a null or transient value: "
                f"{entity.java_name}.{item.name}"
            )
    for item in entity.of_kind(Kind.ONE):
        target = getattr(sent, f"_{item.name}")
        values[item.column] = None if target is None else target._id.val
        if required and item.required and target is None:
            raise validation(
                f"not-null property references a null or transient value: "
                f"{entity.java_name}.{item.name}"
            )
    for item in entity.of_kind(Kind.UNIT):
        quantity = getattr(sent, f"_{item.name}")
        values[item.column] = None if quantity is None else quantity._value
        values[f"{item.column}unit"] = None if quantity is None else quantity._unit.name
    return values


def map_pairs(sent: Model, item: Field) -> list[tuple[str, str] | None]:
    """Return an object's pairs by index; a hole is None. No list at all is an empty one."""
    held = getattr(sent, f"_{item.name}")
    return [
        None if pair is None else (checked(pair.name), checked(pair.value)) for pair in held or []
    ]


def external_info_of(sent: Model) -> int | None:
    """Return the id of the ExternalInfo that an object claims."""
    details = sent._details
    external = getattr(details, "_externalInfo", None) if details is not None else None
    return None if external is None else int(external._id.val)


def checked(value: Any) -> Any:
    """Return a value that a column can hold, or raise what OMERO raises for NUL."""
    if isinstance(value, str) and _NUL in value:
        raise validation(
            "could not insert; SQL [...]; nested exception is"
            " org.hibernate.exception.DataException: ERROR:"
            ' invalid byte sequence for encoding "UTF8": 0x00'
        )
    return value


class Graph:
    """All objects that hang on the roots, in an order in which they can be inserted."""

    def __init__(self, roots: list[Model]) -> None:
        self._order: list[Model] = []
        self._seen: set[int] = set()
        self._levels: dict[int, int] = {}
        self._references: dict[str, set[int]] = defaultdict(set)
        for root in roots:
            self._walk(root)

    def new(self) -> Iterator[Model]:
        """Yield the objects without an id, what they refer to before them."""
        return (item for item in self._order if item._id is None)

    def existing(self) -> Iterator[Model]:
        """Yield the loaded objects that have an id: they are merged."""
        return (
            item for item in self._order if item._id is not None and id(item) not in self._levels
        )

    def references(self) -> dict[str, set[int]]:
        """Return the ids, by hierarchy, of all rows that are referred to or merged."""
        return self._references

    def level(self, item: Model) -> int:
        """Return the length of the longest chain of new objects below this one."""
        return self._levels[id(item)]

    def adopt(self, item: Model, row_id: int) -> None:
        """Take a new object for the row that it turned out to be."""
        item._id = omero.rtypes.rlong(row_id)
        item._loaded = False
        self._order.remove(item)
        self._references[entity_of(item).root].add(row_id)

    def _walk(self, item: Model) -> None:
        if item is None or id(item) in self._seen:
            return
        self._seen.add(id(item))
        entity = entity_of(item)
        if item._id is not None:
            self._references[entity.root].add(item._id.val)
        if not item._loaded:
            return
        below = [getattr(item, f"_{each.name}") for each in entity.of_kind(Kind.ONE)]
        if item._details is not None:
            below.append(getattr(item._details, "_externalInfo", None))
        for other in below:
            self._walk(other)
        if item._id is None:
            levels = [self._levels.get(id(other), -1) for other in below if other is not None]
            self._levels[id(item)] = max(levels, default=-1) + 1
        self._order.append(item)
        for each in entity.of_kind(Kind.MANY):
            if getattr(item, f"_{each.name}Loaded"):
                for element in getattr(item, f"_{each.name}Seq") or []:
                    self._walk(element)
