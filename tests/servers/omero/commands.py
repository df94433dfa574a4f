"""The requests of `submit`: Delete2, Chgrp2 and DoAll, done at once, and Handles to answers."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import Ice
import omero
import omero.cmd
import psycopg

from tests.servers.omero.caller import Owned
from tests.servers.omero.calls import Call
from tests.servers.omero.deleting import Deletion, DeletionRefused
from tests.servers.omero.errors import CommandFailed, api_usage, translated
from tests.servers.omero.hql.parser import HqlError
from tests.servers.omero.hql.plan import entity_named
from tests.servers.omero.model import Entity, entities


def execute(call: Call, request: Any) -> Any:
    """Do a request in the call's transaction and return its response."""
    if isinstance(request, omero.cmd.DoAll):
        return omero.cmd.DoAllRsp([execute(call, each) for each in request.requests], [])
    if isinstance(request, omero.cmd.Delete2):
        return _delete(call, request)
    if isinstance(request, omero.cmd.Chgrp2):
        return _change_group(call, request)
    name = type(request).__name__
    raise CommandFailed(
        omero.cmd.ERR(
            request.ice_id(),
            "not-implemented",
            {"message": f"the stand-in for OMERO does not implement {name}"},
        )
    )


def _failure(request: Any, message: str) -> CommandFailed:
    graph = omero.cmd.GraphException()
    graph.category, graph.name = request.ice_id(), "graph-fail"
    stack = f"ome.services.graphs.GraphException(message={message})"
    graph.parameters = {"stacktrace": stack, "message": ""}
    graph.message = message
    return CommandFailed(graph)


def _bad_target(request: Any, entity: Entity) -> Any:
    message = f"cannot target {entity.name}"
    stack = f"java.lang.IllegalArgumentException: {message}"
    return omero.cmd.ERR(request.ice_id(), "bad-target", {"stacktrace": stack, "message": message})


def _targets(request: Any) -> list[tuple[Entity, list[int]]]:
    try:
        return [
            (entity_named(name.rpartition(".")[2]), list(ids))
            for name, ids in (request.targetObjects or {}).items()
        ]
    except HqlError as exc:
        stack = {"stacktrace": "java.lang.NullPointerException", "message": ""}
        raise CommandFailed(omero.cmd.ERR(request.ice_id(), "graph-fail", stack)) from exc


def _delete(call: Call, request: Any) -> Any:
    kept: set[str] = set()
    for option in request.childOptions or []:
        if option.includeNs or option.excludeNs or option.includeType:
            raise _failure(request, "the stand-in has only excludeType of the ChildOptions")
        kept |= set(option.excludeType or [])
    deletion = Deletion(call.connection, call.caller, kept)
    try:
        for entity, ids in _targets(request):
            if entity.is_global:
                raise CommandFailed(_bad_target(request, entity))
            deletion.add_targets(entity, ids)
        deletion.find_the_rest()
        if not request.dryRun:
            deletion.execute(call.events)
    except DeletionRefused as exc:
        raise _failure(request, str(exc)) from exc
    except psycopg.IntegrityError as exc:
        raise _failure(request, translated(exc, "delete").message) from exc
    if not request.dryRun:
        for file_id in deletion.file_ids():
            (call.world.files / str(file_id)).unlink(missing_ok=True)
    return omero.cmd.Delete2Response(deletion.doomed())


def _change_group(call: Call, request: Any) -> Any:
    """Move annotations, with their ExternalInfo; links to what stays behind are deleted."""
    moved: dict[str, list[int]] = {}
    cut: dict[str, list[int]] = {}
    for entity, ids in _targets(request):
        if entity.root != "Annotation":
            raise _failure(request, f"the stand-in's Chgrp2 moves only annotations: {entity.name}")
        rows = call.connection.execute(
            "select id, discriminator, owner_id, group_id from annotation where id = any(%s)",
            [ids],
        ).fetchall()
        member = call.caller.is_admin or request.groupId in call.caller.member_of
        for row_id, name, *owned in rows:
            who = Owned(*owned)
            if not member or not (call.caller.is_admin or who.owner_id == call.caller.user_id):
                raise _failure(request, f"does not own {entities()[name].java_name}[{row_id}]")
            moved.setdefault(entities()[name].java_name, []).append(row_id)
            call.events.log("UPDATE", entities()[name], row_id)
        tokens = call.connection.execute(
            "update externalinfo set group_id = %s where id in"
            " (select external_id from annotation where id = any(%s)) returning id",
            [request.groupId, ids],
        ).fetchall()
        for row in tokens:
            moved.setdefault("ome.model.meta.ExternalInfo", []).append(row[0])
            call.events.log("UPDATE", entities()["ExternalInfo"], row[0])
        call.connection.execute(
            "update annotation set group_id = %s where id = any(%s)", [request.groupId, ids]
        )
        for link in (each for each in entities().values() if each.name.endswith("AnnotationLink")):
            gone = call.connection.execute(
                f'delete from "{link.table}" where child = any(%s) returning id'.encode(), [ids]
            ).fetchall()
            for row in gone:
                cut.setdefault(link.java_name, []).append(row[0])
                call.events.log("DELETE", link, row[0])
    return omero.cmd.Chgrp2Response(moved, cut)


class HandleServant(omero.cmd.Handle):
    """The Handle of a request that is done already."""

    def __init__(self, request: Any, response: Any) -> None:
        self._request = request
        self._response = response
        self._done_ms = int(time.time() * 1000)

    def getRequest(self, current: Any = None) -> Any:
        return self._request

    def getResponse(self, current: Any = None) -> Any:
        return self._response

    def getStatus(self, current: Any = None) -> Any:
        failed = isinstance(self._response, omero.cmd.ERR)
        flags = [omero.cmd.State.FAILURE if failed else omero.cmd.State.SUCCESS]
        status = omero.cmd.Status(flags=flags, parameters={}, currentStep=1, steps=1)
        status.startTime = status.stopTime = self._done_ms
        status.stepStartTimes = status.stepStopTimes = [self._done_ms]
        return status

    def addCallback(self, callback: Any, current: Any = None) -> None:
        # Over the caller's own connection: a client of a router listens on no port.
        back = current.con.createProxy(callback.ice_getIdentity())
        with contextlib.suppress(Ice.Exception):
            omero.cmd.CmdCallbackPrx.uncheckedCast(back).begin_finished(
                self._response, self.getStatus()
            )

    def removeCallback(self, callback: Any, current: Any = None) -> None:
        pass

    def cancel(self, current: Any = None) -> bool:
        raise api_usage("the request is done already")

    def close(self, current: Any = None) -> None:
        current.adapter.remove(current.id) if current.adapter.find(current.id) else None
