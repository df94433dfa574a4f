"""A batch into the index: the failing messages are found, and who is to blame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from biobank_core.errors import BiobankError, InputError, StorageError, UnreachableError
from biobank_core.lineage.events import IndexEvent, NodeEvent
from biobank_core.lineage.port import LineageIndex
from biobank_core.lineage.registry import open_index
from biobank_core.model.ids import derived_vid
from sync_service.projector import Item, apply, refusal_of
from sync_service.tries import MAX_TRIES, Tries


def item(number: int) -> Item:
    vid = derived_vid("Test", str(number))
    event = NodeEvent(log="L", vid=vid, version=1, kind="DataSample", label=str(number))
    return Item(number, f"L/{vid}/1", event)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[LineageIndex]:
    with open_index(f"sqlite:///{tmp_path}/i.db") as opened:
        yield opened


def failing(
    index: LineageIndex,
    error: Callable[[Sequence[IndexEvent]], Exception | None],
    monkeypatch: pytest.MonkeyPatch,
) -> list[int]:
    """Let the index raise what `error` gives for a batch; the sizes of the batches tried."""
    really, sizes = index.apply, []

    def grudging(batch: Sequence[IndexEvent]) -> None:
        sizes.append(len(batch))
        if (exc := error(batch)) is not None:
            raise exc
        really(batch)

    monkeypatch.setattr(index, "apply", grudging)
    return sizes


def holding(*numbers: int) -> Callable[[Sequence[IndexEvent]], bool]:
    vids = {item(number).event.vid for number in numbers}
    return lambda batch: any(event.vid in vids for event in batch)


def test_a_good_batch_is_one_transaction(
    index: LineageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = failing(index, lambda _: None, monkeypatch)
    items = [item(number) for number in range(100)]
    outcome = apply(index, items)
    assert outcome.applied == items
    assert sizes == [100]


@pytest.mark.parametrize("error", [InputError("no"), TypeError("a bug of the driver")])
def test_poison_is_found_by_bisecting_and_the_rest_is_applied(
    index: LineageIndex, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    bad = holding(3, 77)
    sizes = failing(index, lambda batch: error if bad(batch) else None, monkeypatch)
    outcome = apply(index, [item(number) for number in range(100)])
    assert [(one.tag, exc) for one, exc in outcome.failed] == [(3, error), (77, error)]
    assert len(outcome.applied) == index.count()["nodes"] == 98
    assert len(sizes) < 30  # about 2 log2(100) each, and not one by one


@pytest.mark.parametrize("error", [UnreachableError("away"), StorageError("read-only")])
def test_no_message_is_blamed_for_an_index_that_is_away_or_read_only(
    index: LineageIndex, monkeypatch: pytest.MonkeyPatch, error: BiobankError
) -> None:
    sizes = failing(index, lambda _: error, monkeypatch)
    with pytest.raises(type(error)):
        apply(index, [item(number) for number in range(100)])
    assert sizes == [100]


def test_nor_when_it_goes_on_refusing_everything(
    index: LineageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(index, lambda _: StorageError("read-only"), monkeypatch)

    def no_write(_refusals: object) -> None:
        raise StorageError("read-only")

    monkeypatch.setattr(index, "refuse", no_write)
    for count in (1, 100):
        with pytest.raises(StorageError):
            apply(index, [item(number) for number in range(count)], suspicious=True)


def test_an_index_that_goes_away_in_the_middle_is_found_out_soon(
    index: LineageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = UnreachableError("away")
    applied: list[int] = []

    def first_fine(batch: Sequence[IndexEvent]) -> Exception | None:
        if len(batch) == 64 or applied:
            applied.append(len(batch))
        return error if len(batch) == 64 or len(applied) > 2 else None

    sizes = failing(index, first_fine, monkeypatch)

    def no_write(_refusals: object) -> None:
        raise error

    monkeypatch.setattr(index, "refuse", no_write)
    with pytest.raises(UnreachableError):
        apply(index, [item(number) for number in range(64)], suspicious=True)
    assert index.count()["nodes"] > 0
    assert len(sizes) < 20


@pytest.mark.parametrize("count", [1, 100])
def test_a_message_that_is_too_much_for_the_index_is_found_when_it_is_suspected(
    index: LineageIndex, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    bad = holding(0)
    error = UnreachableError("out of memory")
    failing(index, lambda batch: error if bad(batch) else None, monkeypatch)
    outcome = apply(index, [item(number) for number in range(count)], suspicious=True)
    assert [one.tag for one, _ in outcome.failed] == [0]
    assert len(outcome.applied) == count - 1
    assert index.refused() == {}


@pytest.mark.parametrize("more", [{"sent_again": True}, {"discarded": True}, {}])
def test_looking_whether_the_index_takes_writes_leaves_the_refusal_that_stands(
    index: LineageIndex, monkeypatch: pytest.MonkeyPatch, more: dict[str, bool]
) -> None:
    event = item(0).event
    standing = refusal_of(event.log, event.vid, event.version, "too large")
    standing = msgspec.structs.replace(standing, **more)
    index.refuse([standing])
    failing(index, lambda _: UnreachableError("out of memory"), monkeypatch)
    outcome = apply(index, [item(0)], suspicious=True)
    assert len(outcome.failed) == 1
    assert list(index.refused().values()) == [standing]


def test_tries_are_bounded_and_their_pauses_grow() -> None:
    tries = Tries()
    seen = [tries.failed("id", f"reason {number}") for number in range(MAX_TRIES)]
    assert [tried.tries for tried in seen] == [1, 2, 3, 4, 5]
    assert [tried.over for tried in seen] == [False] * 4 + [True]
    pauses = [tried.pause_s for tried in seen[:-1]]
    assert pauses == sorted(pauses)
    assert sum(pauses) < 30
    assert seen[-1].first == seen[0].first <= seen[-1].last
    assert seen[-1].reason == "reason 4"
    tries.forget("id")
    assert tries.failed("id", "again").tries == 1


def test_a_message_that_can_not_be_read_is_not_tried_again() -> None:
    assert Tries().failed("id", "no JSON", final=True).over
