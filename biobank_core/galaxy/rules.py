"""Rules: which study and which biological sample Galaxy's data belong to, and what is recorded.

A small YAML file; `rules.schema.json` beside this module is its JSON Schema. In a pattern `*`
stands for any text, and `{study}`, `{sample}` or `{reference}` for the text that is the label:

    version: 1
    studies:
      - history_tag: "study:{study}"
      - history_name: "Klebsiella *"
        study: KPN
    samples:
      - tag: "biobank:{sample}"
      - sample_sheet: tube              # a column of Galaxy's sample sheet collections
      - sheet: run-42.tsv               # a table beside this file, with these two columns
        identifier: file
        sample: tube
      - element_identifier: "{sample}_assembly"
    references:
      - tool: bwa_mem
        parameter: reference_source.ref_file
        study: references
    tools:
      - tool: kleborate_typing
        category: MEASUREMENT
        outputs: {"*": TypingResult}
    exclude:
      users: ["trainer@*"]
      tag: no-biobank

The first study rule that gives a label decides. Sample rules are tried in order: the first whose
pattern fits anything decides, and only when it names exactly one registered vessel of the study.
Each reference rule makes the data that its parameter names an input of the job, when exactly one
registered DataSample or DataCollection of the study has that label.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import yaml
from msgspec import Meta

from biobank_core.errors import InputError
from biobank_core.galaxy.records import HistoryRecord, JobRecord
from biobank_core.galaxy.sheets import read_sheet
from biobank_core.model.kinds import ActionCategory
from biobank_core.model.registry import is_a, kinds
from biobank_core.selection import tools as tool_names

MAX_FILE_BYTES: Final = 1_000_000
# Keeps a pattern with many stars from being slow on a long name.
_MAX_STARS: Final = 5

Pattern = Annotated[str, Meta(min_length=1, max_length=500)]


def _check(pattern: str, name: str, *, needed: bool) -> None:
    places = pattern.count(f"{{{name}}}")
    if places > 1 or (needed and places == 0):
        raise ValueError(f"the pattern {pattern!r} needs {{{name}}} once")
    if pattern.count("*") > _MAX_STARS:
        raise ValueError(f"the pattern {pattern!r} has more than {_MAX_STARS} stars")


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the file; unknown keys are errors."""


class StudyRule(_Part, frozen=True, kw_only=True):
    """Gives the study of what is in a history, or of a dataset. Exactly one pattern.

    `study` is needed where the pattern has no `{study}`.
    """

    history_tag: Pattern | None = None
    history_name: Pattern | None = None
    dataset_tag: Pattern | None = None
    study: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None

    def __post_init__(self) -> None:
        given = [p for p in (self.history_tag, self.history_name, self.dataset_tag) if p]
        if len(given) != 1:
            raise ValueError("needs one of history_tag, history_name, dataset_tag")
        _check(given[0], "study", needed=self.study is None)


class SampleRule(_Part, frozen=True, kw_only=True):
    """Gives the label of the vessel that a dataset came from. Exactly one of these.

    `tag` and `element_identifier` are patterns. `sample_sheet` is the name of a column of Galaxy's
    sample sheet collections. `sheet` is a table (tab-separated, a header line; a path from the
    folder of the rules), `identifier` its column with element identifiers, `sample` the one with
    labels. `labels` gives labels by element identifier.
    """

    tag: Pattern | None = None
    element_identifier: Pattern | None = None
    sample_sheet: Pattern | None = None
    sheet: Pattern | None = None
    identifier: Pattern = "identifier"
    sample: Pattern = "sample"
    labels: dict[str, Pattern] | None = None

    def __post_init__(self) -> None:
        patterns = [p for p in (self.tag, self.element_identifier) if p]
        if len(patterns) + sum(map(bool, (self.sample_sheet, self.sheet, self.labels))) != 1:
            raise ValueError("needs one of tag, element_identifier, sample_sheet, sheet, labels")
        for pattern in patterns:
            _check(pattern, "sample", needed=True)

    @property
    def is_meant(self) -> bool:
        """Whether somebody said it of this dataset; an element identifier may mean anything."""
        return self.element_identifier is None

    def labels_of(
        self, tags: Iterable[str], identifiers: Iterable[str], columns: Iterable[tuple[str, str]]
    ) -> tuple[str, ...]:
        """The labels that it finds; `columns` are (name, value) of sample sheets."""
        if self.tag is not None:
            return _labels(self.tag, tags, None)
        if self.element_identifier is not None:
            return _labels(self.element_identifier, identifiers, None)
        if self.labels is not None:
            return _distinct(self.labels[i] for i in identifiers if i in self.labels)
        return _distinct(value for name, value in columns if name == self.sample_sheet)


class ReferenceRule(_Part, frozen=True, kw_only=True):
    """A parameter that names reference data: its value gives the label of what was registered.

    `parameter` is a name as in the recorded setup, nested ones joined by dots; `value` a pattern
    of what it holds. `study` is the label of the study of the reference; without, the job's.
    """

    parameter: Pattern
    tool: Pattern = "*"
    value: Pattern = "{reference}"
    study: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None

    def __post_init__(self) -> None:
        _check(self.value, "reference", needed=True)

    def labels_of(self, tool_id: str, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """The labels that the parameter's values give."""
        if not _is_tool(tool_id, self.tool):
            return ()
        texts = (text for text in values_of(parameters, self.parameter) if text not in _NOTHING)
        return _labels(self.value, texts, None)


class ToolRule(_Part, frozen=True, kw_only=True):
    """How jobs of a tool are recorded. `outputs`: pattern of the output's name -> kind of data."""

    tool: Pattern
    category: ActionCategory | None = None
    outputs: dict[str, str] = {}

    def __post_init__(self) -> None:
        for kind in self.outputs.values():
            if kind not in kinds() or not is_a(kind, "DataSample"):
                allowed = ", ".join(name for name in kinds() if is_a(name, "DataSample"))
                raise ValueError(f"outputs: {kind!r} is not one of {allowed}")

    def kind_of(self, output: str) -> str | None:
        """The kind of data that this output is; None where no pattern fits its name."""
        found = (kind for name, kind in self.outputs.items() if fnmatch.fnmatchcase(output, name))
        return next(found, None)


class Choice(_Part, frozen=True, kw_only=True):
    """Whose and which jobs; a history is meant by its id or its name, a user by e-mail address."""

    users: tuple[Pattern, ...] = ()
    histories: tuple[Pattern, ...] = ()
    tools: tuple[Pattern, ...] = ()
    tag: Pattern | None = None


class Rules(_Part, frozen=True, kw_only=True):
    """The whole file."""

    version: Literal[1] = 1
    studies: tuple[StudyRule, ...] = ()
    samples: tuple[SampleRule, ...] = (
        SampleRule(tag="biobank:{sample}"),
        SampleRule(element_identifier="{sample}"),
    )
    references: tuple[ReferenceRule, ...] = ()
    tools: tuple[ToolRule, ...] = ()
    include: Choice = Choice()
    exclude: Choice = Choice()

    def study_of(self, history: HistoryRecord | None, dataset_tags: Iterable[str]) -> str | None:
        """The label of the study; None where no rule says."""
        tags = tuple(dataset_tags)
        for rule in self.studies:
            if rule.dataset_tag:
                found = _labels(rule.dataset_tag, tags, rule.study)
            elif history is None:
                continue
            elif rule.history_tag:
                found = _labels(rule.history_tag, history.tags, rule.study)
            else:
                found = _labels(rule.history_name or "", (history.name,), rule.study)
            if found:
                return found[0]
        return None

    def sample_labels(
        self,
        tags: Iterable[str],
        identifiers: Iterable[str],
        columns: Iterable[tuple[str, str]] = (),
    ) -> tuple[tuple[bool, tuple[str, ...]], ...]:
        """(whether it was said of this dataset, labels) of each rule that finds any.

        `columns` are (name, value) of the rows of Galaxy's sample sheets.
        """
        seen = tuple(sorted(tags)), tuple(sorted(identifiers)), tuple(sorted(columns))
        found = ((rule.is_meant, rule.labels_of(*seen)) for rule in self.samples)
        return tuple(item for item in found if item[1])

    @property
    def reads_sheets(self) -> bool:
        """Whether the columns of Galaxy's sample sheets are asked for."""
        return any(rule.sample_sheet is not None for rule in self.samples)

    def tool(self, tool_id: str) -> ToolRule | None:
        """The first rule for this tool."""
        return next((rule for rule in self.tools if _is_tool(tool_id, rule.tool)), None)

    def wants(self, *, tool_id: str, user: str | None, history: HistoryRecord | None) -> bool:
        """Whether such a job is recorded."""
        return _chosen(self.include, tool_id, user, history, empty=True) and not _chosen(
            self.exclude, tool_id, user, history, empty=False
        )

    def wants_job(self, job: JobRecord, history: HistoryRecord | None) -> bool:
        """Whether this job is recorded."""
        return self.wants(tool_id=job.tool_id, user=job.user, history=history)

    @property
    def chooses(self) -> bool:
        """Whether anything is left out at all."""
        return self.include != Choice() or self.exclude != Choice()

    def fingerprint(self) -> str:
        """Equal for equal rules: what was recorded by other rules is looked at again."""
        return msgspec.json.encode(self, order="deterministic").decode()


def load_rules(path: str | None) -> Rules:
    """The rules of a file; the default ones without. Raises InputError with file, line, field."""
    if path is None:
        return Rules()
    file = Path(path)
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"larger than {MAX_FILE_BYTES} bytes", file=path)
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise InputError("not UTF-8", file=path) from exc
    except OSError as exc:
        raise InputError(f"can't be read: {exc.strerror}", file=path) from exc
    try:
        # S506: a SafeLoader, made stricter.
        content = yaml.load(text, _Loader)  # noqa: S506
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else None
        raise InputError(f"not the YAML of rules: {exc.problem}", file=path, line=line) from exc
    except (yaml.YAMLError, RecursionError) as exc:
        raise InputError("not the YAML of rules", file=path) from exc
    try:
        rules = msgspec.convert(content if content is not None else {}, Rules)
    except msgspec.ValidationError as exc:
        what, _, place = str(exc).partition(" - at `$")
        raise InputError(what, file=path, field=place.strip("`.") or None) from exc
    samples = tuple(_with_sheet(rule, file.parent) for rule in rules.samples)
    return msgspec.structs.replace(rules, samples=samples)


def _with_sheet(rule: SampleRule, folder: Path) -> SampleRule:
    """The rule with the labels of its sheet instead of the sheet's name."""
    if rule.sheet is None:
        return rule
    path = str(folder / rule.sheet)
    return SampleRule(labels=read_sheet(path, identifier=rule.identifier, sample=rule.sample))


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a rules file."""
    schema: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(Rules)))
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema


class _Loader(yaml.SafeLoader):
    """Refuses aliases (a few lines of them can unfold to gigabytes) and keys that stand twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                raise yaml.MarkedYAMLError(
                    problem=f"{key!r} stands twice", problem_mark=key_node.start_mark
                )
            keys.add(key)
        return super().construct_mapping(node, deep)


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*|\{study\}|\{sample\}|\{reference\})", pattern)
    regex = "".join(
        ".*" if part == "*" else "(?P<label>.+)" if part in _PLACES else re.escape(part)
        for part in parts
    )
    return re.compile(regex, re.DOTALL)


_PLACES: Final = frozenset({"{study}", "{sample}", "{reference}"})
# What Galaxy's forms hold where nothing was chosen.
_NOTHING: Final = frozenset({"", "?", "None"})


def values_of(parameters: Any, name: str) -> Iterator[str]:
    """The texts that the dotted `name` leads to; each one of a list, or of a repeat.

    A name may itself hold dots: every way to read it is tried, as in `selection.uses`.
    """
    if isinstance(parameters, list | tuple):
        for item in parameters:
            yield from values_of(item, name)
        return
    if not isinstance(parameters, Mapping):
        return
    if name in parameters:
        yield from _texts(parameters[name])
    end = name.find(".")
    while end >= 0:
        yield from values_of(parameters.get(name[:end]), name[end + 1 :])
        end = name.find(".", end + 1)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _distinct(labels: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(labels))


def _labels(pattern: str, texts: Iterable[str], fixed: str | None) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for text in texts:
        match = _compiled(pattern).fullmatch(text)
        if match:
            label = match.groupdict().get("label") or fixed
            if label:
                found[label] = None
    return tuple(found)


def _is_tool(tool_id: str, pattern: str) -> bool:
    return tool_names.matches(tool_id, pattern) or fnmatch.fnmatchcase(tool_id, pattern)


def _chosen(
    choice: Choice, tool_id: str, user: str | None, history: HistoryRecord | None, *, empty: bool
) -> bool:
    """Whether the choice names it. `empty` is what a list that is not there counts as.

    To be included, a job must be in every list that is there; to be excluded, in any.
    """
    answers: list[bool] = []
    if choice.tools:
        answers.append(any(_is_tool(tool_id, pattern) for pattern in choice.tools))
    if choice.users:
        answers.append(any(fnmatch.fnmatchcase(user or "", pattern) for pattern in choice.users))
    if choice.histories:
        names = (history.id, history.name) if history else ("",)
        answers.append(
            any(fnmatch.fnmatchcase(name, p) for name in names for p in choice.histories)
        )
    if choice.tag:
        answers.append(bool(history and choice.tag in history.tags))
    if not answers:
        return empty
    return all(answers) if empty else any(answers)
