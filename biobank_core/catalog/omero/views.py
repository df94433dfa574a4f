"""What people see in OMERO.web: who made what from what, as key-value pairs on Projects and Images.

A Study is shown as a Project, with what it holds and its newest results; an Image that a DataObject
names (`omero://<database uuid>/Image/<id>`) with what it shows. Views are written after the units,
from what the group itself holds: nobody reads a label there that they could not read anyway.
Losing one loses nothing: it is written again when its study next changes, or by `verify --repair`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from omero.model import (
    ImageAnnotationLinkI,
    ImageI,
    MapAnnotationI,
    NamedValue,
    ProjectI,
)
from omero.rtypes import rstring

from biobank_core.catalog.checks import Unit as CheckedUnit
from biobank_core.catalog.omero.mapping import Pair, checksum
from biobank_core.catalog.omero.names import MAX_PAIR_BYTES, OBJECT, PAGE, VIEW
from biobank_core.catalog.omero.rows import Scope
from biobank_core.catalog.omero.session import pages, quietly
from biobank_core.model.base import Object
from biobank_core.model.kinds import Action, DataObject, Device, Individual, Study, Tombstone

# Of a study's results the newest are shown: a table that people read, not the catalog.
_MOST_ACTIONS: Final = 200
_MOST_NAMED: Final = 5
# Who writes for hours shows it now and then, everybody else at the end.
_EVERY_S: Final = 60.0
# Views that are saved at once.
_TOGETHER: Final = 100
_CUT_CHARS: Final = 400
_NOT_HERE: Final = "what another group holds"
_BY_STUDY: Final = (
    " and exists (select b.id from MapAnnotation b join b.mapValue mv"
    " where b.id = a.id and mv.name = 'study' and mv.value = :study)"
)

_COLUMNS: Final = "select l.child.name, l.child.id, l.parent.id, l.child.description"
_LINKS: Final = {
    "Project": f"{_COLUMNS} from ProjectAnnotationLink l where l.child.ns = :ns",
    "Image": f"{_COLUMNS} from ImageAnnotationLink l where l.child.ns = :ns",
}


class View(NamedTuple):
    """A view that is there: the annotation, what it hangs on, and its pairs' text."""

    annotation: int
    parent: int
    description: str


class Views:
    """The views of one group, under one account."""

    def __init__(self, scope: Scope, group: int) -> None:
        self._scope = Scope(scope.session, [group])
        self._session = scope.session
        self._group: Final = group

    def refresh(self, studies: Iterable[str] | None = None) -> None:
        """Show these studies as they are now; None: all, and take away those of deleted ones.

        What this account may not write is left as it is.
        """
        if studies is None:
            shown = {name for name, _ in self._shown("Project")}
            wanted = {*self._all_studies(), *shown}
        else:
            wanted = set(studies)
        found = self._scope.get(wanted)
        for vid in sorted(wanted):
            study = found[vid].object if vid in found else None
            if isinstance(study, Study):
                quietly(functools.partial(self._show, study))
            else:
                quietly(functools.partial(self._take_away, vid))

    def remove_all(self) -> None:
        """Take all away from Projects; the views of Images are annotations and nothing else."""
        for _, view in self._shown("Project"):
            self._remove(view)

    def _all_studies(self) -> list[str]:
        rows = self._scope.rows(
            "select a.name from MapAnnotation a", "a.ns = :ns", ns=f"{OBJECT}Study"
        )
        return [name for (name,) in rows]

    def _shown(self, parent: str, name: str | None = None) -> list[tuple[str, View]]:
        """(VID that it is named by, view) of the views on Projects or Images, oldest first."""
        hql = _LINKS[parent] + (" and l.child.name = :name" if name else "")
        given = {"ns": VIEW, **({"name": name} if name else {})}
        rows = self._session.projection(hql, given, group=self._group)
        return sorted(((row[0], View(*row[1:])) for row in rows), key=lambda one: one[1].annotation)

    # Studies

    def _show(self, study: Study) -> None:
        pairs = [*self._holdings(study), *self._results(study)]
        there = [view for _, view in self._shown("Project", study.vid)]
        if not there:
            project = ProjectI()
            project.name = rstring(_cut(study.label, 255))
            project.description = rstring(study.description or "")
            project.linkAnnotation(_annotation(None, study.vid, pairs))
            self._session.save([project], group=self._group)
        elif there[0].description != _told(pairs):
            changed = _annotation(there[0].annotation, study.vid, pairs)
            self._session.save([changed], group=self._group)
        for view in there[1:]:  # made at the same moment by another one
            self._remove(view)
        if there:
            self._rename(there[0].parent, study)
        self._show_images(study)

    def _rename(self, number: int, study: Study) -> None:
        [project] = self._session.objects(
            "select p from Project p where p.id = :id", {"id": number}, group=self._group
        )
        wanted = (_cut(study.label, 255), study.description or "")
        now = (project.name.val, project.description.val if project.description else "")
        if now != wanted:
            project.name, project.description = map(rstring, wanted)
            self._session.save([project], group=self._group)

    def _take_away(self, vid: str) -> None:
        for _, view in self._shown("Project", vid):
            self._remove(view)

    def _remove(self, view: View) -> None:
        """Delete a view, and its Project unless somebody put something into it."""
        rows = self._session.projection(
            "select l.id from ProjectDatasetLink l where l.parent.id = :id",
            {"id": view.parent},
            group=self._group,
        )
        # The annotation goes with the last object that it hangs on.
        target = {"Annotation": [view.annotation]} if rows else {"Project": [view.parent]}
        self._session.delete(target, group=self._group)

    def _holdings(self, study: Study) -> Iterator[Pair]:
        yield "Study", study.label
        yield "VID", study.vid
        rows = self._session.projection(
            "select a.ns, count(a.id) from MapAnnotation a join a.mapValue mv"
            " where a.ns like :ours and mv.name = 'study' and mv.value = :study group by a.ns",
            {"ours": f"{OBJECT}%", "study": study.vid},
            group=self._group,
        )
        for ns, count in sorted(rows):
            yield ns[len(OBJECT) :], str(count)

    def _results(self, study: Study) -> Iterator[Pair]:
        rows = self._session.projection(
            f"select a.id from MapAnnotation a where a.ns = :ns{_BY_STUDY} order by a.id desc",  # noqa: S608
            {"ns": f"{OBJECT}Action", "study": study.vid},
            group=self._group,
            limit=_MOST_ACTIONS,
        )
        ids = [number for (number,) in rows]
        fulls = self._scope.full_by_id(ids)
        found = self._scope.objects(fulls.values())
        actions = [
            action
            for number in ids
            if number in fulls
            if isinstance(action := found[fulls[number].name].object, Action)
        ]
        named = self._named(actions)
        for action in actions:
            for port in action.outputs:
                yield _label(named, port.object), _how(action, named)
        if len(rows) == _MOST_ACTIONS:
            yield "older ones", "biobank lineage tells of all"

    def _named(self, actions: Iterable[Action]) -> Mapping[str, Object]:
        """The objects that these actions name, as this group holds them."""
        wanted: dict[str, None] = {}
        for action in actions:
            ports = (*action.inputs, *action.outputs)
            wanted.update(dict.fromkeys(port.object for port in ports))
            if action.device is not None:
                wanted[action.device] = None
        return {vid: item.object for vid, item in self._scope.get(wanted).items()}

    # Images

    def _show_images(self, study: Study) -> None:
        images = self._images()
        if not images:
            return
        found = self._scope.get(images)
        files = [one.object for one in found.values() if isinstance(one.object, DataObject)]
        samples = {
            vid: item.object
            for vid, item in self._scope.get({file.sample for file in files}).items()
            if getattr(item.object, "study", None) == study.vid
        }
        makers: dict[str, list[str]] = {}
        for referrer in self._scope.referrers(samples, ["outputs"]):
            makers.setdefault(referrer.target, []).append(referrer.vid)
        vids = {vid for some in makers.values() for vid in some}
        actions = {
            vid: item.object
            for vid, item in self._scope.get(vids).items()
            if isinstance(item.object, Action)
        }
        named = {**self._named(actions.values()), **samples}
        there = dict(reversed(self._shown("Image")))
        items: list[Any] = []
        for file in files:
            if file.sample not in samples:
                continue
            pairs: list[Pair] = [("Study", study.label), ("shows", _label(named, file.sample))]
            pairs.append(("VID", file.sample))
            pairs.extend(
                ("made by", _how(actions[vid], named)) for vid in makers.get(file.sample, ())
            )
            view = there.get(file.vid)
            if view is None or view.parent != images[file.vid]:
                items.append(_on_image(images[file.vid], _annotation(None, file.vid, pairs)))
            elif view.description != _told(pairs):
                items.append(_annotation(view.annotation, file.vid, pairs))
        for some in pages(items, _TOGETHER):
            quietly(functools.partial(self._session.save, some, group=self._group))

    def _images(self) -> dict[str, int]:
        """The Images of this server that DataObjects name, by the DataObject's VID."""
        rows = self._session.projection(
            "select a.name, mv.value from MapAnnotation a join a.mapValue mv"
            " where a.ns = :ns and mv.name = 'uri' and mv.value like :uri",
            {"ns": f"{OBJECT}DataObject", "uri": "omero://%/Image/%"},
            group=self._group,
        )
        if not rows:
            return {}
        server = self._session.call(lambda factory: factory.getConfigService().getDatabaseUuid())
        begin = f"omero://{server}/Image/"
        numbers = {vid: uri.removeprefix(begin) for vid, uri in rows if uri.startswith(begin)}
        wanted = {
            vid: int(text) for vid, text in numbers.items() if text.isascii() and text.isdigit()
        }
        there: set[int] = set()
        for some in pages(sorted(set(wanted.values())), PAGE):
            found = self._session.projection(
                "select i.id from Image i where i.id in (:ids)", {"ids": some}, group=self._group
            )
            there.update(number for (number,) in found)
        return {vid: number for vid, number in wanted.items() if number in there}


def _on_image(number: int, annotation: Any) -> Any:
    link = ImageAnnotationLinkI()
    link.parent = ImageI(number, False)
    link.child = annotation
    return link


def _annotation(number: int | None, name: str, pairs: Sequence[Pair]) -> Any:
    item = MapAnnotationI() if number is None else MapAnnotationI(number, True)
    item.ns = rstring(VIEW)
    item.name = rstring(name)
    # Compared with at the next look; and OMERO logs no change of pairs alone.
    item.description = rstring(_told(pairs))
    item.mapValue = [NamedValue(_cut(key), _cut(value)) for key, value in pairs]
    return item


def _told(pairs: Sequence[Pair]) -> str:
    """A view's pairs in short, so that one that has not changed is not saved."""
    return f"shown by biobank, {checksum(pairs, {})}"


def _how(action: Action, named: Mapping[str, Object]) -> str:
    """Who made it, with what, from what, when."""
    device = named.get(action.device or "")
    tool = action.category.value.lower()
    if isinstance(device, Device):
        tool = " ".join(filter(None, [device.label, device.release]))
    labels = [_label(named, port.object) for port in action.inputs]
    if len(labels) > _MOST_NAMED:
        labels[_MOST_NAMED:] = [f"{len(labels) - _MOST_NAMED} more"]
    parts = [tool]
    if labels:
        parts.append(f"from {', '.join(labels)}")
    if action.operator:
        parts.append(f"by {action.operator}")
    parts.append(f"{action.end or action.begin:%Y-%m-%d %H:%M}")
    if action.status.value != "ok":
        parts.append(f"({action.status.value})")
    return " ".join(parts)


def _label(named: Mapping[str, Object], vid: str) -> str:
    found = named.get(vid)
    if found is None:
        return _NOT_HERE
    if isinstance(found, Tombstone):
        return "what was deleted"
    if isinstance(found, Individual):
        return "an individual"
    label: str = getattr(found, "label", "")
    return label or found.kind


def _cut(text: str, most: int = _CUT_CHARS) -> str:
    """Short enough for a column, and for an index in OMERO's database."""
    assert 4 * most <= MAX_PAIR_BYTES
    return text if len(text) <= most else f"{text[: most - 1]}…"


class Due:
    """Which views of which groups are due, and when they were last written."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        # By group the studies; None: all.
        self._studies: dict[int, set[str] | None] = {}
        self._written_at = time.monotonic()

    def note(self, group: int, unit: CheckedUnit) -> None:
        """A unit was saved in this group."""
        if unit.deletes:
            # What is gone may be named in any of them.
            self.note_all(group)
        elif (known := self._studies.setdefault(group, set())) is not None:
            for vid, draft in unit.saves.items():
                if isinstance(draft.object, Study):
                    known.add(vid)
                known.update(target for field, target in draft.references if field.name == "study")

    def note_all(self, group: int) -> None:
        """Any of a group may have changed."""
        self._studies[group] = None

    def forget(self) -> None:
        """They can't be written now; the next change does it."""
        self._studies.clear()

    def write(self, *, now: bool = False) -> None:
        """Write them when it is time to, or `now`."""
        if self._studies and (now or time.monotonic() - self._written_at > _EVERY_S):
            due, self._studies = self._studies, {}
            for group, studies in due.items():
                quietly(functools.partial(Views(self._scope, group).refresh, studies))
            self._written_at = time.monotonic()
