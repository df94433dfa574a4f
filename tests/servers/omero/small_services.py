"""IConfig, ISession and ITypes, as far as clients ask them."""

from __future__ import annotations

import time
from typing import Any

import omero
import omero.model
from omero.rtypes import rlong, rstring, rtime

from tests.servers.omero.calls import Call, Servant, servant
from tests.servers.omero.errors import api_usage, security
from tests.servers.omero.hql.plan import entity_named
from tests.servers.omero.loading import Loader, Model
from tests.servers.omero.model import entities
from tests.servers.omero.queries import Run
from tests.servers.omero.sessions import LiveSession
from tests.servers.omero.world import VERSION


@servant(omero.api.IConfig)
class ConfigServant(Servant):
    """IConfig: the few values that clients ask for."""

    def get_version(self, _call: Call) -> str:
        return VERSION

    def get_config_value(self, call: Call, key: str) -> str:
        return call.world.config.get(key, "")

    def get_config_values(self, call: Call, pattern: str) -> dict[str, str]:
        prefix = pattern.removesuffix(".*").removeprefix("^").replace("\\", "")
        return {key: value for key, value in call.world.config.items() if key.startswith(prefix)}

    def get_client_config_defaults(self, _call: Call) -> dict[str, str]:
        return {}

    def get_client_config_values(self, _call: Call) -> dict[str, str]:
        return {}

    def get_database_uuid(self, call: Call) -> str:
        return call.world.config["omero.db.uuid"]

    def get_server_time(self, _call: Call) -> Any:
        return rtime(int(time.time() * 1000))

    def get_database_time(self, call: Call) -> Any:
        return self.get_server_time(call)


@servant(omero.api.ISession)
class SessionServant(Servant):
    """ISession: looking at sessions, opening one for somebody, closing them."""

    def get_session(self, call: Call, session_uuid: str) -> Model:
        found = call.world.sessions.get(session_uuid)
        if found is None:
            raise omero.RemovedSessionException("", "", f"No session with uuid: {session_uuid}")
        return self._object(call, found)

    def get_reference_count(self, call: Call, session_uuid: str) -> int:
        found = call.world.sessions.get(session_uuid)
        return found.clients if found is not None else 0

    def get_my_open_sessions(self, call: Call) -> list[Model]:
        mine = (each for each in call.world.sessions.all() if each.user_id == call.caller.user_id)
        return [self._object(call, each) for each in mine]

    def close_session(self, call: Call, sent: Model) -> int:
        found = call.world.sessions.get(sent.uuid.val)
        if found is None:
            return -2
        if not call.caller.is_admin and found.user_id != call.caller.user_id:
            raise security("closing another's session: not allowed")
        call.world.sessions.remove(found.uuid)
        return -2

    def create_user_session(
        self, call: Call, time_to_live_ms: int, time_to_idle_ms: int, group: str
    ) -> Model:
        made = call.world.sessions.open(
            call.connection,
            user_id=call.caller.user_id,
            user_name=call.caller.user_name,
            group=group,
        )
        return self._object(call, made)

    def create_session_with_timeout(self, call: Call, principal: Any, ttl_ms: int) -> Model:
        return self.create_session_with_timeouts(call, principal, ttl_ms, 0)

    def create_session_with_timeouts(
        self, call: Call, principal: Any, _ttl_ms: int, _idle_ms: int
    ) -> Model:
        if not call.caller.is_admin:
            raise security("opening another's session: not allowed")
        row = call.connection.execute(
            "select id from experimenter where omename = %s", [principal.name]
        ).fetchone()
        if row is None:
            raise api_usage(f"No such user: {principal.name}")
        made = call.world.sessions.open(
            call.connection, user_id=row[0], user_name=principal.name, group=principal.group or ""
        )
        return self._object(call, made)

    @staticmethod
    def _object(call: Call, session: LiveSession) -> Model:
        loader = Loader(call.connection, call.caller)
        loader.load("Session", [session.row_id])
        loader.connect()
        found = loader.get("Session", session.row_id)
        assert found is not None
        found.setUuid(rstring(session.uuid))
        found.getDetails()._group = omero.model.ExperimenterGroupI(rlong(session.group_id), False)
        return found


@servant(omero.api.ITypes)
class TypesServant(Servant):
    """ITypes: the values of enumerations."""

    def all_enumerations(self, call: Call, class_name: str) -> list[Model | None]:
        entity = entity_named(class_name)
        return Run(call, f"select e from {entity.name} e order by e.id", None).objects()

    def get_enumeration(self, call: Call, class_name: str, value: str) -> Model:
        entity = entity_named(class_name)
        given = omero.sys.ParametersI().addString("value", value)
        query = f"select e from {entity.name} e where e.value = :value"
        found = Run(call, query, given).objects()
        if not found:
            raise api_usage(f"An enumeration of type {class_name} and value {value} is unknown")
        return found[0]

    def get_annotation_types(self, _call: Call) -> list[str]:
        classes = (entities()[name] for name in entities()["Annotation"].subclasses)
        return [each.java_name for each in classes if not each.abstract]
