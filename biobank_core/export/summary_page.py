"""A study's counts as a page for people: no script, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from biobank_core.summary import Summary

_TITLES = (
    ("Status of actions", "statuses"),
    ("Category of actions", "categories"),
    ("Actions by month (UTC)", "months"),
)


def summary_page(summary: Summary) -> str:
    """The page, UTF-8. Every label in it is text, whatever it holds."""
    environment = Environment(
        loader=PackageLoader("biobank_core.export", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    tables: list[tuple[str, Mapping[str, int]]] = [("Objects", summary.kinds)]
    tools = {f"{tool.label} {tool.release or ''}".strip(): n for tool, n in summary.tools.items()}
    tables.append(("Tools and their releases", tools))
    tables += [(title, getattr(summary, name)) for title, name in _TITLES]
    return environment.get_template("summary.html.j2").render(study=summary.study, tables=tables)
