"""Small made-up graphs as events, and the plainest possible reading of them to compare with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from biobank_core.lineage.events import (
    ActionEvent,
    DeviceEvent,
    IndexEvent,
    Member,
    NodeEvent,
    SupersessionEvent,
)
from biobank_core.lineage.port import Direction
from biobank_core.model.ids import derived_vid

LOG = "log-a"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def vid(name: str) -> str:
    return derived_vid("Test", name)


def node(name: str, kind: str = "DataSample", version: int = 1, log: str = LOG, **more):
    label = more.pop("label", "" if kind == "Individual" else name)
    members = tuple(Member(role, vid(member)) for role, member in more.pop("members", ()))
    study = more.pop("study", "study")
    return NodeEvent(
        log=log,
        vid=vid(name),
        version=version,
        kind=kind,
        label=label,
        study=study and vid(study),
        members=members,
        **more,
    )


def collection(name: str, *members: str, version: int = 1, log: str = LOG) -> NodeEvent:
    return node(
        name,
        "DataCollection",
        version,
        log,
        members=[(f"member {number}", member) for number, member in enumerate(members)],
    )


def action(
    name: str,
    inputs: Iterable[str],
    outputs: Iterable[str],
    *,
    device: str | None = None,
    version: int = 1,
    log: str = LOG,
    category: str = "PROCESSING",
    status: str = "ok",
    days: int = 0,
) -> ActionEvent:
    return ActionEvent(
        log=log,
        vid=vid(name),
        version=version,
        category=category,
        device=device and vid(device),
        setup=None,
        study=vid("study"),
        status=status,
        end=BEGIN + timedelta(days=days),
        inputs=tuple(Member(f"in {item}", vid(item)) for item in inputs),
        outputs=tuple(Member(f"out {item}", vid(item)) for item in outputs),
    )


def device(name: str, label: str, release: str | None, version: int = 1, log: str = LOG):
    return DeviceEvent(log=log, vid=vid(name), version=version, label=label, release=release)


def supersession(name: str, new: str, old: str, version: int = 1, log: str = LOG):
    return SupersessionEvent(log=log, vid=vid(name), version=version, new=vid(new), old=vid(old))


def gone(event: IndexEvent, version: int | None = None) -> IndexEvent:
    """The deletion of the object of an event, at its version or a later one."""
    common = {
        "log": event.log,
        "vid": event.vid,
        "version": version or event.version,
        "deleted": True,
    }
    return (
        NodeEvent(**common, kind=event.kind)
        if isinstance(event, NodeEvent)
        else type(event)(**common)
    )


def ladder(rungs: int) -> list[IndexEvent]:
    """Diamonds one after another: 2**rungs paths from `d0` to the last `d`."""
    events: list[IndexEvent] = [node("d0")]
    for number in range(rungs):
        here, left, right, there = (
            f"d{number}",
            f"left {number}",
            f"right {number}",
            f"d{number + 1}",
        )
        events += [node(left), node(right), node(there)]
        events += [
            action(f"split {number}", [here], [left, right]),
            action(f"join {number}", [left, right], [there]),
        ]
    return events


# The plain reading


@dataclass
class Plain:
    """Nodes and edges as sets, from the newest event of each VID; walked one edge at a time."""

    nodes: set[str]
    edges: set[tuple[str, str]]

    def depths(self, starts: Sequence[str], direction: Direction) -> dict[str, int]:
        found: dict[str, int] = {}
        for forward in (True, False):
            if direction is (Direction.UPSTREAM if forward else Direction.DOWNSTREAM):
                continue
            steps = defaultdict(set)
            for source, target in self.edges:
                if forward:
                    steps[source].add(target)
                else:
                    steps[target].add(source)
            level = {start for start in starts if start in self.nodes}
            seen: dict[str, int] = dict.fromkeys(level, 0)
            depth = 0
            while level:
                depth += 1
                level = {after for here in level for after in steps[here]} - seen.keys()
                seen.update(dict.fromkeys(level, depth))
            for reached, depth in seen.items():
                found[reached] = min(depth, found.get(reached, depth))
        return {reached: depth for reached, depth in found.items() if reached in self.nodes}


def plain(events: Iterable[IndexEvent]) -> Plain:
    newest: dict[str, IndexEvent] = {}
    for event in sorted(events, key=lambda event: (event.version, event.deleted)):
        newest[event.vid] = event
    edges = set()
    for event in newest.values():
        if event.deleted:
            continue
        if isinstance(event, NodeEvent):
            edges |= {(member.node, event.vid) for member in event.members}
        elif isinstance(event, ActionEvent):
            edges |= {(i.node, o.node) for i in event.inputs for o in event.outputs}
    nodes = {event.vid for event in newest.values() if isinstance(event, NodeEvent)}
    return Plain(nodes, edges)


# Random worlds

_NAMES = [f"n{number}" for number in range(10)]
_names = st.sampled_from(_NAMES)
_some = st.lists(_names, max_size=4, unique=True)


@st.composite
def _versions_of_node(draw: st.DrawFn, name: str) -> list[IndexEvent]:
    events: list[IndexEvent] = []
    is_collection = draw(st.booleans())
    for version in range(1, draw(st.integers(1, 3)) + 1):
        if is_collection:
            event = collection(
                name, *(item for item in draw(_some) if item != name), version=version
            )
        else:
            event = node(name, version=version, label=f"{name} v{version}")
        events.append(event)
        if draw(st.integers(0, 9)) == 0:
            events.append(gone(event))
    return events


@st.composite
def _versions_of_action(draw: st.DrawFn, name: str) -> list[IndexEvent]:
    events: list[IndexEvent] = []
    for version in range(1, draw(st.integers(1, 2)) + 1):
        inputs = draw(_some)
        outputs = [item for item in draw(_some) if item not in inputs]
        by = draw(st.sampled_from([None, "tool 1", "tool 2"]))
        event = action(name, inputs, outputs, device=by, version=version)
        events.append(event)
        if draw(st.integers(0, 9)) == 0:
            events.append(gone(event))
    return events


@st.composite
def histories(draw: st.DrawFn) -> list[IndexEvent]:
    """All states that a few nodes, actions, devices and supersessions ever had."""
    events: list[IndexEvent] = []
    for name in draw(st.lists(_names, min_size=1, max_size=10, unique=True)):
        events += draw(_versions_of_node(name))
    for number in range(draw(st.integers(0, 8))):
        events += draw(_versions_of_action(f"action {number}"))
    events.append(device("tool 1", "shed/repos/o/r/kleborate", "2.2.0"))
    if draw(st.booleans()):
        events.append(device("tool 1", "shed/repos/o/r/kleborate", "2.3.0", version=2))
    for number, (new, old) in enumerate(draw(st.lists(st.tuples(_names, _names), max_size=2))):
        if new != old:
            events.append(supersession(f"supersession {number}", new, old))
    return events


@st.composite
def deliveries(draw: st.DrawFn, events: Sequence[IndexEvent]) -> list[list[IndexEvent]]:
    """The same events in another order, some of them again, in batches of any size."""
    again = draw(st.lists(st.sampled_from(list(events)), max_size=len(events)))
    order = draw(st.permutations([*events, *again]))
    batches: list[list[IndexEvent]] = [[]]
    for event in order:
        if draw(st.integers(0, 3)) == 0:
            batches.append([])
        batches[-1].append(event)
    return batches


starts = st.lists(_names, min_size=1, max_size=3, unique=True).map(
    lambda names: tuple(vid(name) for name in names)
)
