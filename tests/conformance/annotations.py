"""Short ways to make and read what the conformance tests are about."""

from __future__ import annotations

from typing import Any

import omero
import omero.cmd
import omero.model
from omero.rtypes import rlong, rstring, unwrap

from tests.servers.omero.lab import Client, OmeroLab

ALL_GROUPS = {"omero.group": "-1"}


def namespace(lab: OmeroLab) -> str:
    """Return the lab's own annotation namespace."""
    return f"conformance-{lab.tag}"


def map_annotation(ns: str, name: str = "", *pairs: tuple[str, str]) -> Any:
    """Return a new MapAnnotation."""
    made = omero.model.MapAnnotationI()
    made.setNs(rstring(ns))
    if name:
        made.setName(rstring(name))
    made.setMapValue([omero.model.NamedValue(*pair) for pair in pairs])
    return made


def tokens(client: Client, count: int = 1) -> list[int]:
    """Save that many ExternalInfo rows and return their ids."""
    made = []
    for _ in range(count):
        token = omero.model.ExternalInfoI()
        token.setEntityId(rlong(1))
        token.setEntityType(rstring("token"))
        token.setLsid(rstring("token"))
        made.append(token)
    ids: list[int] = client.update.saveAndReturnIds(made)
    return ids


def with_token(annotation: Any, token: int) -> Any:
    """Let an annotation claim a token, and return it."""
    annotation.getDetails().setExternalInfo(omero.model.ExternalInfoI(token, False))
    return annotation


def pairs_of(client: Client, row_id: int) -> list[tuple[str, str] | None]:
    """Return an annotation's pairs as they are now."""
    found = client.query.get("MapAnnotation", row_id)
    return [pair and (pair.name, pair.value) for pair in found.getMapValue()]


def names(client: Client, ns: str) -> list[str]:
    """Return the names of the annotations in a namespace, sorted."""
    given = omero.sys.ParametersI().addString("ns", ns)
    rows = client.query.projection("select a.name from Annotation a where a.ns = :ns", given)
    return sorted(unwrap(row[0]) for row in rows)


def last_log(client: Client) -> int:
    """Return the greatest EventLog id that can be seen."""
    return max(client.ids("select max(e.id) from EventLog e"), default=0)


def logs_since(client: Client, last: int) -> list[tuple[str, str, int]]:
    """Return (action, class, id) of our own EventLog rows since then, sorted."""
    who = client.admin.getEventContext().userId
    given = omero.sys.ParametersI().addLong("last", last).addLong("who", who)
    rows = client.query.projection(
        "select e.action, e.entityType, e.entityId from EventLog e"
        " where e.id > :last and e.event.experimenter.id = :who and e.action <> 'REINDEX'",
        given,
    )
    return sorted(
        (unwrap(action), unwrap(java_name).rpartition(".")[2], unwrap(row_id))
        for action, java_name, row_id in rows
    )


def delete(client: Client, **targets: list[int]) -> dict[str, int]:
    """Delete2 these and return how many of each class went."""
    response = client.submit(omero.cmd.Delete2(targetObjects=targets))
    return {name.rpartition(".")[2]: len(ids) for name, ids in response.deletedObjects.items()}


def text(error: BaseException) -> str:
    """Return a server error's message."""
    return str(getattr(error, "message", error))
