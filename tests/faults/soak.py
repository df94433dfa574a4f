"""An hour under load with a random fault every 30 s: `python -m tests.faults.soak [--minutes 60]`.

Two relays and two consumers between a catalog, RabbitMQ and Neo4j, all real. At the end the index
must be what a rebuild makes, and the dead letters just the poison. The outcome is appended to
benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.report import append
from sync_service import topology
from sync_service.broker import Outgoing
from sync_service.messages import CONTENT_TYPE
from tests.faults.cutting_proxy import CuttingProxy
from tests.faults.killing import SEED
from tests.faults.sync_lab import SyncLab
from tests.servers.neo4j import Neo4jServer
from tests.servers.rabbitmq import RabbitMQServer

EVERY_S: Final = 30.0
PARTS: Final = ("relay", "relay 2", "consumer", "consumer 2")
UNITS_A_SECOND: Final = 5.0
# After the last fault everything must be in step within this.
CALM_S: Final = 600.0


class Soak:
    """The faults, by name; each leaves everything running again."""

    def __init__(self, lab: SyncLab, proxies: tuple[CuttingProxy, CuttingProxy]) -> None:
        self._lab = lab
        self._proxies = proxies
        self.poison = 0
        self.done: collections.Counter[str] = collections.Counter()
        self.faults: dict[str, Callable[[], None]] = {
            "SIGKILL of a relay": lambda: self._killed(self._one("relay")),
            "SIGKILL of a consumer": lambda: self._killed(self._one("consumer")),
            "SIGKILL of all four at once": self._all_killed,
            "SIGTERM of one part": self._terminated,
            "SIGKILL of RabbitMQ": self._rabbitmq_killed,
            "SIGKILL of Neo4j": self._neo4j_killed,
            "RabbitMQ's disk full for 10 s": self._disk_full,
            "connections cut for 10 s": self._cut,
            "a poison message": self._poisoned,
            "a lost state file": self._state_lost,
        }

    def one(self) -> str:
        """Do a fault; its name."""
        name = self._lab.chance.choice(list(self.faults))
        self.faults[name]()
        self.done[name] += 1
        return name

    def start_all(self) -> None:
        """Start the four parts."""
        for name in PARTS:
            self._lab.start(name, "--batch", "500")

    def _one(self, part: str) -> str:
        return self._lab.chance.choice([name for name in PARTS if name.startswith(part)])

    def _killed(self, name: str) -> None:
        self._lab.kill(name)
        self._lab.start(name, "--batch", "500")

    def _all_killed(self) -> None:
        for name in PARTS:
            self._lab.kill(name)
        self.start_all()

    def _terminated(self) -> None:
        name = self._lab.chance.choice(PARTS)
        self._lab.stop(name, timeout_s=90)
        self._lab.start(name, "--batch", "500")

    def _rabbitmq_killed(self) -> None:
        self._lab.rabbitmq.kill()
        time.sleep(self._lab.chance.uniform(0, 10))
        self._lab.rabbitmq.start()

    def _neo4j_killed(self) -> None:
        assert self._lab.neo4j
        self._lab.neo4j.kill()
        time.sleep(self._lab.chance.uniform(0, 10))
        self._lab.neo4j.start()

    def _disk_full(self) -> None:
        self._lab.rabbitmq.raise_disk_alarm()
        time.sleep(10)
        self._lab.rabbitmq.clear_disk_alarm()

    def _cut(self) -> None:
        for proxy in self._proxies:
            proxy.cutting.set()
        time.sleep(10)
        for proxy in self._proxies:
            proxy.cutting.clear()

    def _poisoned(self) -> None:
        body = f"poison {self.poison} {self._lab.chance.random()}".encode()
        message = Outgoing(
            exchange=topology.EXCHANGE,
            routing_key="lineage.node",
            body=body,
            message_id="",
            content_type=CONTENT_TYPE,
        )
        with self._lab.session() as session:
            session.settle(session.send([message]))
        self.poison += 1

    def _state_lost(self) -> None:
        name = self._one("relay")
        self._lab.kill(name)
        (self._lab.folder / f"{name}.json").unlink(missing_ok=True)
        self._lab.start(name, "--batch", "500")


def main() -> int:
    """Soak; 0 when all was well at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--no-record", action="store_true", help="only print")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="biobank-soak-")))
        rabbitmq = stack.enter_context(RabbitMQServer())
        neo4j = stack.enter_context(Neo4jServer())
        lab = SyncLab(folder, rabbitmq, neo4j=neo4j, name="soak")
        stack.callback(lab.close)
        proxies = tuple(
            stack.enter_context(CuttingProxy(port, chance=lab.chance, most_bytes=20_000))
            for port in (rabbitmq.port, neo4j.port)
        )
        lab.use_broker(f"amqp://127.0.0.1:{proxies[0].port}/")
        lab.use_index(f"bolt://127.0.0.1:{proxies[1].port}")
        soak = Soak(lab, proxies)  # type: ignore[arg-type]  # two of them
        outcome = _soaked(lab, soak, minutes=arguments.minutes)
    lines = [
        f"- {outcome}",
        f"- {lab.changes.made:,} changes; {sum(soak.done.values())} faults; seed {SEED}; "
        f"{sum(proxy.cuts for proxy in proxies)} connections cut in the middle",
        *(f"  - {name}: {count}" for name, count in sorted(soak.done.items())),
    ]
    print("\n".join(lines), flush=True)
    if not arguments.no_record:
        append(f"Soak of {arguments.minutes:g} minutes, a random fault every 30 s", lines)
    return 0 if outcome.startswith("equal") else 1


def _soaked(lab: SyncLab, soak: Soak, *, minutes: float) -> str:
    soak.start_all()
    begun = time.monotonic()
    try:
        with lab.under_load(units_a_second=UNITS_A_SECOND):
            turn = 1
            while (now_s := time.monotonic() - begun) < minutes * 60:
                if now_s < turn * EVERY_S:
                    time.sleep(min(1.0, turn * EVERY_S - now_s))
                    continue
                turn = int(now_s / EVERY_S) + 1
                print(f"{now_s / 60:5.1f} min: {soak.one()}", flush=True)
        calm = time.monotonic()
        lab.wait_in_step(timeout_s=CALM_S)
        in_step_s = time.monotonic() - calm
        lab.check(dead_letters=soak.poison)
    except AssertionError as error:
        return f"FAILED: {error}"
    return (
        f"equal digests and {soak.poison} dead letters, just the poison; in step {in_step_s:.0f} s "
        "after the load ended"
    )


if __name__ == "__main__":
    sys.exit(main())
