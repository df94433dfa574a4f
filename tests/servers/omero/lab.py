"""Groups and users of our own on a server, the stand-in or a genuine one: what OMERO tests use.

A genuine server is named by OMERO_TEST_URL (omero://host:port/), OMERO_TEST_USER and
OMERO_TEST_PASSWORD, an account that may make groups and users; nothing else there is touched.
"""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import omero
import omero.clients
import omero.model
from omero.gateway import BlitzGateway
from omero.rtypes import rbool, rstring

PRIVATE, READ_ONLY, READ_ANNOTATE, READ_WRITE = "rw----", "rwr---", "rwra--", "rwrw--"
KINDS = (PRIVATE, READ_ONLY, READ_ANNOTATE, READ_WRITE)
OWNER, MEMBERS, STRANGER = "ada", ("bob", "cleo"), "dan"
_DEFAULT_PORT = 4064


@dataclass(frozen=True)
class Address:
    """Where a server is, and the account that may make others."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)


def genuine_address() -> Address | None:
    """Return the genuine server that the environment names, if it does."""
    url = os.environ.get("OMERO_TEST_URL")
    if not url:
        return None
    parts = urlsplit(url)
    return Address(
        parts.hostname or "localhost",
        parts.port or _DEFAULT_PORT,
        os.environ.get("OMERO_TEST_USER", "root"),
        os.environ["OMERO_TEST_PASSWORD"],
    )


@dataclass(frozen=True)
class Account:
    """A user that the lab made; `id` is OMERO's."""

    name: str
    id: int
    password: str = field(repr=False)


class Client:
    """One logged-in omero-py client, with the services at hand."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.factory = client.getSession()
        self.query = self.factory.getQueryService()
        self.update = self.factory.getUpdateService()
        self.admin = self.factory.getAdminService()

    def ids(self, hql: str, **texts: str) -> list[int]:
        """Return the first column of a projection as numbers; `texts` are its parameters."""
        parameters = omero.sys.ParametersI()
        for name, value in texts.items():
            parameters.addString(name, value)
        return [row[0].val for row in self.query.projection(hql, parameters) if row]

    def submit(self, request: Any, context: dict[str, str] | None = None) -> Any:
        """Run a request and return its response; an omero.CmdError when it failed."""
        done = self.client.submit(request, loops=60, ms=500, ctx=context)
        try:
            return done.getResponse()
        finally:
            done.close(True)


class OmeroLab:
    """One group of each kind with one owner and two members, and a stranger with a group alone.

    Names end in a part of their own, so that many labs live side by side on one server. One that is
    not `filled` makes none of them, and only logs people in.
    """

    def __init__(self, address: Address, *, filled: bool = True) -> None:
        self.address = address
        self.tag = uuid.uuid4().hex[:10]
        self.groups: dict[str, int] = {}  # by kind
        self.accounts: dict[str, Account] = {}  # by first name
        if filled:
            with self.login_as(address.user, address.password) as root:
                self._fill(root)

    def group_name(self, kind: str) -> str:
        """Return the name of the group of that kind."""
        return f"lab-{kind}-{self.tag}"

    def account(self, who: str) -> Account:
        """Return ada (owner of all groups), bob or cleo (members), or dan (of none)."""
        return self.accounts[who]

    @contextmanager
    def login(self, who: str, kind: str = READ_ANNOTATE) -> Iterator[Client]:
        """Log one of the lab's users in, in the group of that kind; a session of its own."""
        account = self.accounts[who]
        group = "" if who == STRANGER else self.group_name(kind)
        with self.login_as(account.name, account.password, group) as client:
            yield client

    @contextmanager
    def root(self, kind: str = READ_ANNOTATE) -> Iterator[Client]:
        """Log the administrator in, in the group of that kind."""
        user, password = self.address.user, self.address.password
        with self.login_as(user, password, self.group_name(kind)) as client:
            yield client

    @contextmanager
    def login_as(self, user: str, password: str, group: str = "") -> Iterator[Client]:
        """Log anybody in; `group` is the name of the session's group."""
        properties = {"omero.host": self.address.host, "omero.port": str(self.address.port)}
        if group:
            properties["omero.group"] = group
        client = omero.client(args=[f"--{name}={value}" for name, value in properties.items()])
        try:
            client.createSession(user, password)
            if group:  # a name is for the login; calls would want an id
                client.getImplicitContext().remove("omero.group")
            yield Client(client)
        finally:
            client.__del__()  # closes the session, and works without one too

    @contextmanager
    def gateway(self, who: str, kind: str = READ_ANNOTATE) -> Iterator[Any]:
        """Log one of the lab's users in through BlitzGateway."""
        account = self.accounts[who]
        with self.gateway_as(account.name, account.password, self.group_name(kind)) as gateway:
            yield gateway

    @contextmanager
    def gateway_as(self, user: str, password: str, group: str) -> Iterator[Any]:
        """Log anybody in through BlitzGateway; `group` is the name of the session's group."""
        address = self.address
        gateway = BlitzGateway(user, password, host=address.host, port=address.port, group=group)
        assert gateway.connect(), gateway.getLastError()
        try:
            yield gateway
        finally:
            gateway.close()

    def _fill(self, root: Client) -> None:
        for kind in KINDS:
            self.groups[kind] = self._group(root, self.group_name(kind), kind)
        groups = [omero.model.ExperimenterGroupI(each, False) for each in self.groups.values()]
        for who in (OWNER, *MEMBERS):
            self.accounts[who] = self._user(root, who, groups)
        alone = self._group(root, f"lab-alone-{self.tag}", PRIVATE)
        stranger = self._user(root, STRANGER, [omero.model.ExperimenterGroupI(alone, False)])
        self.accounts[STRANGER] = stranger
        owner = omero.model.ExperimenterI(self.accounts[OWNER].id, False)
        for group in groups:
            root.admin.addGroupOwners(group, [owner])

    @staticmethod
    def _group(root: Client, name: str, kind: str) -> int:
        group = omero.model.ExperimenterGroupI()
        group.setName(rstring(name))
        group.setLdap(rbool(False))
        group.getDetails().setPermissions(omero.model.PermissionsI(kind))
        made: int = root.admin.createGroup(group)
        return made

    def _user(self, root: Client, who: str, groups: list[Any]) -> Account:
        password = secrets.token_urlsafe(12)
        user = omero.model.ExperimenterI()
        user.setOmeName(rstring(f"{who}-{self.tag}"))
        user.setFirstName(rstring(who.capitalize()))
        user.setLastName(rstring("Lab"))
        user.setLdap(rbool(False))
        # Without the group of all users an account may log in and call nothing.
        everybody = omero.model.ExperimenterGroupI(root.admin.getSecurityRoles().userGroupId, False)
        row_id = root.admin.createExperimenterWithPassword(
            user, rstring(password), groups[0], [*groups[1:], everybody]
        )
        return Account(f"{who}-{self.tag}", row_id, password)
