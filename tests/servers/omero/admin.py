"""IAdmin: who is who, and the accounts and groups that tests make."""

from __future__ import annotations

from typing import Any

import omero
import omero.model
from omero.rtypes import unwrap
from psycopg import Connection

from tests.servers.omero import caller as roles
from tests.servers.omero.caller import Owned
from tests.servers.omero.calls import Call, Servant, servant
from tests.servers.omero.errors import api_usage, security, validation
from tests.servers.omero.graphs import entity_of
from tests.servers.omero.loading import Model
from tests.servers.omero.queries import Run
from tests.servers.omero.sessions import default_group, set_password

_PRIVILEGE_NAMES = (
    "Chgrp Chown DeleteFile DeleteManagedRepo DeleteOwned DeleteScriptRepo ModifyGroup"
    " ModifyGroupMembership ModifyUser ReadSession Sudo WriteFile WriteManagedRepo WriteOwned"
    " WriteScriptRepo"
)
_PRIVILEGES = _PRIVILEGE_NAMES.split()
_GROUP_QUERY = (
    "select distinct g from ExperimenterGroup g left outer join fetch g.groupExperimenterMap m"
    " left outer join fetch m.child e"
)
_USER_QUERY = (
    "select distinct e from Experimenter e left outer join fetch e.groupExperimenterMap m"
    " left outer join fetch m.parent g"
)


def _ids(row_id: int) -> Any:
    return omero.sys.ParametersI().addId(row_id)


@servant(omero.api.IAdmin)
class AdminServant(Servant):
    """IAdmin, without LDAP, photos and restricted administrators."""

    def get_event_context(self, call: Call) -> Any:
        who = call.caller
        names = call.connection.execute(
            "select name from experimentergroup where id = %s", [who.group_id]
        ).fetchone()
        context = omero.sys.EventContext()
        context.shareId = -1
        context.sessionId, context.sessionUuid = who.session_id, who.session_uuid
        context.userId, context.userName = who.user_id, who.user_name
        context.groupId, context.groupName = who.group_id, names[0] if names else ""
        context.isAdmin = who.is_admin
        context.adminPrivileges = list(_PRIVILEGES) if who.is_admin else []
        context.eventId, context.eventType = -1, "User"
        context.memberOfGroups, context.leaderOfGroups = who.member_of, who.leader_of
        context.groupPermissions = omero.model.PermissionsI(
            who.permissions.get(who.group_id, "------")
        )
        return context

    def get_security_roles(self, _call: Call) -> Any:
        return omero.sys.Roles(
            roles.ROOT_ID,
            "root",
            roles.SYSTEM_GROUP_ID,
            "system",
            roles.USER_GROUP_ID,
            "user",
            roles.GUEST_ID,
            "guest",
            roles.GUEST_GROUP_ID,
            "guest",
        )

    def can_update(self, call: Call, sent: Model) -> bool:
        entity = entity_of(sent)
        if entity.is_global:
            return call.caller.is_admin
        row = call.connection.execute(
            f'select owner_id, group_id from "{entity.table}" where id = %s'.encode(),
            [sent.id.val],
        ).fetchone()
        if row is None:
            raise api_usage(f"no such object: {entity.java_name}:Id_{sent.id.val}")
        return call.caller.may_change(Owned(*row))

    def get_experimenter(self, call: Call, row_id: int) -> Model:
        return self._one(call, f"{_USER_QUERY} where e.id = :id", _ids(row_id), f"user {row_id}")

    def lookup_experimenter(self, call: Call, name: str) -> Model:
        given = omero.sys.ParametersI().addString("name", name)
        return self._one(call, f"{_USER_QUERY} where e.omeName = :name", given, f"user {name}")

    def lookup_experimenters(self, call: Call) -> list[Model]:
        return Run(call, _USER_QUERY, None).objects()

    def get_group(self, call: Call, row_id: int) -> Model:
        return self._one(call, f"{_GROUP_QUERY} where g.id = :id", _ids(row_id), f"group {row_id}")

    def lookup_group(self, call: Call, name: str) -> Model:
        given = omero.sys.ParametersI().addString("name", name)
        return self._one(call, f"{_GROUP_QUERY} where g.name = :name", given, f"group {name}")

    def lookup_groups(self, call: Call) -> list[Model]:
        return Run(call, _GROUP_QUERY, None).objects()

    def contained_experimenters(self, call: Call, group_id: int) -> list[Model]:
        query = (
            "select distinct e from Experimenter e join e.groupExperimenterMap m"
            " where m.parent.id = :id"
        )
        return Run(call, query, _ids(group_id)).objects()

    def contained_groups(self, call: Call, user_id: int) -> list[Model]:
        query = (
            "select distinct g from ExperimenterGroup g join g.groupExperimenterMap m"
            " where m.child.id = :id"
        )
        return Run(call, query, _ids(user_id)).objects()

    def get_default_group(self, call: Call, user_id: int) -> Model:
        return self.get_group(call, default_group(call.connection, user_id))

    def get_member_of_group_ids(self, call: Call, user: Model) -> list[int]:
        rows = call.connection.execute(
            "select parent from groupexperimentermap where child = %s", [user.id.val]
        )
        return [row[0] for row in rows]

    def get_leader_of_group_ids(self, call: Call, user: Model) -> list[int]:
        rows = call.connection.execute(
            "select parent from groupexperimentermap where child = %s and owner", [user.id.val]
        )
        return [row[0] for row in rows]

    def get_current_admin_privileges(self, call: Call) -> list[Model]:
        if not call.caller.is_admin:
            return []
        found = []
        for name in _PRIVILEGES:
            privilege = omero.model.AdminPrivilegeI()
            privilege.setValue(omero.rtypes.rstring(name))
            found.append(privilege)
        return found

    def create_group(self, call: Call, group: Model) -> int:
        self._admin_only(call)
        perms = group.details.permissions if group.details is not None else None
        row = call.connection.execute(
            "insert into experimentergroup (id, discriminator, name, ldap, description) values"
            " (nextval('seq_experimentergroup'), 'ExperimenterGroup', %s, false, %s)"
            " on conflict do nothing returning id",
            [unwrap(group.name), unwrap(group.description)],
        ).fetchone()
        if row is None:
            raise validation(
                "could not insert: [ome.model.meta.ExperimenterGroup]; SQL [...]; constraint"
                " [experimentergroup_name_key]"
            )
        text = str(perms) if perms is not None else "rw----"
        call.connection.execute("insert into grouppermissions values (%s, %s)", [row[0], text])
        return int(row[0])

    def create_experimenter_with_password(
        self, call: Call, user: Model, password: Any, group: Model, others: list[Model]
    ) -> int:
        user_id = self.create_experimenter(call, user, group, others)
        set_password(call.connection, user_id, password.val)
        return user_id

    def create_experimenter(
        self, call: Call, user: Model, group: Model, others: list[Model]
    ) -> int:
        self._admin_only(call)
        names = [unwrap(user.omeName), unwrap(user.firstName), unwrap(user.lastName)]
        row = call.connection.execute(
            "insert into experimenter (id, discriminator, omename, firstname, lastname, email,"
            " ldap) values (nextval('seq_experimenter'), 'Experimenter', %s, %s, %s, %s, false)"
            " on conflict do nothing returning id",
            [*names, unwrap(user.email)],
        ).fetchone()
        if row is None:
            raise validation(
                "could not insert: [ome.model.meta.Experimenter]; SQL [...]; constraint"
                " [experimenter_omename_key]"
            )
        for each in [group, *others]:
            _add_member(call.connection, row[0], each.id.val)
        return int(row[0])

    def add_groups(self, call: Call, user: Model, groups: list[Model]) -> None:
        self._admin_only(call)
        for group in groups:
            _add_member(call.connection, user.id.val, group.id.val)

    def remove_groups(self, call: Call, user: Model, groups: list[Model]) -> None:
        self._admin_only(call)
        call.connection.execute(
            "delete from groupexperimentermap where child = %s and parent = any(%s)",
            [user.id.val, [group.id.val for group in groups]],
        )

    def set_default_group(self, call: Call, user: Model, group: Model) -> None:
        if user.id.val != call.caller.user_id:
            self._admin_only(call)
        call.connection.execute(
            "update groupexperimentermap set position = (select min(position) - 1 from"
            " groupexperimentermap where child = %s) where child = %s and parent = %s",
            [user.id.val, user.id.val, group.id.val],
        )

    def set_group_owner(self, call: Call, group: Model, user: Model) -> None:
        self.add_group_owners(call, group, [user])

    def add_group_owners(self, call: Call, group: Model, users: list[Model]) -> None:
        self._set_owners(call, group, users, owner=True)

    def remove_group_owners(self, call: Call, group: Model, users: list[Model]) -> None:
        self._set_owners(call, group, users, owner=False)

    def change_permissions(self, call: Call, sent: Model, permissions: Any) -> None:
        if entity_of(sent).name != "ExperimenterGroup":
            raise api_usage("Changing permissions of individual objects is no longer supported")
        if not call.caller.is_admin and sent.id.val not in call.caller.leader_of:
            raise security("changing a group's permissions: not allowed")
        call.connection.execute(
            "update grouppermissions set perms = %s where group_id = %s",
            [str(permissions), sent.id.val],
        )

    def change_password(self, call: Call, password: Any) -> None:
        set_password(call.connection, call.caller.user_id, password.val)

    def change_user_password(self, call: Call, name: str, password: Any) -> None:
        self._admin_only(call)
        row = call.connection.execute(
            "select id from experimenter where omename = %s", [name]
        ).fetchone()
        if row is None:
            raise api_usage(f"No such experimenter: {name}")
        set_password(call.connection, row[0], password.val)

    def _set_owners(self, call: Call, group: Model, users: list[Model], *, owner: bool) -> None:
        if not call.caller.is_admin and group.id.val not in call.caller.leader_of:
            raise security("naming a group's owners: not allowed")
        for user in users:
            _add_member(call.connection, user.id.val, group.id.val)
            call.connection.execute(
                "update groupexperimentermap set owner = %s where child = %s and parent = %s",
                [owner, user.id.val, group.id.val],
            )

    @staticmethod
    def _admin_only(call: Call) -> None:
        if not call.caller.is_admin:
            raise security("only administrators may do this")

    @staticmethod
    def _one(call: Call, query: str, parameters: Any, what: str) -> Model:
        found = Run(call, query, parameters).objects()
        if not found:
            raise api_usage(f"No such {what}.")
        return found[0]


def _add_member(connection: Connection[Any], user_id: int, group_id: int) -> None:
    connection.execute(
        "insert into groupexperimentermap (id, discriminator, child, parent, owner)"
        " select nextval('seq_groupexperimentermap'), 'GroupExperimenterMap', %s, %s, false"
        " where not exists (select 1 from groupexperimentermap where child = %s and parent = %s)",
        [user_id, group_id, user_id, group_id],
    )
