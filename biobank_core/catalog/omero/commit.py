"""A unit on its way into a log: checked, saved with the next commit, tried anew where it lost."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from biobank_core.catalog.checks import Unit as CheckedUnit
from biobank_core.catalog.checks import Write, check
from biobank_core.catalog.omero import mapping
from biobank_core.catalog.omero.log import Change as LoggedChange
from biobank_core.catalog.omero.log import Commit, GivenUp, Log, Unit, commit_annotation
from biobank_core.catalog.omero.names import unit_name
from biobank_core.catalog.omero.routing import copies
from biobank_core.catalog.omero.rows import Rows, Scope
from biobank_core.catalog.omero.session import LostRace, UnknownFate
from biobank_core.catalog.omero.writing import as_annotations, read_former
from biobank_core.catalog.port import Receipt
from biobank_core.errors import BiobankError, StorageError, TimeoutExceededError
from biobank_core.model.registry import NOT_IN_FEED

# Others who write all the time cost us some tries; each of them gets its turn in between.
_COMMIT_TIMEOUT_S: Final = 180.0
_LONGEST_PAUSE_S: Final = 0.5
# Tries of one call that fails though nobody's commit stands in the way, before the log is looked
# at for damage: namespaces that are new, deadlocks with other programs.
_TRIES: Final = 6
# The constraint of the database that a second commit of one number violates.
_TAKEN: Final = "annotation_external_id_key"


class Writer:
    """One unit on its way into a log."""

    def __init__(self, scope: Scope, log: Log, kinds: set[str], *, by: str) -> None:
        self._scope = scope
        self._session = scope.session
        self._log = log
        self._kinds = kinds
        self._by = by
        self._id = uuid.uuid4().hex

    def commit(self, unit: CheckedUnit) -> Receipt:
        """Save it; when another commit comes first, read and check anew. Raises GivenUp."""

        def checked(rows: Rows) -> list[Write]:
            return check(unit, rows)

        return self._commit(checked)

    def force(self, writes: Callable[[Rows], list[Write]]) -> Receipt:
        """Save what `writes` makes of the state that it is given, unchecked: for repairs."""
        return self._commit(writes)

    def _commit(self, plan: Callable[[Rows], list[Write]]) -> Receipt:
        until = time.monotonic() + _COMMIT_TIMEOUT_S
        self._log.refuse_damage()
        head = self._log.head(known=True)
        tries = 0
        while True:
            rows = Rows(self._scope)
            try:
                writes = plan(rows)
            except BiobankError:
                # Questions that were asked before and after another's commit may contradict.
                newest = self._log.head()
                if newest.number == head.number:
                    raise
                head = newest
                continue
            committed = self._saved(head, writes, rows)
            if committed is not None:
                return self._receipt(writes, committed)
            tries += 1
            if time.monotonic() > until:
                raise TimeoutExceededError(
                    f"{self._session.address.server}: others write all the time; nothing was saved"
                )
            time.sleep(random.uniform(0, min(0.02 * 2**tries, _LONGEST_PAUSE_S)))  # noqa: S311
            head = self._log.head()

    def _saved(self, head: Commit, writes: Sequence[Write], rows: Rows) -> Commit | None:
        """The commit, or None when another one took its place."""
        number = head.number + 1
        name = unit_name(self._log.uuid, number)
        new_kinds = sorted({write.kind for write in writes} - self._kinds)
        mapped = [(write, mapping.to_pairs(write.body, write.keys)) for write in writes]
        here = Scope(self._session, [self._log.group])
        try:
            taken_along = copies(self._scope, self._log.group, writes, rows)
        except LostRace:
            return None
        items = as_annotations(
            mapped,
            read_former(here, writes, rows.in_group(here.context)),
            taken_along,
            unit=name,
            new_kinds=new_kinds,
        )
        token = self._log.tokens.take()
        in_feed = any(write.kind not in NOT_IN_FEED for write in writes)
        unit = Unit(
            id=self._id,
            token=token,
            feed=number if in_feed else head.unit.feed,
            time=datetime.now(UTC),
            by=self._by,
            changes=(
                *(
                    LoggedChange(
                        write.object.vid, write.version, write.kind, write.deleted, made.checksum
                    )
                    for write, made in mapped
                ),
                *(
                    LoggedChange(
                        copy.found.vid,
                        copy.found.version,
                        copy.found.state.kind,
                        copy.found.state.deleted,
                        copy.checksum,
                    )
                    for copy in taken_along
                ),
            ),
        )
        items.append(commit_annotation(name, unit, token=head.unit.token))
        if not self._appended(items, number, head):
            self._log.tokens.give_back(token)
            return None
        commit = Commit(self._log.uuid, number, unit, 0, self._log.group, self._log.owner)
        self._log.moved(commit)
        self._kinds.update(new_kinds)
        return commit

    def _appended(self, items: Sequence[Any], number: int, head: Commit) -> bool:
        """Whether it is our unit that has this number now; settles what became of lost calls."""
        reason = ""
        for _ in range(_TRIES):
            try:
                self._session.save(items, group=self._log.group)
            except LostRace as exc:
                reason = str(exc)
            except UnknownFate:
                self._session.reopen()
                reason = "the connection breaks off"
            else:
                return True
            there = self._log.look(number)
            if there is not None:
                return there.unit.id == self._id
            time.sleep(random.uniform(0, 0.1))  # noqa: S311
        self._refuse_damage(number, head, taken=_TAKEN in reason)
        raise StorageError(
            f"{self._session.address.server} does not take the unit: {reason}; nothing was saved"
        )

    def _refuse_damage(self, number: int, head: Commit, *, taken: bool) -> None:
        later = self._log.beyond(number)
        if later is not None:
            raise StorageError(
                self._log.damaged(f"commit {number} is missing, but {later.name} is there")
            )
        if not self._log.token_is_there(head):
            raise StorageError(self._log.damaged(f"the row that {head.name} names is gone"))
        if taken:
            if self._log.goes_on():
                raise GivenUp
            raise StorageError(self._log.damaged(f"what follows {head.name} is no commit any more"))

    def _receipt(self, writes: Sequence[Write], commit: Commit) -> Receipt:
        return Receipt(
            {write.object.vid: write.version for write in writes},
            {self._log.identity: self._log.begin + commit.unit.feed} if commit.unit.feed else {},
            self._log.identity,
        )
