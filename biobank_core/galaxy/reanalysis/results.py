"""Which new result takes the place of which old one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from biobank_core.catalog.port import Catalog
from biobank_core.model.ids import derived_vid
from biobank_core.model.kinds import (
    Action,
    ActionStatus,
    CampaignItem,
    Device,
    Port,
    Supersession,
)
from biobank_core.selection import tools


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """An output of an action, with what it can be known by. `tool` is without version."""

    vid: str
    label: str
    tool: str
    role: str
    release: str | None = None
    step: str | None = None
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Pairing:
    """`pairs`: old result -> new one (the same VID: the same data). The rest has no counterpart."""

    pairs: tuple[tuple[Result, Result], ...]
    old_alone: tuple[Result, ...]
    new_alone: tuple[Result, ...]


def base_role(role: str) -> str:
    """The output's name in a role, which for data found at run time is `NAME|identifier`."""
    return role.partition("|")[0]


class Expected(Protocol):
    """What the plan says takes an old result's place; see `outputs.NewOutput`."""

    @property
    def tool(self) -> str:
        """The tool's id without version."""

    @property
    def output(self) -> str:
        """The output's name."""

    @property
    def step_label(self) -> str | None:
        """The step, where the tool alone does not tell."""


def pair_results(
    old: Sequence[Result], new: Sequence[Result], expected: Mapping[str, Expected]
) -> Pairing:
    """Pair as the plan says (`expected`: an old result's VID -> the output that replaces it).

    Where that fits several (the elements of a list), by identifier and label; what still fits
    several is left alone: which one it was is never guessed. The same data are always a pair.
    """
    by_vid = {one.vid: one for one in new}
    pairs = [(one, by_vid[one.vid]) for one in old if one.vid in by_vid]
    groups: dict[tuple[object, ...], list[Result]] = {}
    for one in old:
        if one.vid in expected and one.vid not in by_vid:
            target = expected[one.vid]
            source = (one.tool, base_role(one.role), one.step)
            groups.setdefault((*source, _key(target)), []).append(one)
    same = {one.vid for one, _ in pairs}
    for ones in groups.values():
        target = expected[ones[0].vid]
        fitting = [one for one in new if one.vid not in same and _fits(one, target)]
        pairs += _told_apart(ones, fitting)
    order = {result.vid: place for place, result in enumerate(old)}
    pairs.sort(key=lambda pair: order[pair[0].vid])
    paired = {one.vid for pair in pairs for one in pair}
    return Pairing(
        tuple(pairs),
        tuple(one for one in old if one.vid not in paired),
        # What came out of the job cache and is no old result of this sample was not made for it.
        tuple(one for one in new if one.vid not in paired and not one.cached),
    )


def _key(target: Expected) -> tuple[str, str, str | None]:
    return target.tool, target.output, target.step_label


def _fits(one: Result, target: Expected) -> bool:
    return (one.tool, base_role(one.role)) == (target.tool, target.output) and (
        target.step_label is None or one.step == target.step_label
    )


def _told_apart(old: Sequence[Result], new: Sequence[Result]) -> list[tuple[Result, Result]]:
    rules: tuple[Callable[[Result], tuple[object, ...]], ...] = (
        lambda one: (_identifier(one), one.label),
        lambda one: (_identifier(one),),
    )
    open_old, open_new = list(old), list(new)
    pairs: list[tuple[Result, Result]] = []
    for rule in rules:
        by_old, by_new = _by(open_old, rule), _by(open_new, rule)
        for key, ones in by_old.items():
            others = by_new.get(key, [])
            if len(ones) == 1 and len(others) == 1:
                pairs.append((ones[0], others[0]))
                open_old.remove(ones[0])
                open_new.remove(others[0])
    if len(open_old) == len(open_new) == 1 and not all(
        map(_identifier, (open_old[0], open_new[0]))
    ):
        pairs.append((open_old[0], open_new[0]))
    return pairs


def _identifier(one: Result) -> str:
    return one.role.partition("|")[2]


def old_results(catalog: Catalog, ports: Iterable[Port]) -> list[Result]:
    """What is known of an item's old results, by the actions that made them."""
    wanted = {port.object: port.role for port in ports}
    makers = {
        referrer.vid
        for referrer in catalog.referring(wanted, kinds=("Action",))
        if referrer.field == "outputs"
    }
    actions = _actions(catalog, makers)
    made = {one.vid: one for one in _results(catalog, actions) if one.vid in wanted}
    return [made[vid] for vid in wanted if vid in made]


def actions_of(catalog: Catalog, item: CampaignItem, *, server: str) -> list[Action]:
    """The recorded actions of an item: all of its own history, those of subworkflows too."""
    if item.history_id is None:
        return []
    where = {"galaxy.history_id": item.history_id, "galaxy.server": server}
    found = [entry.object for entry in catalog.find("Action", where)]
    actions = [one for one in found if isinstance(one, Action)]
    return sorted(actions, key=lambda action: (action.begin, action.vid))


def new_results(catalog: Catalog, actions: Iterable[Action]) -> list[Result]:
    """What the actions of an invocation put out, the failed ones left out."""
    return _results(catalog, [one for one in actions if one.status is ActionStatus.OK])


def supersession(pair: tuple[Result, Result], *, campaign: str) -> Supersession | None:
    """That the new result takes the old one's place; None when they are the same data."""
    old, new = pair
    if old.vid == new.vid or new.cached:
        return None
    vid = derived_vid("Supersession", new.vid, old.vid)
    return Supersession(vid=vid, new=new.vid, old=old.vid, campaign=campaign)


def _results(catalog: Catalog, actions: Sequence[Action]) -> list[Result]:
    devices = catalog.get({action.device for action in actions if action.device})
    outputs = {port.object for action in actions for port in _made(action)}
    objects = catalog.get(outputs)
    found: dict[str, Result] = {}
    for action in actions:
        held = devices.get(action.device) if action.device else None
        device = held.object if held and isinstance(held.object, Device) else None
        galaxy = action.galaxy
        for port in _made(action):
            known = objects.get(port.object)
            found.setdefault(
                port.object,
                Result(
                    vid=port.object,
                    label=str(getattr(known.object, "label", "")) if known else "",
                    tool=tools.without_version(device.label) if device else "",
                    role=port.role,
                    release=device.release if device else None,
                    step=galaxy.step_label if galaxy else None,
                    cached=bool(galaxy and galaxy.cached_from),
                ),
            )
    return list(found.values())


def _made(action: Action) -> tuple[Port, ...]:
    """What an action put out; of one answered from the job cache that are another one's results."""
    if action.galaxy is not None and action.galaxy.cached_from:
        return (*action.outputs, *action.without_edge)
    return action.outputs


def _actions(catalog: Catalog, vids: Iterable[str]) -> list[Action]:
    found = catalog.get(vids)
    actions = [one.object for one in found.values() if isinstance(one.object, Action)]
    return sorted(actions, key=lambda action: (action.begin, action.vid))


def _by(
    results: Iterable[Result], rule: Callable[[Result], tuple[object, ...]]
) -> Mapping[tuple[object, ...], list[Result]]:
    groups: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(rule(result), []).append(result)
    return groups
