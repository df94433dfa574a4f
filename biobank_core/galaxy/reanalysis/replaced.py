"""Which old results a new result of one sample takes the place of."""

from __future__ import annotations

from biobank_core.catalog.port import Catalog
from biobank_core.lineage.port import Direction, LineageIndex, Question
from biobank_core.model.kinds import Supersession
from biobank_core.model.registry import with_subkinds
from biobank_core.selection import tools
from biobank_core.selection.criteria import OldResult, SelectedSample


class ReplacedResults:
    """Finds what a new result of a sample takes the place of.

    The selected results, and what was made of them by tools that the workflow runs too: that is as
    old as what it was made of. What other samples' data went into as well (a table of all samples)
    is not one sample's to replace.
    """

    def __init__(
        self, catalog: Catalog, index: LineageIndex, workflow_tools: frozenset[str]
    ) -> None:
        self._catalog = catalog
        self._index = index
        self._tools = workflow_tools
        self._material = with_subkinds("Vessel") | {"Individual"}
        self._data = with_subkinds("DataSample")

    def of(self, row: SelectedSample) -> list[OldResult]:
        """The results of a row that are this sample's alone, and those derived from them."""
        starts = tuple(result.vid for result in row.results)
        if not starts or row.sample is None:
            return []
        answer = self._index.connected(
            Question(starts=starts, direction=Direction.DOWNSTREAM, kinds=self._data)
        )
        own = self._upstream((row.sample,)) | {row.sample}
        found = [result for result in row.results if self._upstream((result.vid,)) <= own]
        for node in answer.nodes:
            if node.vid in starts or node.deleted or self._is_superseded(node.vid):
                continue
            for maker in node.makers:
                tool = tools.without_version(maker.tool or "")
                if tool in self._tools and maker.status == "ok":
                    if self._upstream((node.vid,)) <= own:
                        role = self._role(maker.action, node.vid)
                        found.append(
                            OldResult(
                                node.vid, node.label, role, maker.action, maker.tool, maker.release
                            )
                        )
                    break
        return found

    def _upstream(self, starts: tuple[str, ...]) -> set[str]:
        answer = self._index.connected(
            Question(starts=starts, direction=Direction.UPSTREAM, kinds=self._material)
        )
        # The starts are returned whatever their kind.
        return {node.vid for node in answer.nodes if node.vid not in starts}

    def _role(self, action: str, vid: str) -> str:
        found = self._catalog.get([action]).get(action)
        outputs = getattr(found.object, "outputs", ()) if found else ()
        return next((port.role for port in outputs if port.object == vid), "output")

    def _is_superseded(self, vid: str) -> bool:
        return any(
            referrer.field == "old"
            for referrer in self._catalog.referring([vid], kinds=(Supersession.__name__,))
        )
