"""Parameters that name reference data: what they name becomes an input of the action, or is told.

An index or a genome that a tool's form offers is no dataset of Galaxy's. Who wants to select by it
registers it once, as data of a study (`biobank register DataSample`); a rule says which parameter
names it. A name that fits nothing, or several objects, is not guessed: the action is flagged, and
asked about again by later recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from biobank_core.catalog.port import Catalog, Save, Versioned
from biobank_core.errors import InputError, StaleVersionError
from biobank_core.galaxy.records import UPLOAD_TOOLS
from biobank_core.galaxy.rules import Rules
from biobank_core.model.kinds import Action, ActionSetup, DataCollection, DataSample, Port

# On an action: a rule names reference data of it that are not registered, or several times.
UNKNOWN_REFERENCE: Final = "unknown-reference"

_REFERENCE_KINDS: Final = ("DataSample", "DataCollection")
_PAGE: Final = 200
_TRIES: Final = 8


@dataclass(frozen=True, slots=True)
class Named:
    """A reference that an action was run on: by which parameter, and what it is called."""

    parameter: str
    study: str | None
    label: str


def named(rules: Rules, tool_id: str, parameters: Mapping[str, Any]) -> Iterator[Named]:
    """What the rules say of these parameters (as in a recorded setup); study None: the job's."""
    if tool_id in UPLOAD_TOOLS:
        # A genome build given to an upload describes the data; they did not come from it.
        return
    for rule in rules.references:
        for label in rule.labels_of(tool_id, parameters):
            yield Named(rule.parameter, rule.study, label)


@dataclass(slots=True)
class References:
    """Finds registered references by study and label, each asked for once."""

    catalog: Catalog
    rules: Rules
    _studies: dict[str, str | None] = field(default_factory=dict)
    # How many objects have the label in the study, and the VID where it is one.
    _found: dict[tuple[str, str], tuple[int, str | None]] = field(default_factory=dict)

    def of(
        self, actions: Sequence[tuple[Action, Mapping[str, Any]]]
    ) -> dict[str, tuple[tuple[Port, ...], bool]]:
        """By action VID: its reference inputs, and whether there are more that are not known.

        `actions` come with the parameters of their setups. Those without any are not in it.
        """
        wanted = {
            action.vid: tuple(named(self.rules, _tool_of(action), parameters))
            for action, parameters in actions
        }
        studies = {
            action.vid: [self._study(item.study, action.study) for item in wanted[action.vid]]
            for action, _ in actions
        }
        self._ask(
            (study, item.label)
            for vid, items in wanted.items()
            for study, item in zip(studies[vid], items, strict=True)
            if study is not None
        )
        answers: dict[str, tuple[tuple[Port, ...], bool]] = {}
        for vid, items in wanted.items():
            if items:
                hits = [
                    self._found[study, item.label][1] if study is not None else None
                    for study, item in zip(studies[vid], items, strict=True)
                ]
                ports = (
                    Port(role=item.parameter, object=hit)
                    for item, hit in zip(items, hits, strict=True)
                    if hit is not None
                )
                answers[vid] = tuple(dict.fromkeys(ports)), None in hits
        return answers

    def count(self, study: str | None, label: str, *, own: str) -> int:
        """How many objects there are of this label; `own` is the VID of the job's study."""
        vid = self._study(study, own)
        if vid is None:
            return 0
        self._ask([(vid, label)])
        return self._found[vid, label][0]

    def _study(self, label: str | None, own: str) -> str | None:
        if label is None:
            return own
        if label not in self._studies:
            found = [item.object.vid for item in self.catalog.find("Study", {"label": label})]
            self._studies[label] = found[0] if found else None
        return self._studies[label]

    def _ask(self, keys: Iterable[tuple[str, str]]) -> None:
        by_study: dict[str, set[str]] = {}
        for study, label in keys:
            if (study, label) not in self._found:
                by_study.setdefault(study, set()).add(label)
        for study, labels in by_study.items():
            hits: dict[str, list[str]] = {label: [] for label in labels}
            where = {"study": study, "label": tuple(sorted(labels))}
            for kind in _REFERENCE_KINDS:
                for item in self.catalog.find(kind, where):
                    if isinstance(item.object, DataSample | DataCollection):
                        hits[item.object.label].append(item.object.vid)
            for label, vids in hits.items():
                self._found[study, label] = len(vids), vids[0] if len(vids) == 1 else None


def with_references(action: Action, ports: Collection[Port], *, unknown: bool) -> Action:
    """The action with these inputs added, flagged where some are unknown."""
    made = {port.object for port in action.outputs}
    fit = [port for port in ports if port.object not in made]
    inputs = tuple(dict.fromkeys((*action.inputs, *fit)))
    unknown = unknown or len(fit) < len(ports)
    flags = tuple(flag for flag in action.flags if flag != UNKNOWN_REFERENCE)
    if unknown:
        flags = (*flags, UNKNOWN_REFERENCE)
    if (inputs, flags) == (action.inputs, action.flags):
        return action
    return replace(action, inputs=inputs, flags=flags)


def link_pending(catalog: Catalog, rules: Rules, *, server: str, by: str) -> int:
    """Give flagged actions the references that were registered since; how many changed.

    Galaxy is not asked: what an action was run with is in the catalog.
    """
    changed = 0
    flagged = _flagged(catalog, server)
    while vids := list(islice(flagged, _PAGE)):
        changed += _linked(catalog, rules, vids, by)
    return changed


@dataclass(frozen=True, slots=True)
class Missing:
    """A reference that actions name and that is not registered, or more than once (`found`)."""

    label: str
    study: str | None
    parameter: str
    tool: str
    actions: int
    found: int


def missing(catalog: Catalog, rules: Rules, *, study: str | None = None) -> list[Missing]:
    """What the rules name and nobody registered, of all servers, most used first.

    `study` is the VID of the actions' study.
    """
    references = References(catalog, rules)
    counts: dict[tuple[str, str | None, str, str], int] = {}
    found: dict[tuple[str, str | None, str, str], int] = {}
    flagged = _flagged(catalog, None)
    while vids := list(islice(flagged, _PAGE)):
        for item, parameters in _with_parameters(catalog, vids):
            action = item.object
            if not isinstance(action, Action) or study not in (None, action.study):
                continue
            tool = _tool_of(action)
            for name in named(rules, tool, parameters):
                hits = references.count(name.study, name.label, own=action.study)
                if hits != 1:
                    key = (name.label, name.study, name.parameter, tool)
                    counts[key] = counts.get(key, 0) + 1
                    found[key] = hits
    rows = [Missing(*key, actions=number, found=found[key]) for key, number in counts.items()]
    return sorted(rows, key=lambda row: (-row.actions, row.label, row.tool, row.parameter))


def _linked(catalog: Catalog, rules: Rules, vids: Sequence[str], by: str) -> int:
    references = References(catalog, rules)
    for attempt in range(_TRIES):
        pairs = _with_parameters(catalog, vids)
        known = [(item.object, p) for item, p in pairs if isinstance(item.object, Action)]
        answers = references.of(known)
        saves: list[Save] = []
        for item, _ in pairs:
            action = item.object
            if isinstance(action, Action):
                ports, unknown = answers.get(action.vid, ((), False))
                after = with_references(action, ports, unknown=unknown)
                if after is not action:
                    saves.append(Save(object=after, based_on=item.version))
        try:
            return _committed(catalog, saves, by)
        except StaleVersionError:
            # Somebody wrote in between: look again.
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _committed(catalog: Catalog, saves: Sequence[Save], by: str) -> int:
    if not saves:
        return 0
    try:
        catalog.commit(saves, by=by)
    except InputError:
        # One that would close a cycle: its reference came from what it made. It stays flagged.
        if len(saves) == 1:
            return 0
        return sum(_committed(catalog, [save], by) for save in saves)
    return len(saves)


def _with_parameters(
    catalog: Catalog, vids: Iterable[str]
) -> list[tuple[Versioned, Mapping[str, Any]]]:
    actions = catalog.get(vids)
    setups = catalog.get(
        {a.setup for item in actions.values() if isinstance(a := item.object, Action) and a.setup}
    )
    found: list[tuple[Versioned, Mapping[str, Any]]] = []
    for item in actions.values():
        setup = setups.get(getattr(item.object, "setup", None) or "")
        if setup is not None and isinstance(setup.object, ActionSetup):
            found.append((item, setup.object.parameters))
    return found


class _ActionLine(msgspec.Struct):
    vid: str
    flags: list[str] = []


def _flagged(catalog: Catalog, server: str | None) -> Iterator[str]:
    """The VIDs of the flagged actions; all are found before any is changed."""
    read: Callable[[bytes], _ActionLine] = msgspec.json.Decoder(_ActionLine).decode
    lines = catalog.lines("Action", {"galaxy.server": server} if server else None)
    return iter([line.vid for line in map(read, lines) if UNKNOWN_REFERENCE in line.flags])


def _tool_of(action: Action) -> str:
    return (action.galaxy.tool_id if action.galaxy else None) or ""
