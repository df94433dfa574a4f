"""Who makes a call, in which group, and what they may read, change and link to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import omero
import psycopg
from omero.model import PermissionsI

from tests.servers.omero.errors import no_row, security, server_error, validation
from tests.servers.omero.model import Entity

ROOT_ID, GUEST_ID = 0, 1
SYSTEM_GROUP_ID, USER_GROUP_ID, GUEST_GROUP_ID = 0, 1, 2
ALL_GROUPS = -1
_USER, _GROUP, _WORLD = 0, 2, 4  # where a role's two letters stand in rwrwrw


@dataclass(frozen=True)
class Owned:
    """Whose a row is, and in which group."""

    owner_id: int
    group_id: int


@dataclass
class Caller:
    """One account in one call; `group_id` is ALL_GROUPS when the call looks at every group."""

    user_id: int
    user_name: str
    session_id: int
    session_uuid: str
    group_id: int
    member_of: list[int]
    leader_of: list[int]
    permissions: dict[int, str] = field(repr=False)  # of every group, like rwra--

    @property
    def is_admin(self) -> bool:
        return SYSTEM_GROUP_ID in self.member_of

    def condition(self, alias: str, entity: Entity) -> str:
        """Return the SQL that keeps the rows which may be read; ids only, so nothing to quote."""
        if entity.root == "Session":
            return "" if self.is_admin else f"{alias}.owner = {self.user_id}"
        if entity.root == "Node":
            return "" if self.is_admin else "false"
        if entity.is_global:
            return ""
        own = f"{alias}.owner_id = {self.user_id}"
        if self.group_id == ALL_GROUPS:
            if self.is_admin:
                return ""
            everything = {*self.leader_of, *self._with(_WORLD, "r")}
            everything |= {group for group in self._with(_GROUP, "r") if group in self.member_of}
            theirs = _listed(f"{alias}.group_id", self._with(_USER, "r"))
            return f"({_listed(f'{alias}.group_id', everything)} or ({own} and {theirs}))"
        here = f"{alias}.group_id = {self.group_id}"
        if not self._reads_all_of(self.group_id):
            here = f"({here} and {own})"
        return f"({here} or {alias}.group_id = {USER_GROUP_ID})"

    def may_read(self, row: Owned) -> bool:
        """Tell whether a row, asked for by its id, may be read."""
        if row.group_id in (SYSTEM_GROUP_ID, USER_GROUP_ID):
            return True
        if self.group_id == ALL_GROUPS:
            mine = row.owner_id == self.user_id and self._grants(row.group_id, _USER, "r")
            member = row.group_id in self.member_of and self._grants(row.group_id, _GROUP, "r")
            leader = self.is_admin or row.group_id in self.leader_of
            return leader or mine or member or self._grants(row.group_id, _WORLD, "r")
        if row.group_id != self.group_id:
            return False
        return self._reads_all_of(row.group_id) or row.owner_id == self.user_id

    def may_change(self, row: Owned, *, right: str = "w") -> bool:
        """Tell whether a row may be edited or deleted (right w) or annotated (right a)."""
        group = row.group_id
        if self.is_admin or group in self.leader_of or self._grants(group, _WORLD, right):
            return True
        if row.owner_id == self.user_id:
            return group == USER_GROUP_ID or self._grants(group, _USER, right)
        return group in self.member_of and self._grants(group, _GROUP, right)

    def check_insert(self, described: str) -> None:
        """Raise unless objects may be made in the call's group."""
        if not self.is_admin and self.group_id not in self.member_of:
            raise security(f"You are not authorized to create {described}")

    def check_link(self, described: str, row: Owned, *, owner_id: int, annotating: bool) -> None:
        """Raise unless an object of `owner_id` may point to that row."""
        if row.group_id in (SYSTEM_GROUP_ID, USER_GROUP_ID):
            return
        if row.group_id != self.group_id:
            raise server_error(
                omero.GroupSecurityViolation,
                f"MIXED GROUP: group {self.group_id} and {described}(group={row.group_id})"
                " cannot be linked.",
            )
        is_owner = row.owner_id == self.user_id
        perms = self.permissions[self.group_id]
        supervisor = self.is_admin or self.group_id in self.leader_of
        private = perms[_GROUP] == "-" and perms[_WORLD] == "-"
        if not is_owner and private and supervisor and owner_id != row.owner_id:
            raise server_error(
                omero.ReadOnlyGroupSecurityViolation,
                f"Cannot link to {described}\nCurrent user ({self.user_name}) is an admin or the"
                f" owner of\nthe private group ({self.group_id}={perms}). It is not allowed to\n"
                "link to users' data.",
            )
        role = _USER if is_owner else _GROUP if self.group_id in self.member_of else _WORLD
        right = "a" if annotating else "w"
        if not (supervisor and not is_owner) and not self._grants(self.group_id, role, right):
            raise security(f"Group is {perms}. Cannot link to object: {described}")

    def details_permissions(self, row: Owned, *, is_system_type: bool) -> PermissionsI:
        """Return the Permissions that an object carries to this caller, with its restrictions."""
        permissions = PermissionsI(self.permissions.get(row.group_id, "rw----"))
        if is_system_type:
            may_write, may_annotate = self.is_admin, True
        else:
            may_write = self.may_change(row)
            may_annotate = self.may_change(row, right="a")
        perms = self.permissions.get(row.group_id, "rw----")
        if perms[_GROUP] == "-" and not is_system_type and row.owner_id != self.user_id:
            may_link = may_annotate = False
        else:
            may_link = may_write
        owner = self.is_admin or row.owner_id == self.user_id
        leader = self.is_admin or row.group_id in self.leader_of
        allowed = [may_link, may_write, may_write, may_annotate, owner, leader]
        permissions._restrictions = [not each for each in allowed]
        return permissions

    def _reads_all_of(self, group: int) -> bool:
        if self.is_admin or group in self.leader_of:
            return True
        return self._grants(group, _GROUP, "r") or self._grants(group, _WORLD, "r")

    def _grants(self, group: int, role: int, right: str) -> bool:
        perms = self.permissions.get(group, "------")
        if right == "r":
            return perms[role] == "r"
        return perms[role + 1] == "w" or (right == "a" and perms[role + 1] == "a")

    def _with(self, role: int, right: str) -> set[int]:
        return {group for group in self.permissions if self._grants(group, role, right)}


def memberships_of(connection: psycopg.Connection[Any], user_id: int) -> list[tuple[int, bool]]:
    """The groups that the account is in now, and whether it owns them."""
    return connection.execute(
        "select parent, owner from groupexperimentermap where child = %s order by id", [user_id]
    ).fetchall()


def caller_for(
    cursor: psycopg.Cursor[Any],
    *,
    user_id: int,
    user_name: str,
    session_id: int,
    session_uuid: str,
    group_id: int,
    memberships: Sequence[tuple[int, bool]],
) -> Caller:
    """Return the account, of these (group, whether its owner), as a caller in that group."""
    cursor.execute("select group_id, perms from grouppermissions")
    permissions = dict(cursor.fetchall())
    caller = Caller(
        user_id=user_id,
        user_name=user_name,
        session_id=session_id,
        session_uuid=session_uuid,
        group_id=group_id,
        member_of=[group for group, _ in memberships],
        leader_of=[group for group, owner in memberships if owner],
        permissions=permissions,
    )
    if USER_GROUP_ID not in caller.member_of:
        raise security(
            f"No matching roles found in {caller.member_of} for session {session_uuid}"
            " (allowed: [user])"
        )
    if group_id not in (ALL_GROUPS, *permissions):
        raise validation(no_row("ome.model.meta.ExperimenterGroup", group_id))
    is_open = group_id in (ALL_GROUPS, *caller.member_of) or caller._grants(group_id, _WORLD, "r")
    if not is_open and not caller.is_admin:
        raise security(f"User {user_id} is not a member of group {group_id} and cannot login")
    return caller


def _listed(column: str, ids: set[int]) -> str:
    return f"{column} in ({', '.join(map(str, sorted(ids)))})" if ids else "false"
