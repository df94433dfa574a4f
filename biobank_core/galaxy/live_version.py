"""The exact version of the tool that a job ran: a fact, or unknown; never a guess.

Galaxy's job answers do not hold it. A Tool Shed tool's id ends in it. Else `build_for_rerun` loads
the tool that is installed now: its `version` is the job's unless its `message` says otherwise, and
then the message (`Tool._compare_tool_version` in Galaxy's galaxy/tools/__init__.py) quotes it.
"""

from __future__ import annotations

import re
from typing import Final

from biobank_core.galaxy import wire
from biobank_core.galaxy.records import VersionSource, safe_text
from biobank_core.selection.tools import version_of

_MISMATCH: Final = re.compile(
    r"This job was run with .*?version \"(?P<version>[^\"]{1,255})\", which is not available", re.S
)
_RAN_WITH: Final = "This job was run with"


def exact_version(
    tool_id: str, rerun: wire.Rerun | None
) -> tuple[str | None, VersionSource | None]:
    """The version and where it was learnt; (None, None) where it is not known."""
    shed = version_of(tool_id)
    if shed:
        return safe_text(shed), VersionSource.TOOL_SHED_ID
    if rerun is None:
        return None, None
    message = rerun.message or ""
    if match := _MISMATCH.search(message):
        version = safe_text(match["version"])
        # Galaxy writes "None" for a job of which it kept no version.
        return (None, None) if version == "None" else (version, _MESSAGE)
    if _RAN_WITH in message or not rerun.version:
        return None, None
    return safe_text(rerun.version), VersionSource.BUILD_FOR_RERUN


_MESSAGE: Final = VersionSource.BUILD_FOR_RERUN_MESSAGE
