"""Which OMERO groups a catalog reads, which log a unit goes to, and who may open one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from biobank_core.catalog.checks import Unit
from biobank_core.catalog.omero import routing
from biobank_core.catalog.omero.damage import (
    damage,
    go_on,
    put_back,
    rootless,
    superfluous,
)
from biobank_core.catalog.omero.log import Commit, Log, open_log, roots
from biobank_core.catalog.omero.rows import Scope
from biobank_core.catalog.omero.session import Session
from biobank_core.errors import InputError, NotPermittedError, StorageError

# Objects in OMERO's own groups can be read by anybody by their id: nothing of ours goes there.
_OMEROS_OWN: Final = ("system", "user", "guest")


@dataclass(frozen=True, slots=True)
class Group:
    """One group of the server. `private`: members do not see each other's data."""

    id: int
    name: str
    private: bool


class Groups:
    """The groups that the URL names, or all of the account's."""

    def __init__(self, session: Session) -> None:
        self._session = session
        named = session.address.groups
        self._all: tuple[Group, ...] = (
            tuple(self._named(name) for name in named) if named else self._of_account()
        )
        if not self._all:
            raise InputError(
                f"{session.address.server}: the account is in no group that may hold a catalog; "
                "name one with ?group=NAME"
            )

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(group.id for group in self._all)

    def joined(self) -> bool:
        """Whether the account is in other groups now, where the URL names none; reads those then.

        A new session takes the place of the old one, which may not know of it for minutes.
        """
        if self._session.address.groups:
            return False
        now = self._of_account()
        if not now or {group.id for group in now} == set(self.ids):
            return False
        self._session.reopen()
        self._all = now
        return True

    def logs(self, scope: Scope) -> list[Log]:
        """The logs of these groups that the account may read, each group's newest.

        In a private group each account has its own. Raises StorageError for two first commits.
        """
        newest: dict[tuple[int, int | None], Log] = {}
        private = {group.id for group in self._all if group.private}
        for root in roots(scope):
            key = (root.group, root.owner if root.group in private else None)
            former = newest.get(key)
            if former is not None and (root.unit.before or "").partition("/")[0] != former.uuid:
                raise StorageError(
                    f"group {root.group} has two logs, {former.uuid} and {root.log}: two opened "
                    "one at the same moment; `biobank verify --repair` retires the empty one"
                )
            older = (*former.older, former) if former is not None else ()
            if former is not None:
                former.given_up = True
            newest[key] = Log(scope, root, older)
        return list(newest.values())

    def open_first_log(self, scope: Scope) -> None:
        """Open a log in the group that the URL names (the first of several), or put back its first
        commit where only that is gone."""
        group = self._all[0]
        self._refuse_stranger(group)
        if self._put_back(scope):
            return
        open_log(self._session, group.id, by=str(self._session.context.userName))

    def _put_back(self, scope: Scope) -> bool:
        """Put back the first commits that are gone; whether there were any."""
        lost = [
            one
            for one in rootless(scope)
            if not self._is_private(one.group) or one.owner == self._session.user_id
        ]
        for one in lost:
            put_back(scope, one, by=str(self._session.context.userName))
        return bool(lost)

    def mend_logs(self, scope: Scope) -> None:
        """Retire empty logs that were opened twice; go on from the last good commit of damaged."""
        self._put_back(scope)
        by_place: dict[tuple[int, int | None, str | None], list[Commit]] = {}
        for root in roots(scope):
            owner = root.owner if self._is_private(root.group) else None
            by_place.setdefault((root.group, owner, root.unit.before), []).append(root)
        for (group, _, _), several in by_place.items():
            if len(several) > 1 and (retired := superfluous(scope, several)):
                ids = [root.annotation for root in retired]
                self._session.delete({"Annotation": ids}, group=group)
        for log in self.logs(scope):
            if not self._of_another(log) and any(damage(scope, log)):
                go_on(scope, log, by=str(self._session.context.userName))

    def mine(self, logs: Sequence[Log]) -> list[Log]:
        """Those that this account may write to: in a private group its own."""
        return [log for log in logs if not self._of_another(log)]

    def log_of(self, unit: Unit, logs: Sequence[Log], scope: Scope) -> Log:
        """The log that a unit goes to. Raises InputError where there is none."""
        mine = self.mine(logs)
        if not mine:
            raise InputError(
                f"{self._session.address.url} holds no catalog that this account may write; "
                "`biobank init` makes one"
            )
        return routing.log_of(unit, mine, scope)

    def _is_private(self, group_id: int) -> bool:
        return any(group.private for group in self._all if group.id == group_id)

    def _of_another(self, log: Log) -> bool:
        return self._is_private(log.group) and log.owner != self._session.user_id

    def _named(self, name: str) -> Group:
        try:
            found = self._session.call(lambda factory: factory.getAdminService().lookupGroup(name))
        except StorageError as exc:
            raise _unknown(name) from exc
        if name in _OMEROS_OWN:
            raise InputError("can't hold a catalog: its data can be read by anybody", value=name)
        group = _group(found)
        context = self._session.context
        if group.id not in context.memberOfGroups and not context.isAdmin:
            raise _unknown(name)
        return group

    def _of_account(self) -> tuple[Group, ...]:
        found = self._session.call(
            lambda factory: factory.getAdminService().containedGroups(self._session.user_id)
        )
        return tuple(_group(one) for one in found if one.name.val not in _OMEROS_OWN)

    def _refuse_stranger(self, group: Group) -> None:
        context = self._session.context
        if context.isAdmin or group.id in context.leaderOfGroups or group.private:
            return
        raise NotPermittedError(
            f"group {group.name} holds no catalog, and only its owner or an administrator may "
            "make one: ask them to run `biobank init`"
        )


def _unknown(name: str) -> InputError:
    return InputError("no such group, or this account is not in it", field="group", value=name)


def _group(found: Any) -> Group:
    permissions = found.details.permissions
    return Group(
        id=found.id.val,
        name=found.name.val,
        private=not permissions.isGroupRead(),
    )
