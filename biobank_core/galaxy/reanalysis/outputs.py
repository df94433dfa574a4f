"""Which output of the new workflow takes the place of which old result, settled by the plan.

Where nothing is said, an old result is replaced by the output of the same name of the same tool.
`--replaces NEW=OLD` says it for outputs that have other names, or that another tool makes. What
fits several is an error: which one was meant is not guessed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from biobank_core.errors import InputError
from biobank_core.galaxy.reanalysis.forms import ToolForm
from biobank_core.galaxy.reanalysis.results import Result, base_role
from biobank_core.galaxy.reanalysis.workflow import Workflow
from biobank_core.selection import tools


class NewOutput(msgspec.Struct, frozen=True, kw_only=True):
    """An output of a step. `label`: what the workflow calls it, where it does.

    `step_label` tells it from those of other steps with the same tool; None where there are none.
    """

    step: str
    tool: str
    output: str
    label: str | None = None
    step_label: str | None = None

    @property
    def title(self) -> str:
        """How people write it."""
        return f"{self.step}.{self.output}"


@dataclass(frozen=True, slots=True)
class Told:
    """`--replaces NEW=OLD`, taken apart."""

    text: str
    new: NewOutput
    old: str


def new_outputs(workflow: Workflow, forms: Mapping[str, ToolForm]) -> tuple[NewOutput, ...]:
    """All outputs of a copy. Steps of the copy that can't be told apart get their number as label.

    `forms` are those of its steps, by name.
    """
    by_tool: dict[str, list[str]] = defaultdict(list)
    steps = [step for step in workflow.steps() if step.name in forms]
    for step in steps:
        by_tool[tools.without_version(forms[step.name].id)].append(step.name)
    found = []
    for step in steps:
        form = forms[step.name]
        tool = tools.without_version(form.id)
        alone = len(by_tool[tool]) == 1
        if not alone and not step.body.get("label"):
            step.body["label"] = str(step.index)
        labels = {
            str(output.get("output_name")): output.get("label")
            for output in step.body.get("workflow_outputs") or ()
            if step.level is workflow.document
        }
        found += [
            NewOutput(
                step=step.name,
                tool=tool,
                output=output,
                label=labels.get(output),
                step_label=None if alone else str(step.body["label"]),
            )
            for output in sorted(form.outputs)
        ]
    return tuple(found)


def parse_replaces(texts: Iterable[str], outputs: Sequence[NewOutput]) -> tuple[Told, ...]:
    """`NEW=OLD`, where NEW is a workflow output's label, STEP.OUTPUT, or OUTPUT where that is one.

    Raises InputError that lists what is unknown or fits several.
    """
    found: list[Told] = []
    problems: list[str] = []
    for text in texts:
        new, equals, old = text.partition("=")
        if not (new and equals and old):
            problems.append(f"--replaces {text}: write NEW=OLD")
            continue
        fitting = [
            output for output in outputs if new in (output.label, output.title, output.output)
        ]
        # A name that people gave goes before one that happens to be the same.
        fitting = [output for output in fitting if output.label == new] or fitting
        if len(fitting) == 1:
            found.append(Told(text, fitting[0], old))
        elif fitting:
            several = ", ".join(output.title for output in fitting)
            problems.append(f"--replaces {text}: {new!r} may be {several}; write one of these")
        else:
            known = ", ".join(output.title for output in outputs) or "none"
            problems.append(
                f"--replaces {text}: the workflow has no output {new!r}; it has {known}"
            )
    _raise(problems)
    return tuple(found)


class Replacing:
    """Settles for the results of each sample what is to take their place, gathering problems."""

    def __init__(self, outputs: Sequence[NewOutput], told: Sequence[Told]) -> None:
        self._outputs = outputs
        self._told = told
        self._used: set[str] = set()
        self._seen: set[str] = set()
        self._problems: dict[str, list[str]] = defaultdict(list)

    def of(self, label: str, old: Sequence[Result]) -> dict[str, NewOutput]:
        """Old result's VID -> the output that will replace it. `label` is the sample's.

        Those that nothing replaces are not in.
        """
        self._seen.update(f"{tools.last_part(one.tool)}.{base_role(one.role)}" for one in old)
        found: dict[str, NewOutput] = {}
        for told in self._told:
            fitting = [one for one in old if _is_called(one, told.old)]
            if fitting:
                self._used.add(told.text)
            if len({_source(one) for one in fitting}) > 1:
                several = ", ".join(sorted({_title(one) for one in fitting}))
                self._note(
                    f"--replaces {told.text}: {told.old!r} may be {several}; write one of these",
                    label,
                )
                continue
            for one in fitting:
                if found.setdefault(one.vid, told.new) != told.new:
                    self._note(
                        f"--replaces {told.text}: {_title(one)} is replaced by "
                        f"{found[one.vid].title} already",
                        label,
                    )
        taken = {told.new for told in self._told}
        open_outputs = [output for output in self._outputs if output not in taken]
        implied: dict[NewOutput, set[tuple[str, str, str | None]]] = defaultdict(set)
        for one in old:
            if one.vid in found:
                continue
            output = self._implied(one, open_outputs, label)
            if output is not None:
                found[one.vid] = output
                implied[output].add(_source(one))
        for output, sources in implied.items():
            if len(sources) > 1:
                names = ", ".join(
                    sorted(f"{step or 'no step'}.{role}" for _, role, step in sources)
                )
                self._note(
                    f"{output.title} would replace the old results of several steps ({names}): say "
                    f"which with --replaces {output.title}=STEP.OUTPUT",
                    label,
                )
        return found

    def check(self) -> None:
        """Raises InputError that lists what was ambiguous, and OLD names that no sample has."""
        problems = []
        for text, labels in self._problems.items():
            more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
            problems.append(f"{text} ({', '.join(labels[:3])}{more})")
        problems += [
            f"--replaces {told.text}: no old result is called {told.old!r}; there are "
            f"{', '.join(sorted(self._seen)) or 'none'}"
            for told in self._told
            if told.text not in self._used
        ]
        _raise(problems)

    def _implied(self, one: Result, outputs: Sequence[NewOutput], label: str) -> NewOutput | None:
        role = base_role(one.role)
        fitting = [out for out in outputs if (out.tool, out.output) == (one.tool, role)]
        if len(fitting) > 1:
            of_step = [out for out in fitting if out.step_label == one.step]
            if len(of_step) != 1:
                several = " or ".join(out.title for out in fitting)
                self._note(
                    f"{_title(one)} may be replaced by {several}: say which with --replaces "
                    f"STEP.OUTPUT={_title(one)}",
                    label,
                )
                return None
            fitting = of_step
        return fitting[0] if fitting else None

    def _note(self, problem: str, label: str) -> None:
        self._problems[problem].append(label)


def _is_called(one: Result, name: str) -> bool:
    """Whether people may mean this result: OUTPUT, TOOL.OUTPUT or STEP.OUTPUT."""
    role = base_role(one.role)
    if name == role:
        return True
    if not name.endswith(f".{role}"):
        return False
    prefix = name.removesuffix(f".{role}")
    return prefix == one.step or tools.matches(one.tool, prefix)


def _source(one: Result) -> tuple[str, str, str | None]:
    return one.tool, base_role(one.role), one.step


def _title(one: Result) -> str:
    # The step where there is one: it tells apart what one tool made twice.
    return f"{one.step or tools.last_part(one.tool)}.{base_role(one.role)}"


def _raise(problems: Sequence[str]) -> None:
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise InputError(f"the new results can't be matched with the old ones:\n{listed}")
