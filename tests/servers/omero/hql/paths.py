"""Paths like `a.details.owner.omeName` and parameters, as SQL."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from tests.servers.omero.hql.nodes import Expression, Parameter, Path
from tests.servers.omero.hql.parser import HqlError
from tests.servers.omero.hql.plan import (
    NullParameter,
    ParameterError,
    Readable,
    Scope,
    Source,
    Typed,
    Value,
    details_field,
    field_of,
)
from tests.servers.omero.model import Entity, Field, Kind, by_java_name, entities

# More parameters than a statement of PostgreSQL's protocol can carry.
MOST_PARAMETERS = 32_000


class Paths:
    """Resolves paths in a scope; joins in what a path passes through."""

    def __init__(self, parameters: Mapping[str, Value | None], readable: Readable) -> None:
        self._parameters = parameters
        self._readable = readable
        self._values: dict[str, Value] = {}
        self._names = (f"t{number}" for number in itertools.count())

    def _entity_source(self, path: tuple[str, ...], scope: Scope) -> Source:
        """Return the rows that a path leads to, joined in if they are not there yet."""
        source = scope.find(path[0])
        if source is None:
            for alias in scope.roots:
                root = scope.sources[alias]
                if root.entity is not None and path[0] in root.entity.fields:
                    return self._entity_source((alias, *path), scope)
            raise HqlError(f"'{path[0]}' is not an alias of the query: {'.'.join(path)}")
        position = 1
        while position < len(path):
            part = path[position]
            if source.entity is None:
                raise HqlError(f"illegal attempt to dereference {'.'.join(path)}")
            if part == "details" and position + 1 < len(path):
                position += 1
                column, target = details_field(path[position], source.entity)
                source = self._implicit(scope, source, column, entities()[target])
            else:
                item = field_of(source.entity, part)
                if item.kind in (Kind.MANY, Kind.MAP):
                    raise HqlError(f"illegal attempt to dereference collection [{'.'.join(path)}]")
                if item.kind is not Kind.ONE:
                    raise HqlError(f"could not resolve property: {'.'.join(path)}")
                source = self._implicit(scope, source, item.column, entities()[item.type])
            position += 1
        return source

    def _implicit(self, scope: Scope, owner: Source, column: str, target: Entity) -> Source:
        key = f'{owner.sql}."{column}"'
        if key not in scope.implicit:
            name = scope.implicit[key] = next(self._names)
            scope.tables.append(f'join "{target.table}" {name} on {name}.id = {key}')
        return Source(scope.implicit[key], target)

    def _collection(self, path: tuple[str, ...], scope: Scope) -> tuple[Source, Field]:
        owner = self._entity_source(path[:-1], scope)
        if owner.entity is None:
            raise HqlError(f"not a collection: {'.'.join(path)}")
        item = field_of(owner.entity, path[-1])
        if item.kind not in (Kind.MANY, Kind.MAP):
            raise HqlError(f"not a collection: {'.'.join(path)}")
        return owner, item

    @staticmethod
    def _collection_source(name: str, owner: Source, item: Field) -> Source:
        return Source(name, entities()[item.type] if item.kind is Kind.MANY else None)

    @staticmethod
    def _collection_table(owner: Source, item: Field) -> str:
        assert owner.entity is not None
        if item.kind is Kind.MAP:
            return f'"{owner.entity.table}_{item.column}"'
        return f'"{entities()[item.type].table}"'

    @staticmethod
    def _collection_condition(name: str, owner: Source, item: Field) -> str:
        assert owner.entity is not None
        back = f"{owner.entity.table}_id" if item.kind is Kind.MAP else item.inverse.lower()
        return f'{name}."{back}" = {owner.sql}.id'

    def _parameter(self, node: Parameter) -> Value:
        if node.name not in self._parameters:
            raise ParameterError(f"Null parameters not allowed: {node.name}")
        value = self._parameters[node.name]
        if value is None:
            raise NullParameter(node.name)
        if isinstance(value, list):
            if not value:
                raise ParameterError(f"the list :{node.name} is empty: unexpected end of subtree")
            if len(value) > MOST_PARAMETERS:
                raise OverflowError(
                    "Tried to send an out-of-range integer as a 2-byte value: "
                    f"{len(value)} values in :{node.name}"
                )
        return value

    def _value(self, value: Value) -> Typed:
        name = f"v{len(self._values)}"
        self._values[name] = value
        if isinstance(value, bool):
            return Typed(f"%({name})s", "RBool")
        if isinstance(value, int):
            return Typed(f"%({name})s", "RLong")
        if isinstance(value, float):
            return Typed(f"%({name})s", "RDouble")
        return Typed(f"%({name})s::text", "RString")

    def _path(self, node: Path, scope: Scope) -> Typed:
        *before, last = node.parts
        if node.index is not None:
            raise HqlError(f"an index on {'.'.join(node.parts)}: the stand-in has none")
        whole = scope.find(last) if not before else None
        if whole is not None:
            if whole.entity is None:
                raise HqlError(f"the pair {last} as a whole: the stand-in has only its parts")
            return Typed(f"{whole.sql}.id", whole.entity.name, whole.entity)
        if not before:
            for alias in scope.roots:
                entity = scope.sources[alias].entity
                if entity and (last in entity.fields or last in ("id", "class")):
                    return self._path(Path((alias, last)), scope)
            raise HqlError(f"could not resolve {last}")
        if before[-1] == "details" and len(before) > 1:
            owner = self._entity_source(tuple(before[:-1]), scope)
            assert owner.entity is not None
            column, target = details_field(last, owner.entity)
            return Typed(f"{owner.sql}.{column}", target, entities()[target])
        if last == "id" and (short := self._id_of(tuple(before), scope)):
            return short
        source = self._entity_source(tuple(before), scope)
        return self._property(source, last, ".".join(node.parts))

    def _id_of(self, path: tuple[str, ...], scope: Scope) -> Typed | None:
        """Return the foreign key behind `a.b.id`: Hibernate makes no join for it."""
        if len(path) < 2:
            return None
        inside = self._path(Path(path), scope)
        return Typed(inside.sql, "RLong") if inside.entity is not None else None

    def _property(self, source: Source, name: str, whole: str) -> Typed:
        if source.entity is None:
            if name not in ("name", "value"):
                raise HqlError(f"could not resolve property: {name} of a pair: {whole}")
            return Typed(f"{source.sql}.{name}", "RString")
        if name == "id":
            return Typed(f"{source.sql}.id", "RLong")
        if name == "class":
            return Typed(f"{source.sql}.discriminator", "class")
        item = field_of(source.entity, name)
        if item.kind is Kind.ONE:
            target = entities()[item.type]
            return Typed(f'{source.sql}."{item.column}"', target.name, target)
        if item.kind is Kind.VALUE:
            return Typed(f'{source.sql}."{item.column}"', item.type)
        if item.kind is Kind.UNIT:
            raise HqlError(f"quantities: the stand-in has none in queries: {whole}")
        raise HqlError(f"illegal use of the collection {whole}")

    def _class_name(self, node: Expression) -> str | None:
        if isinstance(node, Path):
            found = entities().get(node.parts[-1]) or by_java_name().get(".".join(node.parts))
            return f"'{found.name}'" if found is not None else None
        return None
