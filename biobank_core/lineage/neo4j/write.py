"""Taking events into the graph: one transaction, a few statements however large the batch."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import neo4j

from biobank_core.lineage.events import (
    ActionEvent,
    DeviceEvent,
    IndexEvent,
    NodeEvent,
    SupersessionEvent,
)
from biobank_core.lineage.in_place import Held
from biobank_core.lineage.ledger import Shown, is_newer, shown
from biobank_core.lineage.links import Link, Part, implicit_vid, nodes_named, part_of
from biobank_core.lineage.neo4j import cypher
from biobank_core.lineage.neo4j import states as of
from biobank_core.lineage.neo4j.connection import run
from biobank_core.lineage.neo4j.states import Properties
from biobank_core.lineage.port import Relation


@dataclass(slots=True)
class Taken:
    """What a batch did. `ahead`: what a rebuild found beside what it was told, or later."""

    ahead: list[Held] = field(default_factory=list)


@dataclass(slots=True)
class _Changed:
    """What is to be shown anew. `old` are those of which the graph may hold parts already."""

    shown: dict[str, Shown] = field(default_factory=dict)
    old: set[str] = field(default_factory=set)
    had_members: set[str] = field(default_factory=set)
    had_middle: set[str] = field(default_factory=set)

    def note(self, vid: str, record: str | None, *, had_ends: bool) -> None:
        """The graph may hold a part that this object gave before."""
        if record is None:
            if had_ends:
                self.had_members.add(vid)
            return
        self.old.add(vid)
        if record == "Action":
            self.had_middle.add(implicit_vid(vid))


def take_in(
    tx: neo4j.ManagedTransaction,
    batch: Sequence[IndexEvent],
    *,
    rebuild: int | None = None,
    fresh: bool = True,
) -> Taken:
    """Take the states of the batch into ledger and graph. Idempotent, in any order.

    With the number of a `rebuild` an object that it did not see yet is written anew whatever is
    there, unless a later version of the same log is. `fresh` False: there may be edges of objects
    that the ledger does not know; they are looked for.
    """
    by_vid: dict[str, dict[str, IndexEvent]] = {}
    for event in batch:
        known = by_vid.setdefault(event.vid, {})
        if event.log not in known or is_newer(event, known[event.log]):
            known[event.log] = event
    return _Batch(tx, rebuild=rebuild, fresh=fresh).take_in(by_vid)


def end_refusals(tx: neo4j.ManagedTransaction, rows: Collection[tuple[str, str, int]]) -> None:
    """End the refusals of these (VID, log), up to the version given."""
    (count,) = run(tx, cypher.ANY_REFUSAL).single(strict=True)
    if count:
        run(tx, cypher.END_REFUSALS, rows=[list(row) for row in rows]).consume()


class _Batch:
    """One round: lock and read what stands, decide, unmake, make."""

    def __init__(self, tx: neo4j.ManagedTransaction, *, rebuild: int | None, fresh: bool) -> None:
        self._tx = tx
        self._rebuild = rebuild
        self._fresh = fresh
        self._taken = Taken()
        self._devices: dict[str, tuple[str | None, str | None]] = {}

    def take_in(self, by_vid: dict[str, dict[str, IndexEvent]]) -> Taken:
        kinds: dict[type[IndexEvent], dict[str, dict[str, IndexEvent]]] = {}
        for vid in sorted(by_vid):
            states = by_vid[vid]
            first = next(iter(states.values()))
            kinds.setdefault(type(first), {})[vid] = states
        actions = kinds.get(ActionEvent, {})
        self._settle_devices(kinds.get(DeviceEvent, {}), actions)
        changed = _Changed()
        self._settle(kinds.get(NodeEvent, {}), changed, record=None)
        self._settle(actions, changed, record="Action")
        self._settle(kinds.get(SupersessionEvent, {}), changed, record="Supersession")
        self._unmake(changed)
        self._make(changed.shown.values(), known=kinds.get(NodeEvent, {}))
        end_refusals(
            self._tx,
            [
                (vid, log, event.version)
                for vid, states in by_vid.items()
                for log, event in states.items()
            ],
        )
        return self._taken

    def _settle_devices(
        self, events: dict[str, dict[str, IndexEvent]], actions: dict[str, dict[str, IndexEvent]]
    ) -> None:
        wanted = set(events)
        for states in actions.values():
            for event in states.values():
                if isinstance(event, ActionEvent) and event.device is not None:
                    wanted.add(event.device)
        if not wanted:
            return
        rows, renamed = [], []
        for record in run(self._tx, cypher.LOCK_DEVICES, vids=sorted(wanted)):
            held: Properties = record[0]
            vid = held["vid"]
            decided = self._decide(held, events.get(vid, {}), record="Device")
            if decided is not None:
                states, state = decided
                held = self._properties(states, state)
                rows.append({"held": held})
                living = {} if state.event.deleted else held
                renamed.append(
                    {
                        "vid": vid,
                        "label": living.get("label"),
                        "release": living.get("release"),
                    }
                )
            known = held.get("version") is not None and not held.get("deleted")
            self._devices[vid] = (held.get("label"), held.get("release")) if known else (None, None)
        if rows:
            run(self._tx, cypher.SET_RECORDS, rows=rows, label="Device").consume()
            run(self._tx, cypher.RENAME_DEVICES, rows=renamed).consume()

    def _settle(
        self,
        events: dict[str, dict[str, IndexEvent]],
        changed: _Changed,
        *,
        record: str | None,
    ) -> None:
        """Write what is newer; what is to be shown anew goes into `changed`."""
        if not events:
            return
        fresh: dict[str, Shown] = {}
        rows = []
        for vid, states in events.items():
            fresh[vid] = shown(states.values())
            rows.append(self._properties(states, fresh[vid]))
        statement = cypher.MERGE_OBJECTS if record is None else cypher.MERGE_RECORDS
        updates: list[dict[str, Any]] = []
        for found in run(self._tx, statement, rows=rows, label=record):
            held: Properties = found[0]
            vid = held["vid"]
            decided = self._decide(held, events[vid], record=record)
            if decided is None:
                del fresh[vid]
                continue
            known, fresh[vid] = decided
            now = self._properties(known, fresh[vid])
            before = held.get("kind")
            was = [before or of.PLACEHOLDER] if before != now.get("kind") else []
            updates.append({"held": now, "was": was})
            if held.get("version") is not None:
                changed.note(vid, record, had_ends="state" in held or "states" in held)
        if updates:
            statement = cypher.SET_OBJECTS if record is None else cypher.SET_RECORDS
            run(self._tx, statement, rows=updates, label=record).consume()
        changed.shown.update(fresh)
        if not self._fresh:
            for vid, state in fresh.items():
                changed.note(vid, record, had_ends=of.has_ends(state.event))

    def _decide(
        self, held: Properties, told: dict[str, IndexEvent], *, record: str | None
    ) -> tuple[dict[str, IndexEvent], Shown] | None:
        """The states and what to show of them; None where nothing is newer than what is held."""
        if not told:
            return None
        unseen = self._rebuild is not None and held.get("seen") != self._rebuild
        if not unseen and "logs" not in held and held.get("version") is not None:
            # The common case, without decoding: one log, and not a tie.
            (log,) = held["groups"]
            if len(told) == 1 and log in told and told[log].version < held["version"]:
                return None
        before = of.states_of(held, record)
        if unseen:
            # Whatever stands is doubtful, but may have come from the feed meanwhile.
            ahead = {
                log: event
                for log, event in before.items()
                if log not in told or event.version > told[log].version
            }
            self._taken.ahead += [Held(log, held["vid"], e.version) for log, e in ahead.items()]
            before = {log: event for log, event in ahead.items() if log in told}
        newer = {
            log: event
            for log, event in told.items()
            if log not in before or is_newer(event, before[log])
        }
        if not newer:
            return None
        states = {**before, **newer}
        return states, shown(states.values())

    def _properties(self, states: dict[str, IndexEvent], state: Shown) -> Properties:
        held = of.properties(states, state)
        event = state.event
        if isinstance(event, ActionEvent) and not event.deleted:
            held["tool"], held["release"] = self._tool(event)
        if self._rebuild is not None:
            held["seen"] = self._rebuild
        return held

    def _tool(self, event: ActionEvent) -> tuple[str | None, str | None]:
        return self._devices[event.device] if event.device is not None else (None, None)

    def _unmake(self, changed: _Changed) -> None:
        """Take the old parts of what is shown anew out of the graph."""
        if changed.old:
            unmake_records(self._tx, changed.old)
        middles = changed.had_middle
        if changed.had_members or middles:
            vids = sorted(changed.had_members | middles)
            run(self._tx, cypher.UNMAKE_COLLECTIONS, vids=vids).consume()
        if middles:
            unmake_objects(self._tx, middles)

    def _make(self, states: Iterable[Shown], *, known: Collection[str]) -> None:
        """Make the parts of what is shown anew; the nodes `known` are there."""
        produced: list[dict[str, Any]] = []
        collected: list[dict[str, Any]] = []
        made: list[dict[str, Any]] = []
        used: list[dict[str, Any]] = []
        supersedes: list[list[str]] = []
        middles: list[Properties] = []
        named: set[str] = set()
        for state in states:
            event = state.event
            if event.deleted:
                continue
            if isinstance(event, SupersessionEvent):
                supersedes.append([event.new, event.old, event.vid])
                named.update((event.new, event.old))
                continue
            part = part_of(event)
            named.update(nodes_named(part))
            maker = self._maker(event) if isinstance(event, ActionEvent) else {}
            for link in part.links:
                if link.relation is Relation.PRODUCED:
                    targets = [[vid, list(roles), n] for n, (vid, roles) in enumerate(link.outputs)]
                    produced.append({**maker, "sources": _sources(link), "targets": targets})
                else:
                    collected.append({"sources": _sources(link), "target": link.outputs[0][0]})
            if part.uses:
                ends = [[node, list(roles)] for node, roles in part.uses]
                used.append({"action": event.vid, "maker": maker, "ends": ends})
            if part.made and not part.links:
                ends = [[node, []] for node in part.made]
                made.append({"action": event.vid, "maker": maker, "ends": ends})
            if part.implicit is not None:
                middles.append(self._middle(part, state))
        named.difference_update(known, (middle["vid"] for middle in middles))
        for statement, rows, name in (
            (cypher.MERGE_MIDDLES, middles, "rows"),
            (cypher.ENSURE_OBJECTS, sorted(named), "vids"),
            (cypher.PRODUCED, produced, "links"),
            (cypher.COLLECTED, collected, "links"),
            (cypher.SUPERSEDES, supersedes, "rows"),
            (cypher.MADE, made, "links"),
            (cypher.USED, used, "links"),
        ):
            if rows:
                run(self._tx, statement, **{name: rows}).consume()

    def _maker(self, event: ActionEvent) -> Properties:
        tool, release = self._tool(event)
        about = of.action_properties(event)
        del about["study"]
        return {"action": event.vid, "tool": tool, "release": release, **about}

    def _middle(self, part: Part, state: Shown) -> Properties:
        middle = part.implicit
        assert middle is not None
        held: Properties = {
            "vid": middle.vid,
            "kind": middle.kind,
            "label": middle.label,
            "study": middle.study,
            "groups": sorted(state.groups),
            "deleted": False,
            "action": middle.action,
        }
        if self._rebuild is not None:
            held["seen"] = self._rebuild
        return held


def doubt(tx: neo4j.ManagedTransaction, vids: Iterable[str]) -> None:
    """Set the versions held of these objects to 0; see `RebuiltInPlace.doubt`."""
    rows = []
    for held, labels in run(tx, cypher.HELD, vids=sorted(vids)).values():
        record = next((label for label in of.RECORDS.values() if label in labels), None)
        states = {
            log: msgspec.structs.replace(state, version=0)
            for log, state in of.states_of(held, record).items()
        }
        if states:
            lowered = of.properties(states, shown(states.values()))
            rows.append({"vid": held["vid"], "held": {**lowered, "seen": None}})
    run(tx, cypher.LOWER, rows=rows).consume()


def unmake_records(tx: neo4j.ManagedTransaction, vids: Collection[str]) -> None:
    """Take the edges of these actions and supersessions out of the graph."""
    for statement in (*cypher.UNMAKE, cypher.UNMAKE_SUPERSESSIONS):
        run(tx, statement, vids=sorted(vids)).consume()


def unmake_objects(tx: neo4j.ManagedTransaction, vids: Collection[str]) -> None:
    """Make these nodes placeholders; gone, where no edge needs them."""
    found = run(tx, cypher.HELD_OBJECTS, vids=sorted(vids)).values()
    rows = [{"vid": vid, "was": [] if kind is None else [kind]} for vid, kind in found]
    if rows:
        run(tx, cypher.UNMAKE_OBJECTS, rows=rows).consume()


def forget(tx: neo4j.ManagedTransaction, vids: Iterable[str]) -> None:
    """Take these objects and their parts out of ledger and graph; see `LineageIndex.forget`."""
    given = set(vids)
    superseding = run(tx, cypher.SUPERSEDING, vids=sorted(given)).value()
    gone = sorted(given | set(superseding))
    records = {row[0]: row[1] for row in run(tx, cypher.HELD_RECORDS, vids=gone).values()}
    devices = [vid for vid, labels in records.items() if "Device" in labels]
    if devices:
        rows = [{"vid": vid, "label": None, "release": None} for vid in devices]
        run(tx, cypher.RENAME_DEVICES, rows=rows).consume()
    unmake_records(tx, gone)
    middles = [implicit_vid(vid) for vid, labels in records.items() if "Action" in labels]
    run(tx, cypher.UNMAKE_COLLECTIONS, vids=[*gone, *middles]).consume()
    run(tx, cypher.DELETE_RECORDS, vids=list(records)).consume()
    unmake_objects(tx, [*gone, *middles])


def _sources(link: Link) -> list[list[Any]]:
    """Each input with its roles, and the keys of its edges in the order of the outputs."""
    return [
        [
            source,
            list(roles),
            [edge_key(link.vid, source, target) for target, _ in link.outputs],
        ]
        for source, roles in link.inputs
    ]


def edge_key(owner: str, source: str, target: str) -> str:
    """What makes an edge this edge: 20 characters of a hash over owner|source|target.

    `owner` is the action or the collection. The text itself, 104 characters for each edge, would
    be most of the graph's index.
    """
    digest = hashlib.blake2b(f"{owner}|{source}|{target}".encode(), digest_size=15).digest()
    return urlsafe_b64encode(digest).decode()
