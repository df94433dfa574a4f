"""From a query's text to its nodes, with the errors that a wrong one deserves."""

from __future__ import annotations

import re

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

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>\d+\.\d+|\d+[lL]?)|:(?P<parameter>\w+)"
    r"|(?P<name>[A-Za-z_$][\w$]*)|(?P<sign><>|!=|<=|>=|\^=|\|\||[-+*/%=<>(),.\[\]]))"
)
_WORDS = (
    "all and any as asc between by case class delete desc distinct else empty end escape exists"
    " false fetch from full group having in inner is join left like member new not null object of"
    " on or order outer right select some then true union update when where with"
)
_KEYWORDS = frozenset(_WORDS.split())
# A name of the model may be one of these; a path's first part may not.
_END = ("end", "")
_COMPARISONS = {"=": "=", "<>": "<>", "!=": "<>", "^=": "<>", "<": "<", ">": ">"}
_COMPARISONS |= {"<=": "<=", ">=": ">="}


class HqlError(Exception):
    """The query is not one that Hibernate would take."""


class NotExecutable(Exception):
    """Hibernate takes the query, but it can't be run."""


def parse(text: str) -> Select:
    """Return the query's nodes; HqlError says what is wrong."""
    parser = _Parser(text)
    query = parser.select()
    if parser.token != _END:
        raise parser.unexpected()
    return query


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        position, end = 0, len(text.rstrip())
        while position < end:
            match = _TOKEN.match(text, position)
            if match is None:
                raise HqlError(f"unexpected char: '{text[position]}' [{text}]")
            kind = match.lastgroup or ""
            value = match[kind]
            if kind == "name" and value.lower() in _KEYWORDS:
                kind = "keyword"
            self._tokens.append((kind, value))
            position = match.end()
        self._at = 0

    @property
    def token(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else _END

    def unexpected(self) -> HqlError:
        return HqlError(f"unexpected token: {self.token[1] or 'end of query'} [{self._text}]")

    def kind_is(self, kind: str, *values: str) -> bool:
        return self.token[0] == kind and self.token[1].lower() in values

    def _word(self, *words: str) -> str:
        """Consume one of these keywords if it is next, and return it."""
        if self.kind_is("keyword", *words):
            self._at += 1
            return self._tokens[self._at - 1][1].lower()
        return ""

    def _sign(self, *signs: str) -> str:
        if self.kind_is("sign", *signs):
            self._at += 1
            return self._tokens[self._at - 1][1]
        return ""

    def _expect(self, sign_or_word: str) -> None:
        if not (self._sign(sign_or_word) or self._word(sign_or_word)):
            raise self.unexpected()

    def _name(self) -> str:
        kind, value = self.token
        if kind not in ("name", "keyword"):
            raise self.unexpected()
        self._at += 1
        return value

    def select(self) -> Select:
        query = Select()
        if self._word("update", "delete"):
            raise NotExecutable(f"Not supported for DML operations [{self._text}]")
        if self._word("select"):
            query.distinct = bool(self._word("distinct"))
            query.items.append(self._item())
            while self._sign(","):
                query.items.append(self._item())
        self._expect("from")
        self._sources(query)
        if self._word("where"):
            query.where = self.expression()
        if self._word("group"):
            self._expect("by")
            query.group = [self.expression()]
            while self._sign(","):
                query.group.append(self.expression())
            if self._word("having"):
                query.having = self.expression()
        if self._word("order"):
            self._expect("by")
            query.order = [self._order()]
            while self._sign(","):
                query.order.append(self._order())
        return query

    def _order(self) -> tuple[Expression, bool]:
        return self.expression(), self._word("asc", "desc") == "desc"

    def _item(self) -> Expression:
        if self._word("object"):
            self._expect("(")
            inside = self.expression()
            self._expect(")")
            return inside
        if self._word("new"):
            if self._name().lower() not in ("map", "list"):
                raise HqlError(f"Unable to locate class [{self._text}]")
            self._expect("(")
            items = [self._named(0)]
            while self._sign(","):
                items.append(self._named(len(items)))
            self._expect(")")
            return NewMap(tuple(items))
        found = self.expression()
        if self._word("as") or self.token[0] == "name":
            self._name()
        return found

    def _named(self, position: int) -> tuple[str, Expression]:
        value = self.expression()
        return (self._name() if self._word("as") else str(position)), value

    def _sources(self, query: Select) -> None:
        query.sources.append(self._root())
        while True:
            if self._sign(","):
                query.sources.append(self._root())
                continue
            outer = bool(self._word("left"))
            if self._word("right", "full"):
                raise HqlError(f"right and full joins: the stand-in has none [{self._text}]")
            if outer:
                self._word("outer")
            elif self._word("inner"):
                pass
            if not self._word("join"):
                if outer:
                    raise self.unexpected()
                return
            fetch = bool(self._word("fetch"))
            path = self._dotted()
            alias = self._alias()
            condition = self.expression() if self._word("with") else None
            query.sources.append(Join(path, alias, outer, fetch, condition))

    def _root(self) -> Root:
        if self._word("in"):
            raise HqlError(f"from in(...): the stand-in has none [{self._text}]")
        return Root(self._dotted(), self._alias())

    def _dotted(self) -> tuple[str, ...]:
        parts = [self._name()]
        while self._sign("."):
            parts.append(self._name())
        return tuple(parts)

    def _alias(self) -> str:
        if self._word("as") or self.token[0] == "name":
            return self._name()
        return ""

    def expression(self) -> Expression:
        found = self._and()
        while self._word("or"):
            found = Operation("or", (found, self._and()))
        return found

    def _and(self) -> Expression:
        found = self._not()
        while self._word("and"):
            found = Operation("and", (found, self._not()))
        return found

    def _not(self) -> Expression:
        if self._word("not"):
            return Operation("not", (self._not(),))
        return self._comparison()

    def _comparison(self) -> Expression:
        left = self._sum()
        while True:
            sign = self._sign(*_COMPARISONS)
            if sign:
                left = Operation(_COMPARISONS[sign], (left, self._sum()))
                continue
            if self._word("is"):
                negated = bool(self._word("not"))
                if self._word("empty"):
                    left = Operation("is empty", (left,))
                else:
                    self._expect("null")
                    left = Operation("is null", (left,))
                left = Operation("not", (left,)) if negated else left
                continue
            negated = bool(self._word("not"))
            if self._word("in"):
                left = self._in(left, negated)
            elif self._word("like"):
                left = Operation("like", (left, self._sum()))
                if self._word("escape"):
                    self._sum()
                left = Operation("not", (left,)) if negated else left
            elif self._word("between"):
                low = self._sum()
                self._expect("and")
                left = Operation("between", (left, low, self._sum()))
                left = Operation("not", (left,)) if negated else left
            elif self._word("member"):
                self._word("of")
                left = In(left, (self._primary(),), negated)
            elif negated:
                raise self.unexpected()
            else:
                return left

    def _in(self, left: Expression, negated: bool) -> In:
        if not self._sign("("):
            return In(left, (self._primary(),), negated)
        if self.kind_is("keyword", "select", "from"):
            inside = Subquery(self.select())
            self._expect(")")
            return In(left, (inside,), negated)
        choices: list[Expression] = []
        if not self._sign(")"):
            choices.append(self.expression())
            while self._sign(","):
                choices.append(self.expression())
            self._expect(")")
        return In(left, tuple(choices), negated)

    def _sum(self) -> Expression:
        left = self._product()
        while sign := self._sign("+", "-", "||"):
            left = Operation(sign, (left, self._product()))
        return left

    def _product(self) -> Expression:
        left = self._unary()
        while sign := self._sign("*", "/", "%"):
            left = Operation(sign, (left, self._unary()))
        return left

    def _unary(self) -> Expression:
        if self._sign("-"):
            return Operation("negative", (self._unary(),))
        if self._sign("+"):
            return self._unary()
        if self._word("exists"):
            return Exists(self._primary())
        if self._word("case"):
            return self._case()
        if self._word("all", "any", "some"):
            raise HqlError(f"quantified comparisons: the stand-in has none [{self._text}]")
        return self._primary()

    def _case(self) -> Case:
        branches = []
        if not self.kind_is("keyword", "when"):
            raise HqlError(f"case with an operand: the stand-in has none [{self._text}]")
        while self._word("when"):
            condition = self.expression()
            self._expect("then")
            branches.append((condition, self.expression()))
        otherwise = self.expression() if self._word("else") else None
        self._expect("end")
        return Case(tuple(branches), otherwise)

    def _primary(self) -> Expression:
        kind, value = self.token
        if kind == "text":
            self._at += 1
            return Literal(value[1:-1].replace("''", "'"))
        if kind == "number":
            self._at += 1
            return Literal(float(value) if "." in value else int(value.rstrip("lL")))
        if kind == "parameter":
            self._at += 1
            return Parameter(value)
        if self._sign("("):
            inside: Expression
            if self.kind_is("keyword", "select", "from"):
                inside = Subquery(self.select())
            else:
                inside = self.expression()
            self._expect(")")
            return inside
        if word := self._word("true", "false", "null"):
            return Literal({"true": True, "false": False, "null": None}[word])
        if kind == "name" or self.kind_is("keyword", "class", "object", "member", "of"):
            return self._path_or_call()
        raise self.unexpected()

    def _path_or_call(self) -> Expression:
        parts = self._dotted()
        if len(parts) == 1 and self._sign("("):
            return self._call(parts[0])
        if self._sign("["):
            index = self.expression()
            self._expect("]")
            if self._sign("."):
                raise HqlError(f"could not resolve property behind an index [{self._text}]")
            return Path(parts, index)
        return Path(parts)

    def _call(self, name: str) -> Call:
        distinct = bool(self._word("distinct"))
        if self._sign("*"):
            self._expect(")")
            return Call(name.lower(), (Path(("*",)),))
        arguments: list[Expression] = []
        if self.kind_is("keyword", "select", "from"):
            arguments.append(Subquery(self.select()))
            self._expect(")")
        elif not self._sign(")"):
            arguments.append(self.expression())
            while self._sign(",") or self._word("as", "from"):
                arguments.append(self.expression())
            self._expect(")")
        return Call(name.lower(), tuple(arguments), distinct)
