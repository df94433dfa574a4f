"""What Delete2 takes along: links, orphaned annotations and files, ExternalInfo rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import psycopg

from tests.servers.omero.caller import Caller, Owned
from tests.servers.omero.events import EventWriter
from tests.servers.omero.model import Entity, entities

# Annotations that go with the last object they hang on: always, if one may, if one owner has both.
_WITH_ANYTHING = {"BasicAnnotation", "CommentAnnotation"}
_IF_PERMITTED = {"ListAnnotation", "MapAnnotation", "XmlAnnotation"}
_IF_SAME_OWNER = {"FileAnnotation", "TagAnnotation"}
_CONTENTS = {"ProjectDatasetLink": "Dataset", "DatasetImageLink": "Image"}
_LEAVES = {"ExternalInfo", "OriginalFile", "Annotation"}


class DeletionRefused(Exception):
    """Something in the way; nothing is deleted."""


class Deletion:
    """One Delete2: what goes is found first, then deleted, links before what they link."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        caller: Caller,
        kept: set[str],
    ) -> None:
        self._connection = connection
        self._caller = caller
        self._kept = kept  # classes that childOptions exclude
        self._doomed: dict[str, dict[int, str]] = defaultdict(dict)  # root -> id -> class

    def add_targets(self, entity: Entity, ids: list[int]) -> None:
        """Doom what the caller asks for, or refuse: one may delete all of it or none."""
        whole = entity.java_name
        rows = self._connection.execute(
            f'select id, discriminator, owner_id, group_id from "{entity.table}"'
            " where id = any(%s) and discriminator = any(%s)".encode(),
            [ids, list(entity.subclasses)],
        ).fetchall()
        if entity.root == "Annotation" and len(rows) < len(set(ids)):
            raise DeletionRefused(f"cannot read all the specified objects of class {whole}")
        if missing := sorted(set(ids) - {row[0] for row in rows}):
            raise DeletionRefused(f"cannot read {whole}[{missing[0]}]")
        for row_id, name, owner, group in rows:
            owned = Owned(owner, group)
            if not self._caller.may_read(owned):
                if entity.root == "Annotation":
                    raise DeletionRefused(f"cannot read all the specified objects of class {whole}")
                raise DeletionRefused(f"cannot read {whole}[{row_id}]")
            if not self._caller.may_change(owned):
                java_name = entities()[name].java_name
                raise DeletionRefused(f"not permitted to delete {java_name}[{row_id}]")
            self._doomed[entity.root][row_id] = name

    def find_the_rest(self) -> None:
        """Doom what goes with the targets, until nothing is added."""
        before = -1
        while before != self._count():
            before = self._count()
            self._doom_contents()
            self._doom_annotations()
            self._doom_links()
            self._doom_files()
            self._doom_external_info()

    def doomed(self) -> dict[str, list[int]]:
        """Return the ids by Java class name."""
        found: dict[str, list[int]] = defaultdict(list)
        for rows in self._doomed.values():
            for row_id, name in rows.items():
                found[entities()[name].java_name].append(row_id)
        return {name: sorted(ids) for name, ids in found.items()}

    def file_ids(self) -> list[int]:
        """Return the OriginalFiles whose bytes go."""
        return list(self._doomed.get("OriginalFile", {}))

    def execute(self, events: EventWriter) -> None:
        """Delete the rows; a reference from outside is an IntegrityError."""
        for row_id in self._doomed.get("ExternalInfo", {}):
            self._check_unclaimed(row_id)
        order = sorted(self._doomed, key=lambda root: (root == "ExternalInfo", _depth(root)))
        for root in order:
            table = entities()[root].table
            ids = list(self._doomed[root])
            self._connection.execute(f'delete from "{table}" where id = any(%s)'.encode(), [ids])
            for row_id, name in self._doomed[root].items():
                events.log("DELETE", entities()[name], row_id)

    def _check_unclaimed(self, row_id: int) -> None:
        row = self._connection.execute(
            "select id from annotation where external_id = %s and not id = any(%s)",
            [row_id, list(self._doomed.get("Annotation", {}))],
        ).fetchone()
        if row is not None:
            raise DeletionRefused(
                f"not permitted to update ome.model.annotations.Annotation[{row[0]}]"
            )

    def _count(self) -> int:
        return sum(map(len, self._doomed.values()))

    def _doom(self, root: str, rows: list[tuple[int, str]]) -> None:
        for row_id, name in rows:
            if not self._kept & _line(name):
                self._doomed[root].setdefault(row_id, name)

    def _links(self) -> Iterator[Entity]:
        return (each for each in entities().values() if each.name.endswith("AnnotationLink"))

    def _doom_links(self) -> None:
        for link in [*self._links(), *(entities()[name] for name in _CONTENTS)]:
            for end in ("parent", "child"):
                gone = list(self._doomed.get(entities()[link.fields[end].type].root, {}))
                if gone:
                    rows = self._connection.execute(
                        f'select id from "{link.table}" where {end} = any(%s)'.encode(), [gone]
                    ).fetchall()
                    self._doomed[link.root].update({row[0]: link.name for row in rows})

    def _doom_contents(self) -> None:
        for link_name, content in _CONTENTS.items():
            link, target = entities()[link_name], entities()[content]
            gone = list(self._doomed.get(link.fields["parent"].type, {}))
            if not gone:
                continue
            rows = self._connection.execute(
                f'select c.id, c.owner_id, c.group_id from "{target.table}" c'
                f' where exists (select 1 from "{link.table}" l where l.child = c.id and'
                f' l.parent = any(%s)) and not exists (select 1 from "{link.table}" l'
                " where l.child = c.id and not l.parent = any(%s))".encode(),
                [gone, gone],
            ).fetchall()
            permitted = [
                (row_id, content)
                for row_id, *owned in rows
                if self._caller.may_change(Owned(*owned))
            ]
            self._doom(target.root, permitted)

    def _doom_annotations(self) -> None:
        """Doom annotations that hang on nothing but doomed objects."""
        candidates: dict[int, bool] = {}  # id -> whether an annotated object's owner has it too
        for link in self._links():
            parent = entities()[link.fields["parent"].type]
            parents = list(self._doomed.get(parent.root, {}))
            links = list(self._doomed.get(link.root, {}))
            if not parents and not links:
                continue
            owner = "null" if parent.is_global else "p.owner_id"
            rows = self._connection.execute(
                f"select l.child, coalesce(bool_or(a.owner_id = {owner} and"
                f' p.id = any(%(parents)s)), false) from "{link.table}" l'
                f' join annotation a on a.id = l.child join "{parent.table}" p on p.id = l.parent'
                " where l.parent = any(%(parents)s) or l.id = any(%(links)s)"
                " group by l.child".encode(),
                {"parents": parents, "links": links},
            ).fetchall()
            for row_id, same_owner in rows:
                candidates[row_id] = candidates.get(row_id, False) or same_owner
        for link in self._links():
            if not candidates:
                return
            parents = list(self._doomed.get(entities()[link.fields["parent"].type].root, {}))
            rows = self._connection.execute(
                f'select distinct child from "{link.table}" where child = any(%s)'
                " and not parent = any(%s) and not id = any(%s)".encode(),
                [list(candidates), parents, list(self._doomed.get(link.root, {}))],
            ).fetchall()
            for row in rows:
                candidates.pop(row[0], None)
        rows = self._connection.execute(
            "select id, discriminator, owner_id, group_id from annotation where id = any(%s)",
            [list(candidates)],
        ).fetchall()
        for row_id, name, *owned in rows:
            line = _line(name)
            permitted = self._caller.may_change(Owned(*owned))
            goes = bool(line & _WITH_ANYTHING)
            goes |= permitted and bool(line & _IF_PERMITTED)
            goes |= permitted and candidates[row_id] and bool(line & _IF_SAME_OWNER)
            if goes:
                self._doom("Annotation", [(row_id, name)])

    def _doom_files(self) -> None:
        gone = list(self._doomed.get("Annotation", {}))
        rows = self._connection.execute(
            "select distinct file from annotation a where id = any(%s) and file is not null"
            " and not exists (select 1 from annotation b where b.file = a.file"
            " and not b.id = any(%s))",
            [gone, gone],
        ).fetchall()
        self._doom("OriginalFile", [(row[0], "OriginalFile") for row in rows])
        files = list(self._doomed.get("OriginalFile", {}))
        rows = self._connection.execute(
            "select id from annotation where file = any(%s)", [files]
        ).fetchall()
        self._doomed["Annotation"].update({row[0]: "FileAnnotation" for row in rows})

    def _doom_external_info(self) -> None:
        for root, rows in list(self._doomed.items()):
            found = self._connection.execute(
                f'select external_id from "{entities()[root].table}" where id = any(%s)'
                " and external_id is not null".encode(),
                [list(rows)],
            ).fetchall()
            self._doomed["ExternalInfo"].update({row[0]: "ExternalInfo" for row in found})


def _line(name: str) -> set[str]:
    """Return a class and those above it."""
    line = {name}
    parent = entities()[name].parent
    while parent is not None:
        line.add(parent)
        parent = entities()[parent].parent
    return line


def _depth(root: str) -> int:
    """Order the tables: links first, files after the annotations that name them."""
    if root.endswith("Link"):
        return 0
    return 2 if root in _LEAVES - {"Annotation"} else 1
