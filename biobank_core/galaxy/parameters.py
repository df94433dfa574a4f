"""A job's parameters as an ActionSetup keeps them: noise removed, secrets redacted.

Two jobs that were given the same must have equal parameters: what differs from job to job without
being a choice (ids of inputs, temporary paths, element identifiers) is noise.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

from biobank_core.galaxy.records import UPLOAD_TOOLS, safe_text

REDACTED: Final = "(redacted)"

_NOISE: Final = frozenset({"chromInfo", "use_cached_job"})
# Galaxy adds the genome build of the first input to every job under this name.
_ADDED_DBKEY: Final = ("dbkey", "?")
# Of an upload: file names on the server, and the pasted data themselves.
_UPLOAD_NOISE: Final = frozenset(
    {"files", "paramfile", "request_json", "files_metadata", "file_count", "request_version"}
)
_SECRET_NAME: Final = re.compile(
    r"(?i)passw(or)?d|passphrase|secret|token(?!s|iz)|api_?key|access_?key|private_?key|credential"
    r"|session_?key|authorization"
)
_SECRET_VALUE: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,}\b"
    r"|\bey[A-Za-z0-9_-]{10,}\.ey[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+"
)
_USER_IN_URL: Final = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*@")
# JSON of RFC 8785 knows integers up to here only.
_MAX_EXACT_INTEGER: Final = 2**53 - 1
_MAX_DEPTH: Final = 50


def setup_parameters(parameters: dict[str, Any], *, tool_id: str) -> dict[str, Any]:
    """The parameters to keep, sorted by name; names and values are safe to store."""
    kept: dict[str, Any] = {}
    for name in sorted(parameters):
        value = parameters[name]
        if name in _NOISE or (name, value) == _ADDED_DBKEY:
            continue
        if tool_id in UPLOAD_TOOLS and name in _UPLOAD_NOISE:
            continue
        if _is_noise(name, value):
            continue
        kept[safe_text(name)] = _kept(name, value, 0)
    return kept


def _is_noise(name: str, value: Any) -> bool:
    return name.startswith("__") or "|__" in name or value is None or _is_data(value)


def _is_data(value: Any) -> bool:
    """Whether this is an input of data: the action's inputs say it better."""
    if not isinstance(value, dict) or not isinstance(value.get("values"), list):
        return False
    return all(isinstance(item, dict) and "src" in item for item in value["values"])


def _kept(name: str, value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return "(nested too deeply)"
    if _SECRET_NAME.search(name) and value and not isinstance(value, bool | int | float):
        return REDACTED
    if isinstance(value, dict):
        return {
            safe_text(str(key)): _kept(str(key), value[key], depth + 1)
            for key in sorted(value, key=str)
            if not _is_noise(str(key), value[key])
        }
    if isinstance(value, list):
        return [_kept("", item, depth + 1) for item in value if item is not None]
    if isinstance(value, str):
        if _SECRET_VALUE.search(value):
            return REDACTED
        return _USER_IN_URL.sub(f"{REDACTED}@", safe_text(value))
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) > _MAX_EXACT_INTEGER:
        return str(value)
    return value
