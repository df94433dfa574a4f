"""A file of JSON Lines into a catalog: read once to check all of it, then again to save it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import IO, Final, TypeVar

import msgspec

from biobank_core.catalog.one import UniqueKey, kind_of, refuse_depth, unique_keys
from biobank_core.catalog.port import Catalog, Change, Delete, Save, Versioned
from biobank_core.errors import ConflictError, DuplicateError, InputError, StaleVersionError
from biobank_core.interchange.lines import Line, LineFile, refuse_repeated_names
from biobank_core.interchange.survey import Fate, Survey
from biobank_core.model import codec
from biobank_core.model.base import Object
from biobank_core.model.kinds import Cursor, Tombstone
from biobank_core.model.registry import kinds

# Objects a commit, and lines looked up in the catalog at once. An action may name thousands, so
# their lines are limited, too: what a commit needs of memory goes by what it names.
_PAGE: Final = 1000
_PAGE_BYTES: Final = 1_000_000
_MAX_SHOWN_CHARS: Final = 80
# Others who write at the same time cost us a second look, rarely a third.
_TRIES: Final = 8

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How many objects were new, changed (with `update`), deleted, and there already."""

    created: int
    updated: int
    deleted: int
    unchanged: int

    @property
    def saved(self) -> int:
        """How many objects have a new version."""
        return self.created + self.updated + self.deleted


def load(
    catalog: Catalog,
    source: str | os.PathLike[str] | IO[bytes],
    *,
    by: str,
    update: bool = False,
    progress: Callable[[float], None] | None = None,
) -> LoadReport:
    """Load a file (or a binary stream), lines in any order, all or nothing.

    A line whose object is in the catalog with equal content changes nothing; with other content it
    is a conflict, or with `update` a new version. A Tombstone line deletes with `update` what is
    there, parts included; in a catalog that never had the object it is saved as it is. `progress`
    is told bytes, up to twice the size of the file. Raises InputError (naming file, line, field and
    value), ConflictError and DuplicateError; then nothing was saved.
    """
    told = progress or (lambda _: None)
    with LineFile(source) as file:
        for _ in range(_TRIES - 1):
            head = catalog.head()
            try:
                return _loaded(file, catalog, by=by, update=update, told=told)
            except (StaleVersionError, DuplicateError):
                # Did somebody write between our reading and our writing? Then we look again.
                if catalog.head() == head:
                    raise
        return _loaded(file, catalog, by=by, update=update, told=told)


def _loaded(
    file: LineFile, catalog: Catalog, *, by: str, update: bool, told: Callable[[float], None]
) -> LoadReport:
    survey = _surveyed(file, catalog, update=update, told=told)
    order = survey.order()
    deletes = survey.of_fate(Fate.DELETED)
    report = LoadReport(
        created=survey.count(Fate.NEW),
        updated=survey.count(Fate.UPDATED),
        deleted=len(deletes),
        unchanged=survey.count(Fate.UNCHANGED),
    )
    try:
        with catalog.transaction():
            for page in _pages(_saves(file, survey, order, told)):
                catalog.commit(page, by=by)
            _delete(catalog, survey, deletes, by=by)
    except InputError as exc:
        raise exc.at(file=file.name) from exc
    return report


def _surveyed(
    file: LineFile, catalog: Catalog, *, update: bool, told: Callable[[float], None]
) -> Survey:
    survey = Survey(file)
    keys = _Keys(file, survey, catalog)
    empty = not catalog.count()
    for page in _pages((line, len(line.data) + 1) for line in file):
        objects = [(line, _object(file, line)) for line in page]
        known: dict[str, Versioned] = {}
        if not empty:
            known = catalog.get(obj.vid for _, obj in objects)
        for line, obj in objects:
            number = survey.add(line, obj)
            if (former := known.get(obj.vid)) is not None:
                place = f"{file.name}, line {line.number}"
                survey.fate[number] = _fate(obj, former.object, place=place, update=update)
                survey.version[number] = former.version
        keys.add(objects, look=not empty)
        told(sum(len(line.data) + 1 for line in page))
    survey.refuse_dangling(catalog)
    keys.refuse_taken()
    return survey


def _object(file: LineFile, line: Line) -> Object:
    try:
        obj = codec.decode(line.data)
        refuse_repeated_names(line.data)
        if isinstance(obj, Cursor):
            raise InputError("cursors are never loaded", field="kind", value="Cursor")
        if isinstance(obj, Tombstone) and (obj.of not in kinds() or obj.of == "Tombstone"):
            raise InputError("unknown kind", field="of", value=obj.of)
        refuse_depth(obj)
    except InputError as exc:
        raise exc.at(file=file.name, line=line.number) from exc
    return obj


def _fate(new: Object, old: Object, *, place: str, update: bool) -> Fate:
    if new == old:
        return Fate.UNCHANGED
    if kind_of(new) != kind_of(old):
        raise ConflictError(
            f"{place}: {new.vid} is a {kind_of(old)} in the catalog and can't become a "
            f"{kind_of(new)}"
        )
    if not update:
        raise ConflictError(
            f"{place}: {new.kind} {new.vid} is in the catalog with other content: "
            f"{_difference(new, old)}; with --update the file's content is saved over it"
        )
    if isinstance(new, Tombstone) and not isinstance(old, Tombstone):
        return Fate.DELETED
    return Fate.UPDATED


def _difference(new: Object, old: Object) -> str:
    if isinstance(old, Tombstone) != isinstance(new, Tombstone):
        there, here = ("deleted", "not") if isinstance(old, Tombstone) else ("not deleted", "it is")
        return f"there it is {there}, here {here}" + ("" if here == "it is" else " deleted")
    for field in msgspec.structs.fields(type(new)):
        before, now = getattr(old, field.name), getattr(new, field.name)
        if before != now:
            return f"field {field.encode_name!r} is {_shown(before)} there, {_shown(now)} here"
    return "it can't be compared"


def _shown(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…"


def _saves(
    file: LineFile, survey: Survey, order: Iterable[int], told: Callable[[float], None]
) -> Iterator[tuple[Save, int]]:
    """What is to be saved, each with the bytes of its line."""
    for number in order:
        data = file.at(survey.offset[number])
        told(len(data) + 1)
        obj = codec.decode(data)
        if obj.vid != survey.vid(number):
            raise InputError("the file was changed while it was read", line=survey.line[number])
        yield Save(object=obj, based_on=survey.version[number]), len(data) + 1


def _delete(catalog: Catalog, survey: Survey, numbers: list[int], *, by: str) -> None:
    if numbers:
        # In one unit, so that none stands in the way of another.
        deletes: list[Change] = [
            Delete(vid=survey.vid(number), based_on=survey.version[number], cascade=True)
            for number in numbers
        ]
        catalog.commit(deletes, by=by)


class _Keys:
    """Labels, codes and barcodes that the file and the catalog may hold only once."""

    def __init__(self, file: LineFile, survey: Survey, catalog: Catalog) -> None:
        self._file = file
        self._survey = survey
        self._catalog = catalog
        self._seen: dict[bytes, int] = {}
        # Taken in the catalog by an object that a later line may give another label.
        self._taken: list[tuple[int, int, UniqueKey]] = []

    def add(self, objects: Iterable[tuple[Line, Object]], *, look: bool) -> None:
        """Take the objects of some lines; with `look` compare with the catalog."""
        asked: dict[tuple[str, str], list[str]] = {}
        wanted: dict[str, tuple[int, UniqueKey]] = {}
        for line, obj in objects:
            for key in unique_keys(obj):
                number = self._survey.number(obj.vid)
                digest = blake2b(key.key.encode(), digest_size=16).digest()
                other = self._seen.setdefault(digest, number)
                if other != number:
                    raise InputError(
                        f"must be unique, and stands in line {self._survey.line[other]} already",
                        file=self._file.name,
                        line=line.number,
                        field=key.field,
                        value=key.value,
                    )
                if look and self._survey.fate[number] != Fate.UNCHANGED:
                    wanted[key.key] = number, key
                    value = getattr(obj, key.field)
                    asked.setdefault((_keyed_kind(obj), key.field), []).append(value)
        for (kind, field), values in asked.items():
            for known in self._catalog.find(kind, {field: tuple(values)}):
                for key in unique_keys(known.object):
                    if key.key in wanted and wanted[key.key][1].field == field:
                        owner = self._survey.number(known.object.vid)
                        if owner != wanted[key.key][0]:
                            self._taken.append((owner, *wanted[key.key]))

    def refuse_taken(self) -> None:
        """Raises DuplicateError for what an object outside the file holds."""
        for owner, number, key in self._taken:
            if self._survey.fate[owner] in (Fate.MENTIONED, Fate.UNCHANGED):
                raise DuplicateError(
                    f"{self._file.name}, line {self._survey.line[number]}, field {key.field!r}: "
                    f"{key.value!r} is taken by {self._survey.vid(owner)}"
                )


def _keyed_kind(obj: Object) -> str:
    """The base kind among which the keys of this object are unique."""
    return next(
        base.__name__
        for base in type(obj).__mro__
        if base.__name__ in ("Study", "Enrollment", "Vessel", "Device")
    )


def _pages(sized: Iterable[tuple[T, int]]) -> Iterator[list[T]]:
    """Lists of values that are given with their bytes: at most _PAGE, and _PAGE_BYTES or one."""
    page: list[T] = []
    size_bytes = 0
    for value, value_bytes in sized:
        if page and (len(page) == _PAGE or size_bytes + value_bytes > _PAGE_BYTES):
            yield page
            page, size_bytes = [], 0
        page.append(value)
        size_bytes += value_bytes
    if page:
        yield page
