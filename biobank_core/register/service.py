"""Registers a table: reads it, finds what stands, compares, and saves all of it or nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Final

from biobank_core.catalog.port import Catalog
from biobank_core.errors import (
    BiobankError,
    ConflictError,
    DuplicateError,
    InputError,
    StaleVersionError,
)
from biobank_core.model import codec
from biobank_core.model.base import Object
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import Action, Consent, Enrollment, Individual, Tombstone, Vessel
from biobank_core.register import rows as _rows
from biobank_core.register.references import References
from biobank_core.register.rows import Draft
from biobank_core.register.saving import naming_lines, save
from biobank_core.register.standing import RowConflictError, Standing, compare, same_action
from biobank_core.register.tables import Table, read_table

# A file of another program can be wrong in every row; nobody reads more than this.
MAX_REPORTED: Final = 50

# Others who write at the same time cost us a second look, rarely a third.
_TRIES: Final = 8

# Columns that hold several references.
_LISTS: Final = ("source", "items")


@dataclass(frozen=True, slots=True)
class Registered:
    """What became of one object that a row describes; `new` is false where it stood already."""

    line: int
    kind: str
    vid: str
    label: str
    new: bool


def register(
    catalog: Catalog,
    *,
    file: str,
    kind: str,
    study: str | None = None,
    by: str,
    dry_run: bool = False,
    mapping: Mapping[str, str] | None = None,
    on_problem: Callable[[int, str], object] = lambda _line, _text: None,
) -> list[Registered]:
    """Register the rows of a TSV file; `study` (label or VID) is the one of rows that name none.

    `mapping` as of `tables.read_table`; `on_problem` is told of each wrong row: line and what.
    In file order, one entry an object (an Individual with its Enrollment, a vessel with its
    action). Raises InputError or ConflictError (all rows contradict only what stands) that lists
    up to MAX_REPORTED wrong rows, NotFoundError for an unknown study.
    """
    # Once: a pipe holds nothing for a second look.
    table = read_table(file, mapping=mapping)

    def once() -> list[Registered]:
        # Others wait where the catalog can have that: of one table that is registered twice at
        # once, what has nothing unique would be there twice.
        with nullcontext() if dry_run else catalog.transaction():
            registration = _Registration(catalog, table, kind=kind, study=study)
            return registration.run(by=by, dry_run=dry_run, on_problem=on_problem)

    for _ in range(_TRIES - 1):
        head = catalog.head()
        try:
            return once()
        except (StaleVersionError, DuplicateError):
            # Did somebody write between our reading and our writing? Then we look again.
            if catalog.head() == head:
                raise
    return once()


class _Registration:
    def __init__(
        self,
        catalog: Catalog,
        table: Table,
        *,
        kind: str,
        study: str | None,
    ) -> None:
        self._catalog = catalog
        self._kind = kind
        self._columns = _rows.columns_of(_rows.registrable(kind))
        self._table = table
        _rows.check_header(table.columns, self._columns, file=table.file, kind=kind)
        self._references = References(catalog)
        # A study or a device belongs to none; a study given with them is not even looked up.
        needed = study is not None and "study" in self._columns.references
        needed = needed or (study is not None and kind == "Consent")
        self._study = self._references.study(study).vid if study is not None and needed else None
        self._standing = Standing(catalog, self._references)
        self._problems: list[tuple[int, bool, str]] = []
        self._saves: list[Object] = []
        self._done: list[Registered] = []
        self._local: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)

    def run(
        self, *, by: str, dry_run: bool, on_problem: Callable[[int, str], object]
    ) -> list[Registered]:
        """All steps in order; each takes only the drafts that were right so far."""
        for problem in self._table.problems:
            self._note(problem.line or 0, problem)
        drafts = self._each(self._drafts(), self._settle_study)
        self._prefetch(drafts)
        drafts = self._each(drafts, self._settle_owner)
        self._standing.load(drafts)
        self._standing.prefetch_individuals(drafts)
        drafts = self._each(drafts, self._settle_identity)
        self._refuse_doubles(drafts)
        drafts = self._each(drafts, self._settle_references)
        self._refuse_cycles(drafts)
        self._standing.load_makers([draft.vid for draft in drafts if draft.existing is not None])
        self._each(drafts, self._finish)
        self._raise_problems(on_problem)
        if self._saves:
            lines = {item.vid: item.line for item in self._done}
            with naming_lines(self._table.file, lines):
                save(self._catalog, self._saves, by=by, dry_run=dry_run)
        return self._done

    def _drafts(self) -> Iterator[Draft]:
        for row in self._table.rows:
            for item in _rows.draft_of(row, self._kind, self._columns):
                if isinstance(item, Draft):
                    yield item
                else:
                    self._note(row.line, item)

    def _each(self, drafts: Iterable[Draft], step: Callable[[Draft], None]) -> list[Draft]:
        right = []
        for draft in drafts:
            with self._noting(draft.row.line):
                step(draft)
                right.append(draft)
        return right

    def _settle_study(self, draft: Draft) -> None:
        """Which study the row belongs to, where its kind has one."""
        if "study" not in self._columns.references:
            draft.study = self._study
            return
        cell = draft.row.cells.get("study")
        if cell is not None:
            with _in_field("study", cell):
                draft.study = self._references.study(cell).vid
        else:
            draft.study = self._study
        needed = draft.kind != "Individual" or draft.code is not None
        if needed and draft.study is None:
            raise InputError("needs a study: give --study LABEL or a column `study`", field="study")
        if draft.kind != "Individual":
            draft.fields["study"] = draft.study

    def _prefetch(self, drafts: list[Draft]) -> None:
        texts: dict[str | None, set[str]] = defaultdict(set)
        for draft in drafts:
            wanted = texts[draft.study]
            for name in ("vid", "label", "code", *self._columns.references, "source", "items"):
                cell = draft.row.cells.get(name)
                if cell is not None:
                    wanted.update(_rows.split_list(cell) if name in _LISTS else [cell])
        for study, names in texts.items():
            self._references.prefetch(names, study=study)

    def _settle_owner(self, draft: Draft) -> None:
        """References that are part of what makes an object the same one: of other files only."""
        for name in ("enrollment", "individual"):
            if name in self._columns.references and (cell := draft.row.cells.get(name)):
                draft.fields[name] = self._resolved(draft, name, cell)

    def _settle_identity(self, draft: Draft) -> None:
        existing = self._standing.of(draft)
        if draft.vid:
            known = self._references.object(draft.vid)
            if isinstance(known, Tombstone):
                raise InputError(f"this {known.of} was deleted", field="vid", value=draft.vid)
            if existing is not None and existing.vid != draft.vid:
                raise _taken(draft, existing)
            existing = known
        elif draft.kind == "Individual" and draft.code is None:
            raise InputError(
                "an Individual needs a code in the study, or a vid: without one, reading the file "
                "twice would make it twice",
                field="code",
            )
        if existing is not None and existing.kind != draft.kind:
            raise _taken(draft, existing)
        draft.existing = existing
        draft.vid = existing.vid if existing is not None else draft.vid or new_vid()
        if draft.label is not None and draft.study is not None:
            self._local[draft.study, draft.label].append((draft.vid, draft.kind))

    def _refuse_doubles(self, drafts: list[Draft]) -> None:
        """Two rows of one object, and two objects of one barcode."""
        first: dict[object, Draft] = {}
        for draft in drafts:
            barcode = draft.row.cells.get("barcode")
            for name, key in (
                ("vid", draft.vid),
                ("label", self._standing.key_of(draft)),
                ("barcode", ("barcode", barcode) if barcode else None),
            ):
                if key is None:
                    continue
                other = first.setdefault((name, key), draft)
                if other is not draft:
                    reason = f"this is the {name} of line {other.row.line} already"
                    field = name if name in draft.row.cells else "code"
                    value = draft.row.cells.get(field)
                    error = InputError(reason, field=field if value else None, value=value)
                    self._note(draft.row.line, error)
                    break
        for barcode, vessel in self._standing.barcodes(drafts):
            draft = first["barcode", ("barcode", barcode)]
            if vessel.vid != draft.vid:
                reason = f"is the barcode of {vessel.kind} {vessel.vid} already"
                taken = RowConflictError(reason, field="barcode", value=barcode)
                self._note(draft.row.line, taken)

    def _settle_references(self, draft: Draft) -> None:
        cells = draft.row.cells
        for name in self._columns.references:
            if name in ("study", "enrollment", "individual", "items") or name not in cells:
                continue
            draft.fields[name] = self._resolved(draft, name, cells[name])
        if "items" in cells and "items" in self._columns.names:
            draft.fields["items"] = [
                {"role": text, "object": self._resolved(draft, "items", text)}
                for text in _rows.split_list(cells["items"])
            ]
        if "source" in cells:
            kinds = _rows.SOURCE_KINDS
            found = (
                self._resolved(draft, "source", text, kinds)
                for text in _rows.split_list(cells["source"])
            )
            draft.sources = tuple(dict.fromkeys(found))
            if draft.vid in draft.sources:
                raise InputError(
                    "a vessel can't be its own source", field="source", value=cells["source"]
                )

    def _resolved(
        self, draft: Draft, name: str, text: str, kinds: tuple[str, ...] | None = None
    ) -> str:
        local = self._local.get((draft.study or "", text), ())
        with _in_field(name, text):
            return self._references.resolve(
                text,
                kinds=kinds or self._columns.references[name],
                study=draft.study,
                local=local,
                own=draft.vid or None,
            )

    def _refuse_cycles(self, drafts: list[Draft]) -> None:
        by_vid = {draft.vid: draft for draft in drafts}
        for name in ("source", "container"):
            graph = {
                draft.vid: [
                    vid
                    for vid in (draft.sources if name == "source" else [draft.fields.get(name)])
                    if vid in by_vid and vid != draft.vid
                ]
                for draft in drafts
            }
            try:
                TopologicalSorter(graph).prepare()
            except CycleError as exc:
                ring = [by_vid[vid] for vid in exc.args[1]]
                names = " -> ".join(draft.label or draft.vid for draft in ring)
                first = min(ring, key=lambda draft: draft.row.line)
                error = InputError(
                    f"these rows come from each other in a ring: {names}",
                    field=name,
                    value=first.row.cells.get(name),
                )
                self._note(first.row.line, error)

    def _finish(self, draft: Draft) -> None:
        made = _rows.object_of(draft)
        if draft.existing is not None:
            compare(draft, made)
        self._keep(draft, made, new=draft.existing is None)
        if isinstance(made, Individual) and draft.code is not None and draft.study is not None:
            self._enroll(draft, draft.study)
        if isinstance(made, Vessel):
            action = _rows.vessel_action(draft)
            if action is not None:
                standing = same_action(draft, action, self._standing.makers_of(draft.vid))
                self._keep(draft, standing or action, new=standing is None)

    def _enroll(self, draft: Draft, study: str) -> None:
        enrolled = self._references.enrolled(study, draft.code or "")
        if enrolled is not None:
            self._keep(draft, enrolled, new=False)
            return
        made = codec.convert(
            {
                "kind": "Enrollment",
                "vid": new_vid(),
                "study": study,
                "code": draft.code,
                "individual": draft.vid,
            }
        )
        self._keep(draft, made, new=True)

    def _keep(self, draft: Draft, made: Object, *, new: bool) -> None:
        if new:
            self._saves.append(made)
        self._done.append(
            Registered(draft.row.line, made.kind, made.vid, _label_of(draft, made), new)
        )

    @contextmanager
    def _noting(self, line: int) -> Iterator[None]:
        try:
            yield
        except BiobankError as exc:
            self._note(line, exc)

    def _note(self, line: int, error: BiobankError) -> None:
        placed = InputError(
            getattr(error, "reason", str(error)),
            file=self._table.file,
            line=line,
            field=getattr(error, "field", None),
            value=getattr(error, "value", None),
        )
        self._problems.append((line, isinstance(error, ConflictError), str(placed)))

    def _raise_problems(self, on_problem: Callable[[int, str], object]) -> None:
        if not self._problems:
            return
        problems = sorted(self._problems, key=lambda problem: problem[0])
        for line, _, text in problems:
            on_problem(line, text)
        texts = [text for _, _, text in problems[:MAX_REPORTED]]
        if len(problems) > MAX_REPORTED:
            texts.append(f"and {len(problems) - MAX_REPORTED} more")
        texts.append(f"nothing of {self._table.file} was saved")
        text = "\n".join(texts)
        if all(conflict for _, conflict, _ in problems):
            raise ConflictError(text)
        raise InputError(text)


@contextmanager
def _in_field(name: str, text: str) -> Iterator[None]:
    """Says of an error in a reference which cell it is in."""
    try:
        yield
    except BiobankError as exc:
        reason = getattr(exc, "reason", str(exc))
        raise InputError(reason, field=name, value=text) from exc


def _taken(draft: Draft, existing: Object) -> RowConflictError:
    field = "label" if draft.label is not None else "code"
    return RowConflictError(
        f"stands already as {existing.kind} {existing.vid}",
        field=field,
        value=draft.row.cells.get(field),
    )


def _label_of(draft: Draft, made: Object) -> str:
    match made:
        case Individual() | Enrollment():
            return draft.code or ""
        case Consent():
            return f"{made.scope} {made.status.value}"
        case Action():
            return made.category.value
    return getattr(made, "label", "")
