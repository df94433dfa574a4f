"""Which parameter each input of a job belongs to, and where a whole collection went in.

Galaxy's job detail lists datasets only, a collection's elements as `X1`, `X2`, a multiple input
twice (`X` and `X1`). The state that `build_for_rerun` gives tells collections by their ids.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from biobank_core.galaxy import wire
from biobank_core.galaxy.records import CollectionEnd, DatasetEnd, safe_text

_NUMBERED: Final = re.compile(r"(?P<base>.*?)(?P<number>\d+)\Z", re.S)
_ID: Final = re.compile(r"[0-9a-f]{16,255}\Z")
# A tool's own form is a dozen levels deep at most.
_MAX_DEPTH: Final = 100

AskElement = Callable[[str], wire.CollectionElement | None]


def grouped_inputs(
    raw: Mapping[str, wire.End],
    state: Mapping[str, Any],
    parameters: Mapping[str, Any],
    ask_element: AskElement,
) -> tuple[tuple[DatasetEnd, ...], tuple[CollectionEnd, ...]]:
    """Inputs by parameter: all datasets, and the collections that hold some of them.

    `raw` is the job detail's `inputs`; `state` the `state_inputs` of build_for_rerun (empty where
    there is none), `parameters` the job's own, decoded.
    """
    values = dict(_leaves(state)) or dict(_leaves(parameters))
    datasets = _by_parameter(raw, values.keys())
    ends = tuple(
        DatasetEnd(role=safe_text(role), uuid=wire.canonical_uuid(end.uuid), id=end.id)
        for role, found in datasets.items()
        for end in found
    )
    collections: list[CollectionEnd] = []
    for role, items in _leaves(state):
        sources = _sources(items)
        for src, item_id in sources:
            if src == "hdca":
                collections.append(CollectionEnd(role=safe_text(role), key=item_id))
        if len(sources) == 1 and sources[0][0] == "dce":
            element = ask_element(sources[0][1])
            inner = element.object if element else None
            if inner is not None and inner.collection_type:
                collections.append(
                    CollectionEnd(
                        role=safe_text(role),
                        key=f"dce-{sources[0][1]}",
                        inner_type=safe_text(inner.collection_type),
                        members=tuple(end for end in ends if end.role == safe_text(role)),
                    )
                )
    return ends, tuple(collections)


def sources_of(state: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(kind of source, id) of all data that went into a tool's state."""
    return [source for _, items in _leaves(state) for source in _sources(items)]


def _by_parameter(raw: Mapping[str, wire.End], names: Collection[str]) -> dict[str, list[wire.End]]:
    grouped: dict[str, list[tuple[int, wire.End]]] = {}
    for name, end in raw.items():
        role, number = name, 0
        match = _NUMBERED.match(name)
        if name not in names and match and (match["base"] in names or match["base"] in raw):
            role, number = match["base"], int(match["number"][:9])
        grouped.setdefault(role, []).append((number, end))
    found: dict[str, list[wire.End]] = {}
    for role, ends in sorted(grouped.items()):
        numbered = sorted(ends, key=lambda item: item[0])
        # Of `X` and `X1` one is enough; number 0 is the repetition.
        if len(numbered) > 1 and numbered[0][0] == 0:
            again = numbered[0][1]
            if any(end.uuid == again.uuid for _, end in numbered[1:]):
                numbered = numbered[1:]
        found[role] = [end for _, end in numbered]
    return found


def _leaves(state: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """(name as Galaxy flattens it, value) of each parameter of a tool's state."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(state, dict) and not _is_data(state):
        for name, value in state.items():
            if not name.startswith("__"):
                yield from _leaves(value, f"{path}|{name}" if path else str(name), depth + 1)
    elif isinstance(state, list) and state and all(isinstance(item, dict) for item in state):
        for index, item in enumerate(state):
            yield from _leaves(item, f"{path}_{index}", depth + 1)
    else:
        yield path, state


def _is_data(state: dict[str, Any]) -> bool:
    values = state.get("values")
    return isinstance(values, list) and all(
        isinstance(value, dict) and "src" in value for value in values
    )


def _sources(value: Any) -> list[tuple[str, str]]:
    if not (isinstance(value, dict) and _is_data(value)):
        return []
    return [
        (item["src"], item["id"])
        for item in value["values"]
        if isinstance(item["src"], str)
        and isinstance(item.get("id"), str)
        and _ID.match(item["id"])
    ]
