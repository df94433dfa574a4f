"""From what people write, a VID or `study:label` (an Individual: `study:code`), to the object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from biobank_core.catalog.port import Catalog, Versioned
from biobank_core.errors import AmbiguousError, InputError, NotFoundError
from biobank_core.model.ids import is_vid
from biobank_core.model.kinds import Enrollment, Study, Tombstone
from biobank_core.model.registry import is_a

# Kinds with a label that is looked up within a study.
_LABELLED_IN_STUDY: Final = ("Vessel", "DataSample", "Collection", "Campaign")
# Kinds with a label of their own, which stands alone.
_LABELLED_ALONE: Final = ("Study", "Device", "Campaign")
# What an address without `kinds` may mean: the nodes of the lineage graph.
_NODES: Final = ("Individual", "Vessel", "DataSample", "Collection")
# Listing more of an ambiguous address helps nobody.
_MAX_LISTED: Final = 20


def resolve(catalog: Catalog, text: str, *, kinds: Iterable[str] | None = None) -> Versioned:
    """The object of an address; subkinds of `kinds` count.

    A VID may be of any kind unless `kinds` says (a Tombstone then must be named); `study:label`
    finds individuals (by code), vessels, data samples and collections unless `kinds` says. Study,
    Device and Campaign, when named in `kinds`, are found by their label alone too. Raises
    NotFoundError (unknown or unreadable), AmbiguousError (lists the VIDs), InputError (a VID of
    another kind).
    """
    wanted = tuple(kinds) if kinds is not None else None
    if is_vid(text):
        return _by_vid(catalog, text, wanted)
    found = {
        item.object.vid: item
        for item in (
            *_by_label(catalog, text, wanted or ()),
            *_in_study(catalog, text, wanted or _NODES),
        )
    }
    if not found:
        raise NotFoundError(
            f"{text!r} is unknown or may not be read; an object is named by its VID or as "
            "study:label (an individual as study:code)"
        )
    if len(found) > 1:
        listed = [f"{vid} ({item.object.kind})" for vid, item in sorted(found.items())]
        more = f" and {len(listed) - _MAX_LISTED} more" if len(listed) > _MAX_LISTED else ""
        raise AmbiguousError(
            f"{text!r} fits {len(listed)} objects; name one by its VID: "
            f"{', '.join(listed[:_MAX_LISTED])}{more}"
        )
    return next(iter(found.values()))


def study(catalog: Catalog, text: str) -> Study:
    """The study of this label or VID. Raises NotFoundError that says how to make one."""
    try:
        found = resolve(catalog, text, kinds=("Study",)).object
    except NotFoundError as exc:
        raise NotFoundError(
            f"study {text!r} is unknown or may not be read; make it with "
            "`biobank register Study FILE.tsv` (a column `label`)"
        ) from exc
    assert isinstance(found, Study)
    return found


def enrollment(catalog: Catalog, text: str) -> Enrollment:
    """The enrollment that `study:code` or its VID names; errors as of `resolve`."""
    found = resolve(catalog, text, kinds=("Enrollment",)).object
    assert isinstance(found, Enrollment)
    return found


def _by_vid(catalog: Catalog, vid: str, wanted: tuple[str, ...] | None) -> Versioned:
    found = catalog.get([vid]).get(vid)
    if found is None:
        raise NotFoundError(f"{vid} is unknown or may not be read")
    kind = found.object.kind
    if wanted is not None and not any(is_a(kind, base) for base in wanted):
        if isinstance(found.object, Tombstone):
            raise NotFoundError(f"{vid} was a {found.object.of} and has been deleted")
        raise InputError(f"{vid} is of kind {kind}; here it must be {' or '.join(wanted)}")
    return found


def _by_label(catalog: Catalog, label: str, wanted: tuple[str, ...]) -> Iterator[Versioned]:
    for base in _LABELLED_ALONE:
        for kind in _narrowed(base, wanted):
            yield from catalog.find(kind, {"label": label})
    if any(is_a(kind, "Device") for kind in wanted if kind != "Tombstone"):
        # A device is one release of something: `kleborate:2.2.0`.
        for name, release in _splits(label):
            yield from catalog.find("Device", {"label": name, "release": release})


def _in_study(catalog: Catalog, text: str, wanted: tuple[str, ...]) -> Iterator[Versioned]:
    splits = dict(_splits(text))
    if not splits:
        return
    for found in catalog.find("Study", {"label": tuple(splits)}):
        assert isinstance(found.object, Study)
        name = splits[found.object.label]
        inside = {"study": found.object.vid, "label": name}
        for base in _LABELLED_IN_STUDY:
            for kind in _narrowed(base, wanted):
                yield from catalog.find(kind, inside)
        if "Individual" in wanted or "Enrollment" in wanted:
            coded = {"study": found.object.vid, "code": name}
            for enrolled in list(catalog.find("Enrollment", coded)):
                assert isinstance(enrolled.object, Enrollment)
                if "Enrollment" in wanted:
                    yield enrolled
                else:
                    person = enrolled.object.individual
                    yield from catalog.get([person]).values()


def _narrowed(base: str, wanted: tuple[str, ...]) -> Iterator[str]:
    """The kinds to ask for: the base where all of it is wanted, else what is wanted of it."""
    if any(is_a(base, kind) for kind in wanted):
        yield base
    else:
        yield from (kind for kind in wanted if is_a(kind, base))


def _splits(text: str) -> Iterator[tuple[str, str]]:
    """Every way to read it as study and label: both may hold colons."""
    for place, char in enumerate(text):
        if char == ":" and 0 < place < len(text) - 1:
            yield text[:place], text[place + 1 :]
