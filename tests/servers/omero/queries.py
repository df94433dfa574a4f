"""IQuery: HQL and look-ups by id."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import omero
from omero.rtypes import rmap, robject

from tests.servers.omero.calls import Call, Servant, servant
from tests.servers.omero.errors import api_usage, no_row, validation
from tests.servers.omero.hql.parser import parse
from tests.servers.omero.hql.plan import Plan, Result, Value, field_of
from tests.servers.omero.hql.translate import translate
from tests.servers.omero.loading import WRAP, Loader, Model
from tests.servers.omero.model import Kind, discriminator, entities


def parameter_values(parameters: Any) -> dict[str, Value | None]:
    """Return a query's parameters as plain values."""
    if parameters is None or not parameters.map:
        return {}
    return {name: _plain(value) for name, value in parameters.map.items()}


def _plain(value: Any) -> Value | None:
    if value is None:
        return None
    if isinstance(value, omero.RCollection):
        listed: list[Any] = [_plain(each) for each in value.val or []]
        return listed
    if isinstance(value, omero.RObject):
        return int(value.val.id.val)
    plain: Value | None = value.val
    return plain


def _page(parameters: Any) -> tuple[int, int | None]:
    chosen = parameters.theFilter if parameters is not None else None
    if chosen is None:
        return 0, None
    offset = chosen.offset.val if chosen.offset is not None else 0
    return offset, chosen.limit.val if chosen.limit is not None else None


class Run:
    """One query executed: its rows, and the objects in them."""

    def __init__(self, call: Call, text: str, parameters: Any) -> None:
        self._call = call
        self.plan: Plan = translate(
            parse(text), parameter_values(parameters), call.caller.condition
        )
        offset, limit = _page(parameters)
        in_memory = self.plan.has_collections
        sql = self.plan.sql
        if not in_memory:
            sql += f" limit {int(limit)}" if limit is not None else ""
            sql += f" offset {int(offset)}" if offset else ""
        if any(result.entity is not None for result in self.plan.results):
            call.world.database.show_one_moment(call.connection)
        with call.connection.cursor() as cursor:
            cursor.execute(sql.encode(), self.plan.values)
            self.rows = cursor.fetchall()
        call.world.note_query(text)
        self.loader = Loader(call.connection, call.caller)
        self._load()
        if in_memory:
            # With a fetched collection a row comes once, and pages are cut in memory, over them.
            seen: dict[tuple[Any, ...], tuple[Any, ...]] = {}
            width = len(self.plan.results)
            for row in self.rows:
                seen.setdefault(row[:width], row)
            end = None if limit is None else offset + limit
            self.rows = list(seen.values())[offset:end]

    def results(self) -> list[list[Any]]:
        """Return the rows' values as RTypes; `new map()` is one value."""
        answer = []
        for row in self.rows:
            values: list[Any] = []
            for position, result in enumerate(self.plan.results):
                value = self._wrapped(result, row[position])
                if result.name is None:
                    values.append(value)
                    continue
                if position == 0 or self.plan.results[position - 1].group != result.group:
                    values.append(rmap({}))
                values[-1].val[result.name] = value
            # One null alone is a row of nothing.
            answer.append([] if values == [None] else values)
        return answer

    def objects(self) -> list[Model | None]:
        """Return the first column as objects."""
        result = self.plan.results[0]
        if result.entity is None or len(self.plan.results) > 1:
            raise api_usage(
                "Queries must return IObjects when using findByQuery. \n"
                "Please try findAllByQuery for queries which return Lists. "
            )
        return [self.loader.get(result.entity.root, row[0]) for row in self.rows]

    def _wrapped(self, result: Result, value: Any) -> Any:
        if value is None:
            return None
        if result.entity is not None:
            return robject(self.loader.get(result.entity.root, value))
        if result.type == "class":
            return WRAP["RString"](discriminator(value))
        return WRAP[result.type](value)

    def _load(self) -> None:
        wanted: dict[str, set[int]] = defaultdict(set)
        partial: dict[str, set[str]] = defaultdict(set)
        for position, result in enumerate(self.plan.results):
            if result.entity is not None:
                wanted[result.entity.root] |= {row[position] for row in self.rows} - {None}
        for fetched in self.plan.fetched:
            if fetched.kind is Kind.MAP:
                partial[fetched.owner.root].add(fetched.field)
        for root, ids in wanted.items():
            self.loader.load(root, ids, without_maps=partial[root])
        for fetched in self.plan.fetched:
            if fetched.target is not None:
                ids = {row[fetched.at + 1] for row in self.rows} - {None}
                self.loader.load(
                    fetched.target.root, ids, without_maps=partial[fetched.target.root]
                )
        self._fill_collections()
        self.loader.connect()

    def _fill_collections(self) -> None:
        for fetched in self.plan.fetched:
            at, root = fetched.at, fetched.owner.root
            if fetched.kind is Kind.MAP:
                maps: dict[int, dict[int, tuple[str, str]]] = defaultdict(dict)
                for row in self.rows:
                    if row[at] is not None:
                        pairs = maps[row[at]]
                        if row[at + 1] is not None:
                            pairs[row[at + 1]] = (row[at + 2], row[at + 3])
                for owner, pairs in maps.items():
                    self.loader.set_map(root, owner, fetched.field, pairs)
            elif fetched.kind is Kind.MANY:
                assert fetched.target is not None
                elements: dict[int, dict[int, Model]] = defaultdict(dict)
                for row in self.rows:
                    if row[at] is not None:
                        held = elements[row[at]]
                        if row[at + 1] is not None:
                            held[row[at + 1]] = self.loader.get(fetched.target.root, row[at + 1])
                for owner, members in elements.items():
                    self.loader.set_collection(root, owner, fetched.field, list(members.values()))


@servant(omero.api.IQuery)
class QueryServant(Servant):
    """IQuery; full-text search and queries by example it has not."""

    def find_all_by_query(self, call: Call, query: str, parameters: Any) -> list[Model | None]:
        return Run(call, query, parameters).objects()

    def find_by_query(self, call: Call, query: str, parameters: Any) -> Model | None:
        found = Run(call, query, parameters).objects()
        different = {id(each): each for each in found}
        if len(different) > 1:
            raise api_usage(
                f"Query named:\n\n\t{query}\n\nhas returned more than one Object\n"
                "findBy methods must return a single value.\n"
                "Please try findAllBy methods for queries which return Lists."
            )
        return found[0] if found else None

    def projection(self, call: Call, query: str, parameters: Any) -> list[list[Any]]:
        return Run(call, query, parameters).results()

    def get(self, call: Call, class_name: str, row_id: int) -> Model:
        found = self.find(call, class_name, row_id)
        if found is None:
            raise validation(no_row(self._entity(class_name).java_name, row_id))
        return found

    def find(self, call: Call, class_name: str, row_id: int) -> Model | None:
        entity = self._entity(class_name)
        loader = Loader(call.connection, call.caller)
        loader.load(entity.root, [row_id])
        loader.connect()
        found = loader.get(entity.root, row_id)
        is_one = found is not None and type(found).__name__[:-1] in entity.subclasses
        return found if is_one else None

    def find_all(self, call: Call, class_name: str, chosen: Any) -> list[Model | None]:
        entity = self._entity(class_name)
        parameters = omero.sys.ParametersI()
        parameters.theFilter = chosen
        return Run(call, f"select x from {entity.name} x order by x.id", parameters).objects()

    def find_by_string(self, call: Call, class_name: str, field: str, value: str) -> Model | None:
        entity = self._entity(class_name)
        name = field_of(entity, field).name
        parameters = omero.sys.ParametersI().addString("value", value)
        query = f"select x from {entity.name} x where x.{name} = :value"
        return self.find_by_query(call, query, parameters)

    def find_all_by_string(
        self,
        call: Call,
        class_name: str,
        field: str,
        value: str,
        case_sensitive: bool,
        chosen: Any,
    ) -> list[Model | None]:
        entity = self._entity(class_name)
        left = f"x.{field_of(entity, field).name}"
        if not case_sensitive:
            left, value = f"lower({left})", value.lower()
        parameters = omero.sys.ParametersI().addString("value", f"%{value}%")
        parameters.theFilter = chosen
        query = f"select x from {entity.name} x where {left} like :value"
        return Run(call, query, parameters).objects()

    def refresh(self, call: Call, sent: Model) -> Model:
        return self.get(call, type(sent).__name__, sent.id.val)

    @staticmethod
    def _entity(class_name: str) -> Any:
        name = class_name.rpartition("::")[2].rpartition(".")[2]
        found = entities().get(name) or entities().get(name.removesuffix("I"))
        if found is None or found.abstract:
            raise api_usage(f"{class_name} does not specify a valid class.")
        return found
