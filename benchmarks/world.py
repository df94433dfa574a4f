"""Made-up objects as JSON Lines: the same ones for the same numbers, in an order to be shuffled.

Data in layers of ten: an action takes two pieces of the layer before and makes two of the next.
A component of 100 layers is 1,000 pieces of data with two edges each, and stands by itself, so
that an answer has up to 1,000 objects however large the whole is.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import Final

from biobank_core.model import codec
from biobank_core.model.base import Object
from biobank_core.model.ids import derived_vid
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionSetup,
    ActionStatus,
    Consent,
    ConsentStatus,
    DataObject,
    DataSample,
    Enrollment,
    Individual,
    Port,
    SequencingReads,
    SoftwareProgram,
    Study,
    Tube,
    TypingResult,
)

WIDTH: Final = 10
LAYERS: Final = 100
BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
PERSONS_TUBES: Final = 100


def vid(*parts: object) -> str:
    """The VID of the thing of this name."""
    return derived_vid("Bench", *map(str, parts))


def common() -> list[Object]:
    """What all the others refer to: a study, a tool in two releases, its parameters."""
    parameters = {"threshold": 0.05, "mode": "fast", "rounds": 3}
    return [
        Study(vid=vid("study"), label="BENCH"),
        SoftwareProgram(vid=vid("tool", "1.0"), label="tool", release="1.0"),
        SoftwareProgram(vid=vid("tool", "2.0"), label="tool", release="2.0"),
        ActionSetup(vid=vid("setup"), parameters=parameters),
    ]


def data(name: object) -> DataSample:
    """A piece of data."""
    return DataSample(vid=vid("data", name), label=f"data {name}", study=vid("study"))


def file(name: object, *, size_bytes: int) -> DataObject:
    """The file of a piece of data."""
    return DataObject(
        vid=vid("file", name),
        sample=vid("data", name),
        uri=f"galaxy://bench/datasets/{name}",
        size_bytes=size_bytes,
    )


def action(
    name: object, inputs: list[str], outputs: list[str], *, release: str = "1.0", minute: int = 0
) -> Action:
    """An action of the tool from these VIDs to those."""
    begin = BEGIN + timedelta(minutes=minute)
    return Action(
        vid=vid("action", name),
        category=ActionCategory.PROCESSING,
        study=vid("study"),
        device=vid("tool", release),
        setup=vid("setup"),
        status=ActionStatus.OK,
        begin=begin,
        end=begin + timedelta(seconds=30),
        operator="ada",
        inputs=tuple(Port(role=f"in{n}", object=one) for n, one in enumerate(inputs)),
        outputs=tuple(Port(role=f"out{n}", object=one) for n, one in enumerate(outputs)),
    )


def layered(nodes: int) -> Iterator[Object]:
    """`nodes` pieces of data, and the actions between them."""
    for number in range(nodes):
        yield data(number)
    yield from _actions(nodes)


def mixed(count: int) -> Iterator[Object]:
    """`count` objects as a recorder makes them: of five, two data, two files, one action."""
    nodes = max(0, count - len(common())) * 2 // 5 // 2 * 2
    files = (file(number, size_bytes=number) for number in range(nodes))
    # The first layers have no actions: other data fill up.
    rest = (data(f"rest {number}") for number in range(count))
    yield from islice(chain(common(), layered(nodes), files, rest), count)


def _actions(nodes: int) -> Iterator[Action]:
    chance = random.Random(1)  # noqa: S311  # the same world every time
    for number in range(0, nodes - 1, 2):
        layer, column = divmod(number, WIDTH)
        if layer % LAYERS == 0:
            continue
        before = chance.sample(range((layer - 1) * WIDTH, layer * WIDTH), 2)
        yield action(
            number,
            [vid("data", one) for one in before],
            [vid("data", number), vid("data", number + 1)],
            minute=layer % LAYERS * WIDTH + column,
        )


def typed_samples(count: int) -> Iterator[Object]:
    """`count` tubes with reads and a typing result each; a hundred tubes a person with consent."""
    yield from common()
    for person in range(0, count, PERSONS_TUBES):
        tubes = range(person, min(person + PERSONS_TUBES, count))
        yield Individual(vid=vid("person", person))
        yield Enrollment(
            vid=vid("enrolled", person),
            individual=vid("person", person),
            study=vid("study"),
            code=f"P{person}",
        )
        yield Consent(
            vid=vid("consent", person),
            enrollment=vid("enrolled", person),
            status=ConsentStatus.WITHDRAWN if person % 1000 == 0 else ConsentStatus.GIVEN,
        )
        for tube in tubes:
            yield Tube(vid=vid("tube", tube), label=f"T{tube}", study=vid("study"))
            reads, result = vid("reads", tube), vid("result", tube)
            yield SequencingReads(vid=reads, label=f"reads {tube}", study=vid("study"))
            yield TypingResult(vid=result, label=f"typed {tube}", study=vid("study"))
            yield _by(action(f"measure {tube}", [vid("tube", tube)], [reads]))
            release = "2.0" if tube % 10 == 0 else "1.0"
            yield action(f"type {tube}", [reads], [result], release=release, minute=tube)
        taken = action(
            f"take {person}", [vid("person", person)], [vid("tube", tube) for tube in tubes]
        )
        yield _by(taken)


def _by(made: Action) -> Action:
    """The action without a device: people did it."""
    return Action(
        vid=made.vid,
        category=ActionCategory.MEASUREMENT,
        study=made.study,
        status=made.status,
        begin=made.begin,
        inputs=made.inputs,
        outputs=made.outputs,
    )


def lines(objects: Iterable[Object]) -> Iterator[bytes]:
    """Each as a line with its end."""
    for made in objects:
        yield codec.encode(made) + b"\n"
