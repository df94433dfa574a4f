"""A Galaxy workflow as a dict: read, walk, and say what it wants to be given."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from biobank_core.errors import ConfigurationError, InputError
from biobank_core.model.base import JsonObject

# The largest public workflows (IWC) are below 1 MB; more is a mistake or an attack.
_MAX_FILE_BYTES: Final = 20_000_000
_MAX_DEPTH: Final = 20  # of subworkflows in subworkflows

_TOOL: Final = "tool"
_SUBWORKFLOW: Final = "subworkflow"
_INPUT_TYPES: Final = ("data_input", "data_collection_input")
_PARAMETER: Final = "parameter_input"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataInput:
    """A data input of a workflow. `collection_type`: None for a dataset, `list`, `paired`, ..."""

    index: int
    label: str
    optional: bool
    collection_type: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterInput:
    """A parameter that the workflow as a whole takes. `required`: it has no value of its own."""

    index: int
    label: str
    type: str
    required: bool


@dataclass(slots=True)
class Step:
    """One step, with the dict that describes it (a part of the workflow's own).

    `name` is how people call it: label, else its number; in a subworkflow `outer:inner`. `level`
    is the workflow that the step stands in.
    """

    name: str
    index: int
    body: JsonObject
    level: JsonObject

    @property
    def tool_id(self) -> str | None:
        """The id of the tool; None for a step that is no tool."""
        if self.body.get("type") != _TOOL:
            return None
        return str(self.body.get("content_id") or self.body.get("tool_id") or "")

    @property
    def connections(self) -> dict[str, list[tuple[int, str]]]:
        """The inputs that come from other steps: path -> [(step index, output name)]."""
        found: dict[str, list[tuple[int, str]]] = {}
        for path, given in (self.body.get("input_connections") or {}).items():
            many = given if isinstance(given, list) else [given]
            found[path] = [(int(one["id"]), str(one["output_name"])) for one in many]
        return found

    def state(self) -> JsonObject:
        """The parameters, decoded; older Galaxy releases encoded each value once more."""
        raw = self.body.get("tool_state") or {}
        state = json.loads(raw) if isinstance(raw, str) else raw
        if not isinstance(state, dict):
            raise InputError(f"step {self.name!r}: its tool_state is no JSON object")
        return {name: _decoded(value) for name, value in state.items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Put other parameters in."""
        self.body["tool_state"] = json.dumps(state)


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow in Galaxy's own format (.ga) and where it came from."""

    document: JsonObject
    source: str

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.document.get("name") or "workflow")

    def copy(self) -> Workflow:
        """One that may be changed without changing this."""
        return Workflow(copy.deepcopy(self.document), self.source)

    def steps(self) -> Iterator[Step]:
        """All steps, those of subworkflows after the step that holds them."""
        yield from _steps(self.document, "", 0)

    def data_inputs(self) -> tuple[DataInput, ...]:
        """What data it takes, in the order of the steps."""
        found = []
        for step in _own_steps(self.document, ""):
            if step.body.get("type") not in _INPUT_TYPES:
                continue
            state = step.state()
            collection_type = None
            if step.body["type"] == "data_collection_input":
                collection_type = str(state.get("collection_type") or "list")
            found.append(
                DataInput(
                    index=step.index,
                    label=step.name,
                    optional=_truth(state.get("optional")),
                    collection_type=collection_type,
                )
            )
        return tuple(found)

    def parameter_inputs(self) -> tuple[ParameterInput, ...]:
        """Which parameters it takes, in the order of the steps."""
        found = []
        for step in _own_steps(self.document, ""):
            if step.body.get("type") != _PARAMETER:
                continue
            state = step.state()
            has_default = state.get("default") not in (None, "")
            found.append(
                ParameterInput(
                    index=step.index,
                    label=step.name,
                    type=str(state.get("parameter_type") or "text"),
                    required=not (_truth(state.get("optional")) or has_default),
                )
            )
        return tuple(found)


def read_workflow(path: Path) -> Workflow:
    """The workflow in a .ga or format2 file. Raises InputError naming the file."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise InputError(f"is larger than {_MAX_FILE_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
        return as_workflow(_parsed(text), source=str(path))
    except InputError as exc:
        raise exc.at(file=str(path)) from exc
    except OSError as exc:
        raise InputError(exc.strerror or "can't be read", file=str(path)) from exc
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as exc:
        reason = " ".join(str(exc).split())
        raise InputError(f"is neither JSON nor YAML in UTF-8 ({reason})", file=str(path)) from exc


def as_workflow(raw: Any, *, source: str) -> Workflow:
    """The workflow in a parsed .ga or format2 document. Raises InputError for anything else."""
    if not isinstance(raw, dict):
        raise InputError("is not a Galaxy workflow")
    if raw.get("class") == "GalaxyWorkflow" or "$graph" in raw:
        raw = _from_format2(raw)
    if not isinstance(raw.get("steps"), dict) or not raw["steps"]:
        raise InputError("is not a Galaxy workflow, or has no steps")
    workflow = Workflow(copy.deepcopy(raw), source)
    try:
        for step in workflow.steps():
            _ = step.connections, step.state()
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise InputError(f"is a damaged Galaxy workflow ({exc})") from exc
    return workflow


def _parsed(text: str) -> Any:
    if text.lstrip()[:1] == "{":
        try:
            return json.loads(text)
        except ValueError:
            pass  # YAML may begin with a brace too
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
        # A few lines of aliases to aliases would unfold to more than the memory holds.
        raise InputError("uses YAML aliases, which are not read")
    return yaml.safe_load(text)


def _from_format2(raw: JsonObject) -> JsonObject:
    try:
        from gxformat2.converter import (  # type: ignore[import-untyped,unused-ignore]  # noqa: PLC0415
            python_to_workflow,
        )
    except ImportError as exc:
        raise ConfigurationError(
            "reading a format2 workflow needs the Python package gxformat2; install it, or import "
            "the workflow into Galaxy and give its id"
        ) from exc
    try:
        native = python_to_workflow(copy.deepcopy(raw), None, None)
    except Exception as exc:  # the converter raises whatever Python raises
        raise InputError(f"is no valid format2 workflow ({type(exc).__name__}: {exc})") from exc
    converted: JsonObject = json.loads(json.dumps(native))
    return converted


def _steps(level: JsonObject, prefix: str, depth: int) -> Iterator[Step]:
    if depth > _MAX_DEPTH:
        raise InputError(f"has subworkflows more than {_MAX_DEPTH} deep")
    for step in _own_steps(level, prefix):
        yield step
        inner = step.body.get(_SUBWORKFLOW)
        if step.body.get("type") == _SUBWORKFLOW and isinstance(inner, dict):
            yield from _steps(inner, f"{step.name}:", depth + 1)


def _own_steps(level: JsonObject, prefix: str) -> Iterator[Step]:
    bodies = level["steps"]
    for key in sorted(bodies, key=int):
        body = bodies[key]
        index = int(body.get("id", key))
        label = body.get("label") or _old_input_name(body) or str(index)
        yield Step(name=f"{prefix}{label}", index=index, body=body, level=level)


def _old_input_name(body: JsonObject) -> str | None:
    """The name of an input of a workflow that was made before steps had labels."""
    if body.get("type") not in (*_INPUT_TYPES, _PARAMETER):
        return None
    inputs = body.get("inputs") or [{}]
    name = inputs[0].get("name")
    return str(name) if name else None


def _decoded(value: Any) -> Any:
    if not isinstance(value, str) or value[:1] not in ("{", "[", '"'):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value  # a text that only looks like JSON


def _truth(value: Any) -> bool:
    return value is True or str(value).lower() == "true"
