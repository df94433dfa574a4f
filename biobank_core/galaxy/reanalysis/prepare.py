"""The copy of a workflow that a campaign runs: tools upgraded, parameters set, all of it checked.

Galaxy runs an upgraded workflow without a complaint and ignores names that it does not know. So
everything is compared with the installed tools here, and all that is wrong is said at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from biobank_core.errors import InputError
from biobank_core.galaxy.reanalysis.forms import Parameter, ToolForm
from biobank_core.galaxy.reanalysis.toolbox import Toolbox
from biobank_core.galaxy.reanalysis.workflow import ParameterInput, Step, Workflow
from biobank_core.selection import tools

# `rules_0|pattern` of a state is `rules_*|pattern` of a form.
_INDEX: Final = re.compile(r"_\d+\|")
# Hiding what is not there does no harm.
_HIDE: Final = "HideDatasetAction"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """A step's tool, the version the workflow names (None: none) and the one the copy runs."""

    step: str
    tool: str
    old: str | None
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """`workflow` is the changed copy. `parameters`: index of a parameter input -> its value."""

    workflow: Workflow
    tools: tuple[Upgrade, ...]
    parameters: Mapping[int, Any]


@dataclass(frozen=True, slots=True)
class _Setting:
    text: str
    step: Step
    path: str
    value: str


def prepare(
    workflow: Workflow,
    *,
    toolbox: Toolbox,
    versions: Mapping[str, str] | None = None,
    settings: Sequence[str] = (),
) -> Prepared:
    """Make the copy and check it.

    `versions`: tool (as people name it) -> version; other tools get the newest one installed.
    `settings`: `STEP.PARAM=VALUE`, or `INPUT=VALUE` for a parameter of the workflow itself.
    Raises InputError that lists every problem, naming step and parameter.
    """
    done = workflow.copy()
    problems: list[str] = []
    forms: dict[str, ToolForm] = {}
    upgrades: list[Upgrade] = []
    wanted = dict(versions or {})
    used: set[str] = set()
    for step in done.steps():
        if step.tool_id is None:
            continue
        told = [name for name in wanted if tools.matches(step.tool_id, name)]
        used.update(told)
        form = _upgraded_form(step, toolbox, wanted[told[0]] if told else None, problems)
        if form is None:
            continue
        forms[step.name] = form
        upgrades.append(
            Upgrade(
                step=step.name,
                tool=tools.without_version(step.tool_id),
                old=step.body.get("tool_version"),
                new=form.version,
            )
        )
        _upgrade(step, form)
    problems += [
        f"--tool-version {name}={wanted[name]}: no step of the workflow runs the tool {name}"
        for name in wanted
        if name not in used
    ]
    parameters = _apply(done, settings, forms, problems)
    for step in done.steps():
        if step.name in forms:
            problems += _check_step(step, forms)
    problems += [
        f"the workflow's parameter {entry.label!r} has no value: give --set '{entry.label}=VALUE'"
        for entry in done.parameter_inputs()
        if entry.required and entry.index not in parameters
    ]
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise InputError(f"the workflow {workflow.name!r} can't be run as asked:\n{listed}")
    return Prepared(workflow=done, tools=tuple(upgrades), parameters=parameters)


def _upgraded_form(
    step: Step, toolbox: Toolbox, told: str | None, problems: list[str]
) -> ToolForm | None:
    tool_id = step.tool_id or ""
    installed = toolbox.versions(tool_id)
    if not installed:
        problems.append(f"step {step.name!r}: Galaxy has no tool {tool_id!r}")
        return None
    version = told or installed[-1]
    form = toolbox.form(tool_id, version) if version in installed else None
    if form is None:
        problems.append(
            f"step {step.name!r}: {short_name(tool_id)} {version} is not installed; "
            f"there is {', '.join(installed)}"
        )
    return form


def _upgrade(step: Step, form: ToolForm) -> None:
    step.body["tool_id"] = step.body["content_id"] = form.id
    step.body["tool_version"] = form.version
    if form.repository is not None:
        step.body["tool_shed_repository"] = dict(form.repository)
    else:
        step.body.pop("tool_shed_repository", None)


def _check_step(step: Step, forms: Mapping[str, ToolForm]) -> Iterator[str]:
    form = forms[step.name]
    title = f"{short_name(form.id)} {form.version}"
    state, connections = step.state(), step.connections
    active = form.active(state, tuple(connections))
    for path in (*form.unknown(state), *(path for path in connections if path not in active)):
        if _spelling(path) in form.everywhere():
            yield f"step {step.name!r}: parameter {path!r} is not used by {title} as it is set"
        else:
            yield f"step {step.name!r}: parameter {path!r} is gone in {title}"
    for path, parameter in active.items():
        if path in connections:
            continue
        if parameter.is_data and not parameter.optional:
            yield f"step {step.name!r}: {title} needs data at {path!r}, and nothing is connected"
        else:
            yield from _value_problem(step, path, parameter, _value_at(state, path), title)
    yield from _missing_outputs(step, form, title)
    for path, ends in connections.items():
        for index, output in ends:
            source = _sibling(step, index)
            if source is None:
                yield f"step {step.name!r}: parameter {path!r} is connected to a missing step"
                continue
            source_form = forms.get(source.name)
            if source_form is not None and output not in source_form.outputs:
                yield (
                    f"step {source.name!r}: output {output!r} is gone in "
                    f"{short_name(source_form.id)} {source_form.version}; "
                    f"step {step.name!r} uses it as {path!r}"
                )


def _value_problem(
    step: Step, path: str, parameter: Parameter, value: Any, title: str
) -> Iterator[str]:
    try:
        parameter.check(value)
    except InputError as exc:
        yield (
            f"step {step.name!r}: parameter {path!r} is {exc.value!r}, which {title} does not "
            f"allow; it {exc.reason}"
        )


def _missing_outputs(step: Step, form: ToolForm, title: str) -> Iterator[str]:
    for output in step.body.get("workflow_outputs") or ():
        name = output.get("output_name")
        if name not in form.outputs:
            label = output.get("label") or name
            yield (
                f"step {step.name!r}: output {name!r} is gone in {title}; it is the workflow's "
                f"output {label!r}"
            )
    for action in (step.body.get("post_job_actions") or {}).values():
        name = action.get("output_name")
        if name and name not in form.outputs and action.get("action_type") != _HIDE:
            kind = action.get("action_type", "an action")
            yield f"step {step.name!r}: output {name!r} is gone in {title}; {kind} needs it"


def _apply(
    workflow: Workflow,
    settings: Sequence[str],
    forms: Mapping[str, ToolForm],
    problems: list[str],
) -> dict[int, Any]:
    """Put the settings into the copy; returns the values of the workflow's own parameters."""
    steps = {step.name: step for step in workflow.steps()}
    own = {entry.label: entry for entry in workflow.parameter_inputs()}
    parameters: dict[int, Any] = {}
    waiting: list[_Setting] = []
    for setting in settings:
        target, equals, value = setting.partition("=")
        if not equals:
            problems.append(f"--set {setting}: write STEP.PARAM=VALUE")
        elif target in own:
            _set_own(own[target], value, setting, parameters, problems)
        else:
            found = _addressed(target, steps)
            if found is None:
                known = ", ".join(repr(name) for name in (*own, *forms))
                problems.append(f"--set {setting}: no such step; the workflow has {known}")
            elif found[0].name not in forms:
                problems.append(f"--set {setting}: step {found[0].name!r} has no parameters to set")
            else:
                waiting.append(_Setting(setting, *found, value))
    # A setting may bring the parameters of another case into play, so: until nothing moves.
    while waiting:
        left = [entry for entry in waiting if not _set_one(entry, forms, problems)]
        if len(left) == len(waiting):
            problems += [_why_not(entry, forms) for entry in left]
            break
        waiting = left
    return parameters


def _set_own(
    entry: ParameterInput,
    value: str,
    setting: str,
    parameters: dict[int, Any],
    problems: list[str],
) -> None:
    try:
        parsed = Parameter(name=entry.label, type=entry.type).parsed(value)
    except InputError as exc:
        problems.append(f"--set {setting}: {entry.label!r} {exc.reason}")
    else:
        parameters[entry.index] = parsed


def _addressed(target: str, steps: Mapping[str, Step]) -> tuple[Step, str] | None:
    """The step that a `STEP.PARAM` names and the parameter's path; labels may hold dots."""
    fitting = [name for name in steps if target.startswith(f"{name}.")]
    if not fitting:
        return None
    name = max(fitting, key=len)
    return steps[name], target[len(name) + 1 :]


def _set_one(setting: _Setting, forms: Mapping[str, ToolForm], problems: list[str]) -> bool:
    """Whether the setting is dealt with, well or with a problem; else it has to wait."""
    step, path = setting.step, setting.path
    form, connections, state = forms[step.name], step.connections, step.state()
    where = f"--set {setting.text}: {path!r} of step {step.name!r}"
    if path in connections:
        problems.append(f"{where} comes from another step")
        return True
    parameter = form.active(state, tuple(connections)).get(path)
    if parameter is None:
        return False
    try:
        parsed = parameter.parsed(setting.value)
    except InputError as exc:
        problems.append(f"{where} {exc.reason}")
        return True
    _put(state, path, parsed)
    _drop_other_cases(form, state)
    step.set_state(state)
    return True


def _why_not(setting: _Setting, forms: Mapping[str, ToolForm]) -> str:
    step, path = setting.step, setting.path
    form = forms[step.name]
    title = f"{short_name(form.id)} {form.version}"
    where = f"--set {setting.text}: {title}"
    if _spelling(path) in form.everywhere():
        return f"{where} does not use {path!r} as step {step.name!r} is set"
    known = ", ".join(form.active(step.state(), tuple(step.connections)))
    return f"{where} has no parameter {path!r}; it has {known or 'none'}"


def _drop_other_cases(form: ToolForm, state: dict[str, Any]) -> None:
    """Take out what belongs to a case that is no longer chosen: Galaxy would keep the case."""
    for path in form.unknown(state):
        if _spelling(path) in form.everywhere():
            _remove(state, path)
    _forget_case(state)


def _forget_case(value: Any) -> None:
    """Galaxy notes a case by number beside the test's value; it works it out anew when absent."""
    if isinstance(value, dict):
        value.pop("__current_case__", None)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in inner:
        _forget_case(part)


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


def _value_at(state: Mapping[str, Any], path: str) -> Any:
    held: Any = state
    for key in _keys(state, path):
        try:
            held = held[key]
        except (KeyError, IndexError, TypeError):
            return None
    return held


def _put(state: dict[str, Any], path: str, value: Any) -> None:
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


def _remove(state: dict[str, Any], path: str) -> None:
    *parents, last = _keys(state, path)
    held: Any = state
    for key in parents:
        held = held[key]
    held.pop(last, None)


def _sibling(step: Step, index: int) -> Step | None:
    for key, body in step.level["steps"].items():
        if int(body.get("id", key)) == index:
            prefix, colon, _ = step.name.rpartition(":")
            label = body.get("label") or str(index)
            name = f"{prefix}{colon}{label}" if colon else label
            return Step(name=name, index=index, body=body, level=step.level)
    return None


def _spelling(path: str) -> str:
    return _INDEX.sub("_0|", path)


def short_name(tool_id: str) -> str:
    """A tool's id as people write it."""
    return tools.last_part(tool_id)
