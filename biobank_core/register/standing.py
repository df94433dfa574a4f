"""What stands in the catalog already of the things that rows describe, and whether they agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from biobank_core.catalog.port import Catalog
from biobank_core.errors import ConflictError, InputError
from biobank_core.model.base import Object
from biobank_core.model.kinds import Action, Consent, Device, Study, Vessel
from biobank_core.model.registry import is_a
from biobank_core.register.references import References, chunks
from biobank_core.register.rows import Draft


class RowConflictError(ConflictError):
    """A row that contradicts what stands: in this field, with this value."""

    def __init__(self, reason: str, *, field: str | None = None, value: object = None) -> None:
        self.reason = reason
        self.field = field
        self.value = value
        super().__init__(reason)


class Standing:
    """Finds the object that a row describes, by what is unique of its kind."""

    def __init__(self, catalog: Catalog, references: References) -> None:
        self._catalog = catalog
        self._references = references
        self._by_key: dict[tuple[Any, ...], Object] = {}
        self._makers: dict[str, list[Action]] = defaultdict(list)

    def load(self, drafts: Sequence[Draft]) -> None:
        """Ask for what is not found by label or code within a study."""
        if not drafts:
            return
        kind = drafts[0].kind
        if kind == "Study":
            self._load("Study", "label", {draft.label for draft in drafts})
        elif is_a(kind, "Device"):
            self._load("Device", "label", {draft.label for draft in drafts})
        elif kind == "Consent":
            self._load("Consent", "enrollment", {d.fields.get("enrollment") for d in drafts})

    def key_of(self, draft: Draft) -> tuple[Any, ...] | None:
        """What is unique of this row's kind; None where nothing is, or the row lacks it."""
        kind, fields, label = draft.kind, draft.fields, draft.label
        if kind == "Study":
            return ("Study", label) if label else None
        if is_a(kind, "Device"):
            return ("Device", label, fields.get("release")) if label else None
        if kind == "Consent":
            scope = fields.get("scope", "research")
            return (
                "Consent", fields.get("enrollment"), scope, fields.get("status"), fields.get("from")
            )  # fmt: skip
        if kind in ("Individual", "Enrollment"):
            return ("Enrollment", draft.study, draft.code) if draft.code else None
        return (draft.study, label) if label else None

    def of(self, draft: Draft) -> Object | None:
        """The object that stands, None where there is none.

        Raises InputError where several do (data and collections may share a label).
        """
        kind = draft.kind
        if kind in ("Individual", "Enrollment"):
            if draft.study is None or draft.code is None:
                return None
            enrolled = self._references.enrolled(draft.study, draft.code)
            if enrolled is None or kind == "Enrollment":
                return enrolled
            return self._references.object(enrolled.individual) or self._fetched(
                enrolled.individual
            )
        if draft.study is None or kind == "Consent" or is_a(kind, "Device"):
            key = self.key_of(draft)
            return self._by_key.get(key) if key is not None else None
        if kind == "Study":
            return self._by_key.get(("Study", draft.label))
        base = next(base for base in ("Vessel", "DataSample", "Collection") if is_a(kind, base))
        found = [
            item
            for item in self._references.named(draft.study, draft.label or "")
            if is_a(item.kind, base)
        ]
        if len(found) > 1 and draft.vid:
            found = [item for item in found if item.vid == draft.vid]
        if len(found) > 1:
            vids = ", ".join(item.vid for item in found)
            raise InputError(
                f"several stand under this label; name one in a column `vid`: {vids}",
                field="label",
                value=draft.label,
            )
        return found[0] if found else None

    def prefetch_individuals(self, drafts: Iterable[Draft]) -> None:
        """Ask at once for the individuals behind the codes of these rows."""
        enrolled = (
            self._references.enrolled(draft.study, draft.code)
            for draft in drafts
            if draft.kind == "Individual" and draft.study and draft.code
        )
        self._references.prefetch([item.individual for item in enrolled if item], study=None)

    def barcodes(self, drafts: Iterable[Draft]) -> Iterator[tuple[str, Vessel]]:
        """The barcodes of these rows that vessels bear already."""
        wanted = {code for draft in drafts if (code := draft.row.cells.get("barcode"))}
        for chunk in chunks(sorted(wanted)):
            for item in self._catalog.find("Vessel", {"barcode": tuple(chunk)}):
                if isinstance(item.object, Vessel) and item.object.barcode is not None:
                    yield item.object.barcode, item.object

    def load_makers(self, vids: Sequence[str]) -> None:
        """Ask for the actions that made these objects."""
        actions: set[str] = set()
        for chunk in chunks(vids):
            actions |= {item.vid for item in self._catalog.referring(chunk, ["Action"])}
        wanted = set(vids)
        for chunk in chunks(sorted(actions)):
            for item in self._catalog.get(chunk).values():
                if isinstance(item.object, Action):
                    for port in item.object.outputs:
                        if port.object in wanted:
                            self._makers[port.object].append(item.object)

    def makers_of(self, vid: str) -> list[Action]:
        """The actions that made it, where they were loaded."""
        return self._makers.get(vid, [])

    def _fetched(self, vid: str) -> Object | None:
        found = self._catalog.get([vid]).get(vid)
        return found.object if found else None

    def _load(self, kind: str, field: str, values: set[Any]) -> None:
        for chunk in chunks(sorted(value for value in values if value)):
            for item in self._catalog.find(kind, {field: tuple(chunk)}):
                key = _key(item.object)
                if key is not None:
                    self._by_key[key] = item.object


def compare(draft: Draft, made: Object) -> None:
    """Raises RowConflictError where the row says otherwise than what stands.

    Only what the row says is compared: an empty cell contradicts nothing.
    """
    assert draft.existing is not None
    stands = msgspec.to_builtins(draft.existing)
    says = msgspec.to_builtins(made)
    for name, cell in draft.row.cells.items():
        if name in says and name not in ("kind", "vid") and says[name] != stands.get(name):
            stood = stands.get(name)
            shown = "unknown" if stood is None else repr(stood)
            raise RowConflictError(
                f"{draft.existing.kind} {draft.existing.vid} stands with {shown}; "
                "`biobank load --update` changes what stands",
                field=name,
                value=cell,
            )


def same_action(draft: Draft, made: Action, makers: Sequence[Action]) -> Action | None:
    """The action that stands and says the same; None where none made the vessel yet.

    Raises RowConflictError where another one made it.
    """
    inputs = {port.object for port in made.inputs}
    conflict: RowConflictError | None = None
    cells = draft.row.cells
    for maker in makers:
        stood = {port.object for port in maker.inputs}
        if maker.category is not made.category:
            name, shown = "category", maker.category.value
        elif stood != inputs:
            name, shown = "source", ", ".join(sorted(stood)) or "no source"
        elif "begin" in cells and maker.begin != made.begin:
            name, shown = "begin", maker.begin.isoformat()
        else:
            return maker
        conflict = RowConflictError(
            f"the vessel came by action {maker.vid}, which stands with {shown}",
            field=name,
            value=cells.get(name),
        )
    if conflict is not None:
        raise conflict
    return None


def _key(obj: Object) -> tuple[Any, ...] | None:
    match obj:
        case Study():
            return ("Study", obj.label)
        case Device():
            return ("Device", obj.label, obj.release)
        case Consent():
            begins = obj.valid_from.isoformat() if obj.valid_from else None
            return ("Consent", obj.enrollment, obj.scope, obj.status.value, begins)
    return None
