"""What a parsed query consists of."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Path:
    """`a.details.owner.id`; `index` is what stands in brackets behind it."""

    parts: tuple[str, ...]
    index: Expression | None = None


@dataclass(frozen=True)
class Parameter:
    """`:name`."""

    name: str


@dataclass(frozen=True)
class Literal:
    """A number, a text, true, false or null."""

    value: str | int | float | bool | None


@dataclass(frozen=True)
class Call:
    """A function; count(*) has a Path of one part `*`."""

    name: str
    arguments: tuple[Expression, ...]
    distinct: bool = False


@dataclass(frozen=True)
class Operation:
    """A unary or binary operator: and, or, not, =, <>, <, +, like, ..."""

    operator: str
    operands: tuple[Expression, ...]


@dataclass(frozen=True)
class In:
    """`x in (...)`: a list, a subquery or a collection of the model."""

    operand: Expression
    choices: tuple[Expression, ...]
    negated: bool


@dataclass(frozen=True)
class Case:
    """`case when ... then ... else ... end`."""

    branches: tuple[tuple[Expression, Expression], ...]
    otherwise: Expression | None


@dataclass(frozen=True)
class Exists:
    """`exists (subquery)` or `exists elements(...)`."""

    query: Expression


@dataclass(frozen=True)
class NewMap:
    """`new map(x as a, y as b)`, or `new list(...)` when no name is kept."""

    items: tuple[tuple[str, Expression], ...]


@dataclass(frozen=True)
class Subquery:
    """A select in parentheses."""

    query: Select


Expression = Path | Parameter | Literal | Call | Operation | In | Case | Exists | NewMap | Subquery


@dataclass(frozen=True)
class Root:
    """`from Class alias` or, in a subquery, `from outer.collection alias`."""

    target: tuple[str, ...]
    alias: str


@dataclass(frozen=True)
class Join:
    """`left outer join fetch path alias with condition`."""

    path: tuple[str, ...]
    alias: str
    outer: bool
    fetch: bool
    condition: Expression | None = None


@dataclass
class Select:
    """A whole query; without `items` all roots are selected."""

    distinct: bool = False
    items: list[Expression] = field(default_factory=list)
    sources: list[Root | Join] = field(default_factory=list)
    where: Expression | None = None
    group: list[Expression] = field(default_factory=list)
    having: Expression | None = None
    order: list[tuple[Expression, bool]] = field(default_factory=list)  # (what, descending)
