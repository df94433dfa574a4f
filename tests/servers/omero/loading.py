"""From rows to objects of omero-py's model, with what a query fetched and nothing else loaded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import omero
import omero.model
import psycopg
from omero.rtypes import rbool, rdouble, rint, rlong, rstring, rtime
from psycopg.rows import dict_row

from tests.servers.omero.caller import Caller, Owned
from tests.servers.omero.errors import security
from tests.servers.omero.model import Entity, Kind, entities

Row: TypeAlias = dict[str, Any]
Model: TypeAlias = Any  # an object of omero.model; omero-py has no types
WRAP: dict[str, Callable[[Any], Any]] = {
    "RString": rstring,
    "RLong": rlong,
    "RInt": rint,
    "RBool": rbool,
    "RDouble": rdouble,
    "RTime": rtime,
}
_REFERENCES = (
    ("owner", "owner_id", "Experimenter"),
    ("group", "group_id", "ExperimenterGroup"),
    ("creationEvent", "creation_id", "Event"),
    ("updateEvent", "update_id", "Event"),
)


class Loader:
    """The objects of one call: each row is one object, however often it is met."""

    def __init__(self, connection: psycopg.Connection[Any], caller: Caller) -> None:
        self._connection = connection
        self._caller = caller
        self._loaded: dict[tuple[str, int], Model] = {}
        self._proxies: dict[tuple[str, int], Model] = {}
        self._rows: dict[tuple[str, int], Row] = {}

    def load(self, root: str, ids: Iterable[int], *, without_maps: Iterable[str] = ()) -> None:
        """Load these rows of a hierarchy, and what Hibernate loads with them at once.

        `without_maps` names the maps that the query itself fetches.
        """
        wanted = sorted({each for each in ids if (root, each) not in self._loaded})
        if not wanted:
            return
        table = entities()[root].table
        with self._connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(f'select * from "{table}" where id = any(%s)', [wanted])
            rows = cursor.fetchall()
        maps: dict[str, list[int]] = defaultdict(list)
        for row in rows:
            entity = entities()[row["discriminator"]]
            self._check_readable(entity, row)
            key = (root, row["id"])
            self._rows[key] = row
            self._loaded[key] = self._object(entity, row)
            for item in entity.of_kind(Kind.MAP):
                if item.name not in without_maps:
                    maps[item.name].append(row["id"])
        for name, owners in maps.items():
            self._load_map(root, name, owners)

    def load_details(self) -> None:
        """Load who owns the objects, and their ExternalInfo: a save returns them whole."""
        rows = list(self._rows.values())
        for column, root in (
            ("owner_id", "Experimenter"),
            ("external_id", "ExternalInfo"),
        ):
            self.load(root, {row[column] for row in rows if row.get(column) is not None})

    def get(self, root: str, row_id: int) -> Model | None:
        """Return a loaded object, or None where no such row is."""
        return self._loaded.get((root, row_id))

    def row(self, root: str, row_id: int) -> Row:
        """Return the row of a loaded object."""
        return self._rows[root, row_id]

    def connect(self, *, whole: bool = False) -> None:
        """Point all objects at one another: at the loaded ones, else at proxies.

        As OMERO does it: a link whose annotation was not fetched with it is unloaded itself, by
        whatever query it came; `whole` leaves it loaded, as saving does.
        """
        groups = {row["group_id"] for row in self._rows.values() if row.get("group_id") is not None}
        self.load("ExperimenterGroup", groups)
        for (root, row_id), made in self._loaded.items():
            row = self._rows[root, row_id]
            entity = entities()[row["discriminator"]]
            for item in entity.of_kind(Kind.ONE):
                setattr(made, f"_{item.name}", self._reference(item.type, row[item.column]))
            made._details = self._details(entity, row)
        for (root, row_id), made in self._loaded.items():
            if not whole and self._lacks_abstract(root, row_id):
                made.unload()

    def set_map(
        self, root: str, owner_id: int, field: str, pairs: dict[int, tuple[str, str]]
    ) -> None:
        """Set a map from its elements by index; where one is missing stays a hole."""
        size = max(pairs) + 1 if pairs else 0
        values = [omero.model.NamedValue(*pairs[at]) if at in pairs else None for at in range(size)]
        setattr(self._loaded[root, owner_id], f"_{field}", values)

    def set_collection(self, root: str, owner_id: int, field: str, elements: list[Model]) -> None:
        """Set a fetched collection; it counts as loaded however few of its elements are in it."""
        owner = self._loaded[root, owner_id]
        setattr(owner, f"_{field}Seq", elements)
        setattr(owner, f"_{field}Loaded", True)

    def _lacks_abstract(self, root: str, row_id: int) -> bool:
        row = self._rows[root, row_id]
        for item in entities()[row["discriminator"]].of_kind(Kind.ONE):
            target, target_id = entities()[item.type], row[item.column]
            if target.abstract and target_id is not None:
                return (target.root, target_id) not in self._loaded
        return False

    def _check_readable(self, entity: Entity, row: Row) -> None:
        if entity.is_global or row["group_id"] is None:
            return
        if not self._caller.may_read(Owned(row["owner_id"], row["group_id"])):
            raise security(f"Cannot read {entity.java_name}:Id_{row['id']}")

    def _object(self, entity: Entity, row: Row) -> Model:
        made = getattr(omero.model, f"{entity.name}I")(row["id"], True)
        made.unloadCollections()
        for item in entity.of_kind(Kind.VALUE):
            value = row[item.column]
            setattr(made, f"_{item.name}", None if value is None else WRAP[item.type](value))
        for item in entity.of_kind(Kind.UNIT):
            value = row[item.column]
            unit = row[f"{item.column}unit"]
            quantity = getattr(omero.model, f"{item.type}I")
            setattr(made, f"_{item.name}", None if value is None else quantity(value, unit))
        return made

    def _load_map(self, root: str, name: str, owners: list[int]) -> None:
        table = entities()[root].table
        found: dict[int, dict[int, tuple[str, str]]] = {owner: {} for owner in owners}
        with self._connection.cursor() as cursor:
            cursor.execute(
                f'select {table}_id, index, name, value from "{table}_{name.lower()}"'
                f" where {table}_id = any(%s)",
                [owners],
            )
            for owner, index, key, value in cursor:
                found[owner][index] = (key, value)
        for owner, pairs in found.items():
            self.set_map(root, owner, name, pairs)

    def _reference(self, of_type: str, row_id: int | None) -> Model | None:
        if row_id is None:
            return None
        key = (entities()[of_type].root, row_id)
        loaded = self._loaded.get(key)
        if loaded is not None:
            return loaded
        if entities()[of_type].abstract:
            return None  # its owner gets unloaded
        if key not in self._proxies:
            self._proxies[key] = getattr(omero.model, f"{of_type}I")(row_id, False)
        return self._proxies[key]

    def _details(self, entity: Entity, row: Row) -> Model:
        details = omero.model.DetailsI()
        external = row["external_id"]
        details._externalInfo = self._reference("ExternalInfo", external)
        if entity.is_global:
            group = row["id"] if entity.root == "ExperimenterGroup" else 0
            owned = Owned(0, group)
        else:
            for name, column, of_type in _REFERENCES:
                setattr(details, f"_{name}", self._reference(of_type, row[column]))
            owned = Owned(row["owner_id"], row["group_id"])
        details._permissions = self._caller.details_permissions(
            owned, is_system_type=entity.is_global
        )
        return details
