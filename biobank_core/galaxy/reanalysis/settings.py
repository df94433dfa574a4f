"""What a user sets in the copy of a workflow (`--set`), and what is kept of old runs (`--keep`).

Galaxy ignores a name that it does not know, and a value for an input that is connected. So each
name is looked up in the forms of the installed tools, and what does not fit is a problem to report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from biobank_core.errors import InputError
from biobank_core.galaxy.reanalysis.forms import Parameter, ToolForm
from biobank_core.galaxy.reanalysis.states import put, remove, spelling
from biobank_core.galaxy.reanalysis.workflow import ParameterInput, Step, Workflow
from biobank_core.selection import tools


@dataclass(frozen=True, slots=True)
class _Setting:
    text: str
    step: Step
    path: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A parameter that gets, for each sample, the value that its old results were made with.

    `target` is how it was asked for; `path` None: a parameter of the workflow as a whole. `old` is
    the old parameter's name; `tool`: of this tool, else of whichever one has it.
    """

    target: str
    index: int
    path: str | None
    parameter: Parameter
    old: str
    tool: str | None


def apply_settings(
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
    put(state, path, parsed)
    _drop_other_cases(form, state)
    step.set_state(state)
    return True


def _why_not(setting: _Setting, forms: Mapping[str, ToolForm]) -> str:
    form = forms[setting.step.name]
    return f"--set {setting.text}: {_no_such(form, setting.step, setting.path)}"


def _drop_other_cases(form: ToolForm, state: dict[str, Any]) -> None:
    """Take out what belongs to a case that is no longer chosen: Galaxy would keep the case."""
    for path in form.unknown(state):
        if spelling(path) in form.everywhere():
            remove(state, path)
    _forget_case(state)


def _forget_case(value: Any) -> None:
    """Galaxy notes a case by number beside the test's value; it works it out anew when absent."""
    if isinstance(value, dict):
        value.pop("__current_case__", None)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in inner:
        _forget_case(part)


def kept_parameters(
    workflow: Workflow,
    keeps: Sequence[str],
    forms: Mapping[str, ToolForm],
    problems: list[str],
) -> tuple[Kept, ...]:
    """What `STEP.PARAM[=OLD]` and `INPUT[=OLD]` ask to keep, where the copy has such parameters."""
    steps = {step.name: step for step in workflow.steps()}
    own = {entry.label: entry for entry in workflow.parameter_inputs()}
    found: dict[str, Kept] = {}
    for text in keeps:
        target, _, old = text.partition("=")
        where = f"--keep {text}"
        if target in found:
            problems.append(f"{where}: {target!r} is kept twice")
        elif target in own:
            entry = own[target]
            parameter = Parameter(name=entry.label, type=entry.type)
            found[target] = Kept(
                target=target,
                index=entry.index,
                path=None,
                parameter=parameter,
                old=old or target,
                tool=None,
            )
        else:
            addressed = _addressed(target, steps)
            if addressed is None or addressed[0].name not in forms:
                known = ", ".join(repr(name) for name in (*own, *forms))
                problems.append(f"{where}: write STEP.PARAM or INPUT; the workflow has {known}")
                continue
            step, path = addressed
            form = forms[step.name]
            problem = _not_to_keep(workflow, step, path, form)
            if problem is not None:
                problems.append(f"{where}: {problem}")
                continue
            found[target] = Kept(
                target=target,
                index=step.index,
                path=path,
                parameter=form.active(step.state(), tuple(step.connections))[path],
                old=old or path,
                tool=None if old else tools.without_version(form.id),
            )
    return tuple(found.values())


def _not_to_keep(workflow: Workflow, step: Step, path: str, form: ToolForm) -> str | None:
    """Why a parameter can't differ from sample to sample; None when it can."""
    if step.level is not workflow.document:
        return (
            f"step {step.name!r} is inside a subworkflow, whose parameters are the same for all "
            "samples; make it a parameter of the workflow"
        )
    if path in step.connections:
        return f"{path!r} of step {step.name!r} comes from another step"
    active = form.active(step.state(), tuple(step.connections))
    if path not in active:
        return _no_such(form, step, path)
    if active[path].is_data:
        return f"{path!r} of step {step.name!r} is data, not a value"
    if spelling(path) in form.tests():
        return (
            f"{path!r} decides which other parameters step {step.name!r} has, so it is the same "
            "for all samples; plan a campaign for each value (--param selects, --set sets)"
        )
    return None


def _no_such(form: ToolForm, step: Step, path: str) -> str:
    if spelling(path) in form.everywhere():
        return f"{form.title} does not use {path!r} as step {step.name!r} is set"
    known = ", ".join(form.active(step.state(), tuple(step.connections)))
    return f"{form.title} has no parameter {path!r}; it has {known or 'none'}"
