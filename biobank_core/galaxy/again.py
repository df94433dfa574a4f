"""What may follow a recording: known data asked about again, missing hashes computed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol

from biobank_core.galaxy.hashing import Hashed, compute, is_computable
from biobank_core.galaxy.live import LiveSource
from biobank_core.galaxy.refresh import Copies, Refresher


class Progress(Protocol):
    """Opens a progress bar; `cli.common.progress` is one."""

    def __call__(
        self, text: str, /, *, total: float | None, unit: Literal["items", "bytes"] = "items"
    ) -> AbstractContextManager[Callable[[float], object]]: ...


def no_progress(
    _text: str, /, *, total: float | None, unit: Literal["items", "bytes"] = "items"
) -> AbstractContextManager[Callable[[float], object]]:
    """Shows nothing."""
    del total, unit
    return nullcontext(lambda _by: None)


def refresh(
    refresher: Refresher,
    *,
    history_id: str | None = None,
    progress: Progress = no_progress,
) -> None:
    """Ask again about all data that are known of the server, or about those in one history.

    One request a history, or one a page of a large one. Of the data in one history, the copies in
    all other histories are asked for too: data are gone only when all copies are.
    """
    histories = refresher.all_histories()
    only: set[str] | None = None
    if history_id is not None:
        only = set(refresher.copies([history_id]))
        histories = {history_id} | refresher.histories_of(only)
    with progress("asking again", total=len(histories)) as advance:
        found = refresher.copies(histories, advance=advance)
    refresher.refresh({vid: c for vid, c in found.items() if only is None or vid in only})


def look_for_hashes(
    refresher: Refresher, wanted: Collection[str], *, progress: Progress = no_progress
) -> tuple[Hashed, dict[str, Copies]]:
    """Take the hashes that Galaxy has computed meanwhile; returns the data that still have none."""
    histories = refresher.histories_of(wanted)
    with progress("looking for hashes", total=len(histories)) as advance:
        copies = refresher.copies(histories, only=wanted, advance=advance)
    ready = {vid: c.sha256 for vid, c in copies.items() if c.sha256 is not None}
    refresher.fill_hashes(ready)
    return Hashed(found=len(ready)), {vid: c for vid, c in copies.items() if vid not in ready}


def compute_hashes(
    source: LiveSource,
    refresher: Refresher,
    *,
    max_bytes: int | None,
    progress: Progress = no_progress,
) -> Hashed:
    """Have Galaxy compute every hash that is missing, of data up to this size; resumable."""
    wanted = set(refresher.without_hash(max_bytes))
    done, missing = look_for_hashes(refresher, wanted, progress=progress)
    todo = {vid: c for vid, c in missing.items() if is_computable(c, max_bytes)}
    done.left_out = len(wanted) - done.found - len(todo)
    with progress("computing SHA-256", total=len(todo)) as advance:
        computed = compute(source, refresher, todo, advance=advance)
    computed.found, computed.left_out = done.found, done.left_out
    return computed
