"""The relay: what it sends of a catalog that can't give back all of its objects."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

import pytest

from biobank_core.catalog.port import Catalog, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.errors import UnreachableError
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import Study, Tube
from sync_service import messages
from sync_service.broker import Outgoing, Session
from sync_service.metrics import Metrics
from sync_service.relay import Relay
from sync_service.state import RelayState
from sync_service.vitals import Part


class Broker:
    """A session that confirms all, and stops the relay once it has nothing to do."""

    def __init__(self, stopping: threading.Event) -> None:
        self.sent: list[Outgoing] = []
        self._stopping = stopping

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def send(self, some: Iterable[Outgoing]) -> int:
        self.sent += some
        return 0

    def settle(self, _tag: int, *, timeout_s: float | None = None) -> bool:
        return timeout_s is None or timeout_s > 0

    def drive(self, _until: Callable[[], bool], *, timeout_s: float) -> None:
        assert timeout_s > 0
        self._stopping.set()


@pytest.fixture
def study() -> Study:
    return Study(vid=new_vid(), label="KPN")


@pytest.fixture
def tubes(study: Study) -> list[Tube]:
    return [Tube(vid=new_vid(), label=f"T{number}", study=study.vid) for number in range(9)]


@pytest.fixture
def url(tmp_path: Path, study: Study, tubes: list[Tube]) -> str:
    made = f"sqlite:///{tmp_path}/c.db"
    with open_catalog(made, create=True) as catalog:
        catalog.commit([Save(object=one) for one in (study, *tubes)], by="test")
    return made


def relayed(url: str, folder: Path, open_it: Callable[[], Catalog], part: Part) -> list[Outgoing]:
    """All that a relay sends until it has nothing to do."""
    stopping = threading.Event()
    broker = Broker(stopping)
    Relay(
        open_catalog=open_it,
        open_session=lambda _name: cast(Session, broker),
        state_of=lambda _catalog: RelayState(folder / "state.json", catalog_url=url),
        stopping=stopping,
        part=part,
        metrics=Metrics(),
    ).run()
    return broker.sent


@pytest.mark.parametrize("which", [[4], [0, 1, 8], list(range(9))])
def test_objects_that_cant_be_read_are_sent_with_the_reason_and_hold_nothing_up(
    url: str, tmp_path: Path, tubes: list[Tube], which: list[int]
) -> None:
    broken = {tubes[number].vid for number in which}
    with sqlite3.connect(tmp_path / "c.db") as connection:
        for vid in broken:
            connection.execute("UPDATE object SET body = '{' WHERE vid = ?", (vid,))
    part = Part("relay")
    sent = relayed(url, tmp_path, lambda: open_catalog(url), part)
    named = {messages.state_of_id(one.message_id) for one in sent}
    with open_catalog(url) as catalog:
        [log] = catalog.head()
    assert named == {(log, tube.vid, 1) for tube in tubes}
    assert len(sent) == len(tubes)
    for one in sent:
        _, vid, _ = messages.state_of_id(one.message_id) or ("", "", 0)
        assert (one.body == b"") == (vid in broken)
        reason = str(one.headers.get(messages.LEFT_OUT_HEADER, ""))
        assert (f"{vid} can't be read back" in reason) == (vid in broken)
        assert one.routing_key.startswith("lineage.")
    assert part.sign().trouble is None


class Leaving:
    """A catalog whose server goes away before its objects are read."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def __enter__(self) -> Leaving:
        return self

    def __exit__(self, *_: object) -> None:
        self._catalog.close()

    def __getattr__(self, name: str) -> object:
        if name == "get_in":
            raise UnreachableError("OMERO is away")
        return getattr(self._catalog, name)


def test_a_catalog_that_goes_away_refuses_no_object(
    url: str, tmp_path: Path, tubes: list[Tube]
) -> None:
    first = cast(Catalog, Leaving(open_catalog(url)))
    opened = iter([first])
    sent = relayed(url, tmp_path, lambda: next(opened, None) or open_catalog(url), Part("relay"))
    assert len(sent) == len(tubes)
    assert all(one.body for one in sent)
