"""What of a walk is returned. One piece of code for all drivers, so that they agree.

A driver walks the whole graph (hidden nodes and placeholders too) and gives what it met; a filter
never changes where the walk goes, so depth is always that of the unfiltered graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from biobank_core.lineage.port import IMPLICIT_COLLECTION, Maker, Node, Question
from biobank_core.model.registry import is_a, is_node, with_subkinds
from biobank_core.selection import releases, tools

Test: TypeAlias = Callable[[Node], bool]


def check(question: Question) -> None:
    """Raises InputError for an unknown kind or an unreadable release range, before any walk."""
    for kind in question.kinds:
        if kind != IMPLICIT_COLLECTION:
            with_subkinds(kind)
    if question.release is not None:
        releases.matches("1", question.release)


def visible(groups: frozenset[str], question: Question) -> bool:
    """Whether the user may read a node that these groups hold."""
    return question.groups is None or not question.groups.isdisjoint(groups)


def made_by_tool(tool: str | None, question: Question) -> bool:
    """Whether an action by this tool is one that `via_tool` asks for."""
    return question.via_tool is not None and tools.matches(tool, question.via_tool)


def returned(nodes: Iterable[Node], question: Question) -> list[Node]:
    """The nodes that are returned, in the order of an answer: by depth, then VID.

    A start (depth 0) is returned whatever the filters say, if the user may read it. `via_tool` is
    the walk's own affair: give only nodes that it keeps.
    """
    keeps = _tests(question)
    kept = [
        node
        for node in nodes
        if visible(node.groups, question)
        and (question.depth is None or node.depth <= question.depth)
        and (node.depth == 0 or all(keep(node) for keep in keeps))
    ]
    kept.sort(key=lambda node: (node.depth, node.vid))
    return kept


def _tests(question: Question) -> list[Test]:
    keeps: list[Test] = []
    if question.kinds:
        wanted = question.kinds
        keeps.append(lambda node: _of_kind(node.kind, wanted))
    if question.study is not None:
        study = question.study
        keeps.append(lambda node: node.study == study)
    if _asks_for_makers(question):
        keeps.append(lambda node: any(_made_so(maker, question) for maker in node.makers))
    return keeps


def _of_kind(kind: str, wanted: frozenset[str]) -> bool:
    if kind in wanted:
        return True
    if kind == IMPLICIT_COLLECTION or not is_node(kind):
        return False
    return any(is_a(kind, base) for base in wanted if base != IMPLICIT_COLLECTION)


def _asks_for_makers(question: Question) -> bool:
    return bool(question.categories) or any(
        value is not None
        for value in (question.tool, question.release, question.since, question.until)
    )


def _made_so(maker: Maker, question: Question) -> bool:
    """Whether one action meets all that is asked of the making action."""
    if question.categories and maker.category not in question.categories:
        return False
    if question.tool is not None and not tools.matches(maker.tool, question.tool):
        return False
    if question.release is not None and not releases.matches(maker.release, question.release):
        return False
    if question.since is not None and (maker.end is None or maker.end < question.since):
        return False
    return question.until is None or (maker.end is not None and maker.end <= question.until)
