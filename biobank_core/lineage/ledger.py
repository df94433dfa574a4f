"""Which state of an object counts: per log the newest, among logs a living one.

The same code for every driver: an index keeps, for each (log, VID), the newest state it was told
of, and shows what `shown` makes of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from biobank_core.lineage.events import IndexEvent

_encoder = msgspec.msgpack.Encoder()


def precedence(event: IndexEvent) -> tuple[int, bool, bytes]:
    """The greater one wins within a log: by version, on a tie the deletion.

    Two living states of one version should not exist; if they do, their bytes decide, so that the
    order of arrival does not.
    """
    return event.version, event.deleted, _encoder.encode(event)


def is_newer(event: IndexEvent, than: IndexEvent) -> bool:
    """Whether `event` takes the place of `than`, both of the same log and VID."""
    if event.version != than.version:
        return event.version > than.version
    return precedence(event) > precedence(than)


@dataclass(frozen=True, slots=True)
class Shown:
    """The state that the graph shows, and the logs (groups) that hold it.

    A tombstone is held by the logs that say so: whoever could read the object may know of it.
    """

    event: IndexEvent
    groups: frozenset[str]


def shown(states: Iterable[IndexEvent]) -> Shown:
    """What to show of an object, from its newest state in each log (at least one).

    It lives as long as it lives in any log; the content is that of the least living log.
    """
    known = list(states)
    if len(known) == 1:
        return Shown(known[0], frozenset((known[0].log,)))
    known.sort(key=lambda state: state.log)
    living = [state for state in known if not state.deleted]
    chosen = living or known
    return Shown(chosen[0], frozenset(state.log for state in chosen))
