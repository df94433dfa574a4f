"""Finds what the cells of a table refer to, in bulk: VIDs, labels of a study, `study:label`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from biobank_core import addressing
from biobank_core.catalog.port import Catalog, Versioned
from biobank_core.errors import AmbiguousError, InputError, NotFoundError
from biobank_core.model.base import Object
from biobank_core.model.ids import is_vid
from biobank_core.model.kinds import Enrollment, Study, Tombstone
from biobank_core.model.registry import is_a

# How many values one question to the catalog holds; bounds its size on every driver.
_PER_QUESTION: Final = 500
_LABELLED: Final = ("Vessel", "DataSample", "Collection")


class References:
    """What cells refer to. First `prefetch` all texts of a study, then `resolve` each."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._objects: dict[str, Versioned] = {}
        self._labels: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._codes: dict[tuple[str, str], Enrollment] = {}
        self._studies: dict[str, str] = {}
        self._asked_studies: set[str] = set()
        self._devices: dict[str, Versioned] = {}

    def study(self, text: str) -> Study:
        """The study of this label or VID, asked once. Raises NotFoundError."""
        vid = self._studies.get(text)
        if vid is None:
            found = addressing.study(self._catalog, text)
            self._studies[text] = vid = found.vid
            self._objects[vid] = Versioned(found, 0)
        study = self._objects[vid].object
        assert isinstance(study, Study)
        return study

    def prefetch(self, texts: Iterable[str], *, study: str | None) -> None:
        """Ask the catalog for everything that these texts may mean to someone in that study."""
        wanted = set(texts)
        vids = {text for text in wanted if is_vid(text)}
        for chunk in chunks(sorted(vids)):
            self._objects.update(self._catalog.get(chunk))
        names: dict[str, set[str]] = defaultdict(set)
        if study is not None:
            # All of them: a label may be spelled like a VID.
            names[study] |= wanted
        splits = [split for text in wanted - vids for split in _splits(text)]
        new = {left for left, _ in splits} - self._asked_studies
        self._asked_studies |= new
        for item in self._find("Study", "label", sorted(new)):
            assert isinstance(item.object, Study)
            self._studies[item.object.label] = item.object.vid
            self._objects[item.object.vid] = item
        for left, right in splits:
            if left in self._studies:
                names[self._studies[left]].add(right)
        for vid, labels in names.items():
            self._prefetch_in(vid, sorted(labels))

    def resolve(
        self,
        text: str,
        *,
        kinds: tuple[str, ...],
        study: str | None,
        local: Sequence[tuple[str, str]] = (),
        own: str | None = None,
    ) -> str:
        """The VID that a text means; `local` are (VID, kind) of this file that bear that label.

        `own` is the object that refers: where the text may mean another one too, it means that
        (a tube named like the individual it came from). Raises NotFoundError, AmbiguousError, or
        InputError for a VID of another kind.
        """
        if "Study" in kinds:
            return self.study(text).vid
        if any(is_a(base, "Device") for base in kinds):
            return addressing.resolve(self._catalog, text, kinds=kinds).object.vid
        if is_vid(text):
            return self._checked(text, kinds, local)
        found = {vid for vid, kind in local if _fits(kind, kinds)}
        places: list[tuple[str | None, str]] = [(study, text)]
        places += [(self._studies.get(left), right) for left, right in _splits(text)]
        for place, name in places:
            if place is not None:
                found |= set(self._known(place, name, kinds))
        if len(found) > 1:
            found.discard(own or "")
        if not found:
            raise NotFoundError(f"no {' or '.join(kinds)} of this name is known or may be read")
        if len(found) > 1:
            raise AmbiguousError(f"fits several; name one by its VID: {', '.join(sorted(found))}")
        return found.pop()

    def enrolled(self, study: str, code: str) -> Enrollment | None:
        """The enrollment of this code, where it was prefetched."""
        return self._codes.get((study, code))

    def named(self, study: str, label: str) -> Iterator[Object]:
        """The objects of the study with this label, where it was prefetched."""
        for vid in sorted(self._labels.get((study, label), ())):
            yield self._objects[vid].object

    def object(self, vid: str) -> Object | None:
        """The object of this VID, where it was prefetched."""
        found = self._objects.get(vid)
        return found.object if found else None

    def _known(self, study: str, name: str, kinds: tuple[str, ...]) -> Iterator[str]:
        for vid in self._labels.get((study, name), ()):
            if _fits(self._objects[vid].object.kind, kinds):
                yield vid
        enrolled = self._codes.get((study, name))
        if enrolled is not None and "Individual" in kinds:
            yield enrolled.individual
        if enrolled is not None and "Enrollment" in kinds:
            yield enrolled.vid

    def _checked(self, vid: str, kinds: tuple[str, ...], local: Sequence[tuple[str, str]]) -> str:
        here = dict(local)
        known = self.object(vid)
        if known is None and vid not in here:
            raise NotFoundError("no object of this VID is known or may be read")
        if isinstance(known, Tombstone):
            raise NotFoundError(f"this {known.of} has been deleted")
        kind = known.kind if known is not None else here[vid]
        if not _fits(kind, kinds):
            raise InputError(f"is of kind {kind}; here it must be {' or '.join(kinds)}")
        return vid

    def _prefetch_in(self, study: str, names: list[str]) -> None:
        for item in self._find("Enrollment", "code", names, study=study):
            assert isinstance(item.object, Enrollment)
            self._codes[study, item.object.code] = item.object
            self._objects[item.object.vid] = item
        for base in _LABELLED:
            for item in self._find(base, "label", names, study=study):
                label: str = getattr(item.object, "label", "")
                self._labels[study, label].add(item.object.vid)
                self._objects[item.object.vid] = item

    def _find(
        self, kind: str, field: str, values: list[str], *, study: str | None = None
    ) -> Iterator[Versioned]:
        for chunk in chunks(values):
            where: dict[str, Any] = {field: tuple(chunk)}
            if study is not None:
                where["study"] = study
            yield from self._catalog.find(kind, where)


def chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """The values in pieces that fit one question to a catalog."""
    for start in range(0, len(values), _PER_QUESTION):
        yield values[start : start + _PER_QUESTION]


def _fits(kind: str, bases: tuple[str, ...]) -> bool:
    return any(is_a(kind, base) for base in bases)


def _splits(text: str) -> Iterator[tuple[str, str]]:
    for place, char in enumerate(text):
        if char == ":" and 0 < place < len(text) - 1:
            yield text[:place], text[place + 1 :]
