"""What a recording did."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Summary:
    """What a recording did, in jobs; `failed` is by job id, the other sets are VIDs of data.

    `unknown_references` counts jobs whose parameters name reference data that are not registered,
    `referenced` those of earlier recordings whose references are registered now. `without_hash`
    came in now, and Galaxy has not hashed their files.
    """

    seen: int = 0
    recorded: int = 0
    unchanged: int = 0
    left_out: int = 0
    waiting: int = 0
    linked: int = 0
    unknown_references: int = 0
    referenced: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    unlinked: set[str] = field(default_factory=set)
    without_hash: set[str] = field(default_factory=set)
    unknown_studies: set[str] = field(default_factory=set)
