"""What an installed Galaxy tool takes and gives: its form, as the tools API describes it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from biobank_core.errors import InputError
from biobank_core.selection.tools import last_part

_DATA_TYPES: Final = frozenset({"data", "data_collection"})
# Their options are the wrong thing to check a value against: computed from data, or free text.
_OPEN_TYPES: Final = frozenset({"data_column", "drill_down", "genomebuild", "ftpfile"})
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})
# Written into tool states by older Galaxy releases; no parameter of the tool.
_NOISE: Final = frozenset({"chromInfo"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter. `options`: what a select allows; None where any value may be right."""

    name: str
    type: str
    optional: bool = False
    multiple: bool = False
    options: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None

    @property
    def is_data(self) -> bool:
        """Whether it takes a dataset or a collection."""
        return self.type in _DATA_TYPES

    def parsed(self, text: str) -> Any:
        """The value that a text stands for, as a tool state holds it.

        Raises InputError (reason only) for a value that the parameter does not allow.
        """
        if self.is_data:
            raise InputError("is data, not a value; connect it in the workflow", value=text)
        match self.type:
            case "integer" | "float":
                return self._number(text)
            case "boolean":
                if text.lower() in _TRUE | _FALSE:
                    return text.lower() in _TRUE
                raise InputError("is true or false", value=text)
        if self.multiple:
            parts = [part.strip() for part in text.split(",") if part.strip()]
            for part in parts:
                self.check(part)
            return parts
        self.check(text)
        return text

    def check(self, value: Any) -> None:
        """Raises InputError (reason only) for a choice not offered or a number out of range."""
        if value is None or (isinstance(value, str) and "${" in value):
            return  # unset, or put together by Galaxy when it runs
        if self.type in ("integer", "float"):
            if isinstance(value, int | float | str) and value != "":
                self._number(str(value))
            return
        if self.options is None:
            return
        values = value if isinstance(value, list) else [value]
        for one in values:
            if isinstance(one, str) and one not in self.options:
                allowed = ", ".join(self.options[:20])
                raise InputError(f"allows {allowed or 'nothing'}", value=one)

    def _number(self, text: str) -> int | float | str:
        if not text and self.optional:
            return ""
        try:
            number: int | float = int(text) if self.type == "integer" else float(text)
        except ValueError as exc:
            what = "a whole number" if self.type == "integer" else "a number"
            raise InputError(f"is {what}", value=text) from exc
        if (self.minimum is not None and number < self.minimum) or (
            self.maximum is not None and number > self.maximum
        ):
            raise InputError(f"is between {self.minimum} and {self.maximum}", value=text)
        return number


@dataclass(frozen=True, slots=True)
class Section:
    """Parameters under one name."""

    name: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """Parameters that may be there several times: `name_0`, `name_1`, ..."""

    name: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Conditional:
    """Parameters that are there only for one value of the test parameter."""

    name: str
    test: Parameter
    cases: Mapping[str, tuple[Node, ...]]

    def case(self, value: Any) -> tuple[Node, ...]:
        """What is there for a value of the test; for one that fits no case, all there may be."""
        wanted = _spelled(value)
        for spelled, nodes in self.cases.items():
            if _spelled(spelled) == wanted:
                return nodes
        return tuple(node for nodes in self.cases.values() for node in nodes)


Node: TypeAlias = Parameter | Section | Repeat | Conditional


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolForm:
    """One version of an installed tool. `id` is the full id of that version."""

    id: str
    version: str
    nodes: tuple[Node, ...]
    outputs: frozenset[str]
    repository: Mapping[str, Any] | None = field(default=None)

    @property
    def title(self) -> str:
        """The tool as people write it, and its version."""
        return f"{last_part(self.id)} {self.version}"

    def active(
        self, state: Mapping[str, Any], connected: Sequence[str] = ()
    ) -> dict[str, Parameter]:
        """The parameters that Galaxy looks at for this state, by path (`mode|depth`, `rules_0|x`).

        `connected` are paths that data come in by; they count as entries of their repeats.
        """
        return dict(_active(self.nodes, state, tuple(connected), ""))

    def unknown(self, state: Mapping[str, Any]) -> tuple[str, ...]:
        """The paths of a state that this version has no use for, in the order of the state."""
        return tuple(_unknown(self.nodes, state, ""))

    def everywhere(self) -> frozenset[str]:
        """All paths, those of every case and with `_0` for each repeat."""
        return frozenset(_everywhere(self.nodes, ""))

    def tests(self) -> frozenset[str]:
        """The paths (spelled as in `everywhere`) that decide which other ones are there."""
        return frozenset(_tests(self.nodes, ""))


def parse_form(answer: Mapping[str, Any]) -> ToolForm:
    """The form in an answer of `GET /api/tools/ID?io_details=true`.

    Raises InputError when the answer is not one.
    """
    try:
        return ToolForm(
            id=str(answer["id"]),
            version=str(answer["version"]),
            nodes=_nodes(answer.get("inputs") or ()),
            outputs=frozenset(str(output["name"]) for output in answer.get("outputs") or ()),
            repository=answer.get("tool_shed_repository"),
        )
    except (KeyError, TypeError) as exc:
        raise InputError(f"Galaxy describes a tool in a way that is not understood: {exc}") from exc


def _nodes(inputs: Sequence[Mapping[str, Any]]) -> tuple[Node, ...]:
    return tuple(_node(entry) for entry in inputs)


def _node(entry: Mapping[str, Any]) -> Node:
    name = str(entry["name"])
    match entry["type"]:
        case "conditional":
            cases = {str(case["value"]): _nodes(case["inputs"]) for case in entry["cases"]}
            return Conditional(name, _parameter(entry["test_param"]), cases)
        case "repeat":
            return Repeat(name, _nodes(entry["inputs"]))
        case "section" | "upload_dataset":
            return Section(name, _nodes(entry["inputs"]))
    return _parameter(entry)


def _parameter(entry: Mapping[str, Any]) -> Parameter:
    kind = str(entry["type"])
    options: tuple[str, ...] | None = None
    offered = entry.get("options")
    if (
        kind == "select"
        and isinstance(offered, list)
        and not entry.get("is_dynamic")
        and not entry.get("textable")
    ):
        options = tuple(str(option[1]) for option in offered)
    return Parameter(
        name=str(entry["name"]),
        type=kind,
        optional=bool(entry.get("optional")),
        multiple=bool(entry.get("multiple")),
        options=None if kind in _OPEN_TYPES else options,
        minimum=_float(entry.get("min")),
        maximum=_float(entry.get("max")),
    )


def _float(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None


def _active(
    nodes: Sequence[Node], state: Mapping[str, Any], connected: tuple[str, ...], prefix: str
) -> Iterator[tuple[str, Parameter]]:
    for node in nodes:
        path = prefix + node.name
        inner = state.get(node.name)
        match node:
            case Parameter():
                yield path, node
            case Section():
                yield from _active(node.nodes, _mapping(inner), connected, f"{path}|")
            case Conditional():
                held = _mapping(inner)
                yield f"{path}|{node.test.name}", node.test
                case_nodes = node.case(held.get(node.test.name))
                yield from _active(case_nodes, held, connected, f"{path}|")
            case Repeat():
                entries = inner if isinstance(inner, list) else []
                count = max(len(entries), _connected_entries(path, connected))
                for index in range(count):
                    entry = _mapping(entries[index]) if index < len(entries) else {}
                    yield from _active(node.nodes, entry, connected, f"{path}_{index}|")


def _connected_entries(path: str, connected: tuple[str, ...]) -> int:
    found = [
        int(match[1]) + 1
        for name in connected
        if (match := re.match(re.escape(path) + r"_(\d+)\|", name))
    ]
    return max(found, default=0)


def _everywhere(nodes: Sequence[Node], prefix: str) -> Iterator[str]:
    for node in nodes:
        path = prefix + node.name
        match node:
            case Parameter():
                yield path
            case Section():
                yield from _everywhere(node.nodes, f"{path}|")
            case Conditional():
                yield f"{path}|{node.test.name}"
                for case_nodes in node.cases.values():
                    yield from _everywhere(case_nodes, f"{path}|")
            case Repeat():
                yield from _everywhere(node.nodes, f"{path}_0|")


def _tests(nodes: Sequence[Node], prefix: str) -> Iterator[str]:
    for node in nodes:
        path = prefix + node.name
        match node:
            case Section():
                yield from _tests(node.nodes, f"{path}|")
            case Conditional():
                yield f"{path}|{node.test.name}"
                for case_nodes in node.cases.values():
                    yield from _tests(case_nodes, f"{path}|")
            case Repeat():
                yield from _tests(node.nodes, f"{path}_0|")


def _unknown(nodes: Sequence[Node], state: Mapping[str, Any], prefix: str) -> Iterator[str]:
    known = {node.name: node for node in nodes}
    for name, value in state.items():
        if name.startswith("__") or name in _NOISE:
            continue
        path = prefix + name
        match known.get(name):
            case None:
                yield path
            case Section(nodes=inner) if isinstance(value, Mapping):
                yield from _unknown(inner, value, f"{path}|")
            case Conditional() as node if isinstance(value, Mapping):
                inner = (node.test, *node.case(value.get(node.test.name)))
                yield from _unknown(inner, value, f"{path}|")
            case Repeat(nodes=inner) if isinstance(value, list):
                for index, entry in enumerate(value):
                    yield from _unknown(inner, _mapping(entry), f"{path}_{index}|")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _spelled(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return text.lower() if text.lower() in ("true", "false") else text
