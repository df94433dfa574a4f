"""Which consent stands, and how it is given or withdrawn.

The rule. Of the consents of one scope, those whose `from` is after the day asked for do not count
yet; of the others the latest `from` counts (none: since ever). Of several of the same day a
withdrawn one counts before a given one, then the one that ends first: in doubt, the careful
reading. `until` is the last day on which a given consent stands; a withdrawal never ends by itself.
Objects are added, never changed: the history of what was given and withdrawn stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import Final

from biobank_core.catalog.port import Catalog, Save
from biobank_core.errors import ConflictError, InputError
from biobank_core.model.codec import convert
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import Consent, ConsentStatus

DEFAULT_SCOPE: Final = "research"


class ConsentState(Enum):
    """What may be done on a day: only GIVEN allows it."""

    GIVEN = "given"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    NOT_YET = "not yet given"
    MISSING = "missing"


def today() -> date:
    """The day of every decision on consent: UTC, so that all machines of a house agree."""
    return datetime.now(UTC).date()


def counting(consents: Iterable[Consent], *, scope: str, on: date) -> Consent | None:
    """The consent of this scope that counts on that day; None where there is none yet."""
    begun = (
        consent
        for consent in consents
        if consent.scope == scope and (consent.valid_from is None or consent.valid_from <= on)
    )
    return max(begun, key=_precedence, default=None)


def standing(consents: Iterable[Consent], *, scope: str, on: date) -> ConsentState:
    """What the consents of one enrollment say for this scope on that day."""
    of_scope = [consent for consent in consents if consent.scope == scope]
    consent = counting(of_scope, scope=scope, on=on)
    if consent is None:
        later = any(consent.status is ConsentStatus.GIVEN for consent in of_scope)
        return ConsentState.NOT_YET if later else ConsentState.MISSING
    if consent.status is ConsentStatus.WITHDRAWN:
        return ConsentState.WITHDRAWN
    if consent.until is not None and consent.until < on:
        return ConsentState.EXPIRED
    return ConsentState.GIVEN


@dataclass(frozen=True, slots=True)
class ConsentChange:
    """What `give` or `withdraw` did: `consent` is what counts on its day, `changed` if it is new.

    `today` is where the scope stands now, which may differ when the day is not today.
    """

    consent: Consent
    changed: bool
    today: ConsentState


def give(
    catalog: Catalog,
    *,
    enrollment: str,
    name: str,
    scope: str = DEFAULT_SCOPE,
    on: date | None = None,
    until: date | None = None,
    by: str,
) -> ConsentChange:
    """Give consent from the day `on` (default today); nothing changes where it stands already.

    `name` is what messages call the individual. Raises ConflictError where a withdrawal of the
    same day would outweigh it.
    """
    day = on or today()
    consents = _of(catalog, enrollment)
    present = counting(consents, scope=scope, on=day)
    stands = standing(consents, scope=scope, on=day) is ConsentState.GIVEN
    if present is not None and stands and present.until == until:
        return ConsentChange(present, changed=False, today=_now(consents, scope))
    if present is not None and present.valid_from == day:
        if present.status is ConsentStatus.WITHDRAWN:
            raise ConflictError(
                f"{name}: the consent of scope {scope!r} was withdrawn on {day}, which counts for "
                f"all of that day; give it from the next day on (--date {day + timedelta(days=1)})"
            )
        if present.until is not None and (until is None or until > present.until):
            raise ConflictError(
                f"{name}: a consent of scope {scope!r} from {day} until {present.until} is there, "
                "and of one day the one that ends first counts; give the new one from a later day"
            )
    return _add(catalog, consents, _made(enrollment, scope, ConsentStatus.GIVEN, day, until), by)


def withdraw(
    catalog: Catalog,
    *,
    enrollment: str,
    name: str,
    scope: str = DEFAULT_SCOPE,
    on: date | None = None,
    by: str,
) -> ConsentChange:
    """Withdraw consent from the day `on` (default today); nothing changes where it is withdrawn.

    Raises InputError where this scope was never given (a mistyped scope must not look like a
    withdrawal), ConflictError where it is only given from a later day on.
    """
    day = on or today()
    consents = _of(catalog, enrollment)
    state = standing(consents, scope=scope, on=day)
    present = counting(consents, scope=scope, on=day)
    if state is ConsentState.WITHDRAWN and present is not None:
        return ConsentChange(present, changed=False, today=_now(consents, scope))
    if state is ConsentState.MISSING:
        scopes = ", ".join(sorted({consent.scope for consent in consents})) or "none at all"
        raise InputError(
            f"{name} never gave a consent of this scope, so there is nothing to withdraw; "
            f"scopes with a consent: {scopes}",
            field="scope",
            value=scope,
        )
    if state is ConsentState.NOT_YET:
        first = min(
            consent.valid_from
            for consent in consents
            if consent.scope == scope
            and consent.status is ConsentStatus.GIVEN
            and consent.valid_from is not None
        )
        raise ConflictError(
            f"{name}: the consent of scope {scope!r} begins on {first}, after {day}; "
            f"withdraw it from that day on (--date {first})"
        )
    return _add(catalog, consents, _made(enrollment, scope, ConsentStatus.WITHDRAWN, day), by)


def _of(catalog: Catalog, enrollment: str) -> list[Consent]:
    found = (item.object for item in catalog.find("Consent", {"enrollment": enrollment}))
    return [consent for consent in found if isinstance(consent, Consent)]


def _made(
    enrollment: str, scope: str, status: ConsentStatus, day: date, until: date | None = None
) -> Consent:
    # Through the codec, which checks what a constructor takes as it is (an empty scope).
    made = convert(
        {
            "kind": "Consent",
            "vid": new_vid(),
            "enrollment": enrollment,
            "scope": scope,
            "status": status.value,
            "from": day.isoformat(),
            "until": until.isoformat() if until is not None else None,
        }
    )
    assert isinstance(made, Consent)
    return made


def _add(catalog: Catalog, consents: list[Consent], new: Consent, by: str) -> ConsentChange:
    catalog.commit([Save(object=new)], by=by)
    return ConsentChange(new, changed=True, today=_now([*consents, new], new.scope))


def _now(consents: list[Consent], scope: str) -> ConsentState:
    return standing(consents, scope=scope, on=today())


def _precedence(consent: Consent) -> tuple[date, bool, int, str]:
    ends = (consent.until or date.max).toordinal()
    return (
        consent.valid_from or date.min,
        consent.status is ConsentStatus.WITHDRAWN,
        -ends,
        consent.vid,
    )
