"""What the logs say last of each object, read on from where the last look ended."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from biobank_core.catalog.omero.log import Change, Log

# A VID and the id of a group: an object has a place of its own in each group that holds it.
Key = tuple[str, int]


class Place(NamedTuple):
    """The last that a log says of an object; `unit` is the name of that commit."""

    log: Log
    change: Change
    unit: str


class Places:
    """The last that these logs say of all objects, or of those of some VIDs."""

    def __init__(self, logs: Sequence[Log], vids: Collection[str] | None = None) -> None:
        self._parts: Final = [(log, part) for log in logs for part in (*log.older, log)]
        self._reached: Final = dict.fromkeys((part.uuid for _, part in self._parts), 0)
        self._vids: Final = None if vids is None else frozenset(vids)
        self.known: Final[dict[Key, Place]] = {}

    def read(self) -> bool:
        """Read on; whether there was anything new."""
        news = False
        for log, part in self._parts:
            for commit in part.following(self._reached[part.uuid]):
                news = True
                self._reached[part.uuid] = commit.number
                for change in commit.unit.changes:
                    if self._vids is None or change.vid in self._vids:
                        self.known[change.vid, log.group] = Place(log, change, commit.name)
        return news

    def of(self, vids: Collection[str]) -> Mapping[Key, Place]:
        """What is known of these."""
        wanted = frozenset(vids)
        return {key: place for key, place in self.known.items() if key[0] in wanted}

    def covers(self, vids: Collection[str]) -> bool:
        """Whether it reads on for all of these."""
        return self._vids is None or self._vids.issuperset(vids)
