"""The tools that a Galaxy server has, with all their versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from biobank_core.galaxy.reanalysis.forms import ToolForm, parse_form
from biobank_core.selection import releases, tools

# (tool id, version or None) -> the answer of GET /api/tools/ID?io_details=true; None: no such tool.
FetchTool: TypeAlias = Callable[[str, str | None], Mapping[str, Any] | None]


class Toolbox:
    """Asks Galaxy for each tool once."""

    def __init__(self, fetch: FetchTool) -> None:
        self._fetch = fetch
        self._answers: dict[tuple[str, str | None], Mapping[str, Any] | None] = {}

    def versions(self, tool_id: str) -> tuple[str, ...]:
        """The installed versions of a tool, oldest first; empty when there is none."""
        answer = self._any_version(tool_id)
        if answer is None:
            return ()
        found = {str(answer.get("version")), *map(str, answer.get("versions") or ())}
        return tuple(sorted(found, key=lambda version: (releases.sort_key(version), version)))

    def form(self, tool_id: str, version: str) -> ToolForm | None:
        """What this version takes and gives; None when it is not installed."""
        base = tools.without_version(tool_id)
        names = [tool_id] if base == tool_id else [f"{base}/{version}", tool_id, base]
        for name in names:
            answer = self._answer(name, version)
            # Galaxy answers with another version when it does not have the one asked for.
            if answer is not None and answer.get("version") == version:
                return parse_form(answer)
        return None

    def _any_version(self, tool_id: str) -> Mapping[str, Any] | None:
        answer = self._answer(tool_id, None)
        base = tools.without_version(tool_id)
        if answer is None and base != tool_id:
            answer = self._answer(base, None)
        return answer

    def _answer(self, tool_id: str, version: str | None) -> Mapping[str, Any] | None:
        key = (tool_id, version)
        if key not in self._answers:
            self._answers[key] = self._fetch(tool_id, version)
        return self._answers[key]
