"""From the cells of a row to the fields of an object; what is wrong in them, with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from biobank_core.errors import InputError
from biobank_core.model import codec
from biobank_core.model.base import Object
from biobank_core.model.ids import derived_vid, is_vid
from biobank_core.model.kinds import Action, ActionCategory
from biobank_core.model.registry import ABSTRACT, is_a, kind_class, kinds, reference_fields
from biobank_core.register.tables import Row

REGISTRABLE_BASES: Final = (
    "Study", "Individual", "Enrollment", "Consent", "Vessel", "Device", "DataSample", "Collection",
)  # fmt: skip
# What may stand in `source`.
SOURCE_KINDS: Final = ("Individual", "Vessel", "VesselsCollection")
ROLE_SOURCE: Final = "source"
ROLE_VESSEL: Final = "vessel"
ACTION_COLUMNS: Final = ("source", "category", "begin")

# What Galaxy said of an object is not for people to type.
_NOT_IN_TABLES: Final = frozenset({"galaxy"})
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that the tables of a kind may have; `references` by name with their kinds."""

    names: tuple[str, ...]
    numbers: frozenset[str]
    references: Mapping[str, tuple[str, ...]]
    lists: frozenset[str]


@dataclass(slots=True)
class Draft:
    """A row on its way to an object. `fields` are as in JSON Lines, references still missing."""

    row: Row
    kind: str
    fields: dict[str, Any]
    study: str | None = None
    vid: str = ""
    existing: Object | None = None
    sources: tuple[str, ...] = ()

    @property
    def label(self) -> str | None:
        """What others in the file may call it by."""
        return self.row.cells.get("label")

    @property
    def code(self) -> str | None:
        """The code in the study, of an Individual or an Enrollment."""
        return self.row.cells.get("code")


def registrable_kinds() -> tuple[str, ...]:
    """The kinds that a table may hold, those of plug-ins included."""
    return tuple(name for name in kinds() if any(is_a(name, base) for base in REGISTRABLE_BASES))


def registrable(kind: str) -> type[Object]:
    """The class of a kind that tables may hold. Raises InputError for any other name."""
    if kind in ABSTRACT or kind not in registrable_kinds():
        allowed = ", ".join(registrable_kinds())
        raise InputError(f"can't be registered from a table; allowed are {allowed}", value=kind)
    return kind_class(kind)


def columns_of(cls: type[Object]) -> Columns:
    """The columns that tables of this kind may have."""
    kind = cls.__name__
    names = ["kind"]
    numbers: set[str] = set()
    for info in msgspec.structs.fields(cls):
        if info.encode_name in _NOT_IN_TABLES:
            continue
        names.append(info.encode_name)
        if _holds_number(info.type):
            numbers.add(info.encode_name)
    references = {
        item.name: item.reference.kinds for item in reference_fields(kind) if item.name in names
    }
    if kind == "Individual":
        names += ["code", "study"]
        references["study"] = ("Study",)
    if is_a(kind, "Vessel"):
        names += ACTION_COLUMNS
    lists = frozenset({"items"} & set(names))
    return Columns(tuple(names), frozenset(numbers), references, lists)


def check_header(header: Sequence[str], columns: Columns, *, file: str, kind: str) -> None:
    """Raises InputError for a column that tables of this kind do not have."""
    for name in header:
        if name not in columns.names:
            allowed = ", ".join(columns.names)
            raise InputError(
                f"a table of {kind} has no such column; allowed are {allowed}",
                file=file,
                line=1,
                field=name,
            )


def draft_of(row: Row, kind: str, columns: Columns) -> Iterator[Draft | InputError]:
    """The draft of a row after each cell that is wrong in itself."""
    fields: dict[str, Any] = {"kind": kind}
    for name, cell in row.cells.items():
        if name == "kind":
            if cell != kind:
                yield InputError(f"this file is registered as {kind}", field=name, value=cell)
        elif name == "vid":
            if not is_vid(cell):
                yield InputError("a VID is V0 and 32 hex digits (0-9, A-F)", field=name, value=cell)
        elif name in columns.numbers:
            if not _NUMBER.fullmatch(cell):
                yield InputError("must be a plain number", field=name, value=cell)
            else:
                fields[name] = _number(cell)
        elif name not in columns.references and not _is_extra(name, kind):
            fields[name] = cell
    yield Draft(row=row, kind=kind, fields=fields, vid=row.cells.get("vid", ""))


def split_list(cell: str) -> list[str]:
    """The parts of a cell that holds several, `;` between them; each once, in order."""
    return list(dict.fromkeys(part.strip() for part in cell.split(";") if part.strip()))


def object_of(draft: Draft) -> Object:
    """The object of a draft whose references are in. Raises InputError naming field and value."""
    return codec.convert({**draft.fields, "vid": draft.vid})


def vessel_action(draft: Draft) -> Action | None:
    """The action that a vessel came by, where the row says; begun now unless it says when.

    Raises InputError naming field and value.
    """
    cells = draft.row.cells
    if not any(name in cells for name in ACTION_COLUMNS):
        return None
    category = cells.get("category")
    if category is None:
        allowed = ", ".join(item.value for item in ActionCategory)
        raise InputError(
            f"how the vessel came from its source must be said; allowed are {allowed}",
            field="category",
        )
    fields = {
        "kind": "Action",
        # One action a vessel, so that the same row makes the same one.
        "vid": derived_vid("Action", "register", draft.vid),
        "category": category,
        "study": draft.study,
        "status": "ok",
        "begin": _begin(cells.get("begin")),
        "inputs": [{"role": ROLE_SOURCE, "object": vid} for vid in draft.sources],
        "outputs": [{"role": ROLE_VESSEL, "object": draft.vid}],
    }
    try:
        made = codec.convert(fields)
    except InputError as exc:
        # What was typed, not what it was completed to.
        value = cells.get(exc.field or "", exc.value)
        raise InputError(exc.reason, field=exc.field, value=value) from exc
    assert isinstance(made, Action)
    return made


def _begin(cell: str | None) -> str:
    if cell is None:
        return datetime.now(UTC).isoformat(timespec="seconds")
    return f"{cell}T00:00:00Z" if _DAY.fullmatch(cell) else cell


def _is_extra(name: str, kind: str) -> bool:
    if name in ACTION_COLUMNS:
        return is_a(kind, "Vessel")
    return name == "items" or (kind == "Individual" and name == "code")


def _number(cell: str) -> int | float:
    try:
        return int(cell)
    except ValueError:
        return float(cell)


def _holds_number(hint: Any) -> bool:
    """Whether a field is a number or an optional one, Annotated or not."""
    if hint in (int, float):
        return True
    inner = getattr(hint, "__args__", ())
    if getattr(hint, "__metadata__", None):
        return _holds_number(hint.__origin__)
    return bool(inner) and any(_holds_number(part) for part in inner if part is not type(None))
