"""What a translated query is, and the names of the model that it stands on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from tests.servers.omero.hql.parser import HqlError
from tests.servers.omero.model import Entity, Field, Kind, by_java_name, entities

Value: TypeAlias = str | int | float | bool | list[str] | list[int]
_DETAILS = {
    "owner": ("owner_id", "Experimenter"),
    "group": ("group_id", "ExperimenterGroup"),
    "creationEvent": ("creation_id", "Event"),
    "updateEvent": ("update_id", "Event"),
    "externalInfo": ("external_id", "ExternalInfo"),
}


class ParameterError(Exception):
    """A value of the query can't be used: it is empty, null or too long."""


class NullParameter(Exception):
    """A value of the query is null: that OMERO does not even translate into an error of its own."""


@dataclass(frozen=True)
class Typed:
    """A piece of SQL; `type` is an RType's name, an entity's, or "" where only SQL knows."""

    sql: str
    type: str
    entity: Entity | None = None


@dataclass(frozen=True)
class Source:
    """What an alias stands for: an entity's rows, or the pairs of a map."""

    sql: str
    entity: Entity | None


@dataclass(frozen=True)
class Fetched:
    """A joined thing to put into its owner; the columns begin at `at` with the owner's id."""

    at: int
    owner: Entity
    field: str  # "details.owner" for what lies in the details
    kind: Kind
    target: Entity | None


@dataclass
class Plan:
    """A statement, its values, and what its first columns are; the rest are for `fetched`."""

    sql: str
    values: dict[str, Value]
    results: list[Result]
    fetched: list[Fetched] = field(default_factory=list)
    distinct: bool = False

    @property
    def has_collections(self) -> bool:
        return any(item.kind in (Kind.MANY, Kind.MAP) for item in self.fetched)


@dataclass(frozen=True)
class Result:
    """One column of the answer; `name` where it stands in a map, `group` tells which map."""

    type: str
    entity: Entity | None
    name: str | None = None
    group: int = -1


Readable: TypeAlias = Callable[[str, Entity], str]


class Scope:
    """The aliases of one select, and what has to stand in its FROM and WHERE."""

    def __init__(self, outer: Scope | None) -> None:
        self.outer = outer
        self.sources: dict[str, Source] = {}
        self.roots: list[str] = []
        self.tables: list[str] = []
        self.conditions: list[str] = []
        self.implicit: dict[str, str] = {}

    def find(self, alias: str) -> Source | None:
        """Return what an alias stands for, here or in a query around this one."""
        scope: Scope | None = self
        while scope is not None:
            if alias in scope.sources:
                return scope.sources[alias]
            scope = scope.outer
        return None


def entity_named(name: str) -> Entity:
    """Return a class of the model by its short or its Java name, or raise HqlError."""
    found = entities().get(name) or by_java_name().get(name)
    if found is None:
        raise HqlError(f"{name} is not mapped")
    return found


def field_of(entity: Entity, name: str) -> Field:
    """Return a class's field, or one that only its subclasses have, as Hibernate does."""
    candidates: Iterator[Entity] = iter((entity, *(entities()[sub] for sub in entity.subclasses)))
    for candidate in candidates:
        if name in candidate.fields:
            return candidate.fields[name]
    raise HqlError(f"could not resolve property: {name} of: {entity.java_name}")


def details_field(name: str, entity: Entity) -> tuple[str, str]:
    if name not in _DETAILS or (entity.is_global and name != "externalInfo"):
        raise HqlError(f"could not resolve property: details.{name} of: {entity.java_name}")
    return _DETAILS[name]
