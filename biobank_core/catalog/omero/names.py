"""The words under which a catalog stands in OMERO; what another client must know to read it."""

from __future__ import annotations

import re
from typing import Final

from biobank_core.model.registry import bases

# Every namespace of ours begins so.
PREFIX: Final = "org.biobank/"
# One namespace a kind of object: `org.biobank/object/Tube`.
OBJECT: Final = f"{PREFIX}object/"
# What stays of a deleted object, by what it was: `org.biobank/tombstone/Tube`.
TOMBSTONE: Final = f"{PREFIX}tombstone/"
# Former versions of objects.
HISTORY: Final = f"{PREFIX}history"
# Texts that are too long for a pair.
TEXT: Final = f"{PREFIX}text"
# The first commit of a log, and all others.
ROOT: Final = f"{PREFIX}log/root"
COMMIT: Final = f"{PREFIX}log/commit"
# The kinds that are held and their bases, so that one whose plug-in is gone stays readable.
KIND: Final = f"{PREFIX}kind"
# What OMERO.web shows; written after the unit, never read back.
VIEW: Final = f"{PREFIX}view"
# The FileAnnotations of files that are kept here, each named by the VID of its DataObject.
CONTENT: Final = f"{PREFIX}content"
# The `entityType` of an ExternalInfo row that the log takes as a token.
TOKEN: Final = f"{PREFIX}token"

SCHEMA_VERSION: Final = 1

# Map names and values stand in a btree index of OMERO's database, which takes 2,704 bytes a row
# after compression; text that does not compress fails beyond 2,690.
MAX_PAIR_BYTES: Final = 2_600
# Annotations of one call: 10,000 are one transaction of some seconds. More would hold others up.
MAX_UNIT: Final = 10_000
# Values of one `in (:list)`: OMERO refuses over 32,000, PostgreSQL plans well up to here.
PAGE: Final = 1_000
# Where a log goes on from a damaged one, the feed counts on from here: names have 12 digits.
PART: Final = 10**12
# Commits that are read at once when a log is followed.
LOG_PAGE: Final = 500
# The first that are asked for: who looks again and again finds none or few.
FIRST_LOG_PAGE: Final = 8

_DESCRIPTION: Final = re.compile(r"version (\d+), commit ([0-9a-f]{32}/\d{12})\Z")
_UNIT: Final = re.compile(r"([0-9a-f]{32})/(\d{12})\Z")


def unit_name(log: str, number: int) -> str:
    """The name of commit `number` of a log."""
    return f"{log}/{number:012d}"


def parse_unit(name: str) -> tuple[str, int] | None:
    """The log and the number that a commit's name spells; None when it is none."""
    match = _UNIT.match(name)
    return (match[1], int(match[2])) if match else None


def describe(version: int, unit: str) -> str:
    """The description of an object's annotation. It changes with every save: so OMERO logs one."""
    return f"version {version}, commit {unit}"


def parse_description(text: str | None) -> tuple[int, str] | None:
    """The version and the name of the commit that wrote it; None when it is not ours."""
    match = _DESCRIPTION.match(text or "")
    return (int(match[1]), match[2]) if match else None


def version_name(vid: str, version: int) -> str:
    """The name of a former version, and of the long texts of any version."""
    return f"{vid}/{version}"


def kind_line(kind: str) -> str:
    """What a log notes of a kind that it holds."""
    return " ".join(bases(kind))
