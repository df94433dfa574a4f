"""The copy of a workflow that a campaign runs: tools upgraded, parameters set, all of it checked.

Galaxy runs an upgraded workflow without a complaint and ignores names that it does not know. So
everything is compared with the installed tools here, and all that is wrong is said at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from biobank_core.errors import InputError
from biobank_core.galaxy.reanalysis.forms import Parameter, ToolForm
from biobank_core.galaxy.reanalysis.outputs import NewOutput, new_outputs
from biobank_core.galaxy.reanalysis.settings import Kept, apply_settings, kept_parameters
from biobank_core.galaxy.reanalysis.states import spelling, value_at
from biobank_core.galaxy.reanalysis.toolbox import Toolbox
from biobank_core.galaxy.reanalysis.workflow import Step, Workflow
from biobank_core.selection import tools

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
    """`workflow` is the changed copy. `parameters`: index of a parameter input -> its value.

    `kept` are those that differ from sample to sample, `outputs` all that the copy puts out.
    """

    workflow: Workflow
    tools: tuple[Upgrade, ...]
    parameters: Mapping[int, Any]
    kept: tuple[Kept, ...] = ()
    outputs: tuple[NewOutput, ...] = ()


def prepare(
    workflow: Workflow,
    *,
    toolbox: Toolbox,
    versions: Mapping[str, str] | None = None,
    settings: Sequence[str] = (),
    keeps: Sequence[str] = (),
) -> Prepared:
    """Make the copy and check it.

    `versions`: tool (as people name it) -> version; other tools get the newest one installed.
    `settings`: `STEP.PARAM=VALUE`, or `INPUT=VALUE` for a parameter of the workflow itself.
    `keeps`: `STEP.PARAM[=OLD]` or `INPUT[=OLD]`, what each sample's old results were made with.
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
    parameters = apply_settings(done, settings, forms, problems)
    kept = kept_parameters(done, keeps, forms, problems)
    given = {setting.partition("=")[0] for setting in settings}
    problems += [
        f"--keep {one.target}: it is set with --set, for all samples; only one of the two can be"
        for one in kept
        if one.target in given
    ]
    for step in done.steps():
        if step.name in forms:
            problems += _check_step(step, forms)
    whole = {one.target for one in kept if one.path is None}
    problems += [
        f"the workflow's parameter {entry.label!r} has no value: give --set '{entry.label}=VALUE'"
        for entry in done.parameter_inputs()
        if entry.required and entry.index not in parameters and entry.label not in whole
    ]
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise InputError(f"the workflow {workflow.name!r} can't be run as asked:\n{listed}")
    return Prepared(
        workflow=done,
        tools=tuple(upgrades),
        parameters=parameters,
        kept=kept,
        outputs=new_outputs(done, forms),
    )


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
            f"step {step.name!r}: {tools.last_part(tool_id)} {version} is not installed; "
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
    title = form.title
    state, connections = step.state(), step.connections
    active = form.active(state, tuple(connections))
    for path in (*form.unknown(state), *(path for path in connections if path not in active)):
        if spelling(path) in form.everywhere():
            yield f"step {step.name!r}: parameter {path!r} is not used by {title} as it is set"
        else:
            yield f"step {step.name!r}: parameter {path!r} is gone in {title}"
    for path, parameter in active.items():
        if path in connections:
            continue
        if parameter.is_data and not parameter.optional:
            yield f"step {step.name!r}: {title} needs data at {path!r}, and nothing is connected"
        else:
            yield from _value_problem(step, path, parameter, value_at(state, path), title)
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
                    f"{source_form.title}; "
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


def _sibling(step: Step, index: int) -> Step | None:
    for key, body in step.level["steps"].items():
        if int(body.get("id", key)) == index:
            prefix, colon, _ = step.name.rpartition(":")
            label = body.get("label") or str(index)
            name = f"{prefix}{colon}{label}" if colon else label
            return Step(name=name, index=index, body=body, level=step.level)
    return None
