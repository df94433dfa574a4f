"""Hibernate itself, of OMERO's very version, as the judge of our queries.

The mapping is made from omero-py's model, with dynamic maps for entities: no database, no OMERO.
What it accepts a genuine server parses; what it refuses no server would take.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from xml.sax.saxutils import quoteattr

from tests.servers.cache import cache_folder, exclusive
from tests.servers.omero.model import Entity, Field, Kind, entities
from tests.servers.processes import MissingService

HIBERNATE: Final = "3.6.10.Final"  # the version of OMERO 5.6
_JAVASSIST: Final = "3.30.2-GA"  # the one that Hibernate names knows no Java 17
_COMPILER: Final = "3.33.0"  # Eclipse's: a runtime without javac is enough
_INSTALL_TIMEOUT_S: Final = 600.0
_DONE: Final = ".biobank-complete"
_TYPES: Final = {
    "RString": "string",
    "RLong": "long",
    "RInt": "integer",
    "RBool": "boolean",
    "RDouble": "double",
    "RTime": "timestamp",
}
_DETAILS: Final = {
    "owner": "Experimenter",
    "group": "ExperimenterGroup",
    "creationEvent": "Event",
    "updateEvent": "Event",
}
_DEPENDENCIES: Final = (
    ("org.hibernate", "hibernate-core", HIBERNATE),
    ("org.javassist", "javassist", _JAVASSIST),
    ("org.slf4j", "slf4j-nop", "1.6.1"),
    ("org.eclipse.jdt", "ecj", _COMPILER),
)
_HEADER: Final = """<?xml version="1.0"?>
<!DOCTYPE hibernate-mapping PUBLIC "-//Hibernate/Hibernate Mapping DTD 3.0//EN"
  "http://www.hibernate.org/dtd/hibernate-mapping-3.0.dtd">
"""


def refusals(queries: Iterable[str]) -> dict[str, str]:
    """Return the queries that Hibernate refuses, each with its reason; MissingService without it.

    A query is one line.
    """
    asked = list(queries)
    if not asked:
        return {}
    classes = _compiled()
    with tempfile.TemporaryDirectory(prefix="biobank-oracle-") as name:
        mapping_file = Path(name) / "omero.hbm.xml"
        mapping_file.write_text(mapping())
        done = subprocess.run(
            ["java", "-cp", f"{classes}:{classes}/*", "Oracle", str(mapping_file)],
            input="".join(f"{query}\n" for query in asked),
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
    answers = done.stdout.splitlines()
    if done.returncode or len(answers) != len(asked):
        raise RuntimeError(f"Hibernate gave {len(answers)} of {len(asked)} answers: {done.stderr}")
    return {query: answer for query, answer in zip(asked, answers, strict=True) if answer != "ok"}


def mapping() -> str:
    """Return Hibernate's mapping of OMERO's model."""
    roots = [entity for entity in entities().values() if entity.parent is None]
    body = "\n".join(_class(entity) for entity in roots)
    return f"{_HEADER}<hibernate-mapping>\n{body}\n</hibernate-mapping>\n"


def _class(entity: Entity) -> str:
    name = quoteattr(entity.java_name)
    abstract = ' abstract="true"' if entity.abstract else ""
    marked = f"discriminator-value={quoteattr(entity.name)}"
    parts = [
        f"<class entity-name={name} table={quoteattr(entity.table)} {marked}{abstract}>",
        '<id name="id" type="long"><generator class="assigned"/></id>',
        '<discriminator column="discriminator" type="string"/>',
        *(_property(entity, item) for item in entity.fields.values()),
        _details(entity),
        *(_subclass(child, entity) for child in _children(entity)),
        "</class>",
    ]
    return "\n".join(parts)


def _subclass(entity: Entity, parent: Entity) -> str:
    abstract = ' abstract="true"' if entity.abstract else ""
    marked = f"discriminator-value={quoteattr(entity.name)}"
    own = [item for name, item in entity.fields.items() if name not in parent.fields]
    parts = [
        f"<subclass entity-name={quoteattr(entity.java_name)} {marked}{abstract}>",
        *(_property(entity, item) for item in own),
        *(_subclass(child, entity) for child in _children(entity)),
        "</subclass>",
    ]
    return "\n".join(parts)


def _children(entity: Entity) -> list[Entity]:
    return [child for child in entities().values() if child.parent == entity.name]


def _property(entity: Entity, item: Field) -> str:
    name, column = quoteattr(item.name), quoteattr(f"`{item.column}`")
    match item.kind:
        case Kind.VALUE:
            return f"<property name={name} column={column} type={quoteattr(_TYPES[item.type])}/>"
        case Kind.ONE:
            return f"<many-to-one name={name} column={column} {_target(item.type)}/>"
        case Kind.MANY:
            key = quoteattr(f"`{item.inverse.lower()}`")
            return (
                f'<set name={name} inverse="true"><key column={key}/>'
                f"<one-to-many {_target(item.type)}/></set>"
            )
        case Kind.MAP:
            table = quoteattr(f"{entity.table}_{item.column}")
            return (
                f"<list name={name} table={table}><key column={quoteattr(entity.table + '_id')}/>"
                '<list-index column="`index`"/><composite-element class="Oracle$NamedValue">'
                '<property name="name" access="field" type="string"/>'
                '<property name="value" access="field" type="string"/>'
                "</composite-element></list>"
            )
        case Kind.UNIT:
            return (
                f"<dynamic-component name={name}>"
                f'<property name="value" column={column} type="double"/>'
                f'<property name="unit" column={quoteattr(f"`{item.column}unit`")} type="string"/>'
                "</dynamic-component>"
            )


def _target(name: str) -> str:
    return f"entity-name={quoteattr(entities()[name].java_name)}"


def _details(entity: Entity) -> str:
    owned = {} if entity.is_global else _DETAILS
    inside = "".join(
        f'<many-to-one name="{name}" column="{name.lower()}_of" {_target(of_type)}/>'
        for name, of_type in {**owned, "externalInfo": "ExternalInfo"}.items()
    )
    return f'<dynamic-component name="details">{inside}</dynamic-component>'


def _compiled() -> Path:
    """Return the folder with the jars and our compiled class, made if it is not in the cache."""
    source = Path(__file__).with_name("Oracle.java")
    folder = cache_folder() / f"hibernate-{HIBERNATE}"
    if not _is_done(folder, source):
        for program, package in (("mvn", "maven"), ("java", "openjdk-17-jre-headless")):
            if shutil.which(program) is None:
                raise MissingService(f"{program} is not installed: apt-get install {package}")
        with exclusive(folder.with_suffix(".lock")):
            if not _is_done(folder, source):
                _install(folder, source)
    return folder


def _is_done(folder: Path, source: Path) -> bool:
    done = folder / _DONE
    return done.exists() and done.read_text() == source.read_text()


def _install(folder: Path, source: Path) -> None:
    print(f"Fetching Hibernate {HIBERNATE} into {folder}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left
    folder.mkdir(parents=True)
    listed = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
        f"<version>{version}</version></dependency>"
        for group, artifact, version in _DEPENDENCIES
    )
    (folder / "pom.xml").write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>org.biobank.dev</groupId><artifactId>oracle</artifactId><version>1</version>"
        f"<packaging>pom</packaging><dependencies>{listed}</dependencies></project>"
    )
    fetch = ("mvn", "--batch-mode", "--quiet", "dependency:copy-dependencies")
    (compiler,) = _run([*fetch, f"-DoutputDirectory={folder}"], folder).glob("ecj-*.jar")
    compile_it = ("java", "-jar", str(compiler), "-17", "-nowarn", "-d", str(folder))
    _run([*compile_it, "-cp", ":".join(map(str, folder.glob("*.jar"))), str(source)], folder)
    (folder / _DONE).write_text(source.read_text())


def _run(argv: list[str], folder: Path) -> Path:
    try:
        subprocess.run(argv, cwd=folder, check=True, stdout=sys.stderr, timeout=_INSTALL_TIMEOUT_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise MissingService(f"Hibernate {HIBERNATE} can't be had here: {error}") from error
    return folder
