"""What a study holds and what was done in it, as counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

import msgspec

from biobank_core.catalog.port import Catalog
from biobank_core.model.kinds import Device, Study

# Kinds whose objects name their study; subkinds are counted by their own names.
_OF_STUDY: Final = ("Enrollment", "Vessel", "DataSample", "Collection", "Action", "Campaign")


@dataclass(frozen=True, slots=True)
class Tool:
    """A device and its release (None: unknown), as actions name it."""

    label: str
    release: str | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts; tools, statuses, categories and months (`2024-02`, UTC, of the begin) of actions.

    Individuals are those enrolled. An action without a device is not among `tools`.
    """

    study: Study
    kinds: dict[str, int]
    tools: dict[Tool, int]
    statuses: dict[str, int]
    categories: dict[str, int]
    months: dict[str, int]


class _Line(msgspec.Struct):
    """The fields that are counted; a catalog's lines have been checked already."""

    kind: str
    individual: str = ""
    category: str = ""
    status: str = ""
    begin: str = ""
    device: str | None = None


def summarize(catalog: Catalog, study: Study) -> Summary:
    """The counts of one study; streaming, without decoding whole objects."""
    read = msgspec.json.Decoder(_Line).decode
    kinds: Counter[str] = Counter()
    people: set[str] = set()
    devices: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    categories: Counter[str] = Counter()
    months: Counter[str] = Counter()
    for base in _OF_STUDY:
        for line in map(read, catalog.lines(base, {"study": study.vid})):
            kinds[line.kind] += 1
            if base == "Enrollment":
                people.add(line.individual)
            elif base == "Action":
                statuses[line.status] += 1
                categories[line.category] += 1
                months[line.begin[: len("2024-02")]] += 1
                if line.device is not None:
                    devices[line.device] += 1
    if people:
        kinds["Individual"] = len(people)
    return Summary(
        study=study,
        kinds=_sorted(kinds),
        tools=_by_tool(catalog, devices),
        statuses=_sorted(statuses),
        categories=_sorted(categories),
        months=_sorted(months),
    )


def _by_tool(catalog: Catalog, devices: Counter[str]) -> dict[Tool, int]:
    tools: Counter[Tool] = Counter()
    known = catalog.get(devices)
    for vid, count in devices.items():
        device = known[vid].object if vid in known else None
        if isinstance(device, Device):
            tools[Tool(device.label, device.release)] += count
        else:  # of a kind whose plug-in is not installed here
            tools[Tool(vid, None)] += count
    return dict(sorted(tools.items(), key=lambda item: (item[0].label, item[0].release or "")))


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))
