"""Every kind of object, with its fields. Meanings follow OMERO.biobank (CRS4, 2014).

Times are aware UTC datetimes (`...Z` in JSON). Tuples keep their order. A field that is unknown is
None; nothing is ever guessed.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import Enum

import msgspec

from biobank_core.model.base import (
    CampaignRef,
    ContainerRef,
    DataRef,
    DeviceRef,
    EnrollmentRef,
    IndividualRef,
    JsonObject,
    Label,
    NodeRef,
    NonNegativeInt,
    Object,
    OwnCampaignRef,
    SampleRef,
    SetupRef,
    Sha256,
    StudyRef,
    Value,
    VesselMemberRef,
    VolumeUl,
    settle_utc,
)
from biobank_core.model.galaxy import GalaxyCollection, GalaxyDataset, GalaxyJob
from biobank_core.model.ids import Vid


class Gender(Enum):
    """Of an individual; UNKNOWN also where it means nothing (an isolate)."""

    MALE = "MALE"
    FEMALE = "FEMALE"
    OTHER = "OTHER"
    UNKNOWN = "UNKNOWN"


class VesselContent(Enum):
    """What a vessel holds."""

    EMPTY = "EMPTY"
    BLOOD = "BLOOD"
    SERUM = "SERUM"
    PLASMA = "PLASMA"
    SALIVA = "SALIVA"
    TISSUE = "TISSUE"
    CELLS = "CELLS"
    ISOLATE = "ISOLATE"
    DNA = "DNA"
    RNA = "RNA"
    PROTEIN = "PROTEIN"
    OTHER = "OTHER"
    UNKNOWN = "UNKNOWN"


class VesselStatus(Enum):
    """Whether what a vessel holds may be used; the words of OMERO.biobank."""

    UNUSED = "UNUSED"
    CONTENTUSABLE = "CONTENTUSABLE"
    CONTENTCORRUPTED = "CONTENTCORRUPTED"
    UNUSABLE = "UNUSABLE"
    DISCARDED = "DISCARDED"
    UNKNOWN = "UNKNOWN"


class DataStatus(Enum):
    """What people say of a piece of data; the recorder never changes it."""

    USABLE = "USABLE"
    CORRUPTED = "CORRUPTED"
    DESTROYED = "DESTROYED"
    UNKNOWN = "UNKNOWN"


class ConsentStatus(Enum):
    """Whether a consent stands."""

    GIVEN = "given"
    WITHDRAWN = "withdrawn"


class ActionCategory(Enum):
    """What kind of thing was done."""

    IMPORT = "IMPORT"
    CREATION = "CREATION"
    EXTRACTION = "EXTRACTION"
    ALIQUOTING = "ALIQUOTING"
    MEASUREMENT = "MEASUREMENT"
    PROCESSING = "PROCESSING"
    UPDATE = "UPDATE"
    OBJECT_CLONING = "OBJECT_CLONING"


class ActionStatus(Enum):
    """How it ended; the words are those of Galaxy's final job states."""

    OK = "ok"
    ERROR = "error"
    DELETED = "deleted"
    STOPPED = "stopped"
    SKIPPED = "skipped"


class CampaignState(Enum):
    """Where a campaign stands."""

    PLANNED = "planned"
    RUNNING = "running"
    FINISHED = "finished"


class ItemState(Enum):
    """Where one sample of a campaign stands. `submitting` is saved before Galaxy is asked."""

    PLANNED = "planned"
    SUBMITTING = "submitting"
    RUNNING = "running"
    OK = "ok"
    UNCHANGED = "unchanged"
    FAILED = "failed"


class Study(Object, frozen=True, kw_only=True):
    """The context of work and of access."""

    label: Label
    description: str | None = None


class Individual(Object, frozen=True, kw_only=True):
    """A donor or an isolate. It has no label of its own: its codes are in its enrollments."""

    gender: Gender = Gender.UNKNOWN


class Enrollment(Object, frozen=True, kw_only=True):
    """An individual's code within a study."""

    individual: IndividualRef
    study: StudyRef
    code: Label


class Consent(Object, frozen=True, kw_only=True):
    """What an enrollment allows. Several may stand side by side; the latest of a scope counts."""

    enrollment: EnrollmentRef
    scope: Label = "research"
    status: ConsentStatus
    valid_from: date | None = msgspec.field(default=None, name="from")
    until: date | None = None
    document_sha256: Sha256 | None = None

    def __post_init__(self) -> None:
        if self.valid_from and self.until and self.until < self.valid_from:
            raise ValueError(f"until: must not be before from ({self.valid_from.isoformat()})")


class Vessel(Object, frozen=True, kw_only=True):
    """What holds material. Its parents (aliquot, derivative, pool) are the inputs of its action."""

    label: Label
    study: StudyRef
    content: VesselContent = VesselContent.UNKNOWN
    status: VesselStatus = VesselStatus.UNKNOWN
    volume_ul: VolumeUl | None = None
    barcode: Label | None = None
    container: ContainerRef | None = None
    position: Label | None = None

    def __post_init__(self) -> None:
        if self.container == self.vid:
            raise ValueError("container: a vessel can't stand in itself")


class Tube(Vessel, frozen=True, kw_only=True):
    """A tube."""


class PlateWell(Vessel, frozen=True, kw_only=True):
    """A well of a titer plate (`container`), at `position` such as A01."""


class TiterPlate(Vessel, frozen=True, kw_only=True):
    """A plate of wells."""

    rows: NonNegativeInt | None = None
    columns: NonNegativeInt | None = None


class FlowCell(Vessel, frozen=True, kw_only=True):
    """A sequencer's flow cell."""

    number_of_slots: NonNegativeInt | None = None


class Lane(Vessel, frozen=True, kw_only=True):
    """A lane of a flow cell (`container`), its slot in `position`."""


class DataSample(Object, frozen=True, kw_only=True):
    """A piece of data as such; the files that hold it are DataObjects."""

    label: Label
    study: StudyRef
    status: DataStatus = DataStatus.UNKNOWN
    galaxy: GalaxyDataset | None = None


class Measurement(DataSample, frozen=True, kw_only=True):
    """What an instrument gave."""


class SequencingReads(DataSample, frozen=True, kw_only=True):
    """Reads of a sequencer."""


class Assembly(DataSample, frozen=True, kw_only=True):
    """An assembled genome."""


class Alignment(DataSample, frozen=True, kw_only=True):
    """Reads or sequences aligned to a reference."""


class VariantCalls(DataSample, frozen=True, kw_only=True):
    """Variants called against a reference."""


class TypingResult(DataSample, frozen=True, kw_only=True):
    """The result of typing an isolate."""


class DataObject(Object, frozen=True, kw_only=True):
    """A file that holds a data sample; a sample may have several (replicas)."""

    sample: SampleRef
    uri: Label
    size_bytes: NonNegativeInt | None = None
    mimetype: str | None = None
    sha256: Sha256 | None = None


class VesselMember(Value, frozen=True, kw_only=True):
    """A member of a vessels' collection and its role there."""

    role: str
    object: VesselMemberRef


class DataMember(Value, frozen=True, kw_only=True):
    """A member of a data collection; in Galaxy the role is the element identifier."""

    role: str
    object: DataRef


class Collection(Object, frozen=True, kw_only=True):
    """Members with a role each, in order; collections may be nested."""

    label: Label
    study: StudyRef


class VesselsCollection(Collection, frozen=True, kw_only=True):
    """A collection of vessels."""

    items: tuple[VesselMember, ...] = ()

    def __post_init__(self) -> None:
        _refuse_own_member(self.vid, self.items)


class DataCollection(Collection, frozen=True, kw_only=True):
    """A collection of data samples."""

    items: tuple[DataMember, ...] = ()
    galaxy: GalaxyCollection | None = None

    def __post_init__(self) -> None:
        _refuse_own_member(self.vid, self.items)


class Device(Object, frozen=True, kw_only=True):
    """What did it. (label, release) is unique."""

    label: Label
    maker: str | None = None
    model: str | None = None
    release: str | None = None


class SoftwareProgram(Device, frozen=True, kw_only=True):
    """A program. A Galaxy tool: label = tool id (its version taken off), release = version."""


class HardwareDevice(Device, frozen=True, kw_only=True):
    """An instrument."""


class ActionSetup(Object, frozen=True, kw_only=True):
    """The parameters of an action; `ids.derived_vid` of their canonical JSON is the VID."""

    parameters: JsonObject


class Port(Value, frozen=True, kw_only=True):
    """One input or output of an action. Several may share a role (a multiple input)."""

    role: str
    object: NodeRef


class Action(Object, frozen=True, kw_only=True):
    """Something that was done, with everything that went in and came out.

    `flags` says what is not as usual: `partial` (an end without an identity was left out), `cycle`
    (an edge that would close a cycle was left out), `ambiguous-identity`, `unknown-reference` (a
    parameter names reference data that are not registered).

    `without_edge` holds outputs, with their roles, that make no edge because they were not made
    here: copies of what went in, results of a cached job, what would close a cycle.
    """

    category: ActionCategory
    study: StudyRef
    device: DeviceRef | None = None
    setup: SetupRef | None = None
    status: ActionStatus
    begin: datetime
    end: datetime | None = None
    operator: str | None = None
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    without_edge: tuple[Port, ...] = ()
    flags: tuple[str, ...] = ()
    galaxy: GalaxyJob | None = None

    def __post_init__(self) -> None:
        settle_utc(self, "begin", "end")
        if self.end is not None and self.end < self.begin:
            raise ValueError(f"end: must not be before begin ({self.begin.isoformat()})")
        made = {port.object for port in self.outputs}
        for port in self.inputs:
            if port.object in made:
                raise ValueError(f"outputs: {port.object} can't be made from itself")


class Supersession(Object, frozen=True, kw_only=True):
    """A new result that takes the place of an old one; the reanalysis that made it."""

    new: NodeRef
    old: NodeRef
    campaign: CampaignRef | None = None

    def __post_init__(self) -> None:
        if self.new == self.old:
            raise ValueError("new: an object can't supersede itself")


class Tombstone(Object, frozen=True, kw_only=True):
    """What stays of a deleted object; its VID is that object's. Nothing personal."""

    of: str
    time: datetime

    def __post_init__(self) -> None:
        settle_utc(self, "time")


class Campaign(Object, frozen=True, kw_only=True):
    """One planned reanalysis. Not in the change feed."""

    label: Label
    study: StudyRef
    state: CampaignState = CampaignState.PLANNED
    created: datetime
    criteria: JsonObject
    workflow: JsonObject
    galaxy_server: str

    def __post_init__(self) -> None:
        settle_utc(self, "created")


class Attempt(Value, frozen=True, kw_only=True):
    """An earlier, failed try of a campaign's item; `round` 0 is the first."""

    round: int
    history_id: str | None = None
    invocation_id: str | None = None
    error: str | None = None


class CampaignItem(Object, frozen=True, kw_only=True):
    """One sample of a campaign. Not in the change feed.

    `sources` is what the workflow is given, `old` what it is to replace, `new` what came; `planned`
    says the first two in the workflow's own terms. `attempts` are the tries before the one that
    the other fields tell of, which is of `round`.
    """

    campaign: OwnCampaignRef
    sample: NodeRef
    sample_label: str
    reason: str
    sources: tuple[Port, ...] = ()
    old: tuple[Port, ...] = ()
    new: tuple[Port, ...] = ()
    state: ItemState = ItemState.PLANNED
    history_id: str | None = None
    invocation_id: str | None = None
    error: str | None = None
    planned: JsonObject = msgspec.field(default_factory=dict)
    round: int = 0
    attempts: tuple[Attempt, ...] = ()


class Cursor(Object, frozen=True, kw_only=True):
    """How far the recorder read a Galaxy; saved in the same unit as the actions it covers.

    Not in the change feed and never dumped. `position` is Galaxy's own update_time;
    `seen_job_ids` are those recorded near it, `waiting_job_ids` those before it that had not ended
    or could not be read: they are asked for again.
    """

    name: Label
    position: datetime
    seen_job_ids: tuple[str, ...] = ()
    waiting_job_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        settle_utc(self, "position")


def _refuse_own_member(vid: Vid, items: tuple[VesselMember, ...] | tuple[DataMember, ...]) -> None:
    if any(item.object == vid for item in items):
        raise ValueError(f"items: {vid} can't be a member of itself")
