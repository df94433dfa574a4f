"""Rows that commits will point to: what makes two commits of one number impossible."""

from __future__ import annotations

import functools
import uuid
from typing import Any, Final

from omero.model import ExternalInfoI
from omero.rtypes import rlong, rstring

from biobank_core.catalog.omero.names import TOKEN
from biobank_core.catalog.omero.session import LostRace, Session, UnknownFate, quietly
from biobank_core.errors import StorageError

# Tokens bought at once: few for a command that saves once, more for one that goes on.
_FEWEST_TOKENS: Final = 2
_MOST_TOKENS: Final = 64
_TRIES: Final = 5


class Tokens:
    """Rows that commits will point to, bought in bulk."""

    def __init__(self, session: Session, group: int) -> None:
        self._session = session
        self._group = group
        self._free: list[int] = []
        self._next_purchase = _FEWEST_TOKENS

    def take(self) -> int:
        """A token that no commit names."""
        if not self._free:
            self._buy()
        return self._free.pop()

    def give_back(self, token: int) -> None:
        """The commit that was to name it was not saved."""
        self._free.append(token)

    def drop(self) -> None:
        """Delete those that were not used. Leaves what can't be deleted to `verify --repair`."""
        free, self._free = self._free, []
        for token in free:
            quietly(functools.partial(self._delete, token))

    def _delete(self, token: int) -> None:
        self._session.delete_row(ExternalInfoI(token, False), group=self._group)

    def _buy(self) -> None:
        items = [new_token() for _ in range(self._next_purchase)]
        for last in (*([False] * _TRIES), True):
            try:
                self._free = self._session.save_for_ids(items, group=self._group)
                break
            except UnknownFate as exc:
                # A second lot, at worst: the first is found and removed as left over.
                if last:
                    raise StorageError(f"{self._session.address.server} breaks off") from exc
                self._session.reopen()
            except LostRace as exc:
                if last:
                    raise StorageError(f"{self._session.address.server}: {exc}") from exc
        self._next_purchase = min(self._next_purchase * 4, _MOST_TOKENS)


def new_token() -> Any:
    """A row for a token, not saved yet."""
    item = ExternalInfoI()
    item.entityId = rlong(0)
    item.entityType = rstring(TOKEN)
    item.lsid = rstring(uuid.uuid4().hex)
    return item
