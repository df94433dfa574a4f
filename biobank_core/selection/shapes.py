"""The few fields that a selection needs, decoded straight from stored lines.

A full object costs several times as much to decode as these, and there are very many of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec

from biobank_core.catalog.port import Catalog
from biobank_core.errors import StorageError
from biobank_core.model.kinds import ActionCategory, ActionStatus, Consent, Enrollment

T = TypeVar("T")


class InputLine(msgspec.Struct, gc=False):
    """The input of an action."""

    object: str


class OutputLine(msgspec.Struct, gc=False):
    """The output of an action."""

    role: str
    object: str


class ActionLine(msgspec.Struct, gc=False):
    """An Action."""

    vid: str
    category: ActionCategory
    status: ActionStatus
    begin: datetime
    device: str | None = None
    setup: str | None = None
    study: str | None = None
    end: datetime | None = None
    inputs: list[InputLine] = []
    outputs: list[OutputLine] = []


class NodeLine(msgspec.Struct, gc=False):
    """Anything that stands in the graph; `items` are a collection's."""

    kind: str
    vid: str
    label: str = ""
    study: str | None = None
    items: list[InputLine] = []


class SupersessionLine(msgspec.Struct):
    """A Supersession."""

    new: str
    old: str


ACTION: Final = msgspec.json.Decoder(ActionLine)
NODE: Final = msgspec.json.Decoder(NodeLine)
SUPERSESSION: Final = msgspec.json.Decoder(SupersessionLine)
ENROLLMENT: Final = msgspec.json.Decoder(Enrollment)
CONSENT: Final = msgspec.json.Decoder(Consent)


def read(
    catalog: Catalog,
    decoder: msgspec.json.Decoder[T],
    kind: str,
    where: Mapping[str, Any] | None = None,
) -> Iterator[T]:
    """The objects of a kind in this shape, in any order. Raises StorageError for a damaged line."""
    decode = decoder.decode
    try:
        for line in catalog.lines(kind, where):
            yield decode(line)
    except msgspec.MsgspecError as exc:
        raise StorageError(f"{catalog.url}: an object of kind {kind} is damaged: {exc}") from exc


def read_kinds(catalog: Catalog, decoders: Mapping[str, msgspec.json.Decoder[T]]) -> Iterator[T]:
    """The objects of exactly these kinds, each in its shape, in any order; reads all there are."""
    kind = ""
    decodes = {name: decoder.decode for name, decoder in decoders.items()}
    try:
        for kind, line in catalog.lines_of(decodes):
            yield decodes[kind](line)
    except msgspec.MsgspecError as exc:
        raise StorageError(f"{catalog.url}: an object of kind {kind} is damaged: {exc}") from exc
