"""Which actions were run with the parameters, and on the reference data, that are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from biobank_core.catalog.port import Catalog
from biobank_core.model.kinds import ActionSetup
from biobank_core.selection.criteria import Criteria
from biobank_core.selection.graph import ActionInfo, Graph, NodeInfo
from biobank_core.selection.loading import chunks

_SEPARATOR: Final = "."


class Uses:
    """Answers about the actions of one graph; reads their setups in bulk, if any are asked for."""

    def __init__(self, catalog: Catalog, criteria: Criteria, graph: Graph) -> None:
        self.asked = bool(criteria.params) or criteria.reference is not None
        self._params = criteria.params
        self._reference = criteria.reference
        self._holders: set[NodeInfo] = set()
        # By setup whether it has all values; a setup that can't be read is not in here.
        self._setups: dict[str, bool] = {}
        if criteria.reference is not None:
            self._holders = _holders(criteria.reference, graph)
        if criteria.params:
            setups = {action.setup for action in graph.actions if action.setup is not None}
            for part in chunks(sorted(setups)):
                for vid, item in catalog.get(part).items():
                    if isinstance(item.object, ActionSetup):
                        self._setups[vid] = has_all(item.object.parameters, criteria.params)

    def fits(self, action: ActionInfo) -> bool | None:
        """Whether it had all that is asked for; None where its parameters are unknown.

        What is known to differ decides, whatever is unknown.
        """
        if self._reference is not None and self._holders.isdisjoint(action.inputs):
            return False
        if not self._params:
            return True
        return self._setups.get(action.setup) if action.setup is not None else None


def has_all(parameters: Mapping[str, Any], wanted: Iterable[tuple[str, str]]) -> bool:
    """Whether each name is there with its value."""
    return all(has(parameters, name, value) for name, value in wanted)


def has(value: Any, name: str, text: str) -> bool:
    """Whether the dotted `name` leads to a value that reads as `text`.

    A name may itself hold dots: every way to read it is tried. Of a list any element will do.
    """
    if isinstance(value, list | tuple):
        return any(has(item, name, text) for item in value)
    if not isinstance(value, Mapping):
        return False
    if name in value and _reads(value[name], text):
        return True
    end = name.find(_SEPARATOR)
    while end >= 0:
        inner = value.get(name[:end])
        if inner is not None and has(inner, name[end + 1 :], text):
            return True
        end = name.find(_SEPARATOR, end + 1)
    return False


def _reads(value: Any, text: str) -> bool:
    if isinstance(value, list | tuple):
        return any(_reads(item, text) for item in value)
    if isinstance(value, str):
        return value == text
    if isinstance(value, Mapping):
        return False
    return msgspec.json.encode(value).decode() == text  # true, 5, 0.5, null


def _holders(reference: str, graph: Graph) -> set[NodeInfo]:
    """The object itself and all collections that hold it, at any depth."""
    node = graph.nodes.get(reference)
    if node is None:
        return set()
    within: dict[NodeInfo, list[NodeInfo]] = {}
    for holder in graph.nodes.values():
        for member in holder.members:
            within.setdefault(member, []).append(holder)
    found, stack = {node}, [node]
    while stack:
        for holder in within.get(stack.pop(), ()):
            if holder not in found:
                found.add(holder)
                stack.append(holder)
    return found
