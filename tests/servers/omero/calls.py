"""How a servant's operation becomes one transaction of one caller."""

from __future__ import annotations

import re
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import Ice
import omero
import psycopg

from tests.servers.omero.caller import Caller, caller_for, memberships_of
from tests.servers.omero.errors import (
    CommandFailed,
    api_usage,
    internal,
    not_implemented,
    server_error,
    translated,
)
from tests.servers.omero.events import EventWriter
from tests.servers.omero.hql.parser import HqlError, NotExecutable
from tests.servers.omero.hql.plan import NullParameter, ParameterError

if TYPE_CHECKING:
    from tests.servers.omero.sessions import LiveSession
    from tests.servers.omero.world import World

_CAPITAL = re.compile(r"(?<!^)([A-Z])")
_RESERVED_LOGS = 2_000  # enough for the largest unit that is saved in one call


@dataclass
class Call:
    """One call in its transaction: who calls, the connection, the events it will leave."""

    world: World
    session: LiveSession
    current: Any
    connection: psycopg.Connection[Any]
    caller: Caller
    events: EventWriter


class Servant:
    """The base of all servants that belong to a session."""

    def __init__(self, world: World, session: LiveSession) -> None:
        self.world = world
        self.session = session

    def run(self, interface: str, operation: str, arguments: tuple[Any, ...], current: Any) -> Any:
        """Run one operation as one transaction; what it raises is what OMERO would."""
        name = f"{interface}.{operation}"
        implementation = getattr(self, method_name(operation), None)
        faults = self.world.faults
        if faults.take(name, "remove-session"):
            self.world.sessions.remove(self.session.uuid)
            raise Ice.ObjectNotExistException()
        try:
            if implementation is None:
                raise not_implemented(name)
            self.session.touch()
            faults.before_call(name)
            return self._transaction(name, implementation, arguments, current)
        except (omero.ServerError, Ice.Exception, CommandFailed):
            raise
        except HqlError as exc:
            raise server_error(omero.QueryException, str(exc)) from exc
        except (ParameterError, NotExecutable) as exc:
            raise api_usage(str(exc)) from exc
        except NullParameter as exc:
            raise Ice.UnknownException(
                "ome.conditions.ApiUsageException: Parameter argument may not be null."
            ) from exc
        except psycopg.Error as exc:
            raise translated(exc, "execute query") from exc
        except Exception as exc:
            traceback.print_exc(file=sys.stderr)
            raise internal(f"{type(exc).__name__}: {exc}") from exc

    def _transaction(
        self,
        name: str,
        implementation: Callable[..., Any],
        arguments: tuple[Any, ...],
        current: Any,
    ) -> Any:
        faults = self.world.faults
        with self.world.database.transaction() as connection:
            if name == "IAdmin.getEventContext" or self.session.memberships is None:
                # A session learns of groups that its account joined when it asks who it is; a
                # genuine server lets it know some minutes later at the latest.
                self.session.memberships = memberships_of(connection, self.session.user_id)
            with connection.cursor() as cursor:
                caller = caller_for(
                    cursor,
                    user_id=self.session.user_id,
                    user_name=self.session.user_name,
                    session_id=self.session.row_id,
                    session_uuid=self.session.uuid,
                    group_id=self._group(current),
                    memberships=self.session.memberships,
                )
            events = EventWriter(connection, caller)
            late = faults.take(name, "late-event-log")
            if late is not None:
                events.reserve(_RESERVED_LOGS)
            call = Call(self.world, self.session, current, connection, caller, events)
            result = implementation(call, *arguments)
            events.write()
            if late is not None:
                time.sleep(late.seconds)
            if faults.drop(name, current, "drop-before-commit"):
                raise internal("the connection was dropped")
            if later := faults.drop(name, current, "drop-then-commit"):
                time.sleep(later.seconds)
        faults.drop(name, current, "drop-after-commit")
        return result

    def _group(self, current: Any) -> int:
        context = current.ctx or {}
        for key in ("omero.user", "omero.share"):
            if key in context:
                raise not_implemented(f"the call context {key}")
        group = context.get("omero.group", "")
        if not group.lstrip("-").isdigit():
            return self.session.group_id  # OMERO takes a name for nothing at all
        return int(group)


def method_name(operation: str) -> str:
    """Return how a Slice operation is called in our classes."""
    return _CAPITAL.sub(r"_\1", operation).lower()


def servant(interface: type) -> Callable[[type], type]:
    """Make a class the servant of a Slice interface.

    The operation `findAllByQuery` is the class's method `find_all_by_query(call, ...)`; one that
    the class does not have raises, and says so.
    """

    def decorate(implementation: type) -> type:
        members: dict[str, Any] = {}
        for name in dir(interface):
            if name.startswith("_op_"):
                operation = name.removeprefix("_op_")
                is_amd = hasattr(interface, f"{operation}_async")
                wrapper = _asynchronous if is_amd else _synchronous
                key = f"{operation}_async" if is_amd else operation
                members[key] = wrapper(
                    interface.__name__,
                    operation,
                    getattr(implementation, method_name(operation), None),
                )
        return type(implementation.__name__, (implementation, interface), members)

    return decorate


def _synchronous(
    interface: str, operation: str, _implementation: Callable[..., Any] | None
) -> Callable[..., Any]:
    def call(self: Servant, *arguments: Any) -> Any:
        *given, current = arguments
        return self.run(interface, operation, tuple(given), current)

    return call


def _asynchronous(
    interface: str, operation: str, implementation: Callable[..., Any] | None
) -> Callable[..., None]:
    # The answer to a void operation takes no value at all, which only its annotation tells.
    returns_nothing = getattr(implementation, "__annotations__", {}).get("return") == "None"

    def call(self: Servant, callback: Any, *arguments: Any) -> None:
        *given, current = arguments
        try:
            result = self.run(interface, operation, tuple(given), current)
        except Ice.Exception as exc:
            callback.ice_exception(exc)
            return
        if returns_nothing:
            callback.ice_response()
        else:
            callback.ice_response(result)

    return call
