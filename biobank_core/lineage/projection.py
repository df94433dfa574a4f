"""From a catalog object to what the index is told of it. The same code for every driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from biobank_core.catalog.port import Catalog
from biobank_core.lineage.events import (
    ActionEvent,
    DeviceEvent,
    IndexEvent,
    Member,
    NodeEvent,
    SupersessionEvent,
)
from biobank_core.model.base import Object
from biobank_core.model.kinds import (
    Action,
    DataCollection,
    Device,
    Supersession,
    Tombstone,
    VesselsCollection,
)
from biobank_core.model.registry import is_a, is_node

# Kinds that the graph holds and that are no nodes.
_NO_NODES: Final = ("Action", "Device", "Supersession")


def project_all(catalog: Catalog, wanted: Iterable[tuple[str, str]]) -> Iterator[IndexEvent]:
    """The events of these objects, given as (log, VID): each as that log has it now."""
    by_log: dict[str, list[str]] = {}
    for log, vid in wanted:
        by_log.setdefault(log, []).append(vid)
    for log, vids in by_log.items():
        for found in catalog.get_in(log, vids).values():
            event = project(found.object, version=found.version, log=log)
            if event is not None:
                yield event


def project(obj: Object, *, version: int, log: str) -> IndexEvent | None:
    """The event that tells the index of this state; None for kinds that the graph does not hold.

    Deterministic: equal objects of one version always give equal events.
    """
    if isinstance(obj, Tombstone):
        return _deleted(obj, version=version, log=log)
    match obj:
        case Action():
            return ActionEvent(
                log=log,
                vid=obj.vid,
                version=version,
                category=obj.category.value,
                device=obj.device,
                setup=obj.setup,
                study=obj.study,
                status=obj.status.value,
                end=obj.end,
                inputs=tuple([Member(port.role, port.object) for port in obj.inputs]),
                outputs=tuple([Member(port.role, port.object) for port in obj.outputs]),
            )
        case Device():
            return DeviceEvent(
                log=log, vid=obj.vid, version=version, label=obj.label, release=obj.release
            )
        case Supersession():
            return SupersessionEvent(
                log=log, vid=obj.vid, version=version, new=obj.new, old=obj.old
            )
    kind = obj.kind
    if not is_node(kind):
        return None
    members: tuple[Member, ...] = ()
    if isinstance(obj, DataCollection | VesselsCollection):
        members = tuple([Member(item.role, item.object) for item in obj.items])
    return NodeEvent(
        log=log,
        vid=obj.vid,
        version=version,
        kind=kind,
        label=getattr(obj, "label", ""),
        study=getattr(obj, "study", None),
        members=members,
    )


def in_graph(kind: str) -> bool:
    """Whether `project` may give an event for objects of this kind; a Tombstone may be of any."""
    return kind == "Tombstone" or is_node(kind) or any(is_a(kind, base) for base in _NO_NODES)


def _deleted(stone: Tombstone, *, version: int, log: str) -> IndexEvent | None:
    common: dict[str, Any] = {"log": log, "vid": stone.vid, "version": version, "deleted": True}
    if is_node(stone.of):
        return NodeEvent(**common, kind=stone.of)
    if is_a(stone.of, "Action"):
        return ActionEvent(**common)
    if is_a(stone.of, "Device"):
        return DeviceEvent(**common)
    if is_a(stone.of, "Supersession"):
        return SupersessionEvent(**common)
    return None
