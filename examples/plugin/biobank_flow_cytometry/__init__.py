"""Three kinds of a flow cytometry facility: what it measures, stores, and measures with."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from msgspec import Meta

from biobank_core.model.kinds import DataSample, Device, Vessel


class Compensation(Enum):
    """Whether spill-over between the channels was compensated for."""

    NONE = "NONE"
    INSTRUMENT = "INSTRUMENT"
    SOFTWARE = "SOFTWARE"


class CytometryRun(DataSample, frozen=True, kw_only=True):
    """One run of a tube through a cytometer."""

    event_count: Annotated[int, Meta(ge=0)] | None = None
    fluorochromes: tuple[str, ...] = ()
    compensation: Compensation = Compensation.NONE


class CryoVial(Vessel, frozen=True, kw_only=True):
    """A vial in liquid nitrogen."""

    temperature_c: Annotated[float, Meta(ge=-273.15, le=40)] | None = None


class Cytometer(Device, frozen=True, kw_only=True):
    """A cytometer and the lasers it has."""

    laser_wavelengths_nm: tuple[int, ...] = ()
