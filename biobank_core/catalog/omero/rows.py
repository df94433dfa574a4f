"""Reading annotations of ours: the state of objects and who refers to whom, in bulk.

`Rows` is the `Present` of the checks. All questions go to the groups that the catalog reads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from biobank_core.catalog.checks import State
from biobank_core.catalog.omero import mapping
from biobank_core.catalog.omero.names import (
    HISTORY,
    OBJECT,
    PAGE,
    PREFIX,
    TEXT,
    TOMBSTONE,
    parse_description,
    version_name,
)
from biobank_core.catalog.omero.session import Session, pages
from biobank_core.catalog.port import Referrer, Versioned
from biobank_core.errors import StorageError, UnreadableError
from biobank_core.model.ids import is_vid
from biobank_core.model.registry import reference_fields

T = TypeVar("T")

# The group in whose context OMERO answers from all groups of the account.
ALL_GROUPS: Final = -1
_WITH_PAIRS: Final = "select a from MapAnnotation a left outer join fetch a.mapValue"


class Found(NamedTuple):
    """An object's annotation without its pairs. `unit` is the name of the commit that wrote it."""

    id: int
    vid: str
    ns: str
    version: int
    unit: str
    group: int
    owner: int

    @property
    def state(self) -> State:
        """What the checks ask for."""
        deleted = self.ns.startswith(TOMBSTONE)
        kind = self.ns[len(TOMBSTONE if deleted else OBJECT) :]
        return State(kind, self.version, deleted)


class Full(NamedTuple):
    """An annotation with its pairs, as it is in OMERO."""

    id: int
    name: str
    ns: str
    description: str
    pairs: list[mapping.Pair]


class Scope:
    """The groups that are read, and the questions asked of them; `groups` may be set anew."""

    def __init__(self, session: Session, groups: Sequence[int]) -> None:
        self.session: Final = session
        self.groups = tuple(groups)

    @property
    def context(self) -> int:
        """The group in whose context a question is asked."""
        return self.groups[0] if len(self.groups) == 1 else ALL_GROUPS

    def where(self, condition: str) -> str:
        """The condition, kept to the groups of this catalog."""
        if len(self.groups) == 1:
            return f" where {condition}"
        return f" where {condition} and a.details.group.id in (:groups)"

    def parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of a question with `where`."""
        if len(self.groups) == 1:
            return dict(given)
        return {**given, "groups": list(self.groups)}

    def rows(self, select: str, condition: str, **given: Any) -> list[list[Any]]:
        """Rows of columns of annotations `a`."""
        return self.session.projection(
            select + self.where(condition), self.parameters(given), group=self.context
        )

    def found(self, vids: Iterable[str]) -> dict[str, Found]:
        """The newest annotations of these objects, without their pairs."""
        return newest(self.found_everywhere(vids))

    def found_everywhere(self, vids: Iterable[str]) -> list[Found]:
        """The same in each group that holds the object. Raises StorageError for two in one."""
        answer: dict[tuple[str, int], Found] = {}
        wanted = [vid for vid in dict.fromkeys(vids) if is_vid(vid)]
        for page in pages(wanted, PAGE):
            rows = self.rows(
                "select a.id, a.name, a.ns, a.description, a.details.group.id,"
                " a.details.owner.id from MapAnnotation a",
                "a.name in (:names)",
                names=list(page),
            )
            for row in rows:
                one = _found(row)
                if one is None:
                    continue
                other = answer.setdefault((one.vid, one.group), one)
                if other is not one:
                    raise StorageError(
                        f"{one.vid} stands in OMERO twice (annotations {other.id} and {one.id}); "
                        "somebody copied one of them: `biobank verify --repair` mends it"
                    )
        return list(answer.values())

    def full(self, names: Iterable[str]) -> dict[str, Full]:
        """The annotations of these names (objects or former versions) with all their pairs."""
        answer: dict[str, Full] = {}
        for page in pages(list(dict.fromkeys(names)), PAGE):
            for one in self._fetched("a.name in (:names)", {"names": list(page)}):
                answer[one.name] = one
        return answer

    def full_by_id(self, ids: Sequence[int]) -> dict[int, Full]:
        """The annotations of these ids; those that are gone are left out."""
        answer: dict[int, Full] = {}
        for page in pages(list(ids), PAGE):
            for one in self._fetched("a.id in (:ids)", {"ids": list(page)}):
                answer[one.id] = one
        return answer

    def _fetched(self, condition: str, given: dict[str, Any]) -> Iterator[Full]:
        # All pairs of each: filtered ones would come with holes, and be lost when saved back.
        for found in self.session.objects(
            _WITH_PAIRS + self.where(condition),
            self.parameters(given),
            group=self.context,
        ):
            ns = found.ns.val if found.ns is not None else ""
            if ns.startswith((OBJECT, TOMBSTONE)) or ns == HISTORY:
                yield Full(
                    id=found.id.val,
                    name=found.name.val,
                    ns=ns,
                    description=found.description.val if found.description is not None else "",
                    pairs=[(pair.name, pair.value) for pair in found.mapValue or () if pair],
                )

    def texts(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The long texts of these versions (`VID/version`)."""
        answer: dict[str, dict[str, Any]] = {}
        for page in pages(list(dict.fromkeys(names)), PAGE):
            rows = self.rows(
                "select a.name, a.textValue from XmlAnnotation a",
                "a.ns = :ns and a.name in (:names)",
                ns=TEXT,
                names=list(page),
            )
            for name, text in rows:
                try:
                    answer[name] = msgspec.json.decode(text or "{}", type=dict[str, Any])
                except msgspec.MsgspecError as exc:
                    raise UnreadableError(f"the long text {name} is no JSON: {exc}") from exc
        return answer

    def objects(self, fulls: Iterable[Full]) -> dict[str, Versioned]:
        """The objects that these annotations hold, by VID."""
        fulls = list(fulls)
        versions = {one.name: _version(one) for one in fulls}
        long = self._long_of(fulls, versions)
        answer: dict[str, Versioned] = {}
        for one in fulls:
            version = versions[one.name]
            made = mapping.decoded(one.name, one.pairs, long.get(version_name(one.name, version)))
            answer[one.name] = Versioned(made, version)
        return answer

    def _long_of(
        self, fulls: Iterable[Full], versions: Mapping[str, int]
    ) -> dict[str, dict[str, Any]]:
        wanted = [
            version_name(one.name, versions[one.name])
            for one in fulls
            if mapping.long_names(one.pairs)
        ]
        return self.texts(wanted) if wanted else {}

    def get(self, vids: Iterable[str]) -> dict[str, Versioned]:
        """The objects of these VIDs, tombstones too."""
        wanted = [vid for vid in dict.fromkeys(vids) if is_vid(vid)]
        answer: dict[str, Versioned] = {}
        for page in pages(wanted, PAGE):
            read = functools.partial(self._newest_full, page)
            answer.update(steadily(read, self.objects))
        return answer

    def _newest_full(self, names: Sequence[str]) -> list[Full]:
        newest: dict[str, Full] = {}
        for one in self._fetched("a.name in (:names)", {"names": list(names)}):
            other = newest.get(one.name)
            if other is None or _version(other) < _version(one):
                newest[one.name] = one
        return list(newest.values())

    def referrers(self, vids: Collection[str], fields: Collection[str] = ()) -> Iterator[Referrer]:
        """Living objects that refer to these, in these fields (empty: in any)."""
        for page in pages([vid for vid in dict.fromkeys(vids) if is_vid(vid)], PAGE):
            seen: set[Referrer] = set()
            rows = self.rows(
                "select a.name, a.ns, mv.name, mv.value from MapAnnotation a join a.mapValue mv",
                "mv.value in (:vids) and a.ns like :ours",
                vids=list(page),
                ours=f"{OBJECT}%",
            )
            yield from self._references(rows, fields, seen)

    def targets(self, vids: Collection[str], fields: Collection[str]) -> Iterator[Referrer]:
        """What these living objects refer to in these fields."""
        for page in pages([vid for vid in dict.fromkeys(vids) if is_vid(vid)], PAGE):
            seen: set[Referrer] = set()
            rows = self.rows(
                "select a.name, a.ns, mv.name, mv.value from MapAnnotation a join a.mapValue mv",
                "a.name in (:vids) and a.ns like :ours",
                vids=list(page),
                ours=f"{OBJECT}%",
            )
            yield from self._references(rows, fields, seen)

    def _references(
        self, rows: Iterable[Sequence[Any]], fields: Collection[str], seen: set[Referrer]
    ) -> Iterator[Referrer]:
        for vid, ns, pair, target in rows:
            kind, field = ns[len(OBJECT) :], mapping.field_of(pair)
            if field not in {known.name for known in reference_fields(kind)}:
                continue
            if fields and field not in fields:
                continue
            referrer = Referrer(vid, kind, field, target)
            # One object may be named twice in one field (a multiple input under two roles).
            if referrer not in seen:
                seen.add(referrer)
                yield referrer


class Rows:
    """The state before a unit. See `checks.Present`; remembers the annotations that it saw."""

    def __init__(self, scope: Scope) -> None:
        self.found: dict[str, Found] = {}
        self.everywhere: dict[tuple[str, int], Found] = {}
        self._scope = scope

    def states(self, vids: Collection[str]) -> dict[str, State]:
        found = self._scope.found_everywhere(vids)
        for one in found:
            self.put(one)
        return {vid: one.state for vid, one in newest(found).items()}

    def put(self, one: Found) -> None:
        """Remember an annotation that was seen."""
        self.everywhere[one.vid, one.group] = one
        self.found.update(newest([one, *filter(None, [self.found.get(one.vid)])]))

    def in_group(self, group: int) -> dict[str, Found]:
        """What was seen in this group."""
        return {vid: one for (vid, place), one in self.everywhere.items() if place == group}

    def owners(self, keys: Collection[str]) -> dict[str, str]:
        by_hash = {mapping.key_of(key): key for key in keys}
        answer: dict[str, str] = {}
        for page in pages(list(by_hash), PAGE):
            rows = self._scope.rows(
                "select a.name, mv.value from MapAnnotation a join a.mapValue mv",
                "mv.value in (:keys) and mv.name = :name and a.ns like :ours",
                keys=list(page),
                name=mapping.KEY,
                ours=f"{OBJECT}%",
            )
            answer.update((by_hash[value], vid) for vid, value in rows)
        return answer

    def referrers(self, vids: Collection[str], fields: Collection[str] = ()) -> Iterator[Referrer]:
        return self._scope.referrers(vids, fields)

    def targets(self, vids: Collection[str], fields: Collection[str]) -> Iterator[Referrer]:
        return self._scope.targets(vids, fields)


def steadily(read: Callable[[], list[Full]], made: Callable[[list[Full]], T]) -> T:
    """What `made` makes of the annotations that `read` gives.

    What is deleted leaves no long texts behind: when one is missing, and the annotations have
    changed since they were read, both are done again.
    """
    fulls = read()
    while True:
        try:
            return made(fulls)
        except UnreadableError:
            before, fulls = fulls, read()
            if fulls == before:
                raise


def newest(found: Iterable[Found]) -> dict[str, Found]:
    """Of the copies of each object the one of the greatest version."""
    answer: dict[str, Found] = {}
    for one in found:
        other = answer.get(one.vid)
        if other is None or other.version < one.version:
            answer[one.vid] = one
    return answer


def _found(row: Sequence[Any]) -> Found | None:
    number, name, ns, description, group, owner = row
    if not isinstance(ns, str) or not ns.startswith((OBJECT, TOMBSTONE)):
        return None
    parsed = parse_description(description)
    if parsed is None:
        raise UnreadableError(
            f"{name}: the description of annotation {number} was changed in OMERO; "
            "`biobank verify --repair` mends it"
        )
    return Found(number, name, ns, parsed[0], parsed[1], group, owner)


def _version(one: Full) -> int:
    parsed = parse_description(one.description)
    if parsed is None:
        raise UnreadableError(
            f"{one.name}: the description of annotation {one.id} was changed in OMERO; "
            "`biobank verify --repair` mends it"
        )
    return parsed[0]


def is_ours(ns: str | None) -> bool:
    """Whether an annotation of this namespace is one of ours."""
    return ns is not None and ns.startswith(PREFIX)
