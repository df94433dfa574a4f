"""What all kinds share: the VID, typed references, canonical JSON, and how a kind is described."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, Final

import msgspec
import rfc8785
from msgspec import Meta

from biobank_core.model.ids import Vid

# Half a page. Galaxy allows 255 characters in a name; people paste whole sentences.
MAX_LABEL_CHARS: Final = 1000

Label = Annotated[str, Meta(min_length=1, max_length=MAX_LABEL_CHARS)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
NonNegativeInt = Annotated[int, Meta(ge=0)]
VolumeUl = Annotated[float, Meta(ge=0)]

# A JSON object whose meaning belongs to somebody else (a Galaxy tool's parameters).
JsonObject = dict[str, Any]


class OnCascade(Enum):
    """What a cascading delete of the object referred to does to the one that refers to it."""

    REFUSE = "refuse"  # a study with objects in it, a device that made something
    DELETE = "delete"  # a part of the other: a DataObject with its sample
    KEEP = "keep"  # a fact of the past: an action goes on naming the tombstone


class Reference(msgspec.Struct, frozen=True):
    """Marks a field that holds the VID of another object.

    `kinds` names what it may point to, subclasses included. A delete that does not cascade is
    refused while any reference to the object stands.
    """

    kinds: tuple[str, ...]
    on_cascade: OnCascade = OnCascade.REFUSE


def _reference(*kinds: str, on_cascade: OnCascade = OnCascade.REFUSE) -> Meta:
    reference = Reference(kinds=kinds, on_cascade=on_cascade)
    return Meta(pattern=r"^V0[0-9A-F]{32}\Z", extra={"reference": reference})


StudyRef = Annotated[str, _reference("Study")]
IndividualRef = Annotated[str, _reference("Individual", on_cascade=OnCascade.DELETE)]
EnrollmentRef = Annotated[str, _reference("Enrollment", on_cascade=OnCascade.DELETE)]
DeviceRef = Annotated[str, _reference("Device")]
SetupRef = Annotated[str, _reference("ActionSetup")]
SampleRef = Annotated[str, _reference("DataSample", on_cascade=OnCascade.DELETE)]
ContainerRef = Annotated[str, _reference("Vessel")]
# What stands in the graph: material, people, data, and collections of them.
NodeRef = Annotated[
    str,
    _reference("Individual", "Vessel", "DataSample", "Collection", on_cascade=OnCascade.KEEP),
]
DataRef = Annotated[str, _reference("DataSample", "DataCollection", on_cascade=OnCascade.KEEP)]
VesselMemberRef = Annotated[
    str, _reference("Vessel", "VesselsCollection", on_cascade=OnCascade.KEEP)
]
CampaignRef = Annotated[str, _reference("Campaign", on_cascade=OnCascade.KEEP)]
# An item of a campaign goes with it.
OwnCampaignRef = Annotated[str, _reference("Campaign", on_cascade=OnCascade.DELETE)]


class Value(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of an object that has no VID of its own."""


class Object(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag=True,
):
    """Anything that has a VID. Frozen: a change is a new object saved over the old one.

    Subclasses check what concerns several fields in `__post_init__` and raise
    `ValueError("field: what is allowed")`; single fields are checked by their types.
    """

    vid: Vid

    @property
    def kind(self) -> str:
        """The name of the class, as it stands in JSON Lines."""
        return type(self).__name__


class UnreadKind(Object, frozen=True, kw_only=True):
    """An object of a kind whose plug-in is not installed: can be read and dumped, not changed.

    `line` is the object as it was stored; `label` and `study` are read from it where it has them.
    """

    stored_kind: str
    line: bytes
    label: str = ""
    study: str | None = None

    @property
    def kind(self) -> str:
        """The kind under which it was stored."""
        return self.stored_kind


def settle_utc(obj: msgspec.Struct, *fields: str) -> None:
    """Called from `__post_init__`: turns these datetime fields into UTC.

    Raises ValueError for a time without a zone: whose clock it was can't be known later.
    """
    for field in fields:
        value: datetime | None = getattr(obj, field)
        if value is None or value.tzinfo is UTC:
            continue
        if value.tzinfo is None:
            raise ValueError(f"{field}: needs a time zone, such as 2026-01-01T00:00:00Z")
        msgspec.structs.force_setattr(obj, field, value.astimezone(UTC))


def canonical_json(value: object) -> bytes:
    """RFC 8785 canonical JSON, so that equal content gives equal bytes.

    Raises ValueError for what JSON can't say exactly (NaN, integers beyond 2**53).
    """
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]
    except rfc8785.CanonicalizationError as exc:
        raise ValueError(f"no canonical JSON: {exc}") from exc
