"""The sentences that tell a technician why a sample is in, or left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from biobank_core.selection.criteria import Criteria, OldResult
from biobank_core.selection.graph import ActionInfo
from biobank_core.selection.permission import Refusal
from biobank_core.selection.tools import last_part

# More names than this in one sentence are counted instead.
_MAX_NAMED: Final = 3


def tool_text(tool: str | None, release: str | None) -> str:
    """`kleborate_typing 2.2.0`; what is unknown is called so."""
    name = last_part(tool) if tool else "an unknown tool"
    return f"{name} {release}" if release else f"{name} (release unknown)"


def day(action: ActionInfo) -> str:
    """The day of an action, in UTC."""
    return action.time.date().isoformat()


def match_text(
    made: Sequence[tuple[ActionInfo, Sequence[OldResult]]],
    criteria: Criteria,
    failed: str | None,
    *,
    reference: str | None = None,
) -> str:
    """Of each matching action (the latest first) what it made; then what was asked for.

    `reference` is the label of the one that was asked for.
    """
    parts = [
        f"{tool_text(results[0].tool, results[0].release)} made "
        f"{_listed(result.label or result.vid for result in results)} ({day(action)})"
        for action, results in made[:_MAX_NAMED]
    ]
    if len(made) > _MAX_NAMED:
        parts.append(f"and {len(made) - _MAX_NAMED} more such results")
    text = ", ".join(parts)
    wanted = [] if criteria.release is None else [criteria.release]
    wanted += [f"{name}={value}" for name, value in criteria.params]
    if reference is not None:
        wanted.append(f"reference {reference}")
    if wanted:
        text += f"; wanted: {', '.join(wanted)}"
    return f"{text}; {failed}" if failed else text


def superseded_text(pairs: Sequence[tuple[str, str]]) -> str:
    """Of pairs (old label, new label)."""
    return "superseded: " + _listed(f"{old} by {new}" for old, new in pairs)


def done_text(
    tool: str | None, release: str | None, action: ActionInfo, *, differs: bool = False
) -> str:
    """What made the analysis needless; `differs` if by its parameters or reference."""
    how = " and other parameters or reference data" if differs else ""
    return f"already done with {tool_text(tool, release)}{how} on {day(action)}"


def failed_text(tool: str | None, release: str | None, action: ActionInfo) -> str:
    """A try outside the wanted releases that came to nothing."""
    return f"{tool_text(tool, release)} was tried on {day(action)} and failed"


def unlinked_text() -> str:
    """Of results that reach no sample."""
    return "belongs to no known vessel or individual; `biobank link` ties data to a sample"


def refusal_text(refusal: Refusal, *, pooled: bool) -> str:
    """Of an individual that does not allow it; `pooled` if it is one of several."""
    if pooled:
        return f"pooled with {refusal.name}, whose consent {_past(refusal.text)}"
    return f"consent {refusal.text}"


def no_individual_text(vessel: str | None) -> str:
    """Of material whose individual is unknown; `vessel` is the label of what it is pooled with."""
    if vessel is not None:
        return f"pooled with {vessel}, of which no individual is known, hence no consent"
    return "no individual is known upstream, hence no consent"


def _past(text: str) -> str:
    return text.replace(" withdrawn", " was withdrawn", 1)


def _listed(labels: Iterable[str]) -> str:
    names = list(dict.fromkeys(labels))
    if len(names) == 1:
        return names[0]
    if len(names) > _MAX_NAMED:
        return f"{', '.join(names[:_MAX_NAMED])} and {len(names) - _MAX_NAMED} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
