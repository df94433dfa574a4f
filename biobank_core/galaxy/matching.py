"""Which registered vessel a dataset came from, by the rules: exactly one, or none.

Only data without an origin of their own are asked about (uploads, imports): what was computed from
them has the same element identifiers, and hangs on them already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from biobank_core.catalog.port import Catalog
from biobank_core.galaxy.linking import link_action, origins
from biobank_core.galaxy.rules import Rules
from biobank_core.model.kinds import Action, Vessel


@dataclass(slots=True, kw_only=True)
class Candidate:
    """A dataset, and what was seen with it. `time` is when Galaxy made it."""

    vid: str
    study: str
    time: datetime
    tags: set[str] = field(default_factory=set)
    identifiers: set[str] = field(default_factory=set)
    columns: set[tuple[str, str]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Matches:
    """The links to save, and the data without an origin for which there is none."""

    links: tuple[Action, ...]
    unlinked: tuple[str, ...]


def match(
    catalog: Catalog,
    rules: Rules,
    candidates: Mapping[str, Candidate],
    *,
    actions: Iterable[Action],
    operator: str | None,
) -> Matches:
    """The links of these data to vessels of their studies.

    `actions` are those of the batch, which the catalog does not have yet.
    """
    made = {port.object for action in actions if action.inputs for port in action.outputs}
    asked = {vid: c for vid, c in candidates.items() if vid not in made}
    standing = origins(catalog, asked)
    rootless = {vid: c for vid, c in asked.items() if vid not in standing}
    wanted = {
        vid: rules.sample_labels(c.tags, c.identifiers, c.columns) for vid, c in rootless.items()
    }
    vessels = _vessels(catalog, rootless, wanted)
    links: list[Action] = []
    unlinked: list[str] = []
    for vid, candidate in rootless.items():
        vessel = _the_one(wanted[vid], vessels.get(candidate.study, {}))
        if vessel is None:
            unlinked.append(vid)
        else:
            links.append(
                link_action(
                    data=vid,
                    sample=vessel,
                    study=candidate.study,
                    begin=candidate.time,
                    operator=operator,
                )
            )
    return Matches(tuple(links), tuple(unlinked))


# What each rule finds: (whether it was said of this very dataset, labels).
Labels: TypeAlias = tuple[tuple[bool, tuple[str, ...]], ...]


def _vessels(
    catalog: Catalog, candidates: Mapping[str, Candidate], wanted: Mapping[str, Labels]
) -> dict[str, dict[str, str]]:
    by_study: dict[str, set[str]] = {}
    for vid, by_rule in wanted.items():
        for _, labels in by_rule:
            by_study.setdefault(candidates[vid].study, set()).update(labels)
    found: dict[str, dict[str, str]] = {}
    for study, names in by_study.items():
        for item in catalog.find("Vessel", {"study": study, "label": tuple(sorted(names))}):
            if isinstance(item.object, Vessel):
                found.setdefault(study, {})[item.object.label] = item.object.vid
    return found


def _the_one(by_rule: Labels, vessels: Mapping[str, str]) -> str | None:
    """The vessel that the first rule with a registered label names; None where it names two.

    Element identifiers are of all levels ("T1", "forward"): those that nobody registered say
    nothing. A label in a tag or a sheet was meant: where it is not registered the search ends.
    """
    for is_meant, labels in by_rule:
        found = {vessels[label] for label in labels if label in vessels}
        if len(found) == 1 and not (is_meant and len(labels) > 1):
            return found.pop()
        if found or is_meant:
            return None
    return None
