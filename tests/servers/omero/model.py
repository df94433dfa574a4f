"""OMERO's model, read from the sources that omero-py installs: its classes, fields and tables.

The Slice compiler's output says which fields a class has and of what type; omero-py's own classes
say which are required, which classes are global, and the Java name that EventLog and HQL use.
"""

from __future__ import annotations

import enum
import functools
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_CLASS = re.compile(
    r"_t_(\w+) = IcePy\.defineClass\('::omero::model::(?P<name>\w+)', \w+, -1, \(\), "
    r"(?P<abstract>True|False), False, (?P<parent>\S+), \(\), \((?P<members>.*?)\)\)\n",
    re.DOTALL,
)
_MEMBER = re.compile(r"\('_(\w+)', \(\), ([\w.]+),")
_SEQUENCE = re.compile(
    r"_t_(\w+Seq) = IcePy\.defineSequence\('::omero::model::\w+', \(\), _M_omero\.model\._t_(\w+)\)"
)
_INFO = re.compile(r"^ {10}(\w+)=_field_info_data\(wrapper=\S+, nullable=(True|False)\)", re.M)
_JAVA_NAME = re.compile(r'"(ome\.model\.[\w.]+)_details"')
_GLOBAL = re.compile(r"def isGlobal\(self, current = None\):\s+return\s+(True|False)")
# What `a.class` is in a query's answer; the stand-in knows it of annotations only.
_DISCRIMINATORS = {
    "ListAnnotation": "/list/",
    "CommentAnnotation": "/basic/text/comment/",
    "TagAnnotation": "/basic/text/tag/",
    "XmlAnnotation": "/basic/text/xml/",
    "LongAnnotation": "/basic/num/long/",
    "DoubleAnnotation": "/basic/num/double/",
    "BooleanAnnotation": "/basic/bool/",
    "MapAnnotation": "/map/",
    "TimestampAnnotation": "/basic/time/",
    "TermAnnotation": "/basic/term/",
    "FileAnnotation": "/type/OriginalFile/",
}
_NOT_ENTITIES = {"Details", "Permissions"}
SQL_TYPES = {
    "RString": "text",
    "RLong": "bigint",
    "RInt": "integer",
    "RBool": "boolean",
    "RDouble": "double precision",
    "RTime": "bigint",  # milliseconds, as the wire has it
}


class Kind(enum.Enum):
    """What a field is."""

    VALUE = "value"  # type is a key of SQL_TYPES
    ONE = "one"  # type is the class it points to
    MANY = "many"  # type is the elements' class, which points back with `inverse`
    MAP = "map"  # ordered pairs of text
    UNIT = "unit"  # a number and its unit; type is the quantity's class


@dataclass(frozen=True)
class Field:
    """One field of a class; `required` ones are never null."""

    name: str
    kind: Kind
    type: str
    required: bool = False
    inverse: str = ""

    @property
    def column(self) -> str:
        """Its column in the class's table."""
        return self.name.lower()


@dataclass
class Entity:
    """One class of the model; `fields` has the inherited ones too."""

    name: str
    abstract: bool
    parent: str | None
    java_name: str = ""
    is_global: bool = False
    fields: dict[str, Field] = field(default_factory=dict)
    root: str = ""
    subclasses: tuple[str, ...] = ()  # itself included

    @property
    def table(self) -> str:
        """One table holds a whole hierarchy; its column `discriminator` has the class's name."""
        return self.root.lower()

    def of_kind(self, *kinds: Kind) -> Iterator[Field]:
        """Yield its fields of these kinds."""
        return (item for item in self.fields.values() if item.kind in kinds)


@functools.cache
def entities() -> dict[str, Entity]:
    """Return all classes of the model by name."""
    # Found, not imported: these modules want `omero` to be imported in an order of its own.
    found_at = importlib.util.find_spec("omero_model_IObject_ice")
    assert found_at is not None
    assert found_at.origin is not None
    folder = Path(found_at.origin).parent
    declared: dict[str, tuple[bool, str, list[tuple[str, str]]]] = {}
    sequences: dict[str, str] = {}
    for source in sorted(folder.glob("omero_model_*_ice.py")):
        text = source.read_text()
        sequences.update(_SEQUENCE.findall(text))
        for match in _CLASS.finditer(text):
            declared[match["name"]] = (
                match["abstract"] == "True",
                match["parent"].rpartition("_t_")[2],
                _MEMBER.findall(match["members"]),
            )
    found: dict[str, Entity] = {}
    for name in declared:
        if name not in _NOT_ENTITIES and _descends(declared, name):
            parent = declared[name][1]
            found[name] = Entity(name, False, parent if parent != "IObject" else None)
    for item in found.values():
        _read_implementation(folder, item)
    for item in found.values():
        item.root = _ancestors(found, item)[-1].name
        item.subclasses = tuple(
            sorted(other.name for other in found.values() if item in _ancestors(found, other))
        )
    for item in found.values():
        if not item.java_name:
            package = next(
                (found[name].java_name for name in item.subclasses if found[name].java_name), ""
            ).rpartition(".")[0]
            item.java_name = f"{package}.{item.name}"
        for ancestor in reversed(_ancestors(found, item)):
            members = declared[ancestor.name][2]
            _add_fields(item, members, sequences, found)
    for item in found.values():
        _find_inverses(item, found)
    return found


@functools.cache
def by_java_name() -> dict[str, Entity]:
    """Return the classes by their Java names, which HQL accepts too."""
    return {item.java_name: item for item in entities().values()}


def discriminator(name: str) -> str:
    """Return what OMERO's own tables call a class; a KeyError for what is no annotation."""
    return _DISCRIMINATORS[name]


def _descends(declared: dict[str, tuple[bool, str, list[tuple[str, str]]]], name: str) -> bool:
    while name in declared:
        name = declared[name][1]
        if name == "IObject":
            return True
    return False


def _ancestors(found: dict[str, Entity], item: Entity) -> list[Entity]:
    """Return the class itself and those above it, the root last."""
    line = [item]
    while line[-1].parent is not None:
        line.append(found[line[-1].parent])
    return line


def _read_implementation(folder: Path, item: Entity) -> None:
    source = folder / f"omero_model_{item.name}I.py"
    text = source.read_text() if source.exists() else ""
    item.abstract = f"class {item.name}I(" not in text
    if item.abstract:
        return
    match = _JAVA_NAME.search(text)
    item.java_name = match[1] if match else ""
    is_global = _GLOBAL.search(text)
    item.is_global = bool(is_global and is_global[1] == "True")
    item.fields = {
        name: Field(name, Kind.VALUE, "", required=nullable == "False")
        for name, nullable in _INFO.findall(text)
    }


def _add_fields(
    item: Entity,
    members: list[tuple[str, str]],
    sequences: dict[str, str],
    found: dict[str, Entity],
) -> None:
    required = {name for name, old in item.fields.items() if old.required}
    for name, type_path in members:
        type_name = type_path.rpartition("_t_")[2]
        made: Field | None = None
        if type_name in SQL_TYPES:
            made = Field(name, Kind.VALUE, type_name, required=name in required)
        elif type_name in found:
            made = Field(name, Kind.ONE, type_name, required=name in required)
        elif type_name in sequences and name.endswith("Seq"):
            made = Field(name.removesuffix("Seq"), Kind.MANY, sequences[type_name])
        elif type_name == "NamedValueList":
            made = Field(name, Kind.MAP, "")
        elif ".model._t_" in type_path:
            made = Field(name, Kind.UNIT, type_name, required=name in required)
        if made is not None:
            item.fields[made.name] = made


def _find_inverses(item: Entity, found: dict[str, Entity]) -> None:
    # Fields that the sources list but whose type we do not keep (arrays, counts) are left out.
    item.fields = {
        name: old for name, old in item.fields.items() if old.type or old.kind is Kind.MAP
    }
    line = {ancestor.name for ancestor in _ancestors(found, item)}
    for old in list(item.of_kind(Kind.MANY)):
        back = [other.name for other in found[old.type].of_kind(Kind.ONE) if other.type in line]
        # A link between two objects of one class hangs in its parent's collection.
        inverse = "parent" if "parent" in back else (back[0] if back else "")
        item.fields[old.name] = Field(old.name, Kind.MANY, old.type, inverse=inverse)
