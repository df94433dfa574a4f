"""Which actions the criteria ask for: by tool and release, time, parameters and reference."""

from __future__ import annotations

from dataclasses import dataclass

from biobank_core.catalog.port import Catalog
from biobank_core.model.kinds import ActionStatus
from biobank_core.selection import tools
from biobank_core.selection.criteria import Criteria
from biobank_core.selection.graph import ActionInfo, Graph
from biobank_core.selection.releases import parse_range
from biobank_core.selection.uses import Uses


@dataclass(frozen=True, slots=True)
class Tool:
    """What the criteria say of a device; `same`: it is the tool, in whatever release."""

    label: str | None
    release: str | None
    same: bool
    wanted: bool
    outside: bool


class Asked:
    """Answers about the actions of one graph."""

    def __init__(self, catalog: Catalog, criteria: Criteria, graph: Graph) -> None:
        self._criteria = criteria
        self._uses = Uses(catalog, criteria, graph)
        self._tools: dict[str | None, Tool] = {None: self._tool_of(None, None)}
        for vid, device in graph.devices.items():
            self._tools[vid] = self._tool_of(device.label, device.release)

    @property
    def of_use(self) -> bool:
        """Whether parameters or a reference are asked for."""
        return self._uses.asked

    def tool(self, action: ActionInfo) -> Tool:
        """The tool of an action."""
        # A device whose plug-in is missing is as good as unknown.
        return self._tools.get(action.device) or self._tools[None]

    def is_wanted(self, action: ActionInfo) -> bool:
        """Whether it is one that is asked for."""
        since, until = self._criteria.since, self._criteria.until
        return (
            self.tool(action).wanted
            and action.status is ActionStatus.OK
            and bool(action.outputs)
            and (since is None or action.time >= since)
            and (until is None or action.time <= until)
            # Without a tool every analysis is meant, but not what only brought data in.
            and (self._criteria.tool is not None or (action.analyses and action.device is not None))
            and (not self._uses.asked or self._uses.fits(action) is True)
        )

    def is_other(self, action: ActionInfo) -> bool:
        """Whether it is known to be what the criteria do not ask for, of the same tool."""
        tool = self.tool(action)
        return tool.outside or (tool.same and self.differs(action))

    def differs(self, action: ActionInfo) -> bool:
        """Whether it is known to have had other parameters or another reference."""
        return self._uses.asked and self._uses.fits(action) is False

    def _tool_of(self, label: str | None, release: str | None) -> Tool:
        wanted = True
        if self._criteria.tool is not None:
            if not tools.matches(label, self._criteria.tool):
                return Tool(label, release, same=False, wanted=False, outside=False)
            wanted = tools.version_of(self._criteria.tool) in (None, release)
        if self._criteria.release is not None:
            wanted = wanted and parse_range(self._criteria.release).contains(release)
        return Tool(
            label,
            release,
            same=label is not None,
            wanted=wanted,
            outside=not wanted and bool(release),
        )
