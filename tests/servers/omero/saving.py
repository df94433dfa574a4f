"""What IUpdate does with a graph of objects: inserts, merges over what is there, event logs.

The order of things and the checks are Hibernate's and OMERO's, flaws included: an object without
details is merged unchecked, the lock on the update event is read before it is written over, a
changed pair alone bumps `version` and is logged nowhere.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import omero
import omero.model
import psycopg
from psycopg.rows import dict_row

from tests.servers.omero.caller import ALL_GROUPS, USER_GROUP_ID, Caller, Owned
from tests.servers.omero.errors import (
    api_usage,
    internal,
    no_row,
    security,
    server_error,
    translated,
    validation,
)
from tests.servers.omero.events import EventWriter
from tests.servers.omero.graphs import (
    Graph,
    column_values,
    entity_of,
    external_info_of,
    map_pairs,
)
from tests.servers.omero.loading import Model, Row
from tests.servers.omero.model import Entity, Kind, entities

_IMMUTABLE = {"Event", "EventLog", "ExternalInfo", "DBPatch"}
_ENUMERATIONS = "ome.model.enums."


class Saver:
    """The writes of one call in its one transaction."""

    def __init__(
        self, connection: psycopg.Connection[Any], caller: Caller, events: EventWriter
    ) -> None:
        self._connection = connection
        self._caller = caller
        self._events = events

    def save(self, roots: list[Model]) -> None:
        """Insert or merge these objects and all that hangs on them; they get their ids."""
        if any(root is None for root in roots):
            raise internal(" Wrapped Exception: (java.lang.NullPointerException)")
        graph = Graph(roots)
        self._resolve_enumerations(graph)
        if self._caller.group_id == ALL_GROUPS:
            raise api_usage(
                "No valid permissions available! DUMMY permissions are not intended for copying. "
                "Make sure that you have not passed omero.group=-1 for a save without context"
            )
        known = self._rows_of(graph.references())
        self._check_external_infos(graph, known)
        for existing in graph.existing():
            if (entity_of(existing).root, existing._id.val) not in known:
                raise validation("object no longer exists in database")
        self._insert(graph, known)
        self._merge(graph, known)

    def _resolve_enumerations(self, graph: Graph) -> None:
        """Give a new enumeration value the id of the one that has its text."""
        for made in list(graph.new()):
            entity = entity_of(made)
            if entity.java_name.startswith(_ENUMERATIONS) and made._value is not None:
                with self._connection.cursor() as cursor:
                    cursor.execute(
                        f'select id from "{entity.table}" where value = %s', [made._value.val]
                    )
                    row = cursor.fetchone()
                if row is not None:
                    graph.adopt(made, row[0])

    def _rows_of(self, references: dict[str, set[int]]) -> dict[tuple[str, int], Row]:
        found: dict[tuple[str, int], Row] = {}
        for root, ids in references.items():
            with self._connection.cursor(row_factory=dict_row) as cursor:
                cursor.execute(
                    f'select * from "{entities()[root].table}" where id = any(%s)', [list(ids)]
                )
                found.update({(root, row["id"]): row for row in cursor})
        return found

    @staticmethod
    def _check_external_infos(graph: Graph, known: dict[tuple[str, int], Row]) -> None:
        for row_id in graph.references().get("ExternalInfo", ()):
            if ("ExternalInfo", row_id) not in known:
                raise validation(no_row("ome.model.meta.ExternalInfo", row_id))

    # Inserts

    def _insert(self, graph: Graph, known: dict[tuple[str, int], Row]) -> None:
        batches: dict[tuple[int, str], list[Model]] = defaultdict(list)
        for made in graph.new():
            entity = entity_of(made)
            self._check_creation(entity, made)
            batches[graph.level(made), entity.table].append(made)
        for (_, table), batch in sorted(batches.items(), key=lambda item: item[0][0]):
            with self._connection.cursor() as cursor:
                cursor.execute(
                    f"select nextval('seq_{table}') from generate_series(1, %s)", [len(batch)]
                )
                ids = [row[0] for row in cursor]
            for made, row_id in zip(batch, ids, strict=True):
                made._id = omero.rtypes.rlong(row_id)
            self._insert_rows(table, batch, known)

    def _check_creation(self, entity: Entity, made: Model) -> None:
        if entity.is_global and not self._caller.is_admin:
            raise security(
                f"{entity.java_name}:Hash_ is a System-type, and may be created only through"
                " privileged APIs."
            )
        details = made._details
        if entity.is_global:
            return
        self._caller.check_insert(entity.java_name)
        owner = getattr(details, "_owner", None) if details is not None else None
        is_another = owner is not None and owner._id.val != self._caller.user_id
        if is_another and not self._caller.is_admin:
            raise security(
                "You are not authorized to set the Experimenter for "
                f"{entity.java_name} to ome.model.meta.Experimenter:Id_{owner._id.val}"
            )
        group = getattr(details, "_group", None) if details is not None else None
        if group is not None and group._id.val != self._caller.group_id:
            raise security(
                "You are not authorized to set the ExperimenterGroup for "
                f"{entity.java_name} to ome.model.meta.ExperimenterGroup:Id_{group._id.val}"
            )

    def _insert_rows(
        self, table: str, batch: list[Model], known: dict[tuple[str, int], Row]
    ) -> None:
        columns: dict[str, None] = {}
        rows: list[dict[str, Any]] = []
        pairs: dict[str, list[tuple[int, int, str, str]]] = defaultdict(list)
        for made in batch:
            entity = entity_of(made)
            values = column_values(entity, made, required=True)
            row = {"id": made._id.val, "discriminator": entity.name, **values}
            row["external_id"] = external_info_of(made)
            if not entity.is_global:
                self._check_links(entity, made, values, known, self._caller.user_id)
                owner = getattr(made._details, "_owner", None) if made._details else None
                row["owner_id"] = owner._id.val if owner is not None else self._caller.user_id
                row["group_id"] = self._caller.group_id
                row["creation_id"] = row["update_id"] = self._events.event_id
            columns |= dict.fromkeys(row)
            rows.append(row)
            for item in entity.of_kind(Kind.MAP):
                for index, pair in enumerate(map_pairs(made, item)):
                    if pair is not None:
                        pairs[item.column].append((made._id.val, index, *pair))
            self._events.log("INSERT", entity, made._id.val)
        doing = f"insert: [{entity_of(batch[0]).java_name}]"
        self._copy(
            table, list(columns), [[row.get(name) for name in columns] for row in rows], doing
        )
        for column, listed in pairs.items():
            self._insert_pairs(table, column, listed)

    def _insert_pairs(
        self, table: str, column: str, pairs: list[tuple[int, int, str, str]]
    ) -> None:
        columns = [f"{table}_id", "index", "name", "value"]
        self._copy(f"{table}_{column}", columns, pairs, "insert collection rows")

    def _copy(self, table: str, columns: list[str], rows: list[Any], doing: str) -> None:
        names = ", ".join(f'"{name}"' for name in columns)
        try:
            with (
                self._connection.cursor() as cursor,
                cursor.copy(f'copy "{table}" ({names}) from stdin') as copy,
            ):
                for row in rows:
                    copy.write_row(row)
        except psycopg.Error as exc:
            raise translated(exc, doing) from exc

    def _check_links(
        self,
        entity: Entity,
        made: Model,
        values: dict[str, Any],
        known: dict[tuple[str, int], Row],
        owner_id: int,
    ) -> None:
        annotating = entity.name.endswith("AnnotationLink")
        for item in sorted(entity.of_kind(Kind.ONE), key=lambda item: item.name):
            target = values[item.column]
            root = entities()[item.type].root
            row = known.get((root, target))
            if target is None or entities()[item.type].is_global:
                continue
            if row is None:
                if getattr(made, f"_{item.name}")._loaded:
                    continue  # made by this very call
                raise validation(no_row(entities()[item.type].java_name, target))
            described = f"{entities()[row['discriminator']].java_name}:Id_{target}"
            owned = Owned(row["owner_id"], row["group_id"])
            if not self._caller.may_read(owned) and owned.group_id == self._caller.group_id:
                raise security(f"Cannot read {described}")
            self._caller.check_link(described, owned, owner_id=owner_id, annotating=annotating)

    # Merges

    def _merge(self, graph: Graph, known: dict[tuple[str, int], Row]) -> None:
        changed: dict[str, list[tuple[Row, dict[str, Any]]]] = defaultdict(list)
        for sent in graph.existing():
            entity = entity_of(sent)
            row = known[entity.root, sent._id.val]
            if entity.name in _IMMUTABLE or entity.java_name.startswith(_ENUMERATIONS):
                continue
            self._check_loadable(entity, row)
            values = self._changes(entity, sent, row)
            is_dirty = bool(values)
            pairs_changed = self._merge_pairs(entity, sent, row)
            if not values and not pairs_changed:
                continue
            self._check_change(entity, sent, row)
            if not entity.is_global:
                now = column_values(entity, sent, required=True)
                self._check_links(entity, sent, now, known, row["owner_id"])
            if not entity.is_global:
                values["update_id"] = self._events.event_id
            if pairs_changed:
                values["version"] = (sent._version.val if sent._version is not None else 0) + 1
            if is_dirty:
                self._events.log("UPDATE", entity, row["id"])
            changed[entity.table].append((row, values))
        for table, updates in changed.items():
            self._update_rows(table, updates)

    def _check_loadable(self, entity: Entity, row: Row) -> None:
        if not entity.is_global and not self._caller.may_read(
            Owned(row["owner_id"], row["group_id"])
        ):
            raise security(f"Cannot read {entity.java_name}:Id_{row['id']}")

    def _changes(self, entity: Entity, sent: Model, row: Row) -> dict[str, Any]:
        values = {
            name: value
            for name, value in column_values(entity, sent, required=True).items()
            if row[name] != value
        }
        if sent._details is not None and not entity.is_global:
            external = external_info_of(sent)
            if external != row["external_id"]:
                values["external_id"] = external
            update = getattr(sent._details, "_updateEvent", None)
            if update is None or update._id.val != row["update_id"]:
                values["update_id"] = None  # differs, so the row is written, and checked before
        return values

    def _check_change(self, entity: Entity, sent: Model, row: Row) -> None:
        described = f"{entity.java_name}:Id_{row['id']}"
        if entity.is_global:
            if not self._caller.is_admin:
                raise security(f"Updating {described} not allowed.")
            return
        owned = Owned(row["owner_id"], row["group_id"])
        if owned.group_id not in (self._caller.group_id, USER_GROUP_ID):
            raise security(
                f"Currently logged into group {self._caller.group_id}. Cannot alter object in"
                f" group {owned.group_id}"
            )
        if not self._caller.may_change(owned):
            raise security(f"Updating {described} not allowed.")
        if sent._details is None:
            return
        owner = getattr(sent._details, "_owner", None)
        if owner is not None and owner._id.val != row["owner_id"]:
            raise security(f"You are not authorized to change the owner for {described}")
        update = getattr(sent._details, "_updateEvent", None)
        if update is not None and update._id.val != row["update_id"]:
            raise server_error(
                omero.OptimisticLockException,
                f"You are not authorized to change the update event for {described} from "
                f"ome.model.meta.Event:Id_{row['update_id']} to "
                f"ome.model.meta.Event:Id_{update._id.val}\n"
                "You may need to reload the object before continuing.",
            )

    def _merge_pairs(self, entity: Entity, sent: Model, row: Row) -> bool:
        changed = False
        for item in entity.of_kind(Kind.MAP):
            table = f"{entity.table}_{item.column}"
            new = {at: pair for at, pair in enumerate(map_pairs(sent, item)) if pair is not None}
            with self._connection.cursor() as cursor:
                cursor.execute(
                    f'select index, name, value from "{table}" where {entity.table}_id = %s',
                    [row["id"]],
                )
                old = {index: (name, value) for index, name, value in cursor}
                if new == old:
                    continue
                changed = True
                self._check_change(entity, sent, row)
                cursor.execute(f'delete from "{table}" where {entity.table}_id = %s', [row["id"]])
            self._insert_pairs(
                entity.table, item.column, [(row["id"], at, *pair) for at, pair in new.items()]
            )
        return changed

    def _update_rows(self, table: str, updates: list[tuple[Row, dict[str, Any]]]) -> None:
        try:
            with self._connection.cursor() as cursor:
                for row, values in updates:
                    assigned = ", ".join(f'"{name}" = %s' for name in values)
                    cursor.execute(
                        f'update "{table}" set {assigned} where id = %s',
                        [*values.values(), row["id"]],
                    )
                    if cursor.rowcount != 1:
                        raise server_error(
                            omero.OptimisticLockException,
                            "Batch update returned unexpected row count from update [0];"
                            " actual row count: 0; expected: 1",
                        )
        except psycopg.Error as exc:
            name = entities()[updates[0][0]["discriminator"]].java_name
            raise translated(exc, f"update: [{name}#{updates[0][0]['id']}]") from exc
