"""A small world for tests of the selection: objects by short names, in a real SQLite catalog."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from biobank_core.catalog.port import Delete, Save
from biobank_core.catalog.sqlite import SqliteCatalog, open_catalog
from biobank_core.model.base import JsonObject, Object
from biobank_core.model.ids import derived_vid
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionSetup,
    ActionStatus,
    Consent,
    ConsentStatus,
    DataCollection,
    DataMember,
    DataSample,
    Enrollment,
    HardwareDevice,
    Individual,
    Port,
    SoftwareProgram,
    Study,
    Supersession,
    Tube,
    VesselMember,
    VesselsCollection,
)
from biobank_core.selection.criteria import Criteria, SelectedSample, Selection
from biobank_core.selection.select import select

TODAY = date(2026, 6, 1)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
TOOL = "shed.example.org/repos/lab/kleborate/kleborate_typing"


def vid(name: str) -> str:
    return derived_vid("test", name)


class World:
    """Each method makes one object and returns its VID; `select` saves all that is new first."""

    def __init__(self, folder: Path, study: str = "KPN") -> None:
        self.catalog: SqliteCatalog = open_catalog(f"sqlite:///{folder}/world.db", create=True)
        self.names: dict[str, str] = {}
        self.objects: dict[str, Object] = {}
        self._new: list[Object] = []
        self._devices: dict[tuple[str, str | None], str] = {}
        self._actions = 0
        self.main = self.study(study)

    def add(self, obj: Object) -> str:
        self._new.append(obj)
        self.objects[obj.vid] = obj
        return obj.vid

    def save(self) -> None:
        self.catalog.commit([Save(object=obj) for obj in self._new], by="test")
        self._new = []

    def delete(self, name: str) -> None:
        self.save()
        version = self.catalog.get([name])[name].version
        self.catalog.commit([Delete(vid=name, based_on=version, cascade=True)], by="test")

    def study(self, label: str) -> str:
        return self.add(Study(vid=vid(f"study {label}"), label=label))

    def donor(
        self,
        code: str,
        consent: ConsentStatus | None = ConsentStatus.GIVEN,
        *,
        study: str | None = None,
        since: date | None = None,
        until: date | None = None,
        scope: str = "research",
    ) -> str:
        person = self.add(Individual(vid=vid(f"individual {code}")))
        self.enroll(person, code, consent, study=study, since=since, until=until, scope=scope)
        return person

    def enroll(
        self,
        person: str,
        code: str,
        consent: ConsentStatus | None = ConsentStatus.GIVEN,
        *,
        study: str | None = None,
        since: date | None = None,
        until: date | None = None,
        scope: str = "research",
    ) -> str:
        study = study or self.main
        enrolled = self.add(
            Enrollment(
                vid=vid(f"enrollment {code} {study}"), individual=person, study=study, code=code
            )
        )
        if consent is not None:
            self.consent(enrolled, consent, since=since, until=until, scope=scope)
        return enrolled

    def consent(
        self,
        enrolled: str,
        status: ConsentStatus,
        *,
        since: date | None = None,
        until: date | None = None,
        scope: str = "research",
    ) -> str:
        return self.add(
            Consent(
                vid=vid(f"consent {len(self.objects)}"),
                enrollment=enrolled,
                status=status,
                valid_from=since,
                until=until,
                scope=scope,
            )
        )

    def tube(self, label: str, *parents: str, study: str | None = None) -> str:
        study = study or self.main
        tube = self.add(Tube(vid=vid(f"tube {label} {study}"), label=label, study=study))
        if parents:
            self.act(parents, [tube], category=ActionCategory.ALIQUOTING, study=study)
        return tube

    def data(self, label: str, *, study: str | None = None) -> str:
        return self.add(DataSample(vid=vid(f"data {label}"), label=label, study=study or self.main))

    def collection(self, label: str, *members: str) -> str:
        items = tuple(DataMember(role=str(n), object=m) for n, m in enumerate(members))
        return self.add(
            DataCollection(vid=vid(f"list {label}"), label=label, study=self.main, items=items)
        )

    def vessels(self, label: str, *members: str) -> str:
        items = tuple(VesselMember(role=str(n), object=m) for n, m in enumerate(members))
        return self.add(
            VesselsCollection(vid=vid(f"box {label}"), label=label, study=self.main, items=items)
        )

    def device(self, label: str, release: str | None) -> str:
        if (label, release) not in self._devices:
            cls = HardwareDevice if label.startswith("sequencer") else SoftwareProgram
            device = cls(vid=vid(f"device {label} {release}"), label=label, release=release)
            self._devices[label, release] = self.add(device)
        return self._devices[label, release]

    def setup(self, parameters: JsonObject) -> str:
        made = vid(f"setup {json.dumps(parameters, sort_keys=True)}")
        if made not in self.objects:
            self.add(ActionSetup(vid=made, parameters=parameters))
        return made

    def act(
        self,
        inputs: Iterable[str],
        outputs: Iterable[str],
        *,
        tool: str | None = None,
        release: str | None = None,
        status: ActionStatus = ActionStatus.OK,
        category: ActionCategory = ActionCategory.PROCESSING,
        study: str | None = None,
        day: int | None = None,
        parameters: JsonObject | None = None,
    ) -> str:
        """An action on `day` of 2026 (1 is 1 January); by default each is a day after the last."""
        self._actions += 1
        begin = BEGIN + timedelta(days=(day or self._actions) - 1)
        return self.add(
            Action(
                vid=vid(f"action {self._actions}"),
                category=category,
                study=study or self.main,
                device=self.device(tool, release) if tool else None,
                setup=None if parameters is None else self.setup(parameters),
                status=status,
                begin=begin,
                end=begin + timedelta(hours=1),
                inputs=tuple(Port(role="input", object=item) for item in inputs),
                outputs=tuple(Port(role=f"out{n}", object=o) for n, o in enumerate(outputs)),
            )
        )

    def reads(self, label: str, *samples: str) -> str:
        """Data taken from samples, by a sequencer."""
        made = self.data(label)
        self.act(
            samples,
            [made],
            tool="sequencer",
            release="1",
            category=ActionCategory.MEASUREMENT,
        )
        return made

    def typing(
        self,
        label: str,
        *inputs: str,
        release: str | None = "2.2.0",
        day: int | None = None,
        parameters: JsonObject | None = None,
    ) -> str:
        """A typing result of the tool that the tests look for."""
        made = self.data(label)
        self.act(inputs, [made], tool=TOOL, release=release, day=day, parameters=parameters)
        return made

    def isolate(self, name: str, consent: ConsentStatus | None = ConsentStatus.GIVEN) -> str:
        """A donor KP-name, its tube T-name and its reads R-name; returns the reads."""
        return self.reads(f"R-{name}", self.tube(f"T-{name}", self.donor(f"KP-{name}", consent)))

    def supersede(self, old: str, new: str) -> str:
        return self.add(Supersession(vid=vid(f"supersession {old} {new}"), new=new, old=old))

    def criteria(
        self,
        *,
        tool: str | None = "kleborate_typing",
        release: str | None = "<3",
        since: datetime | None = None,
        until: datetime | None = None,
        scope: str = "research",
        study: str | None = None,
        params: tuple[tuple[str, str], ...] = (),
        reference: str | None = None,
    ) -> Criteria:
        return Criteria(
            study=study or self.main,
            tool=tool,
            release=release,
            since=since,
            until=until,
            scope=scope,
            params=params,
            reference=reference,
        )

    def select(self, criteria: Criteria | None = None, *, today: date = TODAY) -> Selection:
        self.save()
        return select(self.catalog, criteria or self.criteria(), today=today)


def labels(rows: Sequence[SelectedSample]) -> list[str]:
    return [row.label for row in rows]


def codes(selection: Selection) -> dict[str, str]:
    return {row.label: row.code.value for row in selection.excluded}
