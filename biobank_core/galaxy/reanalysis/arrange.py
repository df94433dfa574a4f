"""A sample's data as a workflow's input wants them: alone, in a list, in pairs, in records.

What belongs together is known from the collections that were recorded: which of two files is the
forward one is never guessed. Collection types are Galaxy's: `list`, `paired`, `list:paired`, ...,
the outermost first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from biobank_core.catalog.port import Catalog
from biobank_core.errors import InputError
from biobank_core.model.kinds import DataCollection, DataSample

_LIST: Final = "list"
_PAIR: Final = "paired"
_RECORD: Final = "record"
_PAIR_OR_ONE: Final = "paired_or_unpaired"
_KNOWN: Final = frozenset({_LIST, _PAIR, _RECORD, _PAIR_OR_ONE})
# As Galaxy itself calls the element of such a pair of one.
_UNPAIRED: Final = "unpaired"
# Galaxy's own forms offer no deeper ones; each level is a look into the catalog.
_MAX_LEVELS: Final = 6


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What an input is given: a DataSample (`data`), or a collection of such (`type`, `members`).

    `name` is the element identifier, of the outermost one what it is called.
    """

    name: str
    data: str | None = None
    type: str | None = None
    members: tuple[Given, ...] = ()

    def leaves(self) -> Iterator[str]:
        """The VIDs of all data in it."""
        if self.data is not None:
            yield self.data
        for member in self.members:
            yield from member.leaves()


def check_type(collection_type: str | None, *, label: str) -> None:
    """Raises InputError for a collection that a workflow input (`label`) wants and we can't give.

    None is a single dataset.
    """
    levels = collection_type.split(":") if collection_type is not None else []
    # Galaxy's API makes no records inside of other collections.
    inner_record = _RECORD in levels and len(levels) > 1
    if len(levels) > _MAX_LEVELS or not _KNOWN.issuperset(levels) or inner_record:
        raise InputError(
            f"the workflow's input {label!r} wants a collection of type {collection_type!r}; what "
            "can be given are data sets, records, and collections of list, paired and "
            "paired_or_unpaired, such as list:paired"
        )


class Arranger:
    """Arranges data of one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def sample(self, label: str, sources: Sequence[str], wanted: str | None) -> Given:
        """A sample's sources (VIDs of data or of collections) as an input of type `wanted`.

        Raises InputError, saying why, where they do not make one.
        """
        pieces = [self._whole(vid, label) for vid in sources]
        if wanted is None:
            if len(pieces) == 1 and pieces[0].data is not None:
                return pieces[0]
            raise InputError(f"the input takes one data set, and there are {_counted(pieces)}")
        if len(pieces) == 1 and pieces[0].type == wanted:
            return pieces[0]
        found = self._made(label, pieces, wanted)
        if found is None:
            raise InputError(
                f"the input takes a collection of type {wanted}, and there are {_counted(pieces)}"
            )
        return found

    def fixed(self, obj: DataSample | DataCollection, wanted: str | None, *, label: str) -> Given:
        """An object as it is for an input (`label`). Raises InputError for one of another type."""
        given = self._whole(obj.vid, getattr(obj, "label", "") or label)
        if given.type != wanted:
            wants = "one data set" if wanted is None else f"a collection of type {wanted}"
            is_one = "one data set" if given.type is None else f"a collection of type {given.type}"
            raise InputError(f"--input {label}: the workflow wants {wants}; {obj.vid} is {is_one}")
        return given

    def _whole(self, vid: str, name: str, depth: int = 0) -> Given:
        found = self._catalog.get([vid]).get(vid)
        obj = found.object if found else None
        if isinstance(obj, DataSample):
            return Given(name=name, data=vid)
        if not isinstance(obj, DataCollection) or depth > _MAX_LEVELS:
            raise InputError(f"{vid} is no data that a workflow can be given")
        members = tuple(self._whole(one.object, one.role, depth + 1) for one in obj.items)
        kind = obj.galaxy.collection_type if obj.galaxy else None
        inner = {member.type for member in members}
        if kind is None and inner <= {None}:
            kind = _LIST  # registered by hand: data sets side by side
        if kind is None:
            raise InputError(f"the type of the collection {vid} is not known")
        return Given(name=name, type=kind, members=members)

    def _made(self, name: str, pieces: Sequence[Given], wanted: str) -> Given | None:
        """The one collection of this type that has just these pieces; None where there is none."""
        # A pair and its two files may be known both as taken from the sample.
        order = list(dict.fromkeys(vid for piece in pieces for vid in piece.leaves()))
        outer, _, inner = wanted.partition(":")
        if outer != _LIST:
            return self._one(name, set(order), wanted)
        if not inner:
            singles = [piece for piece in pieces if piece.data is not None]
            return _numbered(name, wanted, singles) if len(singles) == len(pieces) else None
        whole = [
            group
            for group in self._recorded(name, set(order), wanted)
            if sorted(group.leaves()) == sorted(order)
        ]
        if len(whole) == 1:
            return whole[0]
        if inner.split(":")[0] == _LIST:
            part = self._made(name, pieces, inner)
            return _numbered(name, wanted, [part]) if part else None
        parts = self._parts(name, pieces, inner)
        parts.sort(key=lambda part: min(map(order.index, part.leaves())))
        held = {vid for part in parts for vid in part.leaves()}
        return _numbered(name, wanted, parts) if parts and held == set(order) else None

    def _parts(self, name: str, pieces: Sequence[Given], inner: str) -> list[Given]:
        """The pieces as collections of the inner type, as far as they make such."""
        parts = [piece for piece in pieces if piece.type == inner]
        left = {vid for piece in pieces for vid in piece.leaves()}
        left.difference_update(vid for part in parts for vid in part.leaves())
        for kind in (inner, _PAIR) if inner == _PAIR_OR_ONE else (inner,):
            for group in self._groups(name, left, kind):
                parts.append(msgspec.structs.replace(group, type=inner))
                left.difference_update(group.leaves())
        if inner == _PAIR_OR_ONE:
            parts += [_alone(name, vid) for vid in sorted(left)]
        return parts

    def _one(self, name: str, leaves: set[str], wanted: str) -> Given | None:
        kinds = (wanted, _PAIR) if wanted == _PAIR_OR_ONE else (wanted,)
        for kind in kinds:
            groups = self._groups(name, leaves, kind)
            if len(groups) == 1 and leaves.issubset(groups[0].leaves()):
                return msgspec.structs.replace(groups[0], type=wanted)
        if wanted == _PAIR_OR_ONE and len(leaves) == 1:
            return _alone(name, *leaves)
        return None

    def _groups(self, name: str, leaves: set[str], wanted: str) -> list[Given]:
        """The recorded collections of this type that hold nothing but some of these data.

        Raises InputError where one piece of data is in two of them: forward here, reverse there.
        """
        groups = self._recorded(name, leaves, wanted)
        taken: dict[str, Given] = {}
        for group in groups:
            for leaf in group.leaves():
                if taken.setdefault(leaf, group) is not group:
                    raise InputError(
                        f"{leaf} is in two recorded collections of type {wanted}; which one is "
                        "meant is not known"
                    )
        return groups

    def _recorded(self, name: str, leaves: set[str], wanted: str) -> list[Given]:
        """All recorded collections of this type that hold nothing but some of these data."""
        found: set[str] = set()
        level = set(leaves)
        for _ in range(wanted.count(":") + 1):
            held = self._catalog.referring(sorted(level), kinds=("DataCollection",))
            level = {referrer.vid for referrer in held}
            found |= level
        groups: list[Given] = []
        for vid, known in sorted(self._catalog.get(found).items()):
            obj = known.object
            galaxy = obj.galaxy if isinstance(obj, DataCollection) else None
            if galaxy is not None and galaxy.collection_type == wanted:
                group = self._whole(vid, name)
                if leaves.issuperset(group.leaves()):
                    groups.append(group)
        return groups


def _alone(name: str, vid: str) -> Given:
    return Given(name=name, type=_PAIR_OR_ONE, members=(Given(name=_UNPAIRED, data=vid),))


def _numbered(name: str, kind: str, parts: Sequence[Given]) -> Given:
    """A list of these, called by the sample's label, with a number where there are several."""
    members = tuple(
        msgspec.structs.replace(part, name=name if len(parts) == 1 else f"{name}_{number}")
        for number, part in enumerate(parts, start=1)
    )
    return Given(name=name, type=kind, members=members)


def _counted(pieces: Sequence[Given]) -> str:
    singles = sum(piece.data is not None for piece in pieces)
    told = [f"{singles} data set{'' if singles == 1 else 's'}"] if singles else []
    told += [f"a collection of type {piece.type}" for piece in pieces if piece.type is not None]
    return " and ".join(told) or "none"
