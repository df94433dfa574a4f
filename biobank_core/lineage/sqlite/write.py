"""Taking events into the tables. Called inside a transaction; knows nothing of questions."""

from __future__ import annotations

import functools
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec

from biobank_core.lineage.events import (
    ActionEvent,
    DeviceEvent,
    IndexEvent,
    NodeEvent,
    SupersessionEvent,
)
from biobank_core.lineage.ledger import Shown, is_newer, shown
from biobank_core.lineage.links import Part, nodes_named, part_of
from biobank_core.lineage.sqlite.schema import roles_to_text, to_blob, to_vid

T = TypeVar("T")

# Rows of a chunk are held in memory while they are written.
CHUNK: Final = 5_000
# Placeholders of one statement; below SQLite's 32,766.
_MAX_PARAMETERS: Final = 500

_TYPES: Final[tuple[type[Any], ...]] = (NodeEvent, ActionEvent, DeviceEvent, SupersessionEvent)
# Fields that the ledger has as columns: log, vid, version, deleted.
_COMMON: Final = ("log", "vid", "version", "deleted")
_CONTENT: Final = {
    cls: tuple(name for name in cls.__struct_fields__ if name not in _COMMON) for cls in _TYPES
}
_packer: Final = msgspec.msgpack.Encoder()
_unpacker: Final = msgspec.msgpack.Decoder()

_UNMAKE: Final = (
    "DELETE FROM lineage_node WHERE id IN ({})",
    "DELETE FROM lineage_action WHERE id IN ({})",
    "DELETE FROM lineage_device WHERE id IN ({})",
    "DELETE FROM lineage_supersession WHERE id IN ({})",
    "DELETE FROM lineage_input WHERE link IN ({})",
    "DELETE FROM lineage_output WHERE link IN ({})",
    "DELETE FROM lineage_use WHERE action IN ({})",
)


def take_in(connection: sqlite3.Connection, batch: Sequence[IndexEvent]) -> None:
    """Take the states of the batch into ledger and graph. Idempotent, in any order."""
    events = iter(batch)
    while chunk := list(islice(events, CHUNK)):
        _Chunk(connection).take_in(chunk)


def forget(connection: sqlite3.Connection, vids: Iterable[str]) -> None:
    """Take these objects and their parts out of ledger and graph; see `LineageIndex.forget`."""
    for blobs in _chunks(map(to_blob, dict.fromkeys(vids))):
        _Chunk(connection).forget(blobs)


class _Chunk:
    """One round of reading what stands, deciding, and writing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._ids: dict[str, int] = {}
        self._blobs: dict[str, bytes] = {}
        self._fresh: set[int] = set()

    def take_in(self, events: Sequence[IndexEvent]) -> None:
        newest: dict[tuple[str, str], IndexEvent] = {}
        for event in events:
            key = (event.vid, event.log)
            if key not in newest or is_newer(event, newest[key]):
                newest[key] = event
        self._identify(vid for vid, _ in newest)
        states = self._settle(newest.values())
        if states:
            self._show(states)

    def forget(self, blobs: Sequence[bytes]) -> None:
        execute = self._connection.execute
        given = {
            number
            for (number,) in execute(
                f"SELECT id FROM lineage_vid WHERE vid IN ({_marks(len(blobs))})",  # noqa: S608
                blobs,
            )
        }
        gone = set(given)
        for some in _chunks(given):
            for end in ("new", "old"):
                query = f"SELECT id FROM lineage_supersession WHERE {end} IN ({_marks(len(some))})"  # noqa: S608
                gone.update(number for (number,) in execute(query, some))
        self._unmake(gone)
        for some in _chunks(gone):
            execute(f"DELETE FROM lineage_ledger WHERE object IN ({_marks(len(some))})", some)  # noqa: S608

    def _settle(self, events: Iterable[IndexEvent]) -> dict[int, Shown]:
        """Write what is newer into the ledger; gives what to show of each object that changed."""
        logs = self._logs()
        known = self._known({self._ids[event.vid] for event in events} - self._fresh, logs)
        rows: list[tuple[object, ...]] = []
        states: dict[int, dict[str, IndexEvent]] = {}
        for event in events:
            number = self._ids[event.vid]
            before = known.get(number, {})
            if event.log in before and not is_newer(event, before[event.log]):
                continue
            if event.log not in logs:
                logs[event.log] = self._add_log(event.log)
            rows.append((number, logs[event.log], event.version, event.deleted, _packed(event)))
            states.setdefault(number, dict(before))[event.log] = event
        self._connection.executemany(
            "INSERT INTO lineage_ledger VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET version = excluded.version, deleted = excluded.deleted, "
            "content = excluded.content",
            rows,
        )
        return {number: shown(by_log.values()) for number, by_log in states.items()}

    def _show(self, states: dict[int, Shown]) -> None:
        """Take the old parts of these objects out of the graph and put the new ones in."""
        self._unmake(states.keys() - self._fresh)
        parts = {number: part_of(state.event) for number, state in states.items()}
        self._identify(_named(states.values(), parts.values()))
        self._write_objects(states, parts)
        self._write_links(parts)

    def _write_objects(self, states: dict[int, Shown], parts: dict[int, Part]) -> None:
        ids = self._ids
        nodes: list[tuple[object, ...]] = []
        actions: list[tuple[object, ...]] = []
        devices: list[tuple[object, ...]] = []
        supersessions: list[tuple[object, ...]] = []
        groups: dict[frozenset[str], int] = {}
        for number, state in states.items():
            event = state.event
            if state.groups not in groups:
                groups[state.groups] = self._groups(state.groups)
            group = groups[state.groups]
            if isinstance(event, NodeEvent):
                study = _blob(event.study)
                nodes.append(
                    (
                        number,
                        self._blobs[event.vid],
                        event.kind,
                        event.label,
                        study,
                        group,
                        event.deleted,
                    )
                )
            elif event.deleted:
                continue
            elif isinstance(event, ActionEvent):
                middle = parts[number].implicit
                if middle is not None:
                    nodes.append(
                        (
                            ids[middle.vid],
                            self._blobs[middle.vid],
                            middle.kind,
                            middle.label,
                            _blob(middle.study),
                            group,
                            False,
                        )
                    )
                actions.append(
                    (
                        number,
                        self._blobs[event.vid],
                        event.category,
                        None if event.device is None else ids[event.device],
                        _blob(event.setup),
                        event.status,
                        _utc_text(event.end),
                        None if middle is None else ids[middle.vid],
                    )
                )
            elif isinstance(event, DeviceEvent):
                devices.append((number, event.label, event.release))
            else:
                supersessions.append((number, ids[event.new], ids[event.old]))
        for statement, rows in (
            ("INSERT INTO lineage_node VALUES (?, ?, ?, ?, ?, ?, ?)", nodes),
            ("INSERT INTO lineage_action VALUES (?, ?, ?, ?, ?, ?, ?, ?)", actions),
            ("INSERT INTO lineage_device VALUES (?, ?, ?)", devices),
            ("INSERT INTO lineage_supersession VALUES (?, ?, ?)", supersessions),
        ):
            if rows:
                self._connection.executemany(statement, rows)

    def _write_links(self, parts: dict[int, Part]) -> None:
        ids = self._ids
        inputs: list[tuple[int, int, str]] = []
        outputs: list[tuple[int, int, str]] = []
        uses: list[tuple[int, int, str]] = []
        for number, part in parts.items():
            for link in part.links:
                link_id = ids[link.vid]
                inputs += [
                    (ids[node], link_id, roles_to_text(roles)) for node, roles in link.inputs
                ]
                outputs += [
                    (ids[node], link_id, roles_to_text(roles)) for node, roles in link.outputs
                ]
            if not part.links:
                # Made from nothing that is known: no edge, but their nodes carry the maker.
                outputs += [(ids[node], number, "[]") for node in part.made]
            uses += [(ids[node], number, roles_to_text(roles)) for node, roles in part.uses]
        for statement, rows in (
            ("INSERT INTO lineage_input VALUES (?, ?, ?)", inputs),
            ("INSERT INTO lineage_output VALUES (?, ?, ?)", outputs),
            ("INSERT INTO lineage_use VALUES (?, ?, ?)", uses),
        ):
            if rows:
                # In key order neighbouring pages are written once.
                rows.sort()
                self._connection.executemany(statement, rows)

    def _unmake(self, objects: Collection[int]) -> None:
        for some in _chunks(objects):
            marks = _marks(len(some))
            middles = self._connection.execute(
                f"SELECT middle FROM lineage_action WHERE id IN ({marks}) AND middle IS NOT NULL",  # noqa: S608  # question marks only
                some,
            ).fetchall()
            gone = [*some, *(middle for (middle,) in middles)]
            for statement in _UNMAKE:
                for part in _chunks(gone):
                    self._connection.execute(statement.format(_marks(len(part))), part)

    def _identify(self, vids: Iterable[str]) -> None:
        """Know the integer of each VID; new ones get one and are `fresh`."""
        unknown = {vid: to_blob(vid) for vid in dict.fromkeys(vids) if vid not in self._ids}
        self._blobs.update(unknown)
        for some in _chunks(unknown.values()):
            for number, blob in self._connection.execute(
                f"SELECT id, vid FROM lineage_vid WHERE vid IN ({_marks(len(some))})",  # noqa: S608
                some,
            ):
                self._ids[to_vid(blob)] = number
        new = [(vid, blob) for vid, blob in unknown.items() if vid not in self._ids]
        if not new:
            return
        (last,) = self._connection.execute(
            "SELECT coalesce(max(id), 0) FROM lineage_vid"
        ).fetchone()
        rows = [(last + step, blob) for step, (_, blob) in enumerate(new, start=1)]
        self._connection.executemany("INSERT INTO lineage_vid VALUES (?, ?)", rows)
        for (vid, _), (number, _) in zip(new, rows, strict=True):
            self._ids[vid] = number
            self._fresh.add(number)

    def _known(
        self, objects: Collection[int], logs: dict[str, int]
    ) -> dict[int, dict[str, IndexEvent]]:
        names = {number: name for name, number in logs.items()}
        found: dict[int, dict[str, IndexEvent]] = {}
        for some in _chunks(objects):
            for number, vid, log, version, deleted, content in self._connection.execute(
                "SELECT object, vid, log, version, deleted, content FROM lineage_ledger "  # noqa: S608
                f"JOIN lineage_vid ON id = object WHERE object IN ({_marks(len(some))})",
                some,
            ):
                found.setdefault(number, {})[names[log]] = _unpacked(
                    content,
                    log=names[log],
                    vid=to_vid(vid),
                    version=version,
                    deleted=bool(deleted),
                )
        return found

    def _logs(self) -> dict[str, int]:
        return dict(self._connection.execute("SELECT name, id FROM lineage_log").fetchall())

    def _add_log(self, name: str) -> int:
        return int(
            self._connection.execute(
                "INSERT INTO lineage_log (name) VALUES (?) RETURNING id", (name,)
            ).fetchone()[0]
        )

    def _groups(self, names: frozenset[str]) -> int:
        text = json.dumps(sorted(names))
        known = self._connection.execute(
            "SELECT id FROM lineage_groups WHERE names = ?", (text,)
        ).fetchone()
        return int(
            (
                known
                or self._connection.execute(
                    "INSERT INTO lineage_groups (names) VALUES (?) RETURNING id", (text,)
                ).fetchone()
            )[0]
        )


def _named(states: Iterable[Shown], parts: Iterable[Part]) -> Iterator[str]:
    for state in states:
        event = state.event
        if event.deleted:
            continue
        if isinstance(event, ActionEvent) and event.device is not None:
            yield event.device
        elif isinstance(event, SupersessionEvent):
            yield event.new
            yield event.old
    for part in parts:
        if part.links or part.uses or part.made:
            yield from nodes_named(part)


def _packed(event: IndexEvent) -> bytes:
    cls = type(event)
    values = [getattr(event, name) for name in _CONTENT[cls]]
    return _packer.encode([_TYPES.index(cls), *values])


def _unpacked(content: bytes, *, log: str, vid: str, version: int, deleted: bool) -> IndexEvent:
    number, *values = _unpacker.decode(content)
    fields = dict(zip(_CONTENT[_TYPES[number]], values, strict=True))
    common = {"log": log, "vid": vid, "version": version, "deleted": deleted}
    event: IndexEvent = msgspec.convert(common | fields, _TYPES[number])
    return event


# Studies and setups: few, and named again and again.
_few_to_blob: Final = functools.lru_cache(maxsize=10_000)(to_blob)


def _blob(vid: str | None) -> bytes | None:
    return None if vid is None else _few_to_blob(vid)


def _utc_text(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat()


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, _MAX_PARAMETERS)):
        yield some


def _marks(count: int) -> str:
    return ",".join("?" * count)
