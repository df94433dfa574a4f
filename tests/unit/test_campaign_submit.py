"""One invocation an item, whatever breaks off: on a Galaxy that does as it is told to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from biobank_core.catalog.port import Catalog
from biobank_core.errors import InputError, UnreachableError
from biobank_core.galaxy.reanalysis import submit
from biobank_core.galaxy.reanalysis.arrange import Given
from biobank_core.galaxy.reanalysis.book import Book
from biobank_core.galaxy.reanalysis.campaigns import PlannedItem, as_json
from biobank_core.galaxy.reanalysis.plan import Plan, save_plan
from biobank_core.galaxy.reanalysis.submit import Submitter
from biobank_core.model.kinds import CampaignItem, ItemState
from tests.unit.test_campaign_results import catalog, loaded, plan

__all__ = ["catalog", "plan"]  # fixtures


@dataclass
class Galaxy:
    """Histories and what was invoked in each; stands for server, locator and clock.

    `how_it_takes` is what happens to an invocation that is asked for.
    """

    url: str = "http://g"
    user_id: str = "u"
    now_s: float = 0.0
    invoked: dict[str, list[str]] = field(default_factory=dict)
    archived: set[str] = field(default_factory=set)
    late: list[tuple[float, str]] = field(default_factory=list)
    how_it_takes: Callable[[str], object] = lambda _history: None
    closing_takes_s: float = 0.05

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def monotonic(self) -> float:
        return self.now_s

    def find_workflow_copy(self, _campaign: str) -> str:
        return "w"

    def find_histories(self, _item: str) -> list[str]:
        return []

    def create_history(self, _name: str) -> str:
        made = f"h{len(self.invoked)}"
        self.invoked[made] = []
        return made

    def tag_history(self, _history: str, *, campaign: str, item: str) -> None: ...

    def close_history(self, history: str) -> None:
        self.sleep(self.closing_takes_s)
        self.archived.add(history)

    def reopen_history(self, history: str) -> None:
        self.archived.discard(history)

    def delete_history(self, _history: str) -> None: ...

    def invocations(self, history: str) -> list[str]:
        for time_s, there in list(self.late):
            if time_s <= self.now_s:
                self.late.remove((time_s, there))
                self.invoked[there].append(f"i{there}")
        return self.invoked[history]

    def invoke(self, _workflow: str, history: str, **_options: Any) -> str:
        if history in self.archived:
            raise InputError("history is archived")
        self.how_it_takes(history)
        self.invoked[history].append(f"i{history}")
        return f"i{history}"

    def contents(self, _history: str) -> list[Any]:
        return []

    def dataset(self, data: str) -> Mapping[str, str]:
        return {"id": data, "uuid": data}

    def copy_dataset(self, _history: str, dataset: str) -> str:
        return dataset


@pytest.fixture
def galaxy(monkeypatch: pytest.MonkeyPatch) -> Galaxy:
    made = Galaxy()
    monkeypatch.setattr(submit, "time", made)
    return made


@pytest.fixture
def begun(catalog: Catalog, plan: Plan) -> CampaignItem:
    """An item that is being submitted in the history `h0`."""
    save_plan(plan, catalog=catalog, by="test")
    return msgspec.structs.replace(
        plan.items[0],
        state=ItemState.SUBMITTING,
        history_id="h0",
        planned=as_json(PlannedItem(given=Given(name="x", data="d"))),
    )


def submitter(catalog: Catalog, plan: Plan, galaxy: Galaxy) -> Submitter:
    book = Book(catalog, loaded(catalog, plan), by="test")
    return Submitter(book, galaxy, galaxy, use_cache=False)  # type: ignore[arg-type]


def test_a_history_that_a_killed_run_had_closed_is_open_again_once_it_holds_the_invocation(
    catalog: Catalog, plan: Plan, galaxy: Galaxy, begun: CampaignItem
) -> None:
    galaxy.create_history("")
    galaxy.invoked["h0"].append("late")
    galaxy.close_history("h0")
    done = submitter(catalog, plan, galaxy).submit(begun)
    assert (done.state, done.invocation_id) == (ItemState.RUNNING, "late")
    assert galaxy.archived == set()


def test_a_galaxy_that_is_slow_at_invoking_is_given_as_much_time_before_it_is_asked_again(
    catalog: Catalog, plan: Plan, galaxy: Galaxy, begun: CampaignItem
) -> None:
    def slow(history: str) -> None:
        # It goes on with a request that nobody waits for any more.
        galaxy.sleep(120)
        galaxy.late.append((galaxy.now_s + 100, history))
        raise UnreachableError("no answer")

    galaxy.how_it_takes = slow
    planned = msgspec.structs.replace(begun, state=ItemState.PLANNED, history_id=None)
    done = submitter(catalog, plan, galaxy).submit(planned)
    assert (done.history_id, done.invocation_id) == ("h0", "ih0")
    assert galaxy.invoked == {"h0": ["ih0"]}
    assert galaxy.archived == set()


def test_a_galaxy_that_is_busy_is_given_more_time_to_show_an_invocation(
    catalog: Catalog, plan: Plan, galaxy: Galaxy, begun: CampaignItem
) -> None:
    # A run was killed just when it had asked; Galaxy is ten times as slow as on a quiet machine.
    galaxy.create_history("")
    galaxy.late.append((5, "h0"))
    galaxy.closing_takes_s = 0.5
    done = submitter(catalog, plan, galaxy).submit(begun)
    assert (done.history_id, galaxy.invoked) == ("h0", {"h0": ["ih0"]})
    assert galaxy.archived == set()
