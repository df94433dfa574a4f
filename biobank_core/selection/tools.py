"""How a tool is named by people, and how it stands on a Device.

A Tool Shed tool's full id is `HOST/repos/OWNER/REPOSITORY/TOOL/VERSION`; a local tool's is one
word. The Device of a tool has the id without the version as its label.
"""

from __future__ import annotations

import functools
import re
from typing import Final

# HOST may hold a port and a path prefix; OWNER, REPOSITORY, TOOL and VERSION hold no slash.
_SHED_ID: Final = re.compile(
    r"(?P<base>.+?/repos/[^/]+/[^/]+/(?P<last>[^/]+))(?:/(?P<version>[^/]+))?", re.DOTALL
)


def matches(tool: str | None, wanted: str) -> bool:
    """Whether `wanted` names this tool: by its full id, its id without version, or its last part.

    `tool` is a Device's label or a full id; None (unknown) is never meant. Upper and lower case
    differ, as they do in Galaxy. The version in a full id is left to `version_of` and the release.
    """
    if tool is None:
        return False
    if tool == wanted:
        return True
    base = without_version(tool)
    return without_version(wanted) == base or wanted == last_part(base)


@functools.lru_cache(maxsize=4096)
def without_version(tool: str) -> str:
    """The tool's id with the version of a Tool Shed id taken off."""
    match = _SHED_ID.fullmatch(tool)
    return match["base"] if match else tool


@functools.lru_cache(maxsize=4096)
def last_part(tool: str) -> str:
    """The short name: what follows the last slash of the id without version."""
    return without_version(tool).rpartition("/")[2]


def version_of(tool: str) -> str | None:
    """The version that a full Tool Shed id ends in; None where it names none."""
    match = _SHED_ID.fullmatch(tool)
    return match["version"] if match else None
