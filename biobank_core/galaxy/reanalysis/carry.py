"""Parameters that are kept: each sample is run with the values its old results were made with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from biobank_core.catalog.port import Catalog
from biobank_core.errors import InputError
from biobank_core.galaxy.parameters import REDACTED
from biobank_core.galaxy.reanalysis.settings import Kept
from biobank_core.galaxy.reanalysis.states import flattened
from biobank_core.model.kinds import Action, ActionSetup, Device
from biobank_core.selection import tools

# Why a sample has no value to keep. Stable, like ReasonCode.
NO_OLD_VALUE: Final = "no-old-value"
SEVERAL_OLD_VALUES: Final = "several-old-values"
VALUE_NOT_ALLOWED: Final = "value-not-allowed"


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """A value for one sample: of the step's parameter `path`, or of the workflow's own (None).

    `target` and `old` are their names as people write them.
    """

    target: str
    index: int
    path: str | None
    value: Any
    old: str


class NotCarriedError(Exception):
    """A sample has no value to keep; `code` and `reason` go into the plan."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Old:
    """An old action's tool (without version) and its parameters by path."""

    tool: str
    values: Mapping[str, Any]


class Carrier:
    """Looks up what samples' old results were made with."""

    def __init__(self, catalog: Catalog, kept: Sequence[Kept]) -> None:
        self._catalog = catalog
        self._kept = kept
        self._old: dict[str, list[_Old]] = {}
        self._sources: dict[str, tuple[str, str]] = {}

    def learn(self, actions: Mapping[str, Iterable[str]]) -> None:
        """Take in the actions (VIDs) that made each sample's (VID) old results, for `of`.

        Raises InputError where an old name fits no tool's parameters, or those of several.
        """
        if not self._kept:
            return
        by_sample = {sample: list(dict.fromkeys(vids)) for sample, vids in actions.items()}
        known = self._read({vid for vids in by_sample.values() for vid in vids})
        self._old = {
            sample: [known[vid] for vid in vids if vid in known]
            for sample, vids in by_sample.items()
        }
        problems = []
        names = {
            (old.tool, path) for olds in self._old.values() for old in olds for path in old.values
        }
        for one in self._kept:
            fitting = sorted(name for name in names if _is_called(name, one))
            if len(fitting) == 1:
                self._sources[one.target] = fitting[0]
            elif fitting:
                several = ", ".join(_title(name) for name in fitting)
                problems.append(
                    f"--keep {one.target}: the old value may be of {several}; write --keep "
                    f"{one.target}=TOOL.PARAM"
                )
            else:
                known_names = ", ".join(sorted(_title(name) for name in names)) or "none"
                problems.append(
                    f"--keep {one.target}: no old result was made with a parameter {one.old!r}"
                    f"{f' of {tools.last_part(one.tool)}' if one.tool else ''}; there are "
                    f"{known_names}"
                )
        if problems:
            listed = "\n".join(f"  - {problem}" for problem in problems)
            raise InputError(f"old parameters can't be kept as asked:\n{listed}")

    def of(self, sample: str) -> tuple[Carried, ...]:
        """The values of a sample (VID). Raises NotCarriedError where there is none, or several."""
        return tuple(self._one(sample, kept) for kept in self._kept)

    def _one(self, sample: str, kept: Kept) -> Carried:
        tool, path = self._sources[kept.target]
        name = _title((tool, path))
        found = [
            old.values[path]
            for old in self._old.get(sample, ())
            if old.tool == tool and path in old.values
        ]
        different = {json.dumps(value, sort_keys=True): value for value in found}
        if not different:
            raise NotCarriedError(
                NO_OLD_VALUE, f"its old results were made without {name}, which is to be kept"
            )
        if len(different) > 1:
            values = ", ".join(sorted(different))
            raise NotCarriedError(
                SEVERAL_OLD_VALUES,
                f"its old results were made with several values of {name} ({values}); which one is "
                "to be kept is not known",
            )
        (value,) = different.values()
        if REDACTED in json.dumps(value):
            raise NotCarriedError(
                NO_OLD_VALUE, f"{name} was not kept, because it looks like a secret"
            )
        try:
            kept.parameter.check(value)
        except InputError as exc:
            raise NotCarriedError(
                VALUE_NOT_ALLOWED,
                f"{name} was {value!r}, which {kept.target} does not allow; it {exc.reason}",
            ) from exc
        return Carried(target=kept.target, index=kept.index, path=kept.path, value=value, old=name)

    def _read(self, vids: set[str]) -> dict[str, _Old]:
        actions = {
            vid: found.object
            for vid, found in self._catalog.get(vids).items()
            if isinstance(found.object, Action)
        }
        more = self._catalog.get(
            {
                vid
                for action in actions.values()
                for vid in (action.device, action.setup)
                if vid is not None
            }
        )
        found: dict[str, _Old] = {}
        for vid, action in actions.items():
            device = more[action.device].object if action.device in more else None
            setup = more[action.setup].object if action.setup in more else None
            if isinstance(device, Device) and isinstance(setup, ActionSetup):
                tool = tools.without_version(device.label)
                found[vid] = _Old(tool, dict(flattened(setup.parameters)))
        return found


def _is_called(name: tuple[str, str], kept: Kept) -> bool:
    tool, path = name
    if kept.tool is not None:
        return tool == kept.tool and path == kept.old
    if path == kept.old:
        return True
    prefix = kept.old.removesuffix(f".{path}")
    return prefix != kept.old and tools.matches(tool, prefix)


def _title(name: tuple[str, str]) -> str:
    tool, path = name
    return f"{tools.last_part(tool)}.{path}"
