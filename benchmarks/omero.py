"""The catalog on OMERO: round trips and rates for 1,000 objects, and what 10,000 jobs write.

On the server that OMERO_TEST_URL names, else on the stand-in, whose speed says little of OMERO's:
the ratios beside plain omero-py calls of the same annotations in the same run do.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final
from unittest.mock import patch

import omero.model
import omero.sys
import psycopg
from omero.rtypes import rlist, rstring

from benchmarks import world
from benchmarks.recording import galaxy
from benchmarks.workspace import Figure, Workspace
from biobank_core.catalog.omero.catalog import OmeroCatalog
from biobank_core.catalog.omero.mapping import to_pairs
from biobank_core.catalog.port import Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.galaxy.client import GalaxyClient
from biobank_core.galaxy.live import LiveSource
from biobank_core.galaxy.recorder import record
from biobank_core.interchange import dump, load
from biobank_core.model import codec
from biobank_core.model.base import Object
from tests.contract.omero_groups import OwnGroup, make_group
from tests.servers.omero.lab import Address, Client, OmeroLab, genuine_address
from tests.servers.omero.standin import OmeroStandIn

OBJECTS: Final = 5_000
JOBS: Final = 1_000
# As the recorder saves them: 40 actions with all that they made.
ACTIONS_A_UNIT: Final = 40
UNITS: Final = 10
A_CALL: Final = 1_000
LOADED_AT_ONCE: Final = 1_000
MOST_ROUND_TRIPS: Final = 5


def figures(work: Workspace) -> Iterator[Figure]:
    """All in groups of their own on one server."""
    with ExitStack() as stack:
        standin: OmeroStandIn | None = None
        address = genuine_address()
        if address is None:
            standin = OmeroStandIn(Path(tempfile.mkdtemp(prefix="biobank-bench-omero-")))
            stack.callback(standin.remove)
            stack.callback(standin.stop)
            standin.start()
            address = Address(standin.host, standin.port, standin.root_user, standin.root_password)
        server = "a genuine OMERO" if standin is None else "the stand-in for OMERO"
        lab = OmeroLab(address, filled=False)
        count = OBJECTS * 10 if work.full else OBJECTS
        for figure in (
            *_kept(make_group(lab), count),
            *_units(make_group(lab)),
            *_recorded(make_group(lab), standin),
        ):
            yield replace(figure, what=f"{figure.what}, on {server}")


def _kept(group: OwnGroup, count: int) -> Iterator[Figure]:
    """Loading, reading and dumping objects as a recorder makes them."""
    lines = list(world.lines(world.mixed(count)))
    with group.login() as client, _catalog(group) as catalog:
        took_s, trips = _cost(
            catalog, lambda: load(catalog, io.BytesIO(b"".join(lines)), by="bench")
        )
        raw_s = _timed(lambda: _save_plain(client, lines))
        yield _rate(f"load of {count:,} objects", count, took_s, trips, raw_s)
        vids = [item.object.vid for item in catalog.iterate()][:LOADED_AT_ONCE]
        took_s, trips = _cost(catalog, lambda: catalog.get(vids))
        raw_s = _timed(lambda: _load_plain(client, vids))
        yield _rate(
            f"get of {len(vids):,} objects", len(vids), took_s, trips, raw_s, most=MOST_ROUND_TRIPS
        )
        took_s, trips = _cost(catalog, lambda: dump(catalog, io.BytesIO()))
        yield _rate(f"dump of {count:,} objects", count, took_s, trips)


def _units(group: OwnGroup) -> Iterator[Figure]:
    """Units as a recorder saves them, each of 40 actions with two data and two files."""
    with group.login() as client, _catalog(group) as catalog:
        catalog.commit([Save(object=each) for each in world.common()], by="bench")
        units = [_unit(number) for number in range(UNITS)]
        catalog.commit([Save(object=world.data(f"first {n}")) for n in range(2)], by="bench")

        def commit() -> None:
            for unit in units:
                catalog.commit([Save(object=each) for each in unit], by="bench")

        took_s, trips = _cost(catalog, commit)
        lines = [[codec.encode(each) for each in unit] for unit in units]
        raw_s = _timed(lambda: [_save_plain(client, unit) for unit in lines])
        count = sum(map(len, units))
        what = f"units of {ACTIONS_A_UNIT} actions ({len(units[0])} objects each)"
        figure = _rate(what, count, took_s, trips, raw_s)
        # Tokens are bought in bulk, and views are not written.
        met = trips / UNITS <= MOST_ROUND_TRIPS
        ours = f"{figure.ours}, {trips / UNITS:.1f} a unit"
        yield replace(figure, ours=ours, aim=f"{MOST_ROUND_TRIPS} round trips a unit", met=met)


def _unit(number: int) -> list[Object]:
    made: list[Object] = []
    for place in range(ACTIONS_A_UNIT):
        name = f"{number} {place}"
        names = [f"{name} {each}" for each in range(2)]
        outputs = [world.data(each) for each in names]
        inputs = [world.vid("data", f"first {each}") for each in range(2)]
        made += [*outputs, *(world.file(each, size_bytes=place) for each in names)]
        made.append(world.action(name, inputs, [one.vid for one in outputs], minute=place))
    return made


def _recorded(group: OwnGroup, standin: OmeroStandIn | None) -> Iterator[Figure]:
    """Recording jobs with two new data each, and what that leaves in OMERO's database."""
    before = _database_bytes(standin)
    with galaxy(JOBS) as url, _catalog(group) as catalog:
        client = GalaxyClient.connect(url, "no-secret")

        def recorded() -> None:
            done = record(catalog, LiveSource(client), server="bench").recorded
            if done != JOBS:
                raise RuntimeError(f"{done} jobs recorded, not {JOBS}")

        took_s, trips = _cost(catalog, recorded)
        yield _rate(f"record of {JOBS:,} jobs with 2 new data", JOBS, took_s, trips)
        rows = sum(catalog.holdings().values())
    after = _database_bytes(standin)
    size = "" if before is None or after is None else f", {(after - before) / JOBS / 100:.0f} MB"
    yield Figure(
        what="written for 10,000 such jobs",
        ours=f"{rows * 10_000 // JOBS:,} annotations{size}",
    )


def _database_bytes(standin: OmeroStandIn | None) -> int | None:
    """The size of the stand-in's database with its indexes; None of a genuine server."""
    if standin is None:
        return None
    with psycopg.connect(standin.database_url()) as connection:
        row = connection.execute("select pg_database_size(current_database())").fetchone()
    return int(row[0]) if row else None


@contextmanager
def _catalog(group: OwnGroup) -> Iterator[OmeroCatalog]:
    """The group's catalog, made and opened under its owner's account."""
    account = {**group.members[0].environment, "OMERO_SESSION_KEY": ""}
    with patch.dict(os.environ, account), open_catalog(group.url, create=True) as catalog:
        if not isinstance(catalog, OmeroCatalog):
            raise TypeError(f"{group.url} is no catalog on OMERO")
        yield catalog


def _cost(catalog: OmeroCatalog, do: Callable[[], object]) -> tuple[float, int]:
    before = catalog.round_trips
    took_s = _timed(do)
    return took_s, catalog.round_trips - before


def _timed(do: Callable[[], object]) -> float:
    begin = time.perf_counter()
    do()
    return time.perf_counter() - begin


def _rate(
    what: str,
    count: int,
    took_s: float,
    trips: int,
    raw_s: float | None = None,
    *,
    most: int | None = None,
) -> Figure:
    a_thousand = trips * 1000 / count
    return Figure(
        what=f"{what} (raw: the same pairs by omero-py alone)" if raw_s is not None else what,
        ours=f"{count / took_s:,.0f}/s, {a_thousand:.1f} round trips a 1,000",
        raw="" if raw_s is None else f"{count / raw_s:,.0f}/s",
        ratio=None if raw_s is None else raw_s / took_s,
        aim="" if most is None else f"{most} round trips",
        met=None if most is None else trips <= most,
    )


def _save_plain(client: Client, lines: Sequence[bytes]) -> None:
    """Save map annotations of the same pairs, 1,000 a call, unchecked."""
    for first in range(0, len(lines), A_CALL):
        items = []
        for line in lines[first : first + A_CALL]:
            item = omero.model.MapAnnotationI()
            item.setNs(rstring("org.example/bench"))
            item.setMapValue([omero.model.NamedValue(*pair) for pair in to_pairs(line).pairs])
            items.append(item)
        client.update.saveArray(items)


def _load_plain(client: Client, vids: Iterable[str]) -> None:
    given = omero.sys.ParametersI()
    given.map["names"] = rlist([rstring(vid) for vid in vids])
    found = client.query.findAllByQuery(
        "select a from MapAnnotation a left outer join fetch a.mapValue where a.name in (:names)",
        given,
    )
    if not found:
        raise RuntimeError("nothing was found")
