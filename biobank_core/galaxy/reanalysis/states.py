"""Tool states by paths: `mode|depth` in a section or case, `rules_0|pattern` in a repeat."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

# `rules_0|pattern` of a state is `rules_*|pattern` of a form.
_INDEX: Final = re.compile(r"_\d+\|")


def spelling(path: str) -> str:
    """A path as a form has it, with `_0` for whichever entry of a repeat."""
    return _INDEX.sub("_0|", path)


def _keys(state: Mapping[str, Any], path: str) -> list[str | int]:
    """`a|rules_0|b` as keys of nested dicts and lists."""
    keys: list[str | int] = []
    held: Any = state
    for name in path.split("|"):
        match = re.fullmatch(r"(.+)_(\d+)", name)
        here = held if isinstance(held, Mapping) else {}
        if match and name not in here and isinstance(here.get(match[1], []), list):
            keys += [match[1], int(match[2])]
            entries = here.get(match[1], [])
            held = entries[int(match[2])] if int(match[2]) < len(entries) else {}
        else:
            keys.append(name)
            held = here.get(name)
    return keys


def value_at(state: Mapping[str, Any], path: str) -> Any:
    """The value at a path; None where there is none."""
    held: Any = state
    for key in _keys(state, path):
        try:
            held = held[key]
        except (KeyError, IndexError, TypeError):
            return None
    return held


def put(state: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a path, with what it stands in where that is missing."""
    *parents, last = _keys(state, path)
    held: Any = state
    for position, key in enumerate(parents):
        following = parents[position + 1] if position + 1 < len(parents) else last
        empty: Any = [] if isinstance(following, int) else {}
        if isinstance(held, list) and isinstance(key, int):
            while len(held) <= key:
                held.append({})
        elif not isinstance(held.get(key), dict | list):
            held[key] = empty
        held = held[key]
    held[last] = value


def remove(state: dict[str, Any], path: str) -> None:
    """Take out what is at a path."""
    *parents, last = _keys(state, path)
    held: Any = state
    for key in parents:
        held = held[key]
    held.pop(last, None)


def flattened(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of each single value in a state or in recorded parameters."""
    if isinstance(state, dict):
        for name, value in state.items():
            yield from flattened(value, f"{path}|{name}" if path else str(name))
    elif isinstance(state, list) and state and all(isinstance(entry, dict) for entry in state):
        for index, entry in enumerate(state):
            yield from flattened(entry, f"{path}_{index}")
    else:
        yield path, state
