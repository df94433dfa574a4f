"""A catalog under load, its relays and consumers as processes that may be killed, and the proof.

BIOBANK_FAULT_SEED: the seed of what is changed and when something is killed (printed).
BIOBANK_FAULT_ROUNDS: how many kills a test wants (default 2).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from benchmarks import world
from biobank_core.catalog.port import Catalog, Delete, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.config import Settings, load_settings
from biobank_core.lineage.follow import Pending, pending, rebuild
from biobank_core.lineage.port import LineageIndex
from biobank_core.lineage.registry import open_index
from biobank_core.lineage.verify import verify
from biobank_core.model.base import Object
from biobank_core.model.ids import derived_vid, new_vid
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionStatus,
    DataCollection,
    DataMember,
    DataSample,
    Port,
    SoftwareProgram,
    Study,
    Supersession,
)
from sync_service import topology
from sync_service.broker import Session
from sync_service.dead_letters import DeadLetter, letters
from sync_service.housekeeping import LOST_AFTER_S
from sync_service.topology import BrokerAddress
from tests.faults.killing import SEED, environment
from tests.servers.neo4j import Neo4jServer
from tests.servers.rabbitmq import RabbitMQServer

ROUNDS: Final = int(os.environ.get("BIOBANK_FAULT_ROUNDS", "2"))
STUDY: Final = derived_vid("SyncFault", "study")
TOOL: Final = derived_vid("SyncFault", "tool")
# A machine that does much else is slow. Yet shorter than the time after which the service sends
# again what seems to be lost: what only that would heal is a fault.
_STEP_TIMEOUT_S: Final = LOST_AFTER_S - 30.0
# Longer than the service itself waits for its parts.
_STOP_TIMEOUT_S: Final = 180.0


class Changes:
    """Random changes to a catalog: new objects, new labels, deletions, some made again."""

    def __init__(self, seed: str) -> None:
        self._chance = random.Random(seed)
        self._living: dict[str, int] = {}
        self._dead: dict[str, int] = {}
        self._begun = False
        self.made = 0

    def commit(self, catalog: Catalog, units: int = 1) -> None:
        """Make so many units of about ten changes."""
        if not self._begun:
            first = (Study(vid=STUDY, label="FAULTS"), SoftwareProgram(vid=TOOL, label="tool"))
            catalog.commit([Save(object=each) for each in first], by="test")
            self._begun = True
        for _ in range(units):
            self._unit(catalog)

    def _unit(self, catalog: Catalog) -> None:
        chance = self._chance
        changes: list[Save | Delete] = [Save(object=each) for each in self._new()]
        if self._living and chance.random() < 0.6:
            vid = chance.choice(list(self._living))
            label = f"relabelled {chance.random()}"
            changes.append(Save(object=self._data(vid, label=label), based_on=self._living[vid]))
        if self._dead and chance.random() < 0.3:
            vid = chance.choice(list(self._dead))
            changes.append(Save(object=self._data(vid), based_on=self._dead.pop(vid)))
        self._note(catalog.commit(changes, by="test").versions)
        if len(self._living) > 20 and chance.random() < 0.3:
            vid = chance.choice(list(self._living))
            gone = Delete(vid=vid, based_on=self._living.pop(vid), cascade=True)
            receipt = catalog.commit([gone], by="test")
            self._dead[vid] = receipt.versions[vid]
            self.made += len(receipt.versions)

    def _note(self, versions: Mapping[str, int]) -> None:
        self.made += len(versions)
        for vid in self._data_vids & versions.keys():
            self._living[vid] = versions[vid]

    def _new(self) -> Iterator[Object]:
        chance = self._chance
        self._data_vids = set(self._living) | set(self._dead)
        made = [self._data(new_vid()) for _ in range(chance.randint(2, 4))]
        yield from made
        self._data_vids |= {each.vid for each in made}
        known = list(self._living)
        inputs = chance.sample(known, min(len(known), 3))
        yield Action(
            vid=new_vid(),
            category=ActionCategory.PROCESSING,
            study=STUDY,
            device=TOOL,
            status=ActionStatus.OK,
            begin=world.BEGIN,
            end=world.BEGIN,
            inputs=tuple(Port(role=f"in{n}", object=vid) for n, vid in enumerate(inputs)),
            outputs=tuple(Port(role="out", object=each.vid) for each in made),
        )
        if chance.random() < 0.3:
            items = tuple(DataMember(role=f"m{n}", object=d.vid) for n, d in enumerate(made))
            yield DataCollection(vid=new_vid(), label="list", study=STUDY, items=items)
        if known and chance.random() < 0.2:
            yield Supersession(vid=new_vid(), new=made[0].vid, old=chance.choice(known))

    def _data(self, vid: str, *, label: str | None = None) -> DataSample:
        return DataSample(vid=vid, label=label or f"data {vid[-4:]}", study=STUDY)


class SyncLab:
    """One catalog, one index, one broker; processes of `biobank-sync` that are ended at the end.

    `catalog` is the URL of another than a file of the lab's own, `account` who logs in there.
    """

    def __init__(
        self,
        folder: Path,
        rabbitmq: RabbitMQServer,
        *,
        neo4j: Neo4jServer | None,
        name: str = "",
        catalog: str | None = None,
        account: Mapping[str, str] | None = None,
    ) -> None:
        print(f"BIOBANK_FAULT_SEED={SEED}")
        self.name = name
        self.chance = random.Random(f"{SEED} {name}")
        self.changes = Changes(f"{SEED} {name} changes")
        self.folder = folder
        self.rabbitmq = rabbitmq
        self.neo4j = neo4j
        self._environment = {
            **environment(folder),
            **rabbitmq.environment,
            **(neo4j.environment if neo4j else {}),
            "BIOBANK_CATALOG": catalog or f"sqlite:///{folder}/c.db",
            **(account or {}),
            "BIOBANK_INDEX": neo4j.url if neo4j else f"sqlite:///{folder}/i.db",
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._said_before: dict[str, int] = {}
        # How long each kill came after the load had begun.
        self.kills_s: list[float] = []
        self.catalog = open_catalog(self.settings.catalog, create=True, settings=self.settings)
        with self.index() as index:
            index.clear()
            index.set_checked({}, exactly=True)
        with self.session() as session:
            # With what a consumer of an earlier test may hold yet; who comes makes them anew.
            session.delete(topology.QUEUE)
            session.delete(topology.DEAD_QUEUE)

    @property
    def settings(self) -> Settings:
        """What the processes of the lab are given, but for the direct ways to the servers."""
        given = {**self._environment, **self.rabbitmq.environment}
        if self.neo4j:
            given["BIOBANK_INDEX"] = self.neo4j.url
        return load_settings(environment=given)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the lab's processes."""
        return dict(self._environment)

    def index(self) -> LineageIndex:
        """The index, opened."""
        assert self.settings.index is not None
        return open_index(self.settings.index, settings=self.settings)

    def make_queues(self) -> None:
        """Make the queues, and have the broker write that it has them: then it may be killed."""
        with self.session():
            pass
        self.rabbitmq.write_tables()

    def session(self) -> Session:
        """A session at the broker; makes the queues that are missing."""
        return Session(BrokerAddress.of(self.settings), name="test")

    # Processes

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `biobank-sync run`; its part is what the name begins with (`relay 2`, `all`)."""
        part = name.split(maxsplit=1)[0]
        only = () if part == "all" else ("--only", part)
        log = (self.folder / f"{name}.log").open("ab")
        self._said_before[name] = len(self.log(name))
        with log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "sync_service", "--log-format", "json", "run"),
                    *(*only, "--state", str(self.folder / f"{name}.json"), *arguments),
                ],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.processes[name] = process
        return process

    def kill(self, name: str) -> None:
        """End it with SIGKILL."""
        process = self.processes.pop(name)
        assert process.poll() is None, f"{name} had ended by itself:\n{self.log(name)}"
        process.kill()
        process.wait()

    def stop(self, name: str, *, timeout_s: float = _STOP_TIMEOUT_S) -> None:
        """End it with SIGTERM, once it has started; it must end well."""
        said = self._said_before[name]
        wait_until(lambda: "running: " in self.log(name)[said:])
        process = self.processes.pop(name)
        process.terminate()
        assert process.wait(timeout_s) == 0, self.log(name)

    def log(self, name: str) -> str:
        """What it has said."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def use_broker(self, url: str) -> None:
        """Let the processes that are started from now on reach RabbitMQ at this address."""
        self._environment["BIOBANK_BROKER"] = url

    def use_index(self, url: str) -> None:
        """The same for the index."""
        self._environment["BIOBANK_INDEX"] = url

    def add_environment(self, **variables: str) -> None:
        """More variables for the processes that are started from now on."""
        self._environment.update(variables)

    def applied(self, name: str) -> int:
        """How many messages a consumer that has ended had applied, as it says at its end."""
        told = [json.loads(line) for line in self.log(name).splitlines()]
        return sum(line.get("applied", 0) for line in told)

    def queue_is_empty(self) -> bool:
        """Whether no message waits; those that a consumer holds are not seen."""
        with self.session() as session:
            return session.depth(topology.QUEUE) == 0

    def close(self) -> None:
        """End what still runs."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.catalog.close()

    # Load

    @contextlib.contextmanager
    def under_load(self, *, units_a_second: float = 20) -> Iterator[None]:
        """Changes are made in a thread while the block lasts."""
        stop = threading.Event()
        failures: list[BaseException] = []

        def load() -> None:
            try:
                with open_catalog(self.settings.catalog) as catalog:
                    while not stop.wait(1 / units_a_second):
                        self.changes.commit(catalog)
            except BaseException as exc:  # noqa: BLE001  # told below
                failures.append(exc)

        thread = threading.Thread(target=load)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        assert not failures, failures

    def wait_for_moment(self, most_s: float) -> None:
        """Wait until the random moment, at most so late, at which to kill something."""
        moment_s = self.chance.uniform(0.5, most_s)
        time.sleep(moment_s)
        self.kills_s.append(moment_s)

    def __str__(self) -> str:
        moments = " ".join(f"{moment_s:.1f}" for moment_s in sorted(self.kills_s))
        name = self.name.removeprefix("test_").replace("_", " ")
        return (
            f"{name}: {len(self.kills_s)} kills under load, {self.changes.made:,} changes; "
            f"seed {SEED}; {moments} s after the load began"
        )

    # The proof

    def wait_in_step(self, *, timeout_s: float = _STEP_TIMEOUT_S) -> None:
        """Until the index lacks nothing of the catalog's feed."""
        found: Pending | None = None

        def in_step() -> bool:
            nonlocal found
            with self.index() as index:
                found = pending(self.catalog, index)
            return found.changes == 0

        try:
            wait_until(in_step, timeout_s=timeout_s, pause_s=0.3)
        except AssertionError:
            logs = "\n".join(self.log(name)[-3000:] for name in self.processes)
            raise AssertionError(f"still not in step: {found}\n{logs}") from None

    def check(self, *, dead_letters: int = 0) -> None:
        """The index is what a rebuild would make of it; so many dead letters and no more."""
        with self.index() as index:
            digest = index.digest()
            assert list(verify(self.catalog, index)) == []
        with open_index(f"sqlite:///{self.folder}/rebuilt.db") as fresh:
            rebuild(self.catalog, fresh)
            assert digest == fresh.digest()
        found = self.dead_letters()
        assert len(found) == dead_letters, [(each.id, each.reason) for each in found]

    def dead_letters(self) -> list[DeadLetter]:
        """Those that are there, each once."""
        with self.session() as session:
            return list({letter.id: letter for letter in letters(session)}.values())


def wait_until(
    is_so: Callable[[], bool], *, timeout_s: float = _STEP_TIMEOUT_S, pause_s: float = 0.1
) -> None:
    """Ask until it is so."""
    give_up_at = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < give_up_at, f"not so after {timeout_s:g} s"
        time.sleep(pause_s)
