"""Operators, functions and subqueries, as SQL."""

from __future__ import annotations

from tests.servers.omero.hql.nodes import (
    Call,
    Case,
    Exists,
    Expression,
    In,
    Literal,
    Operation,
    Parameter,
    Path,
    Select,
    Subquery,
)
from tests.servers.omero.hql.parser import HqlError, NotExecutable
from tests.servers.omero.hql.paths import Paths
from tests.servers.omero.hql.plan import ParameterError, Scope, Typed

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
KNOWN_CALLS = {*_FUNCTIONS, "size", "type", "index", "cast", "str"}
_CASTS = {"string": "RString", "long": "RLong", "integer": "RInt", "double": "RDouble"}
_SQL_CASTS = {"string": "text", "long": "bigint", "integer": "integer", "double": "float8"}


class Expressions(Paths):
    """Translates an expression in a scope; a subquery is left to who knows its sources."""

    def _subquery(self, query: Select, outer: Scope) -> Typed:
        raise NotImplementedError

    def _expression(self, node: Expression, scope: Scope) -> Typed:
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

    def _operation(self, node: Operation, scope: Scope) -> Typed:
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

    def _in(self, node: In, scope: Scope) -> Typed:
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

    def _case(self, node: Case, scope: Scope) -> Typed:
        sql, of_type = "case", ""
        for condition, value in node.branches:
            typed = self._expression(value, scope)
            of_type = of_type or typed.type
            sql += f" when {self._expression(condition, scope).sql} then {typed.sql}"
        if node.otherwise is not None:
            sql += f" else {self._expression(node.otherwise, scope).sql}"
        return Typed(f"({sql} end)", of_type)

    def _call(self, node: Call, scope: Scope) -> Typed:
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

    def _size(self, node: Expression, scope: Scope) -> str:
        if not isinstance(node, Path) or len(node.parts) < 2:
            raise HqlError("size() of what is not a collection")
        owner, item = self._collection(node.parts, scope)
        name = next(self._names)
        table = self._collection_table(owner, item)
        return (
            f"(select count(*) from {table} {name}"
            f" where {self._collection_condition(name, owner, item)})"
        )
