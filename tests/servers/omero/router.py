"""The front door: the Glacier2 router, and each session's ServiceFactory behind it."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import Glacier2
import Ice
import omero
import omero.api
import omero.cmd
import psycopg

from tests.servers.omero import commands
from tests.servers.omero.admin import AdminServant
from tests.servers.omero.calls import Call, Servant
from tests.servers.omero.errors import CommandFailed, not_implemented
from tests.servers.omero.files import RawFileStoreServant
from tests.servers.omero.loading import Model
from tests.servers.omero.queries import QueryServant
from tests.servers.omero.sessions import LiveSession
from tests.servers.omero.small_services import ConfigServant, SessionServant, TypesServant
from tests.servers.omero.updates import UpdateServant
from tests.servers.omero.world import World

ROUTER_IDENTITY = Ice.Identity(name="router", category="OMERO.Glacier2")
_SERVICES: dict[str, type] = {
    "AdminService": AdminServant,
    "ConfigService": ConfigServant,
    "QueryService": QueryServant,
    "SessionService": SessionServant,
    "TypesService": TypesServant,
    "UpdateService": UpdateServant,
}
_INTERFACES = {
    "omero.api.IAdmin": "AdminService",
    "omero.api.IConfig": "ConfigService",
    "omero.api.IQuery": "QueryService",
    "omero.api.ISession": "SessionService",
    "omero.api.ITypes": "TypesService",
    "omero.api.IUpdate": "UpdateService",
}
_PROXIES = {
    "AdminService": "IAdminPrx",
    "ConfigService": "IConfigPrx",
    "QueryService": "IQueryPrx",
    "SessionService": "ISessionPrx",
    "TypesService": "ITypesPrx",
    "UpdateService": "IUpdatePrx",
}


def _unavailable(name: str) -> Any:
    def get(self: Any, *arguments: Any) -> Any:
        raise not_implemented(f"ServiceFactory.{name}")

    return get


class ServiceFactory(omero.api.ServiceFactory):
    """A session as its clients see it."""

    def __init__(self, world: World, session: LiveSession) -> None:
        self._world = world
        self._session = session

    def _proxy(self, current: Any, name: str, prx: Any) -> Any:
        identity = Ice.Identity(name=name, category=self._session.uuid)
        return prx.uncheckedCast(current.adapter.createProxy(identity))

    def createRawFileStore(self, current: Any = None) -> Any:
        name = f"RawFileStore-{uuid.uuid4()}"
        self._session.stateful[name] = RawFileStoreServant(self._world, self._session)
        return self._proxy(current, name, omero.api.RawFileStorePrx)

    def getByName(self, name: str, current: Any = None) -> Any:
        if name not in _INTERFACES:
            raise not_implemented(f"the service {name}")
        service = _INTERFACES[name]
        return self._proxy(current, service, getattr(omero.api, _PROXIES[service]))

    def createByName(self, name: str, current: Any = None) -> Any:
        if name != "omero.api.RawFileStore":
            raise not_implemented(f"the service {name}")
        return self.createRawFileStore(current)

    def setCallback(self, callback: Any, current: Any = None) -> None:
        pass

    def closeOnDestroy(self, current: Any = None) -> None:
        self._session.detached = False

    def detachOnDestroy(self, current: Any = None) -> None:
        self._session.detached = True

    def activeServices(self, current: Any = None) -> list[str]:
        return list(self._session.stateful)

    def keepAllAlive(self, proxies: list[Any], current: Any = None) -> int:
        self._session.touch()
        return 0

    def keepAlive(self, proxy: Any, current: Any = None) -> bool:
        self._session.touch()
        return True

    def getSecurityContexts(self, current: Any = None) -> list[Model]:
        admin = AdminServant(self._world, self._session)
        groups: list[Model] = admin.run(
            "IAdmin", "containedGroups", (self._session.user_id,), current
        )
        return groups

    def setSecurityContext(self, group: Model, current: Any = None) -> Model:
        old = self._session.group_id
        admin = AdminServant(self._world, self._session)
        self._session.group_id = group.id.val
        try:
            admin.run("IAdmin", "getEventContext", (), current)
        except omero.ServerError:
            self._session.group_id = old
            raise
        return omero.model.ExperimenterGroupI(old, False)

    def submit_async(self, callback: Any, request: Any, current: Any = None) -> None:
        runner = _Submission(self._world, self._session)
        name = type(request).__name__
        try:
            try:
                response = runner.run(name, "execute", (request,), current)
            except CommandFailed as exc:
                response = exc.response
            except omero.ServerError as exc:
                response = omero.cmd.ERR(
                    request.ice_id(), type(exc).__name__, {"message": exc.message}
                )
            name = f"Handle-{uuid.uuid4()}"
            self._session.stateful[name] = commands.HandleServant(request, response)
            callback.ice_response(self._proxy(current, name, omero.cmd.HandlePrx))
        except Ice.Exception as exc:
            callback.ice_exception(exc)

    def destroy(self, current: Any = None) -> None:
        self._world.sessions.leave(self._session.uuid)


class _Submission(Servant):
    """Runs a request as a transaction of its own."""

    def execute(self, call: Call, request: Any) -> Any:
        return commands.execute(call, request)


for _name in dir(omero.api.ServiceFactory):
    if _name.startswith("_op_"):
        _operation = _name.removeprefix("_op_")
        _service = _operation.removeprefix("get")
        if _service in _SERVICES:

            def _get(self: ServiceFactory, current: Any = None, service: str = _service) -> Any:
                return self._proxy(current, service, getattr(omero.api, _PROXIES[service]))

            setattr(ServiceFactory, _operation, _get)
        elif _operation not in vars(ServiceFactory) and f"{_operation}_async" not in vars(
            ServiceFactory
        ):
            setattr(ServiceFactory, _operation, _unavailable(_operation))


class Locator(Ice.ServantLocator):
    """Finds the servant behind an identity; none, once the session is gone."""

    def __init__(self, world: World, router: Router) -> None:
        self._world = world
        self._router = router

    def locate(self, current: Any) -> Any:
        identity = current.id
        if identity == ROUTER_IDENTITY:
            return self._router
        session = self._world.sessions.get(identity.category or identity.name)
        if session is None:
            return None
        if not identity.category:
            return ServiceFactory(self._world, session)
        if identity.name in _SERVICES:
            return _SERVICES[identity.name](self._world, session)
        return session.stateful.get(identity.name)

    def finished(self, current: Any, servant: Any, cookie: Any) -> None:
        pass

    def deactivate(self, category: str) -> None:
        pass


class Router(Glacier2.Router):
    """Glacier2's router, which here is the server itself: nothing is routed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lock = threading.Lock()
        self._sessions: dict[str, str] = {}  # connection -> session's UUID

    def getClientProxy(self, current: Any = None) -> Any:
        return None

    def getServerProxy(self, current: Any = None) -> Any:
        return current.adapter.createProxy(ROUTER_IDENTITY)

    def addProxies(self, proxies: list[Any], current: Any = None) -> list[Any]:
        return []

    def getCategoryForClient(self, current: Any = None) -> str:
        return "client"

    def getSessionTimeout(self, current: Any = None) -> int:
        return 600

    def getACMTimeout(self, current: Any = None) -> int:
        return 600

    def createSession_async(
        self, callback: Any, user_name: str, password: str, current: Any = None
    ) -> None:
        if self._world.faults.take("createSession", "login-internal-error"):
            callback.ice_exception(Glacier2.PermissionDeniedException("internal server error"))
            return
        group = (current.ctx or {}).get("omero.group", "")
        session = self._world.sessions.join(password) if user_name == password else None
        try:
            if session is None:
                with self._world.database.transaction() as connection:
                    session = self._world.sessions.login(connection, user_name, password, group)
        except omero.SecurityViolation as exc:
            # The router knows no such error.
            callback.ice_exception(
                Ice.UnknownException(f"{exc.serverExceptionClass}: {exc.message}")
            )
            return
        except Glacier2.CannotCreateSessionException as exc:
            callback.ice_exception(exc)
            return
        except psycopg.Error:
            callback.ice_exception(Glacier2.PermissionDeniedException("internal server error"))
            return
        if session is None:
            time.sleep(self._world.login_delay_s)  # as OMERO, against guessing
            reason = f"Password check failed for '{user_name}': []"
            callback.ice_exception(Glacier2.PermissionDeniedException(reason))
            return
        with self._lock:
            self._sessions[_peer(current)] = session.uuid
        identity = Ice.Identity(name=session.uuid)
        callback.ice_response(
            Glacier2.SessionPrx.uncheckedCast(current.adapter.createProxy(identity))
        )

    def createSessionFromSecureConnection_async(self, callback: Any, current: Any = None) -> None:
        callback.ice_exception(Glacier2.PermissionDeniedException("not available"))

    def refreshSession_async(self, callback: Any, current: Any = None) -> None:
        if self._of(current) is None:
            callback.ice_exception(Glacier2.SessionNotExistException())
        else:
            callback.ice_response()

    def destroySession(self, current: Any = None) -> None:
        with self._lock:
            session = self._sessions.pop(_peer(current), None)
        if session is None:
            raise Glacier2.SessionNotExistException()
        self._world.sessions.leave(session)

    def _of(self, current: Any) -> str | None:
        with self._lock:
            return self._sessions.get(_peer(current))


def _peer(current: Any) -> str:
    """Return what tells one connection from another."""
    return str(current.con.toString())
