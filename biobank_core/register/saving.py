"""Saving what a table describes, or trying to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from biobank_core.catalog.port import Catalog, Change, Save
from biobank_core.errors import InputError
from biobank_core.model.base import Object
from biobank_core.model.ids import VID_PATTERN


@runtime_checkable
class Rehearses(Protocol):
    """A catalog that says what it would refuse, such as a cycle through what it holds."""

    def rehearse(self, changes: Sequence[Change]) -> None:
        """Raises what `commit` would raise of these now; saves nothing."""
        ...


def save(catalog: Catalog, objects: Iterable[Object], *, by: str, dry_run: bool) -> None:
    """Save new objects in one unit; with `dry_run` nothing, but raise what that would raise."""
    changes = [Save(object=made) for made in objects]
    if not dry_run:
        catalog.commit(changes, by=by)
    elif isinstance(catalog, Rehearses):
        catalog.rehearse(changes)


@contextmanager
def naming_lines(file: str, lines: Mapping[str, int]) -> Iterator[None]:
    """Adds the file, and the line of the first object that is named, to what is raised inside.

    `lines` are by VID.
    """
    try:
        yield
    except InputError as exc:
        named = (lines[vid] for vid in VID_PATTERN.findall(str(exc)) if vid in lines)
        raise exc.at(file=file, line=next(named, None)) from exc
