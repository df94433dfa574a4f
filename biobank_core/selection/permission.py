"""Whether the individuals behind a sample allow it to be used, read in bulk.

Which enrollments count: those in the study that asks and in the sample's own study, and all of
them must allow it. An individual enrolled in neither is judged by all its other enrollments: at
least one must allow it, and none may have withdrawn or run out. In doubt, the careful reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final, TypeVar

import msgspec

from biobank_core.catalog.port import Catalog
from biobank_core.consent import ConsentState, counting, standing
from biobank_core.model.kinds import Consent, Enrollment
from biobank_core.selection import shapes
from biobank_core.selection.criteria import ReasonCode

T = TypeVar("T")

# Values in one `find`; from a share of the whole kind on, reading all of it is quicker.
_PART: Final = 500
_WHOLE_FROM: Final = 4
# From so many individuals on, enrollments and consents are read together.
_MANY: Final = 10_000

_CODES: Final = {
    ConsentState.WITHDRAWN: ReasonCode.CONSENT_WITHDRAWN,
    ConsentState.EXPIRED: ReasonCode.CONSENT_EXPIRED,
    ConsentState.NOT_YET: ReasonCode.CONSENT_NOT_YET,
    ConsentState.MISSING: ReasonCode.CONSENT_MISSING,
}
_WORST_FIRST: Final = tuple(_CODES)
_BARRING: Final = (ConsentState.WITHDRAWN, ConsentState.EXPIRED)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an individual's material may not be used.

    `text` completes "consent …", such as "for research withdrawn on 2026-02-01"; `name` is the
    enrollment's code, or the VID of an individual without enrollment.
    """

    code: ReasonCode
    name: str
    text: str


@dataclass(slots=True)
class Permissions:
    """The enrollments and consents of some individuals on one day, for one scope."""

    study: str
    scope: str
    on: date
    _enrollments: dict[str, list[Enrollment]] = field(default_factory=dict)
    _consents: dict[str, list[Consent]] = field(default_factory=dict)

    def load(self, catalog: Catalog, people: Iterable[str]) -> None:
        """Read what is known of these individuals (VIDs)."""
        wanted = set(people)
        counts = catalog.count()
        if len(wanted) >= _MANY and len(wanted) * _WHOLE_FROM >= counts.get("Enrollment", 0):
            self._load_all(catalog, wanted)
            return
        for enrollment in _found(catalog, shapes.ENROLLMENT, "Enrollment", "individual", wanted):
            self._enrollments.setdefault(enrollment.individual, []).append(enrollment)
        enrolled = {item.vid for items in self._enrollments.values() for item in items}
        for consent in _found(catalog, shapes.CONSENT, "Consent", "enrollment", enrolled):
            self._consents.setdefault(consent.enrollment, []).append(consent)

    def _load_all(self, catalog: Catalog, people: set[str]) -> None:
        consents: list[Consent] = []
        enrolled: set[str] = set()
        shape: dict[str, msgspec.json.Decoder[Any]] = {
            "Enrollment": shapes.ENROLLMENT,
            "Consent": shapes.CONSENT,
        }
        for item in shapes.read_kinds(catalog, shape):
            if isinstance(item, Consent):
                consents.append(item)
            elif item.individual in people:
                enrolled.add(item.vid)
                self._enrollments.setdefault(item.individual, []).append(item)
        for consent in consents:
            if consent.enrollment in enrolled:
                self._consents.setdefault(consent.enrollment, []).append(consent)

    def name(self, person: str, sample_study: str | None) -> str:
        """The individual's code in the study that asks, else in the sample's, else anywhere."""
        known = self._enrollments.get(person, ())
        for study in (self.study, sample_study):
            for enrollment in known:
                if enrollment.study == study:
                    return enrollment.code
        return min((enrollment.code for enrollment in known), default=person)

    def refusal(self, person: str, sample_study: str | None) -> Refusal | None:
        """Why this individual's material may not be used; None where it may."""
        known = self._enrollments.get(person, [])
        near = [item for item in known if item.study in (self.study, sample_study)]
        states = [(self._state(item), item) for item in near or known]
        if not states:
            name = self.name(person, sample_study)
            return Refusal(ReasonCode.CONSENT_MISSING, name, "is missing: no enrollment is known")
        bad = [pair for pair in states if pair[0] is not ConsentState.GIVEN]
        if not near and len(bad) < len(states):
            bad = [pair for pair in bad if pair[0] in _BARRING]
        if not bad:
            return None
        state, enrollment = min(bad, key=lambda pair: (_WORST_FIRST.index(pair[0]), pair[1].vid))
        return self._refused(state, enrollment)

    def _state(self, enrollment: Enrollment) -> ConsentState:
        return standing(self._consents.get(enrollment.vid, ()), scope=self.scope, on=self.on)

    def _refused(self, state: ConsentState, enrollment: Enrollment) -> Refusal:
        consents = self._consents.get(enrollment.vid, [])
        code = _CODES[state]
        counts = counting(consents, scope=self.scope, on=self.on)
        if state is ConsentState.WITHDRAWN:
            day = counts.valid_from if counts else None
            text = f"for {self.scope} withdrawn" + (f" on {day.isoformat()}" if day else "")
        elif state is ConsentState.EXPIRED:
            day = counts.until if counts else None
            text = f"for {self.scope} ran out" + (f" after {day.isoformat()}" if day else "")
        elif state is ConsentState.NOT_YET:
            first = min(c.valid_from for c in consents if c.scope == self.scope and c.valid_from)
            text = f"for {self.scope} begins only on {first.isoformat()}"
        else:
            text = f"for {self.scope} is missing"
            if scopes := sorted({consent.scope for consent in consents}):
                code = ReasonCode.CONSENT_OTHER_SCOPE
                text += f" (there is one for: {', '.join(scopes)})"
        return Refusal(code, enrollment.code, text)


def _found(
    catalog: Catalog, decoder: msgspec.json.Decoder[T], kind: str, name: str, values: set[str]
) -> Iterator[T]:
    if not values:
        return
    if len(values) * _WHOLE_FROM >= catalog.count().get(kind, 0):
        for item in shapes.read(catalog, decoder, kind):
            if getattr(item, name) in values:
                yield item
        return
    wanted = sorted(values)
    for start in range(0, len(wanted), _PART):
        yield from shapes.read(catalog, decoder, kind, {name: tuple(wanted[start : start + _PART])})
