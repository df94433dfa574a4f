"""Random damage to a good archive: only errors of ours, and nothing of it is half saved."""

from __future__ import annotations

import gzip
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biobank_core.config import load_settings
from biobank_core.errors import BiobankError
from biobank_core.galaxy.archive import open_archive
from biobank_core.galaxy.recorder import record
from biobank_core.stores import open_stores
from tests.unit import archives
from tests.unit.archives import SMALL, encoded, history, tar_bytes, tar_gz, zipped

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(allow_nan=True),
    st.text(max_size=20),
    st.sampled_from(
        [
            "0001-01-01T00:00:00+14:00",
            "9999-12-31T23:59:59-14:00",
            "ok",
            "error",
            archives.FIRST,
            archives.MADE,
            archives.LIST_ID,
            "\ud800",
            "x" * 20_000,
            {"values": [{"src": "hdca", "id": archives.LIST_ID}]},
            {"src": "dce"},
            [[[]]],
            [],
            {},
        ]
    ),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all that is in a JSON value."""
    items = value.items() if isinstance(value, dict) else []
    items = list(enumerate(value)) if isinstance(value, list) else items
    return [path, *(p for key, inner in items for p in places(inner, (*path, key)))]


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another one in this place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], new)
    return copy


def recorded_or_refused(path: Path) -> None:
    """Record an archive; only errors of ours are let out, and then nothing was saved."""
    file = path.with_suffix(".db")
    for old in path.parent.glob(f"{file.name}*"):
        old.unlink()
    chosen = load_settings(catalog=f"sqlite:///{file}", environment={})
    with suppress(BiobankError):
        source = open_archive(path, limits=SMALL)
        with open_stores(chosen, write=True) as stores:
            try:
                summary = record(stores.catalog, source, server="g")
            except BiobankError:
                assert stores.catalog.head() == 0
                raise
            assert summary.recorded + len(summary.failed) + summary.waiting == summary.seen


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_damage_to_the_file_is_told_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    pack = data.draw(st.sampled_from([tar_gz, zipped]))
    content = bytearray(pack(tmp_path / "good", encoded(history())).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    path = tmp_path / "damaged.tgz"
    path.write_bytes(content)
    recorded_or_refused(path)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_damage_to_the_tar_inside_is_told_or_harmless(
    tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(tar_bytes(encoded(history())))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    path = tmp_path / "damaged.tgz"
    path.write_bytes(gzip.compress(content))
    recorded_or_refused(path)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_other_value_anywhere_is_told_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    content = history()
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(content)))
        place = data.draw(st.sampled_from(places(content[name])))
        content[name] = put(content[name], place, data.draw(LEAVES))
    recorded_or_refused(tar_gz(tmp_path / "damaged.tgz", encoded(content)))
