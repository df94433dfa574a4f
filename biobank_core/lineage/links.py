"""From the state of an object to its part of the graph. The same code for every driver.

A link joins each of its inputs with each of its outputs: an action, or a collection (its members
are the inputs, itself is the output). A driver may keep links as they are, or as edges.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from biobank_core.lineage.events import ActionEvent, IndexEvent, Member, NodeEvent
from biobank_core.lineage.port import IMPLICIT_COLLECTION, MAX_EDGES_OF_ACTION, Relation
from biobank_core.model.ids import derived_vid

# An end of a link and its roles there, sorted, each once.
End: TypeAlias = tuple[str, tuple[str, ...]]

NO_ROLES: Final[tuple[str, ...]] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """Every input to every output. `vid` is the action's or the collection's."""

    vid: str
    relation: Relation
    inputs: tuple[End, ...]
    outputs: tuple[End, ...]


@dataclass(frozen=True, slots=True)
class ImplicitCollection:
    """The node that stands between the many inputs and the many outputs of one action."""

    vid: str
    action: str
    study: str | None
    kind: str = IMPLICIT_COLLECTION
    label: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """What one living object gives to the graph beside its own node.

    `uses` are the inputs of an action that has no outputs; `made` are the outputs of an action,
    whose nodes carry it as a maker.
    """

    links: tuple[Link, ...] = ()
    implicit: ImplicitCollection | None = None
    uses: tuple[End, ...] = ()
    made: tuple[str, ...] = ()


def part_of(event: IndexEvent) -> Part:
    """The part of the graph that this state gives; nothing for a deleted object."""
    if event.deleted:
        return Part()
    if isinstance(event, NodeEvent) and event.members:
        members = ends(event.members)
        return Part(
            links=(Link(event.vid, Relation.COLLECTED_IN, members, ((event.vid, NO_ROLES),)),)
        )
    if isinstance(event, ActionEvent):
        return _part_of_action(event)
    return Part()


def ends(members: Iterable[Member]) -> tuple[End, ...]:
    """The nodes in the order they first come, each once with its roles sorted."""
    roles: dict[str, tuple[str, ...]] = {}
    several: dict[str, set[str]] = {}
    for member in members:
        node = member.node
        if node not in roles:
            roles[node] = (member.role,)
        else:  # few are named twice
            several.setdefault(node, set(roles[node])).add(member.role)
    for node, names in several.items():
        roles[node] = tuple(sorted(names))
    return tuple(roles.items())


def implicit_vid(action: str) -> str:
    """The VID of an action's implicit collection."""
    return derived_vid(IMPLICIT_COLLECTION, action)


def _part_of_action(event: ActionEvent) -> Part:
    inputs, outputs = ends(event.inputs), ends(event.outputs)
    made = tuple([node for node, _ in outputs])
    if not outputs:
        return Part(uses=inputs)
    if not inputs:
        return Part(made=made)
    if len(inputs) * len(outputs) <= MAX_EDGES_OF_ACTION:
        return Part(links=(Link(event.vid, Relation.PRODUCED, inputs, outputs),), made=made)
    middle = ImplicitCollection(implicit_vid(event.vid), event.vid, event.study)
    return Part(
        links=(
            Link(middle.vid, Relation.COLLECTED_IN, inputs, ((middle.vid, NO_ROLES),)),
            Link(event.vid, Relation.PRODUCED, ((middle.vid, NO_ROLES),), outputs),
        ),
        implicit=middle,
        made=made,
    )


def nodes_named(part: Part) -> Iterator[str]:
    """Every node that a part speaks of; one that nobody has told of yet is a placeholder."""
    for link in part.links:
        for node, _ in (*link.inputs, *link.outputs):
            yield node
    for node, _ in part.uses:
        yield node
    yield from part.made
