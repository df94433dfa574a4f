"""What a collection is, by content: its VID, its members, and the data that are in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from biobank_core.galaxy import identity
from biobank_core.galaxy.records import CollectionRecord, ElementRecord


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A collection: (element identifier, VID) each in order; `inner` are the collections in it.

    `leaves`: VID of each dataset in it, inner ones included -> its element identifiers from the
    outside in. `complete` is False where an element has no identity and was left out.
    """

    vid: str
    collection_type: str
    items: tuple[tuple[str, str], ...]
    inner: tuple[tuple[str, Shape], ...] = ()
    leaves: dict[str, tuple[str, ...]] = {}
    complete: bool = True

    def with_inner(self) -> Iterator[tuple[str | None, Shape]]:
        """This collection (identifier None) and all inside of it, the innermost first."""
        yield from self._inner()
        yield None, self

    def _inner(self) -> Iterator[tuple[str | None, Shape]]:
        for identifier, shape in self.inner:
            yield from shape._inner()
            yield identifier, shape


def shape_of(record: CollectionRecord, *, maker: str | None, output: str) -> Shape | None:
    """The shape of a collection.

    `maker` is the VID of the action that put it out as `output`: the identity of one that has no
    data at all; None for it where that is not known.
    """
    leaves = sorted(
        identity.data_sample_vid(leaf.dataset_uuid) for leaf in record.leaves() if leaf.dataset_uuid
    )
    if leaves:
        # An empty collection inside: where it is in what.
        return _shape(record, lambda path: identity.empty_collection_vid("in", leaves[0], path))
    if maker is None:
        return None
    return _shape(record, lambda path: identity.empty_collection_vid(maker, output, path))


def _shape(
    record: CollectionRecord,
    empty_vid: Callable[[tuple[str, ...]], str],
    path: tuple[str, ...] = (),
) -> Shape:
    items: list[tuple[str, str]] = []
    inner: list[tuple[str, Shape]] = []
    leaves: dict[str, tuple[str, ...]] = {}
    complete = True
    for element in record.elements:
        here = (*path, element.identifier)
        if element.collection is not None:
            shape = _shape(element.collection, empty_vid, here)
            inner.append((element.identifier, shape))
            items.append((element.identifier, shape.vid))
            leaves |= shape.leaves
            complete = complete and shape.complete
        elif (vid := _vid(element)) is not None:
            items.append((element.identifier, vid))
            leaves[vid] = here
        else:
            complete = False
    vid = identity.collection_vid(record.collection_type, items) if items else empty_vid(path)
    return Shape(
        vid=vid,
        collection_type=record.collection_type,
        items=tuple(items),
        inner=tuple(inner),
        leaves=leaves,
        complete=complete,
    )


def _vid(element: ElementRecord) -> str | None:
    return identity.data_sample_vid(element.dataset_uuid) if element.dataset_uuid else None
