"""What people call objects, to VIDs and back, in bulk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import BinaryIO, Final

from biobank_core.addressing import resolve, study
from biobank_core.catalog.port import Catalog, Versioned
from biobank_core.errors import AmbiguousError, InputError, NotFoundError
from biobank_core.model.base import MAX_LABEL_CHARS, Object
from biobank_core.model.ids import is_vid
from biobank_core.model.kinds import Enrollment, Study
from biobank_core.model.registry import is_a, kind_class, reference_fields

_BATCH: Final = 1_000
# `study:label`, each as long as a label may be.
MAX_ADDRESS_CHARS: Final = 2 * MAX_LABEL_CHARS + 1


@dataclass(frozen=True, slots=True)
class Named:
    """An object by all its names. An individual's label is its codes, `study:code;study:code`."""

    given: str
    vid: str
    kind: str
    label: str
    study: str


class Reason(Enum):
    """Why an address names no object."""

    UNKNOWN = "unknown"
    AMBIGUOUS = "ambiguous"
    WRONG_KIND = "wrong-kind"


@dataclass(frozen=True, slots=True)
class Unresolved:
    """An address that names no object, or several; `detail` says it to a person."""

    given: str
    reason: Reason
    detail: str


def addresses_in(stream: BinaryIO, *, name: str) -> Iterator[str]:
    """The addresses of a UTF-8 file, one a line; empty lines are left out.

    Raises InputError with file and line for what is no UTF-8 or longer than any address.
    """
    # A line may be huge: never more of it is read than an address can have.
    limit = 4 * MAX_ADDRESS_CHARS + 8
    number = 0
    while line := stream.readline(limit):
        number += 1
        try:
            # A line that was cut off may end within a character; it is too long anyway.
            handling = "ignore" if len(line) == limit else "strict"
            text = line.decode("utf-8-sig" if number == 1 else "utf-8", handling).rstrip("\r\n")
        except UnicodeDecodeError as exc:
            raise InputError("is not UTF-8", file=name, line=number) from exc
        if len(text) > MAX_ADDRESS_CHARS or len(line) == limit:
            raise InputError(
                f"longer than an address can be ({MAX_ADDRESS_CHARS} characters)",
                file=name,
                line=number,
            )
        if text:
            yield text


def map_ids(
    catalog: Catalog, addresses: Iterable[str], *, kind: str | None = None
) -> Iterator[Named | Unresolved]:
    """What each address names, in their order; streaming. `kind` as `kinds` of `resolve`.

    Raises InputError for an unknown kind.
    """
    if kind is not None:
        kind_class(kind)
    rest = iter(addresses)
    while some := list(islice(rest, _BATCH)):
        known = catalog.get(text for text in some if is_vid(text))
        results: list[tuple[str, Object] | Unresolved] = []
        for text in some:
            found = _resolved(catalog, text, kind, known)
            results.append(found if isinstance(found, Unresolved) else (text, found))
        named = _named(catalog, [pair for pair in results if not isinstance(pair, Unresolved)])
        for result in results:
            yield result if isinstance(result, Unresolved) else next(named)


def all_ids(catalog: Catalog, *, kind: str, of_study: str | None = None) -> Iterator[Named]:
    """Every object of a kind (subkinds too), of one study where that is given; by VID, streaming.

    Raises NotFoundError for an unknown study, InputError for an unknown kind, or one whose objects
    belong to no study when a study is given.
    """
    kind_class(kind)
    where = {}
    if of_study is not None:
        where["study"] = study(catalog, of_study).vid
    if kind == "Individual" and where:
        enrolled = catalog.find("Enrollment", where)
        people = (e.object.individual for e in enrolled if isinstance(e.object, Enrollment))
        while some := list(islice(people, _BATCH)):
            yield from _named(catalog, [("", item.object) for item in _by_vid(catalog, some)])
        return
    if where and not any(field.path == ("study",) for field in reference_fields(kind)):
        raise InputError("belongs to no study; leave --study out", field="kind", value=kind)
    objects = catalog.find(kind, where)
    while batch := list(islice(objects, _BATCH)):
        yield from _named(catalog, [("", item.object) for item in batch])


def _by_vid(catalog: Catalog, vids: Sequence[str]) -> list[Versioned]:
    return sorted(catalog.get(vids).values(), key=lambda item: item.object.vid)


def _resolved(
    catalog: Catalog, text: str, kind: str | None, known: dict[str, Versioned]
) -> Object | Unresolved:
    item = known.get(text)
    if item is not None and (kind is None or is_a(item.object.kind, kind)):
        return item.object
    try:
        return resolve(catalog, text, kinds=None if kind is None else (kind,)).object
    except NotFoundError as exc:
        return Unresolved(text, Reason.UNKNOWN, str(exc))
    except AmbiguousError as exc:
        return Unresolved(text, Reason.AMBIGUOUS, str(exc))
    except InputError as exc:
        return Unresolved(text, Reason.WRONG_KIND, str(exc))


def _named(catalog: Catalog, pairs: Sequence[tuple[str, Object]]) -> Iterator[Named]:
    """The names of these objects; what was not given by an address gets the one it has."""
    people = [obj.vid for _, obj in pairs if obj.kind == "Individual"]
    referrers = catalog.referring(people, ["Enrollment"]) if people else ()
    enrollments = [
        item.object
        for item in catalog.get(referrer.vid for referrer in referrers).values()
        if isinstance(item.object, Enrollment)
    ]
    wanted = {getattr(obj, "study", None) for _, obj in pairs}
    wanted.update(enrollment.study for enrollment in enrollments)
    studies = {
        vid: item.object.label
        for vid, item in catalog.get(sorted(vid for vid in wanted if vid)).items()
        if isinstance(item.object, Study)
    }
    codes: dict[str, list[str]] = {}
    for one in enrollments:
        code = f"{studies.get(one.study, one.study)}:{one.code}"
        codes.setdefault(one.individual, []).append(code)
    for given, obj in pairs:
        within = getattr(obj, "study", None)
        of_study = studies.get(within, within) if within else ""
        if obj.kind == "Individual":
            label = ";".join(sorted(codes.get(obj.vid, ())))
        else:
            label = getattr(obj, "label", None) or getattr(obj, "code", None) or ""
        address = f"{of_study}:{label}" if of_study and label else label
        yield Named(given or address or obj.vid, obj.vid, obj.kind, label, of_study)
