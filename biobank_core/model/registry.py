"""Which kinds there are, what they refer to, and the one decoder for all of them.

Our own kinds stand in `model.kinds`. Others come from plug-ins: an entry point of the group
`biobank.kinds` that names a subclass of DataSample, Vessel or Device. Its fields are then known to
schema, load, dump, register, select and lineage like those of our own.
"""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from biobank_core.errors import ConfigurationError, InputError
from biobank_core.model import kinds as builtin
from biobank_core.model.base import Object, Reference, Value

# Kinds that are not instantiated: they only give their subclasses fields.
ABSTRACT: Final = frozenset({"Object", "Collection", "Vessel"})
# Our own bookkeeping: kept in the catalog, left out of the change feed and so of every index.
NOT_IN_FEED: Final = frozenset({"Cursor", "Campaign", "CampaignItem"})
# Objects that are nodes of the lineage graph, by their base kinds.
NODE_BASES: Final = ("Individual", "Vessel", "DataSample", "Collection")

PLUGIN_GROUP: Final = "biobank.kinds"
PLUGIN_BASES: Final = (builtin.DataSample, builtin.Vessel, builtin.Device)


class ReferenceField(msgspec.Struct, frozen=True):
    """A field that holds references: `path` is ("study",) or, in a list, ("inputs", "object")."""

    path: tuple[str, ...]
    reference: Reference

    @property
    def name(self) -> str:
        return self.path[0]


@functools.cache
def kinds() -> dict[str, type[Object]]:
    """Every concrete kind by its name, those of plug-ins included.

    Raises ConfigurationError for a plug-in that can't be used, naming it.
    """
    found = {
        name: cls
        for name, cls in inspect.getmembers(builtin, inspect.isclass)
        if issubclass(cls, Object) and name not in ABSTRACT
    }
    for entry in sorted(importlib.metadata.entry_points(group=PLUGIN_GROUP)):
        cls = _plugged_in(entry)
        if cls.__name__ in found or cls.__name__ in ABSTRACT:
            raise ConfigurationError(
                f"plug-in {entry.name!r} ({entry.value}): the kind {cls.__name__} exists already; "
                "remove one of the two packages"
            )
        found[cls.__name__] = cls
    return dict(sorted(found.items()))


def _plugged_in(entry: importlib.metadata.EntryPoint) -> type[Object]:
    try:
        loaded = entry.load()
    except (ImportError, AttributeError) as exc:
        raise ConfigurationError(
            f"plug-in {entry.name!r} ({entry.value}) can't be loaded: {exc}; repair or remove it"
        ) from exc
    if not (inspect.isclass(loaded) and issubclass(loaded, PLUGIN_BASES)):
        allowed = ", ".join(base.__name__ for base in PLUGIN_BASES)
        raise ConfigurationError(
            f"plug-in {entry.name!r} ({entry.value}) is not a subclass of one of {allowed}"
        )
    return loaded


def kind_class(name: str) -> type[Object]:
    """The class of a kind, abstract ones included. Raises InputError for an unknown name."""
    cls = kinds().get(name) or getattr(builtin, name, None)
    if cls is None or not (inspect.isclass(cls) and issubclass(cls, Object)):
        raise InputError(f"unknown kind; known are {', '.join(kinds())}", field="kind", value=name)
    return cls


# Kinds found in a catalog whose plug-in is not installed here, with the names of their bases.
_missing: dict[str, tuple[str, ...]] = {}


def bases(kind: str) -> tuple[str, ...]:
    """The names of the kinds that `kind` counts as, itself first; what a catalog keeps of it."""
    if kind in _missing:
        return _missing[kind]
    return tuple(cls.__name__ for cls in kind_class(kind).__mro__ if issubclass(cls, Object))


def remember_kind(kind: str, recorded_bases: tuple[str, ...]) -> None:
    """Called by a catalog that holds this kind: one that is not known here stays readable."""
    if kind not in kinds() and kind not in _missing:
        _missing[kind] = recorded_bases
        for cached in (is_a, with_subkinds, is_node, reference_fields):
            cached.cache_clear()


def missing_kinds() -> tuple[str, ...]:
    """The kinds that an open catalog holds and whose plug-in is not installed, sorted."""
    return tuple(sorted(_missing))


@functools.cache
def is_a(kind: str, base: str) -> bool:
    """Whether objects of `kind` count as `base` too (a Tube is a Vessel)."""
    return kind == base or base in bases(kind)


@functools.cache
def with_subkinds(base: str) -> frozenset[str]:
    """The concrete kinds that count as `base`. Raises InputError for an unknown name."""
    bases(base)
    return frozenset(name for name in (*kinds(), *_missing) if is_a(name, base))


@functools.cache
def is_node(kind: str) -> bool:
    """Whether such objects stand in the lineage graph."""
    return any(is_a(kind, base) for base in NODE_BASES)


@functools.cache
def reference_fields(kind: str) -> tuple[ReferenceField, ...]:
    """The fields of a kind that refer to other objects, in the order of the class."""
    if kind in _missing:
        return ()
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
