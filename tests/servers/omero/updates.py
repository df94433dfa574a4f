"""IUpdate: every call is one transaction."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import omero
import psycopg

from tests.servers.omero.caller import Owned
from tests.servers.omero.calls import Call, Servant, servant
from tests.servers.omero.errors import (
    api_usage,
    no_row,
    security,
    translated,
    validation,
)
from tests.servers.omero.graphs import Graph, entity_of
from tests.servers.omero.loading import Loader, Model
from tests.servers.omero.saving import Saver


@servant(omero.api.IUpdate)
class UpdateServant(Servant):
    """IUpdate."""

    def save_object(self, call: Call, sent: Model) -> None:
        self._save_one(call, sent)

    def save_collection(self, call: Call, sent: list[Model]) -> None:
        self._save(call, sent)

    def save_array(self, call: Call, sent: list[Model]) -> None:
        self._save(call, sent)

    def save_and_return_object(self, call: Call, sent: Model) -> Model:
        self._save_one(call, sent)
        return self._returned(call, [sent])[0]

    def save_and_return_array(self, call: Call, sent: list[Model]) -> list[Model]:
        self._save(call, sent)
        return self._returned(call, sent)

    def save_and_return_ids(self, call: Call, sent: list[Model]) -> list[int]:
        if any(each.id is not None for each in sent):
            raise api_usage(
                "INSERTs only! Pass only new objects, enums, or unloaded objects to this method."
            )
        self._save(call, sent)
        return [each.id.val for each in sent]

    def delete_object(self, call: Call, sent: Model) -> None:
        if sent is None:
            return
        if sent.id is None:
            raise api_usage("Non-managed IObject entity cannot be deleted. Must have an id.")
        entity = entity_of(sent)
        with call.connection.cursor() as cursor:
            details = "0, 0" if entity.is_global else "owner_id, group_id"
            cursor.execute(f'select {details} from "{entity.table}" where id = %s', [sent.id.val])
            row = cursor.fetchone()
            if row is None:
                raise validation(no_row(entity.java_name, sent.id.val))
            may = call.caller.is_admin if entity.is_global else call.caller.may_change(Owned(*row))
            if not may:
                raise security(f"Deleting {entity.java_name}:Id_{sent.id.val} not allowed.")
            try:
                cursor.execute(f'delete from "{entity.table}" where id = %s', [sent.id.val])
            except psycopg.Error as exc:
                raise translated(exc, f"delete: [{entity.java_name}#{sent.id.val}]") from exc
        call.events.log("DELETE", entity, sent.id.val)

    def _save_one(self, call: Call, sent: Model) -> None:
        if sent is None:
            raise api_usage("Argument to save cannot be null.")
        self._save(call, [sent])

    @staticmethod
    def _save(call: Call, sent: list[Model]) -> None:
        Saver(call.connection, call.caller, call.events).save(sent)

    @staticmethod
    def _returned(call: Call, sent: list[Model]) -> list[Model]:
        """Return the saved graph as it was sent, with ids and with details from the database."""
        saved = list(Graph(sent).existing())
        wanted: dict[str, list[int]] = defaultdict(list)
        for item in saved:
            wanted[entity_of(item).root].append(item.id.val)
        loader = Loader(call.connection, call.caller)
        for root, ids in wanted.items():
            loader.load(root, ids, without_maps=("mapValue", "config", "versionInfo"))
        loader.load_details()
        loader.connect(whole=True)
        for item in saved:
            _complete(item, loader)
        return sent


def _complete(item: Any, loader: Loader) -> None:
    saved = loader.get(entity_of(item).root, item.id.val)
    assert saved is not None
    item._details = saved._details
    item._version = getattr(saved, "_version", None)
