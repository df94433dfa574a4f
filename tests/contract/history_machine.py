"""Any history of a catalog: an index told of it, in whatever order, holds what a rebuild gives.

A state machine of hypothesis. A driver of the lineage index subclasses `HistoryMachine`, gives
`open_index`, and tests its `TestCase`; see `test_history_sqlite`.
"""

from __future__ import annotations

import io
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from biobank_core.catalog.port import Delete, Save
from biobank_core.catalog.sqlite import SqliteCatalog, open_catalog
from biobank_core.errors import BiobankError
from biobank_core.interchange import dump, load
from biobank_core.lineage.events import IndexEvent
from biobank_core.lineage.follow import rebuild
from biobank_core.lineage.port import LineageIndex
from biobank_core.model import codec
from biobank_core.model.base import Object
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import Action, DataCollection, Study, Supersession, Tombstone
from biobank_core.sqlite_file import url_of_path
from tests.contract import catalog_world as world

NODES = ("Individual", "Tube", "DataSample", "DataCollection")

# A number picks one of what is there, the same whenever hypothesis repeats what it did before.
picks = st.integers(0, 10_000)


class HistoryMachine(RuleBasedStateMachine):
    """Saves, updates, deletes, re-creations and loads; what is refused must change nothing."""

    def open_index(self) -> LineageIndex:
        """A new, migrated, empty index."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._catalogs = 0
        self._met: dict[str, int] = {}
        self.catalog = self._new_catalog()
        # Every state that the catalog ever told an index of.
        self.told: list[IndexEvent] = []
        self._telling: list[IndexEvent] = []
        self.catalog.listeners.append(self._hear)

    def _new_catalog(self) -> SqliteCatalog:
        self._catalogs += 1
        path = Path(self._folder.name) / f"{self._catalogs}.db"
        return open_catalog(url_of_path(path), create=True)

    def _hear(self, events) -> None:
        self._telling.extend(events)

    def _try(self, do: Callable[[], object]) -> None:
        """What it says inside a transaction counts only when that ends well."""
        self._telling.clear()
        try:
            do()
        except BiobankError:
            return
        self.told.extend(self._telling)

    def _save(self, obj: Object, based_on: int = 0) -> None:
        self._try(
            lambda: self.catalog.commit([Save(object=obj, based_on=based_on)], by="hypothesis")
        )

    # What is there

    def _all(self) -> list[tuple[Object, int]]:
        """All objects as they came: the order of their VIDs is another one each time."""
        items = list(self.catalog.iterate())
        new = [item.object for item in items if item.object.vid not in self._met]
        # What comes in one unit is of different kinds.
        for obj in sorted(new, key=lambda obj: obj.kind):
            self._met[obj.vid] = len(self._met)
        items.sort(key=lambda item: self._met[item.object.vid])
        return [(item.object, item.version) for item in items]

    def _living(self, *kinds: str) -> list[Object]:
        return [
            obj
            for obj, _ in self._all()
            if not isinstance(obj, Tombstone) and (not kinds or obj.kind in kinds)
        ]

    def _picked(self, number: int, *kinds: str) -> Object:
        known = self._living(*kinds)
        return known[number % len(known)]

    def _has(self, *kinds: str) -> bool:
        return bool(self._living(*kinds))

    # Rules

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.seed = seed
        self.study: Study = world.study()
        self._save(self.study)
        self.number = 0

    def _label(self) -> str:
        self.number += 1
        return f"thing {self.number}"

    @rule(kind=st.sampled_from(["person", "tube", "data", "file", "program"]), pick=picks)
    def save_a_thing(self, kind: str, pick: int) -> None:
        made: Object
        match kind:
            case "person":
                made = world.individual()
            case "tube":
                made = world.tube(self.study, self._label())
            case "program":
                made = world.program(self._label())
            case "file" if self._has("DataSample"):
                made = world.file_of(self._picked(pick, "DataSample"))  # type: ignore[arg-type]
            case _:
                made = world.sample(self.study, self._label())
        self._save(made)

    @precondition(lambda self: self._has("DataSample", "DataCollection"))
    @rule(members=st.lists(picks, max_size=3))
    def save_a_collection(self, members: list[int]) -> None:
        chosen = {
            (obj := self._picked(pick, "DataSample", "DataCollection")).vid: obj for pick in members
        }
        self._save(world.collection(self.study, *chosen.values(), label=self._label()))

    @precondition(lambda self: self._has(*NODES))
    @rule(inputs=st.lists(picks, max_size=3), outputs=st.lists(picks, max_size=3), device=picks)
    def save_an_action(self, inputs: list[int], outputs: list[int], device: int) -> None:
        # Some of these close a cycle, and are refused.
        devices = [None, *(obj.vid for obj in self._living("SoftwareProgram"))]
        given = {(obj := self._picked(pick, *NODES)).vid: obj for pick in inputs}
        made = {(obj := self._picked(pick, *NODES)).vid: obj for pick in outputs}
        self._save(
            world.action(
                self.study,
                tuple(given.values()),
                tuple(obj for vid, obj in made.items() if vid not in given),
                device=devices[device % len(devices)],
            )
        )

    @precondition(lambda self: self._has("DataSample"))
    @rule(new=picks, old=picks)
    def save_a_supersession(self, new: int, old: int) -> None:
        first, second = self._picked(new, "DataSample"), self._picked(old, "DataSample")
        if first.vid != second.vid:
            self._save(Supersession(vid=new_vid(), new=first.vid, old=second.vid))

    @rule(pick=picks, other=picks, stale=st.booleans())
    def update(self, pick: int, other: int, stale: bool) -> None:
        known = [(obj, version) for obj, version in self._all() if not isinstance(obj, Tombstone)]
        obj, version = known[pick % len(known)]
        self._save(self._changed(obj, other), based_on=version - stale)

    def _changed(self, obj: Object, other: int) -> Object:
        match obj:
            case Action():
                if other % 2:
                    return msgspec.structs.replace(obj, outputs=obj.outputs[1:])
                return msgspec.structs.replace(obj, inputs=obj.inputs[1:])
            case DataCollection():
                return msgspec.structs.replace(obj, items=obj.items[1:])
            case Study():
                return obj
        if hasattr(obj, "label"):
            return msgspec.structs.replace(obj, label=self._label())
        return obj

    @rule(pick=picks, cascade=st.booleans())
    def delete(self, pick: int, cascade: bool) -> None:
        everything_else = [obj for obj in self._living() if obj.vid != self.study.vid]
        if not everything_else:
            return
        obj = everything_else[pick % len(everything_else)]
        version = self.catalog.get([obj.vid])[obj.vid].version
        change = Delete(vid=obj.vid, based_on=version, cascade=cascade)
        self._try(lambda: self.catalog.commit([change], by="hypothesis"))

    @rule(pick=picks)
    def create_anew(self, pick: int) -> None:
        gone = [(obj, version) for obj, version in self._all() if isinstance(obj, Tombstone)]
        if not gone:
            return
        stone, version = gone[pick % len(gone)]
        made: Object | None = None
        match stone.of:
            case "DataSample":
                made = world.sample(self.study, self._label())
            case "Tube":
                made = world.tube(self.study, self._label())
            case "DataCollection":
                made = world.collection(self.study, label=self._label())
            case "Action":
                made = world.action(self.study)
            case "SoftwareProgram":
                made = world.program(self._label())
        if made is not None:
            self._save(msgspec.structs.replace(made, vid=stone.vid), based_on=version)

    @rule(chosen=st.lists(picks, max_size=4, unique=True), update=st.booleans())
    def load_lines(self, chosen: list[int], update: bool) -> None:
        known = self._all()
        objects = {known[pick % len(known)][0].vid: known[pick % len(known)][0] for pick in chosen}
        new = world.sample(self.study, self._label())
        lines: list[Object] = [new, world.collection(self.study, new, label=self._label())]
        for pick, obj in zip(chosen, objects.values(), strict=False):
            lines.append(self._changed(obj, pick) if update else obj)
            if pick % 7 == 0 and update and not isinstance(obj, Tombstone | Study):
                lines[-1] = Tombstone(vid=obj.vid, of=obj.kind, time=world.BEGIN)
        text = b"".join(codec.encode(line) + b"\n" for line in lines)
        self._try(lambda: load(self.catalog, io.BytesIO(text), by="hypothesis", update=update))

    # What holds after any of it

    def teardown(self) -> None:
        try:
            if hasattr(self, "seed"):
                self._check()
        finally:
            self.catalog.close()
            self._folder.cleanup()

    def _check(self) -> None:
        chance = random.Random(self.seed)
        with self.open_index() as told, self.open_index() as rebuilt, self.open_index() as loaded:
            events = self.told + chance.choices(self.told, k=len(self.told) // 2)
            chance.shuffle(events)
            while events:
                size = chance.randint(1, 8)
                told.apply(events[:size])
                del events[:size]
            rebuild(self.catalog, rebuilt)
            assert told.digest() == rebuilt.digest()

            first = io.BytesIO()
            dump(self.catalog, first)
            copy = self._new_catalog()
            try:
                load(copy, io.BytesIO(first.getvalue()), by="hypothesis")
                second = io.BytesIO()
                dump(copy, second)
                assert second.getvalue() == first.getvalue()
                rebuild(copy, loaded)
                assert loaded.digest() == rebuilt.digest()
            finally:
                copy.close()
