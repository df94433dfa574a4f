"""Data and the biological samples they came from: the link, and what has none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from biobank_core.catalog.port import Catalog, Save
from biobank_core.errors import InputError, StaleVersionError
from biobank_core.galaxy import identity
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionStatus,
    DataSample,
    Port,
    Tombstone,
)
from biobank_core.model.registry import is_a

SAMPLE_ROLE: Final = "sample"
DATA_ROLE: Final = "data"

_PAGE: Final = 500
_TRIES: Final = 8


def link_action(
    *,
    data: str,
    sample: str,
    study: str,
    begin: datetime,
    category: ActionCategory = ActionCategory.MEASUREMENT,
    operator: str | None = None,
) -> Action:
    """The action that says that this data came from this vessel or individual.

    Its VID is derived from the two, so that saying it twice is one.
    """
    return Action(
        vid=identity.link_vid(sample, data),
        category=category,
        study=study,
        status=ActionStatus.OK,
        begin=begin,
        end=begin,
        operator=operator,
        inputs=(Port(role=SAMPLE_ROLE, object=sample),),
        outputs=(Port(role=DATA_ROLE, object=data),),
    )


def link(
    catalog: Catalog,
    *,
    data: str,
    sample: str,
    by: str,
    category: ActionCategory = ActionCategory.MEASUREMENT,
) -> tuple[Action, bool]:
    """Tie data (a DataSample's or DataCollection's VID) to a vessel or an individual.

    Returns the action and whether it is new. Raises InputError where one of the two is something
    else, or where it would close a cycle.
    """
    found = catalog.get([data, sample])
    for vid, what, kinds in (
        (data, "data", ("DataSample", "DataCollection")),
        (sample, "sample", ("Vessel", "Individual")),
    ):
        kind = found[vid].object.kind if vid in found else None
        if kind is None or not any(is_a(kind, allowed) for allowed in kinds):
            raise InputError(
                f"{vid} is a {kind or 'thing unknown'}, not one of {', '.join(kinds)}", field=what
            )
    action = link_action(
        data=data,
        sample=sample,
        study=found[data].object.study,  # type: ignore[attr-defined]  # checked above
        begin=datetime.now(UTC),
        category=category,
        operator=by,
    )
    for attempt in range(_TRIES):
        known = catalog.get([action.vid]).get(action.vid)
        if known is not None and isinstance(known.object, Action):
            return known.object, False
        try:
            # A link that was deleted may be made again.
            catalog.commit([Save(object=action, based_on=known.version if known else 0)], by=by)
        except StaleVersionError:
            # Somebody made it in between: look again.
            if attempt == _TRIES - 1:
                raise
        else:
            return action, True
    raise AssertionError("unreachable")


def unlinked(catalog: Catalog, *, study: str | None = None) -> Iterator[DataSample]:
    """Data that came from nothing known: neither from other data nor from a biological sample.

    What was computed from them is not listed: linking these links it too. `study` is a VID.
    """
    page: list[DataSample] = []
    for found in catalog.find("DataSample", {"study": study} if study else None):
        if isinstance(found.object, DataSample):
            page.append(found.object)
        if len(page) == _PAGE:
            yield from _without_origin(catalog, page)
            page = []
    yield from _without_origin(catalog, page)


def origins(catalog: Catalog, vids: Iterable[str]) -> dict[str, list[Action]]:
    """The actions with inputs that made each of these; those that came from nothing are not in."""
    referrers = [
        found for found in catalog.referring(vids, kinds=["Action"]) if found.field == "outputs"
    ]
    actions = catalog.get({found.vid for found in referrers})
    made: dict[str, list[Action]] = {}
    for found in referrers:
        maker = actions.get(found.vid)
        if maker is not None and isinstance(maker.object, Action) and maker.object.inputs:
            made.setdefault(found.target, []).append(maker.object)
    return made


def _without_origin(catalog: Catalog, page: list[DataSample]) -> Iterator[DataSample]:
    made = origins(catalog, [sample.vid for sample in page])
    yield from (sample for sample in page if sample.vid not in made)


def is_living(obj: object) -> bool:
    """Whether this is an object, not what stays of one."""
    return not isinstance(obj, Tombstone)
