"""Whether a sample may still be used on the day it is run: a consent may go after the plan."""

from __future__ import annotations

from biobank_core.catalog.port import Catalog
from biobank_core.consent import DEFAULT_SCOPE, today
from biobank_core.galaxy.reanalysis.campaigns import LoadedCampaign
from biobank_core.lineage.port import Direction, LineageIndex, Question
from biobank_core.model.kinds import CampaignItem, Individual
from biobank_core.selection.permission import Permissions


class ConsentCheck:
    """Asks for each item anew; the rule is the selection's own (`selection.permission`)."""

    def __init__(self, catalog: Catalog, index: LineageIndex, loaded: LoadedCampaign) -> None:
        self._catalog = catalog
        self._index = index
        self._study = loaded.campaign.study
        self._scope = str(loaded.criteria.asked.get("scope") or DEFAULT_SCOPE)

    def refusal(self, item: CampaignItem) -> str | None:
        """Why the item must not be run now; None when it may. Any individual upstream counts."""
        starts = (item.sample, *(port.object for port in item.sources))
        answer = self._index.connected(
            Question(
                starts=starts,
                direction=Direction.UPSTREAM,
                kinds=frozenset({Individual.__name__}),
            )
        )
        people = [node.vid for node in answer.nodes if node.kind == Individual.__name__]
        if not people:
            return "not run: no individual is known that it came from, so there is no consent"
        permissions = Permissions(study=self._study, scope=self._scope, on=today())
        permissions.load(self._catalog, people)
        found = self._catalog.get([item.sample]).get(item.sample)
        study = getattr(found.object, "study", None) if found else None
        for person in people:
            refusal = permissions.refusal(person, study)
            if refusal is not None:
                return f"not run: consent of {refusal.name} {refusal.text}"
        return None
