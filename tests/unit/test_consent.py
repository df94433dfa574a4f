"""Which consent counts, and how it is given and withdrawn."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biobank_core import consent
from biobank_core.catalog.port import Catalog, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.consent import ConsentState, standing
from biobank_core.errors import ConflictError, InputError
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import Consent, ConsentStatus, Enrollment, Individual, Study

GIVEN, WITHDRAWN = ConsentStatus.GIVEN, ConsentStatus.WITHDRAWN
DAY = date(2026, 6, 15)


def made(
    status: ConsentStatus,
    begins: date | None = None,
    *,
    until: date | None = None,
    scope: str = "research",
) -> Consent:
    return Consent(
        vid=new_vid(),
        enrollment="V0" + "0" * 32,
        scope=scope,
        status=status,
        valid_from=begins,
        until=until,
    )


def on(day: int) -> date:
    return date(2026, 6, day)


@pytest.mark.parametrize(
    ("consents", "state"),
    [
        ([], ConsentState.MISSING),
        ([made(GIVEN)], ConsentState.GIVEN),
        ([made(GIVEN, on(15))], ConsentState.GIVEN),
        ([made(GIVEN, on(16))], ConsentState.NOT_YET),
        ([made(GIVEN, on(1), until=on(15))], ConsentState.GIVEN),
        ([made(GIVEN, on(1), until=on(14))], ConsentState.EXPIRED),
        ([made(GIVEN, on(1)), made(WITHDRAWN, on(15))], ConsentState.WITHDRAWN),
        ([made(GIVEN, on(1)), made(WITHDRAWN, on(16))], ConsentState.GIVEN),
        ([made(WITHDRAWN, on(1)), made(GIVEN, on(2))], ConsentState.GIVEN),
        ([made(GIVEN, on(2)), made(WITHDRAWN, on(2))], ConsentState.WITHDRAWN),
        ([made(GIVEN), made(WITHDRAWN)], ConsentState.WITHDRAWN),
        ([made(WITHDRAWN, on(1), until=on(2))], ConsentState.WITHDRAWN),
        ([made(WITHDRAWN, on(20))], ConsentState.MISSING),
        ([made(GIVEN, scope="teaching")], ConsentState.MISSING),
        ([made(GIVEN), made(WITHDRAWN, on(2), scope="teaching")], ConsentState.GIVEN),
        ([made(GIVEN, on(2)), made(GIVEN, on(2), until=on(3))], ConsentState.EXPIRED),
        ([made(GIVEN, on(1)), made(GIVEN, on(2), until=on(3))], ConsentState.EXPIRED),
    ],
)
def test_the_latest_consent_of_the_scope_counts_and_in_doubt_the_careful_one(
    consents: list[Consent], state: ConsentState
) -> None:
    assert standing(consents, scope="research", on=DAY) is state
    assert standing(reversed(consents), scope="research", on=DAY) is state


days = st.none() | st.dates(date(2026, 6, 10), date(2026, 6, 20))
histories = st.lists(
    st.builds(made, st.sampled_from([GIVEN, WITHDRAWN]), days, scope=st.sampled_from(["a", "b"]))
)


@given(histories, st.randoms(use_true_random=False))
def test_the_order_in_which_consents_come_does_not_matter(
    consents: list[Consent], random: object
) -> None:
    before = standing(consents, scope="a", on=DAY)
    random.shuffle(consents)  # type: ignore[attr-defined]
    assert standing(consents, scope="a", on=DAY) is before


@given(histories)
def test_nothing_is_allowed_from_the_day_of_a_latest_withdrawal(consents: list[Consent]) -> None:
    last = max((item.valid_from or date.min for item in consents), default=date.min)
    consents.append(made(WITHDRAWN, max(last, DAY), scope="a"))
    later = max(last, DAY) + timedelta(days=400)
    assert standing(consents, scope="a", on=later) is ConsentState.WITHDRAWN


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with open_catalog(f"sqlite:///{tmp_path}/c.db", create=True) as opened:
        yield opened


@pytest.fixture
def enrollment(catalog: Catalog) -> str:
    study, person = Study(vid=new_vid(), label="S"), Individual(vid=new_vid())
    enrolled = Enrollment(vid=new_vid(), individual=person.vid, study=study.vid, code="P1")
    catalog.commit([Save(object=item) for item in (study, person, enrolled)], by="test")
    return enrolled.vid


def count(catalog: Catalog) -> int:
    return catalog.count().get("Consent", 0)


def test_giving_twice_and_withdrawing_twice_changes_nothing_the_second_time(
    catalog: Catalog, enrollment: str
) -> None:
    first = consent.give(catalog, enrollment=enrollment, name="S:P1", on=on(1), by="ada")
    again = consent.give(catalog, enrollment=enrollment, name="S:P1", on=on(3), by="ada")
    assert (first.changed, again.changed) == (True, False)
    assert again.consent == first.consent
    gone = consent.withdraw(catalog, enrollment=enrollment, name="S:P1", on=on(4), by="ada")
    twice = consent.withdraw(catalog, enrollment=enrollment, name="S:P1", on=on(9), by="ada")
    assert (gone.changed, twice.changed) == (True, False)
    assert count(catalog) == 2


def test_a_withdrawal_leaves_the_consent_before_it_in_the_catalog(
    catalog: Catalog, enrollment: str
) -> None:
    old = consent.give(catalog, enrollment=enrollment, name="S:P1", on=on(1), by="ada").consent
    consent.withdraw(catalog, enrollment=enrollment, name="S:P1", on=on(2), by="ada")
    assert catalog.get([old.vid])[old.vid].object == old


def test_withdrawing_a_scope_that_was_never_given_names_those_that_were(
    catalog: Catalog, enrollment: str
) -> None:
    consent.give(catalog, enrollment=enrollment, name="S:P1", on=on(1), by="ada")
    with pytest.raises(InputError, match=r"reserch.*scopes with a consent: research"):
        consent.withdraw(catalog, enrollment=enrollment, name="S:P1", scope="reserch", by="ada")
    assert count(catalog) == 1


def test_withdrawing_before_the_consent_begins_is_a_conflict_that_says_the_day(
    catalog: Catalog, enrollment: str
) -> None:
    consent.give(catalog, enrollment=enrollment, name="S:P1", on=on(20), by="ada")
    with pytest.raises(ConflictError, match="--date 2026-06-20"):
        consent.withdraw(catalog, enrollment=enrollment, name="S:P1", on=on(19), by="ada")


def test_giving_on_the_day_of_a_withdrawal_is_a_conflict_and_works_from_the_next_day(
    catalog: Catalog, enrollment: str
) -> None:
    consent.give(catalog, enrollment=enrollment, name="S:P1", on=on(1), by="ada")
    consent.withdraw(catalog, enrollment=enrollment, name="S:P1", on=on(2), by="ada")
    with pytest.raises(ConflictError, match="--date 2026-06-03"):
        consent.give(catalog, enrollment=enrollment, name="S:P1", on=on(2), by="ada")
    assert consent.give(catalog, enrollment=enrollment, name="S:P1", on=on(3), by="ada").changed


def test_an_end_before_the_beginning_is_refused(catalog: Catalog, enrollment: str) -> None:
    with pytest.raises(InputError, match="until"):
        consent.give(catalog, enrollment=enrollment, name="S:P1", on=on(5), until=on(4), by="ada")
