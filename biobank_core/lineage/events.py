"""What the index is told: the state of one object after a change, and nothing personal.

An event is all that a message carries. It is idempotent, and events may be applied in any order:
the greater version wins, on a tie the deletion.
"""

from __future__ import annotations

from datetime import datetime

import msgspec


# gc=False: by the hundred thousand, and never part of a cycle.
class _Event(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    gc=False,
):
    """`log` is the catalog's log that the version counts in; a node's groups are its logs."""

    log: str
    vid: str
    version: int
    deleted: bool = False


class Member(msgspec.Struct, frozen=True, gc=False):
    """A node and its role in an action or a collection."""

    role: str
    node: str


class NodeEvent(_Event, frozen=True, kw_only=True, tag="node"):
    """A node of the graph. `label` is empty for an Individual; `members` are a collection's."""

    kind: str
    label: str = ""
    study: str | None = None
    members: tuple[Member, ...] = ()


class ActionEvent(_Event, frozen=True, kw_only=True, tag="action"):
    """An action: its edges go from each input to each output."""

    category: str = ""
    device: str | None = None
    setup: str | None = None
    study: str | None = None
    status: str = ""
    end: datetime | None = None
    inputs: tuple[Member, ...] = ()
    outputs: tuple[Member, ...] = ()


class DeviceEvent(_Event, frozen=True, kw_only=True, tag="device"):
    """The label and release that edges and nodes show for this device."""

    label: str = ""
    release: str | None = None


class SupersessionEvent(_Event, frozen=True, kw_only=True, tag="supersession"):
    """An edge SUPERSEDES from the new result to the old one."""

    new: str = ""
    old: str = ""


IndexEvent = NodeEvent | ActionEvent | DeviceEvent | SupersessionEvent
