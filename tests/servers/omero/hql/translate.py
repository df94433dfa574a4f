"""From a query's nodes to one SQL statement and a plan of what its columns are."""

from __future__ import annotations

from collections.abc import Mapping

from tests.servers.omero.hql.expressions import KNOWN_CALLS, Expressions
from tests.servers.omero.hql.nodes import (
    Call,
    Expression,
    Join,
    NewMap,
    Operation,
    Path,
    Root,
    Select,
)
from tests.servers.omero.hql.parser import HqlError, NotExecutable
from tests.servers.omero.hql.plan import (
    Fetched,
    Plan,
    Readable,
    Result,
    Scope,
    Source,
    Typed,
    Value,
    details_field,
    entity_named,
    field_of,
)
from tests.servers.omero.model import Entity, Kind, entities

_TESTS = {"=", "<>", "<", "<=", ">", ">=", "and", "or", "not", "like", "between", "is null"}


def translate(
    query: Select,
    parameters: Mapping[str, Value | None],
    readable: Readable,
) -> Plan:
    """Return the plan of a query; `readable` gives the condition that hides what may not be read.

    HqlError where Hibernate would refuse the query, ParameterError where a value is unusable.
    """
    return _Translation(parameters, readable).plan(query)


class _Translation(Expressions):
    def plan(self, query: Select) -> Plan:
        scope = Scope(None)
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

    def _selected(self, value: Expression, scope: Scope) -> Typed:
        if isinstance(value, Call) and value.name == "size":
            raise NotExecutable("could not execute query: size() in a select clause")
        if isinstance(value, Operation) and value.operator in _TESTS:
            raise HqlError(f"unexpected AST node: {value.operator}")
        if isinstance(value, Call) and value.name not in KNOWN_CALLS:
            raise HqlError(f"No data type for node: {value.name}()")
        return self._expression(value, scope)

    def _tail(self, query: Select, scope: Scope) -> str:
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
        scope: Scope,
        fetches: list[tuple[str, Entity, str, Kind, Source]],
    ) -> None:
        for item in query.sources:
            if isinstance(item, Root):
                self._root(item, scope)
            else:
                self._join(item, scope, fetches)

    def _root(self, root: Root, scope: Scope) -> None:
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
        scope: Scope,
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
            column, target = details_field(last, owner.entity)
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

    def _subquery(self, query: Select, outer: Scope) -> Typed:
        scope = Scope(outer)
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
