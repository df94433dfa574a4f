"""A group of its own for a test of the OMERO catalog, with an owner who logs in to it."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import omero.model
from omero.rtypes import rbool, rstring

from tests.servers.omero.lab import READ_ANNOTATE, Client, OmeroLab


@dataclass(frozen=True)
class Member:
    """An account in the group. `owner`: may do there what members may not."""

    name: str
    id: int
    password: str = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """What a process is given to log in as this one."""
        return {"OMERO_USER": self.name, "OMERO_PASSWORD": self.password}


@dataclass(frozen=True)
class OwnGroup:
    """An empty group; `members[0]` owns it."""

    lab: OmeroLab
    id: int
    name: str
    members: tuple[Member, ...]

    @property
    def url(self) -> str:
        address = self.lab.address
        return f"omero://{address.host}:{address.port}/?group={self.name}"

    @contextmanager
    def login(self, number: int = 0) -> Iterator[Client]:
        """A client of the plain omero-py, logged in as one of the members."""
        member = self.members[number]
        with self.lab.login_as(member.name, member.password, self.name) as client:
            yield client

    @contextmanager
    def gateway(self, number: int = 0) -> Iterator[Any]:
        """A BlitzGateway, logged in as one of the members."""
        member = self.members[number]
        with self.lab.gateway_as(member.name, member.password, self.name) as gateway:
            yield gateway


def make_group(lab: OmeroLab, kind: str = READ_ANNOTATE, *, members: int = 1) -> OwnGroup:
    """A new group of this kind and its members, the first of them its owner."""
    tag = uuid.uuid4().hex[:12]
    address = lab.address
    with lab.login_as(address.user, address.password) as root:
        group_id = _group(root, f"own-{tag}", kind)
        group = omero.model.ExperimenterGroupI(group_id, False)
        made = tuple(_user(root, f"u{n}-{tag}", group) for n in range(members))
        owner = omero.model.ExperimenterI(made[0].id, False)
        root.admin.addGroupOwners(group, [owner])
    return OwnGroup(lab, group_id, f"own-{tag}", made)


def join(group: OwnGroup, member: Member, *, owner: bool = False) -> None:
    """Take a member of another group into this one as well."""
    address = group.lab.address
    with group.lab.login_as(address.user, address.password) as root:
        place = omero.model.ExperimenterGroupI(group.id, False)
        account = omero.model.ExperimenterI(member.id, False)
        root.admin.addGroups(account, [place])
        if owner:
            root.admin.addGroupOwners(place, [account])


def _group(root: Client, name: str, kind: str) -> int:
    group = omero.model.ExperimenterGroupI()
    group.setName(rstring(name))
    group.setLdap(rbool(False))
    group.getDetails().setPermissions(omero.model.PermissionsI(kind))
    number: int = root.admin.createGroup(group)
    return number


def _user(root: Client, name: str, group: Any) -> Member:
    password = secrets.token_urlsafe(12)
    user = omero.model.ExperimenterI()
    user.setOmeName(rstring(name))
    user.setFirstName(rstring("A"))
    user.setLastName(rstring("Tester"))
    user.setLdap(rbool(False))
    everybody = omero.model.ExperimenterGroupI(root.admin.getSecurityRoles().userGroupId, False)
    number = root.admin.createExperimenterWithPassword(user, rstring(password), group, [everybody])
    return Member(name, number, password)
