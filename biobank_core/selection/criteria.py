"""What a selection is asked, and what it answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

import msgspec

from biobank_core.consent import DEFAULT_SCOPE
from biobank_core.errors import InputError
from biobank_core.selection.releases import parse_range


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """Which results are to be made again. What is None, or empty, is not looked at.

    `study` is the VID of the study whose work (actions) is looked at, whatever the study of the
    samples. `tool` is a tool's full id, its id without version, or its last part; `release` a
    range as in `selection.releases`. `since` and `until` (both inclusive, aware) bound the end of
    the action, or its begin where the end is not known. `scope` is what consent is needed for.
    `params` are (name, value) of its setup, all of which it must have, as in `selection.uses`;
    `reference` is the VID of a node that must be one of its inputs or in a collection of them.
    Raises InputError for a malformed release, a time without a zone, an empty time span, or a
    parameter without a name.
    """

    study: str
    tool: str | None = None
    release: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    scope: str = DEFAULT_SCOPE
    params: tuple[tuple[str, str], ...] = ()
    reference: str | None = None

    def __post_init__(self) -> None:
        if self.release is not None:
            parse_range(self.release)
        for name in ("since", "until"):
            time: datetime | None = getattr(self, name)
            if time is not None and time.tzinfo is None:
                raise InputError(
                    "needs a time zone, such as 2026-01-01T00:00:00Z", field=name, value=str(time)
                )
        if self.since and self.until and self.until < self.since:
            raise InputError("must not be before since", field="until", value=str(self.until))
        if not all(name for name, _value in self.params):
            raise InputError("needs a name, as in NAME=VALUE", field="param")


class ReasonCode(Enum):
    """Why a sample is in, or is left out. Stable: scripts compare with these words."""

    MATCH = "match"
    SUPERSEDED = "superseded"
    ALREADY_DONE = "already-done"
    DELETED = "deleted"
    UNLINKED = "unlinked"
    NO_INDIVIDUAL = "no-individual"
    CONSENT_MISSING = "consent-missing"
    CONSENT_OTHER_SCOPE = "consent-other-scope"
    CONSENT_NOT_YET = "consent-not-yet"
    CONSENT_EXPIRED = "consent-expired"
    CONSENT_WITHDRAWN = "consent-withdrawn"


class OldResult(msgspec.Struct, frozen=True, gc=False):
    """What a matching action made: `role` is the output's name there; `tool` the device's label.

    `release` is None where it is not known.
    """

    vid: str
    label: str
    role: str
    action: str
    tool: str | None
    release: str | None


class SelectedSample(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One biological sample, in or left out (`code` says which).

    `sample` is the VID of the nearest vessel upstream of the results, of an individual where
    there is no vessel; None for results that reach neither (`code` UNLINKED), with the label of
    the first of them. `donors` are the enrollment codes of the individuals it came from. `results`
    are the matching results that are not superseded (all of them on a row left out). `sources` are
    the data taken from the sample itself which those results were computed from: what a
    reanalysis starts from.
    """

    sample: str | None
    label: str
    kind: str
    study: str | None
    study_label: str
    code: ReasonCode
    reason: str
    donors: tuple[str, ...] = ()
    results: tuple[OldResult, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def is_selected(self) -> bool:
        """Whether the sample is in."""
        return self.code is ReasonCode.MATCH


@dataclass(frozen=True, slots=True)
class Selection:
    """Samples by label, then VID; what reaches no sample comes last."""

    rows: tuple[SelectedSample, ...] = ()
    excluded: tuple[SelectedSample, ...] = ()

    def left_out(self) -> dict[ReasonCode, int]:
        """How many samples are left out for which reason, in the order of ReasonCode."""
        counts = Counter(row.code for row in self.excluded)
        return {code: counts[code] for code in ReasonCode if counts[code]}
