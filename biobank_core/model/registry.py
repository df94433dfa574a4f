"""Which kinds there are, what they refer to, and the one decoder for all of them."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from biobank_core.errors import InputError
from biobank_core.model import kinds as builtin
from biobank_core.model.base import Object, Reference, Value

# Kinds that are not instantiated: they only give their subclasses fields.
ABSTRACT: Final = frozenset({"Object", "Collection", "Vessel"})
# Our own bookkeeping: kept in the catalog, left out of the change feed and so of every index.
NOT_IN_FEED: Final = frozenset({"Cursor", "Campaign", "CampaignItem"})
# Objects that are nodes of the lineage graph, by their base kinds.
NODE_BASES: Final = ("Individual", "Vessel", "DataSample", "Collection")


class ReferenceField(msgspec.Struct, frozen=True):
    """A field that holds references: `path` is ("study",) or, in a list, ("inputs", "object")."""

    path: tuple[str, ...]
    reference: Reference

    @property
    def name(self) -> str:
        return self.path[0]


@functools.cache
def kinds() -> dict[str, type[Object]]:
    """Every concrete kind by its name."""
    found = {
        name: cls
        for name, cls in inspect.getmembers(builtin, inspect.isclass)
        if issubclass(cls, Object) and name not in ABSTRACT
    }
    return dict(sorted(found.items()))


def kind_class(name: str) -> type[Object]:
    """The class of a kind, abstract ones included. Raises InputError for an unknown name."""
    cls = kinds().get(name) or getattr(builtin, name, None)
    if cls is None or not (inspect.isclass(cls) and issubclass(cls, Object)):
        raise InputError(f"unknown kind; known are {', '.join(kinds())}", field="kind", value=name)
    return cls


@functools.cache
def is_a(kind: str, base: str) -> bool:
    """Whether objects of `kind` count as `base` too (a Tube is a Vessel)."""
    return kind == base or any(cls.__name__ == base for cls in kind_class(kind).__mro__)


@functools.cache
def with_subkinds(base: str) -> frozenset[str]:
    """The concrete kinds that count as `base`. Raises InputError for an unknown name."""
    kind_class(base)
    return frozenset(name for name in kinds() if is_a(name, base))


@functools.cache
def is_node(kind: str) -> bool:
    """Whether such objects stand in the lineage graph."""
    return any(is_a(kind, base) for base in NODE_BASES)


@functools.cache
def reference_fields(kind: str) -> tuple[ReferenceField, ...]:
    """The fields of a kind that refer to other objects, in the order of the class."""
    found: list[ReferenceField] = []
    for name, hint in typing.get_type_hints(kind_class(kind), include_extras=True).items():
        found.extend(
            ReferenceField(path=(name, *inner), reference=reference)
            for inner, reference in _references_in(hint)
        )
    return tuple(found)


def references(obj: Object) -> Iterator[tuple[ReferenceField, str]]:
    """Each reference that an object holds, with its field."""
    for field in reference_fields(obj.kind):
        value = getattr(obj, field.name)
        if value is None:
            continue
        if len(field.path) == 1:
            yield field, value
        else:
            for item in value:
                yield field, getattr(item, field.path[1])


@functools.cache
def decoder() -> msgspec.json.Decoder[Any]:
    """Decodes one JSON object of any kind, checked."""
    return msgspec.json.Decoder(typing.Union[tuple(kinds().values())])  # noqa: UP007


def _references_in(hint: Any) -> Iterator[tuple[tuple[str, ...], Reference]]:
    if inspect.isclass(hint) and issubclass(hint, Value):
        for name, inner in typing.get_type_hints(hint, include_extras=True).items():
            for path, reference in _references_in(inner):
                yield (name, *path), reference
        return
    if typing.get_origin(hint) is typing.Annotated:
        for extra in hint.__metadata__:
            if isinstance(extra, msgspec.Meta) and extra.extra and "reference" in extra.extra:
                yield (), extra.extra["reference"]
        return
    if typing.get_origin(hint) in (tuple, typing.Union, types.UnionType):
        for inner in typing.get_args(hint):
            yield from _references_in(inner)
