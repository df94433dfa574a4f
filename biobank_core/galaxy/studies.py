"""Which study what Galaxy made belongs to."""

from __future__ import annotations

from typing import Final

from biobank_core.catalog.port import Catalog
from biobank_core.galaxy import identity
from biobank_core.galaxy.records import HistoryRecord
from biobank_core.galaxy.rules import Rules
from biobank_core.galaxy.source import Source
from biobank_core.model.base import Object
from biobank_core.model.kinds import Study

UNASSIGNED: Final = "unassigned"


class Studies:
    """Studies by the rules; the private study `unassigned` is made when it is needed."""

    def __init__(
        self, catalog: Catalog, rules: Rules, source: Source, *, fallback: str | None
    ) -> None:
        self._catalog = catalog
        self._rules = rules
        self._source = source
        self._by_label: dict[str, str | None] = {}
        standing = self._labelled(UNASSIGNED)
        self.unassigned = standing or identity.study_vid(UNASSIGNED)
        self._missing = standing is None
        self._fallback = fallback
        self._used_unassigned = False
        self.unknown: set[str] = set()

    def of(self, history_id: str | None, tags: tuple[str, ...]) -> str:
        """The VID of the study of what is in this history and has these tags."""
        if self._rules.studies:
            history: HistoryRecord | None = None
            if history_id is not None:
                history = self._source.history(history_id)
            label = self._rules.study_of(history, tags)
            if label is not None:
                vid = self._labelled(label)
                if vid is not None:
                    return vid
                self.unknown.add(label)
        if self._fallback is not None:
            return self._fallback
        self._used_unassigned = True
        return self.unassigned

    def take_new(self) -> list[Object]:
        """The study `unassigned`, once, if it was used and the catalog does not have it."""
        if not (self._missing and self._used_unassigned):
            return []
        self._missing = False
        return [
            Study(
                vid=self.unassigned,
                label=UNASSIGNED,
                description="Recorded from Galaxy; no rule says which study it belongs to.",
            )
        ]

    def _labelled(self, label: str) -> str | None:
        if label not in self._by_label:
            found = [item.object.vid for item in self._catalog.find("Study", {"label": label})]
            self._by_label[label] = found[0] if found else None
        return self._by_label[label]
