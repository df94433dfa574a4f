"""From a query's nodes to one SQL statement and a plan of what its columns are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from tests.servers.omero.hql.nodes import (
    Call,
    Case,
    Exists,
    Expression,
    In,
    Join,
    Literal,
    NewMap,
    Operation,
    Parameter,
    Path,
    Root,
    Select,
    Subquery,
)
from tests.servers.omero.hql.parser import HqlError, NotExecutable
from tests.servers.omero.model import Entity, Field, Kind, by_java_name, entities

Value: TypeAlias = str | int | float | bool | list[str] | list[int]
# More parameters than a statement of PostgreSQL's protocol can carry.
MOST_PARAMETERS = 32_000
_DETAILS = {
    "owner": ("owner_id", "Experimenter"),
    "group": ("group_id", "ExperimenterGroup"),
    "creationEvent": ("creation_id", "Event"),
    "updateEvent": ("update_id", "Event"),
    "externalInfo": ("external_id", "ExternalInfo"),
}
# Name in HQL -> the SQL function and the result's type ("" is that of the first argument).
_FUNCTIONS = {
    "lower": ("lower", "RString"),
    "upper": ("upper", "RString"),
    "trim": ("trim", "RString"),
    "length": ("length", "RInt"),
    "substring": ("substring", "RString"),
    "concat": ("concat", "RString"),
    "coalesce": ("coalesce", ""),
    "nullif": ("nullif", ""),
    "abs": ("abs", ""),
    "mod": ("mod", ""),
    "min": ("min", ""),
    "max": ("max", ""),
    "count": ("count", "RLong"),
    "avg": ("avg", "RDouble"),
    "sum": ("sum", "sum"),
}
_KNOWN_CALLS = {*_FUNCTIONS, "size", "type", "index", "cast", "str"}
_TESTS = {"=", "<>", "<", "<=", ">", ">=", "and", "or", "not", "like", "between", "is null"}
_CASTS = {"string": "RString", "long": "RLong", "integer": "RInt", "double": "RDouble"}
_SQL_CASTS = {"string": "text", "long": "bigint", "integer": "integer", "double": "float8"}


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


def translate(
    query: Select,
    parameters: Mapping[str, Value | None],
    readable: Readable,
) -> Plan:
    """Return the plan of a query; `readable` gives the condition that hides what may not be read.

    HqlError where Hibernate would refuse the query, ParameterError where a value is unusable.
    """
    return _Translation(parameters, readable).plan(query)


class _Scope:
    def __init__(self, outer: _Scope | None) -> None:
        self.outer = outer
        self.sources: dict[str, Source] = {}
        self.roots: list[str] = []
        self.tables: list[str] = []
        self.conditions: list[str] = []
        self.implicit: dict[str, str] = {}

    def find(self, alias: str) -> Source | None:
        scope: _Scope | None = self
        while scope is not None:
            if alias in scope.sources:
                return scope.sources[alias]
            scope = scope.outer
        return None


class _Translation:
    def __init__(self, parameters: Mapping[str, Value | None], readable: Readable) -> None:
        self._parameters = parameters
        self._readable = readable
        self._values: dict[str, Value] = {}
        self._names = (f"t{number}" for number in itertools.count())

    def plan(self, query: Select) -> Plan:
        scope = _Scope(None)
        fetches: list[tuple[str, Entity, str, Kind, Source]] = []
        self._sources(query, scope, fetches)
        columns: list[str] = []
        results: list[Result] = []
        items = query.items or [Path((alias,)) for alias in scope.roots]
        for position, item in enumerate(items):
            for name, value in item.items if isinstance(item, NewMap) else ((None, item),):
                typed = self._selected(value, scope)
                group = position if isinstance(item, NewMap) else -1
                results.append(Result(typed.type, typed.entity, name, group))
                columns.append(typed.sql)
        fetched = []
        for owner_sql, owner, name, kind, source in fetches:
            fetched.append(Fetched(len(columns), owner, name, kind, source.entity))
            columns.append(f"{owner_sql}.id")
            if kind is Kind.MAP:
                columns += [f"{source.sql}.{part}" for part in ("index", "name", "value")]
            else:
                columns.append(f"{source.sql}.id")
        order = [(self._expression(what, scope).sql, falling) for what, falling in query.order]
        if query.distinct and any(result.entity for result in results):
            columns += [what for what, _ in order]  # the entity's whole row is selected there
        tail = self._tail(query, scope)
        if order:
            tail += " order by " + ", ".join(
                f"{what} desc" if falling else what for what, falling in order
            )
        distinct = "distinct " if query.distinct else ""
        sql = f"select {distinct}{', '.join(columns)} from {' '.join(scope.tables)}{tail}"
        return Plan(sql, self._values, results, fetched, query.distinct)

    def _selected(self, value: Expression, scope: _Scope) -> Typed:
        if isinstance(value, Call) and value.name == "size":
            raise NotExecutable("could not execute query: size() in a select clause")
        if isinstance(value, Operation) and value.operator in _TESTS:
            raise HqlError(f"unexpected AST node: {value.operator}")
        if isinstance(value, Call) and value.name not in _KNOWN_CALLS:
            raise HqlError(f"No data type for node: {value.name}()")
        return self._expression(value, scope)

    def _tail(self, query: Select, scope: _Scope) -> str:
        where = self._expression(query.where, scope).sql if query.where is not None else ""
        group = [self._expression(what, scope).sql for what in query.group]
        having = self._expression(query.having, scope).sql if query.having is not None else ""
        conditions = [*scope.conditions, *([f"({where})"] if where else [])]
        tail = f" where {' and '.join(conditions)}" if conditions else ""
        tail += f" group by {', '.join(group)}" if group else ""
        return tail + (f" having {having}" if having else "")

    # Sources

    def _sources(
        self,
        query: Select,
        scope: _Scope,
        fetches: list[tuple[str, Entity, str, Kind, Source]],
    ) -> None:
        for item in query.sources:
            if isinstance(item, Root):
                self._root(item, scope)
            else:
                self._join(item, scope, fetches)

    def _root(self, root: Root, scope: _Scope) -> None:
        alias = root.alias or f"<{len(scope.roots)}>"
        if alias in scope.sources:
            raise HqlError(f"Duplicate definition of alias '{alias}'")
        comma = "cross join " if scope.tables else ""
        outer = scope.find(root.target[0])
        if outer is not None and len(root.target) > 1:
            owner, item = self._collection(root.target, scope)
            name = next(self._names)
            source = self._collection_source(name, owner, item)
            scope.tables.append(f"{comma}{self._collection_table(owner, item)} {name}")
            scope.conditions.append(self._collection_condition(name, owner, item))
        else:
            entity = entity_named(".".join(root.target))
            name = next(self._names)
            source = Source(name, entity)
            scope.tables.append(f'{comma}"{entity.table}" {name}')
            if entity.name != entity.root:
                listed = ", ".join(f"'{each}'" for each in entity.subclasses)
                scope.conditions.append(f"{name}.discriminator in ({listed})")
        self._hide(scope.conditions, source)
        scope.sources[alias] = source
        scope.roots.append(alias)

    def _hide(self, conditions: list[str], source: Source) -> None:
        condition = self._readable(source.sql, source.entity) if source.entity else ""
        if condition:
            conditions.append(condition)

    def _join(
        self,
        join: Join,
        scope: _Scope,
        fetches: list[tuple[str, Entity, str, Kind, Source]],
    ) -> None:
        if join.fetch and join.condition is not None:
            raise HqlError("with-clause not allowed on fetched associations; use filters")
        if join.alias and join.alias in scope.sources:
            raise HqlError(f"Duplicate definition of alias '{join.alias}'")
        *before, last = join.path
        if not before:
            raise HqlError(f"Path expected for join! {'.'.join(join.path)}")
        in_details = before[-1] == "details" and len(before) > 1
        owner = self._entity_source(tuple(before[:-1] if in_details else before), scope)
        assert owner.entity is not None
        name = next(self._names)
        conditions: list[str] = []
        if in_details:
            column, target = _details_field(last, owner.entity)
            source = Source(name, entities()[target])
            kind, field_name = Kind.ONE, f"details.{last}"
            table = f'"{entities()[target].table}"'
            conditions.append(f"{name}.id = {owner.sql}.{column}")
        else:
            item = field_of(owner.entity, last)
            kind, field_name = item.kind, item.name
            if kind is Kind.ONE:
                source = Source(name, entities()[item.type])
                table = f'"{entities()[item.type].table}"'
                conditions.append(f'{name}.id = {owner.sql}."{item.column}"')
            elif kind in (Kind.MANY, Kind.MAP):
                source = self._collection_source(name, owner, item)
                table = self._collection_table(owner, item)
                conditions.append(self._collection_condition(name, owner, item))
                self._hide(conditions, source)
            else:
                raise HqlError(f"association expected: {'.'.join(join.path)}")
        scope.sources[join.alias or f"<{name}>"] = source
        if join.condition is not None:
            conditions.append(self._expression(join.condition, scope).sql)
        word = "left join" if join.outer else "join"
        scope.tables.append(f"{word} {table} {name} on {' and '.join(conditions)}")
        if join.fetch:
            fetches.append((owner.sql, owner.entity, field_name, kind, source))

    def _entity_source(self, path: tuple[str, ...], scope: _Scope) -> Source:
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
                column, target = _details_field(path[position], source.entity)
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

    def _implicit(self, scope: _Scope, owner: Source, column: str, target: Entity) -> Source:
        key = f'{owner.sql}."{column}"'
        if key not in scope.implicit:
            name = scope.implicit[key] = next(self._names)
            scope.tables.append(f'join "{target.table}" {name} on {name}.id = {key}')
        return Source(scope.implicit[key], target)

    def _collection(self, path: tuple[str, ...], scope: _Scope) -> tuple[Source, Field]:
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

    # Expressions

    def _expression(self, node: Expression, scope: _Scope) -> Typed:
        if isinstance(node, Path):
            return self._path(node, scope)
        if isinstance(node, Parameter):
            value = self._parameter(node)
            if isinstance(value, list):
                raise ParameterError(f"the list :{node.name} stands where one value is due")
            return self._value(value)
        if isinstance(node, Literal):
            if node.value is None:
                return Typed("null", "RString")
            return self._value(node.value)
        if isinstance(node, Operation):
            return self._operation(node, scope)
        if isinstance(node, In):
            return self._in(node, scope)
        if isinstance(node, Case):
            return self._case(node, scope)
        if isinstance(node, Exists):
            return Typed(f"exists {self._expression(node.query, scope).sql}", "RBool")
        if isinstance(node, Subquery):
            return self._subquery(node.query, scope)
        if isinstance(node, Call):
            return self._call(node, scope)
        raise HqlError("new map() stands only in a select clause")

    def _subquery(self, query: Select, outer: _Scope) -> Typed:
        scope = _Scope(outer)
        if any(isinstance(item, Join) and item.fetch for item in query.sources):
            raise HqlError("fetch may not be used in a subquery")
        self._sources(query, scope, [])
        items = query.items or [Path((scope.roots[0],))]
        found = [self._expression(item, scope) for item in items]
        distinct = "distinct " if query.distinct else ""
        columns = ", ".join(item.sql for item in found)
        tail = self._tail(query, scope)
        sql = f"(select {distinct}{columns} from {' '.join(scope.tables)}{tail})"
        return Typed(sql, found[0].type, found[0].entity)

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

    def _path(self, node: Path, scope: _Scope) -> Typed:
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
            column, target = _details_field(last, owner.entity)
            return Typed(f"{owner.sql}.{column}", target, entities()[target])
        if last == "id" and (short := self._id_of(tuple(before), scope)):
            return short
        source = self._entity_source(tuple(before), scope)
        return self._property(source, last, ".".join(node.parts))

    def _id_of(self, path: tuple[str, ...], scope: _Scope) -> Typed | None:
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

    def _operation(self, node: Operation, scope: _Scope) -> Typed:
        sign = node.operator
        if sign == "is empty":
            return Typed(f"{self._size(node.operands[0], scope)} = 0", "RBool")
        if sign in ("=", "<>"):
            for left, right in (node.operands, node.operands[::-1]):
                name = self._class_name(right)
                if name and isinstance(left, Path | Call):
                    typed = self._expression(left, scope)
                    if typed.type == "class":
                        return Typed(f"({typed.sql} {sign} {name})", "RBool")
        parts = [self._expression(operand, scope) for operand in node.operands]
        sqls = [part.sql for part in parts]
        if sign == "negative":
            return Typed(f"(- {sqls[0]})", parts[0].type)
        if sign == "not":
            return Typed(f"(not {sqls[0]})", "RBool")
        if sign == "is null":
            return Typed(f"({sqls[0]} is null)", "RBool")
        if sign == "between":
            return Typed(f"({sqls[0]} between {sqls[1]} and {sqls[2]})", "RBool")
        if sign == "%":
            return Typed(f"mod({sqls[0]}, {sqls[1]})", parts[0].type)
        is_value = sign in ("+", "-", "*", "/", "||")
        return Typed(f"({sqls[0]} {sign} {sqls[1]})", parts[0].type if is_value else "RBool")

    def _in(self, node: In, scope: _Scope) -> Typed:
        operand = self._expression(node.operand, scope)
        word = "not in" if node.negated else "in"
        if len(node.choices) == 1:
            only = node.choices[0]
            if isinstance(only, Parameter):
                value = self._parameter(only)
                if isinstance(value, list):
                    name = f"v{len(self._values)}"
                    self._values[name] = value
                    test = f"{operand.sql} = any(%({name})s)"
                    return Typed(f"(not {test})" if node.negated else f"({test})", "RBool")
            if isinstance(only, Subquery):
                return Typed(f"({operand.sql} {word} {self._expression(only, scope).sql})", "RBool")
        if operand.type == "class":
            listed = [self._class_name(choice) or "" for choice in node.choices]
            if all(listed):
                return Typed(f"({operand.sql} {word} ({', '.join(listed)}))", "RBool")
        if not node.choices:
            raise ParameterError("unexpected end of subtree: an empty list")
        choices = ", ".join(self._expression(choice, scope).sql for choice in node.choices)
        return Typed(f"({operand.sql} {word} ({choices}))", "RBool")

    def _case(self, node: Case, scope: _Scope) -> Typed:
        sql, of_type = "case", ""
        for condition, value in node.branches:
            typed = self._expression(value, scope)
            of_type = of_type or typed.type
            sql += f" when {self._expression(condition, scope).sql} then {typed.sql}"
        if node.otherwise is not None:
            sql += f" else {self._expression(node.otherwise, scope).sql}"
        return Typed(f"({sql} end)", of_type)

    def _call(self, node: Call, scope: _Scope) -> Typed:
        if node.name == "size":
            return Typed(self._size(node.arguments[0], scope), "RInt")
        if node.name == "type":
            inside = self._expression(node.arguments[0], scope)
            return Typed(f"{inside.sql.removesuffix('.id')}.discriminator", "class")
        if node.name == "index":
            path = node.arguments[0]
            source = scope.find(path.parts[0]) if isinstance(path, Path) else None
            if source is None or source.entity is not None:
                raise HqlError("index() of what is not an element of a list")
            return Typed(f"{source.sql}.index", "RInt")
        if node.name == "cast" and len(node.arguments) == 2:
            target = node.arguments[1]
            name = target.parts[0] if isinstance(target, Path) else ""
            if name not in _CASTS:
                raise HqlError(f"Could not resolve requested type for CAST : {name}")
            inside = self._expression(node.arguments[0], scope)
            return Typed(f"cast({inside.sql} as {_SQL_CASTS[name]})", _CASTS[name])
        if node.name == "str":
            inside = self._expression(node.arguments[0], scope)
            return Typed(f"cast({inside.sql} as text)", "RString")
        if node.name not in _FUNCTIONS:
            raise NotExecutable(f"could not execute query: function {node.name}() does not exist")
        function, of_type = _FUNCTIONS[node.name]
        distinct = "distinct " if node.distinct else ""
        if node.arguments == (Path(("*",)),):
            return Typed(f"{function}(*)", of_type)
        parts = [self._expression(argument, scope) for argument in node.arguments]
        sql = f"{function}({distinct}{', '.join(part.sql for part in parts)})"
        if of_type == "sum":
            of_type = "RDouble" if parts[0].type == "RDouble" else "RLong"
            sql = f"{sql}::{'float8' if of_type == 'RDouble' else 'bigint'}"
        if function == "avg":
            sql = f"{sql}::float8"
        return Typed(sql, of_type or parts[0].type)

    def _size(self, node: Expression, scope: _Scope) -> str:
        if not isinstance(node, Path) or len(node.parts) < 2:
            raise HqlError("size() of what is not a collection")
        owner, item = self._collection(node.parts, scope)
        name = next(self._names)
        table = self._collection_table(owner, item)
        return (
            f"(select count(*) from {table} {name}"
            f" where {self._collection_condition(name, owner, item)})"
        )


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


def _details_field(name: str, entity: Entity) -> tuple[str, str]:
    if name not in _DETAILS or (entity.is_global and name != "externalInfo"):
        raise HqlError(f"could not resolve property: details.{name} of: {entity.java_name}")
    return _DETAILS[name]
