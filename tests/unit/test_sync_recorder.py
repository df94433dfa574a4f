"""The recorder as a part of the service."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from biobank_core.catalog.port import Catalog
from biobank_core.catalog.registry import open_catalog
from biobank_core.config import Settings, load_settings
from biobank_core.errors import ConfigurationError, InputError, NotPermittedError, UnreachableError
from sync_service.recorder import RecorderOptions, RecorderPart
from sync_service.vitals import Part
from tests.faults.galaxy_over_http import served
from tests.unit.scripted_galaxy import ScriptedGalaxy, end
from tests.unit.test_recorder_client import Server, server

__all__ = ["server"]  # the fixture


def settings_of(folder: Path, url: str) -> Settings:
    return load_settings(
        catalog=f"sqlite:///{folder / 'c.db'}",
        galaxy_url=url,
        environment={"GALAXY_API_KEY": "canary-0123456789"},
    )


def part_of(folder: Path, url: str, **options: object) -> tuple[RecorderPart, Part]:
    settings = settings_of(folder, url)
    part = Part("recorder")
    made = RecorderPart(
        settings,
        RecorderOptions(interval_s=0.05, **options),  # type: ignore[arg-type]
        open_catalog=lambda: open_catalog(settings.catalog, create=True),
        stopping=threading.Event(),
        part=part,
    )
    return made, part


def actions(folder: Path) -> int:
    with open_catalog(f"sqlite:///{folder / 'c.db'}") as catalog:
        return catalog.count().get("Action", 0)


def test_it_records_until_it_is_told_to_stop(tmp_path: Path) -> None:
    galaxy = ScriptedGalaxy()
    galaxy.add("j1", 0, outputs=(end("o", 1),))
    with served(galaxy) as url:
        recorder, part = part_of(tmp_path, url, galaxy_name="g")
        thread = threading.Thread(target=recorder.run)
        thread.start()
        _until(lambda: recorder._follower.done.recorded == 1)
        galaxy.add("j2", 1, outputs=(end("o", 2),))
        _until(lambda: recorder._follower.done.recorded == 2)
        assert part.sign().trouble is None
        recorder._stopping.set()
        thread.join(120)
    assert not thread.is_alive()
    assert actions(tmp_path) == 2


def test_a_galaxy_and_a_catalog_that_are_away_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("biobank_core.galaxy.follow._FIRST_BACK_OFF_S", 0.05)
    galaxy = ScriptedGalaxy()
    galaxy.add("j1", 0)
    away = [UnreachableError("no OMERO answers")] * 2
    opened: list[Catalog] = []
    with served(galaxy) as url:
        recorder, part = part_of(tmp_path, url)
        really_open = recorder._open_catalog

        def open_it() -> Catalog:
            if away:
                raise away.pop()
            opened.append(really_open())
            return opened[-1]

        recorder._open_catalog = open_it
        thread = threading.Thread(target=recorder.run)
        thread.start()
        _until(lambda: recorder._follower.done.recorded == 1)
        assert part.sign().trouble is None
        recorder._stopping.set()
        thread.join(120)
    assert not thread.is_alive()
    with pytest.raises(ConfigurationError):
        opened[0].count()


def test_what_waiting_does_not_mend_ends_it(tmp_path: Path, server: Server) -> None:
    server.says("/api/users/current", {"err_msg": "no such key"}, 401)
    recorder, part = part_of(tmp_path, server.url)
    with pytest.raises(NotPermittedError):
        recorder.run()
    assert "refuses the API key" in str(part.sign().trouble)


def test_settings_and_rules_that_can_not_be_used_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="GALAXY_API_KEY"):
        RecorderPart(
            load_settings(galaxy_url="http://g", environment={}),
            RecorderOptions(),
            open_catalog=lambda: pytest.fail("opened"),
            stopping=threading.Event(),
            part=Part("recorder"),
        )
    (tmp_path / "rules.yml").write_text("studies: 1\n")
    with pytest.raises(InputError, match="studies"):
        part_of(tmp_path, "http://g", rules_file=str(tmp_path / "rules.yml"))


def _until(done: Callable[[], bool], timeout_s: float = 120) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < give_up_at
        time.sleep(0.02)
