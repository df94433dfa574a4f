"""The address of an OMERO server and the account that is used there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from biobank_core.errors import ConfigurationError, InputError

DEFAULT_PORT: Final = 4064
_EXAMPLE: Final = "omero://host:4064/?group=lab"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is, and the groups whose data are meant (none: all of the account's)."""

    host: str
    port: int
    groups: tuple[str, ...]

    @property
    def url(self) -> str:
        """The address as it is shown; it never holds a secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        query = urlencode([("group", name) for name in self.groups])
        return f"omero://{host}:{self.port}/" + (f"?{query}" if query else "")

    @property
    def server(self) -> str:
        """The server's part of it, for messages."""
        return f"OMERO at {self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Account:
    """Who logs in: a user and password, or the key of a session that is open already."""

    user: str
    password: str = field(repr=False)
    session_key: str | None = field(repr=False)


def parse(url: str) -> Address:
    """The address of `omero://host:port/?group=lab`, where `group` may repeat.

    Raises InputError for anything else in it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError as exc:
        raise InputError(f"no URL of an OMERO catalog, such as {_EXAMPLE}") from exc
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(
            "the catalog: leave user and password out of the URL; set OMERO_USER and OMERO_PASSWORD"
        )
    query = parse_qsl(parts.query, keep_blank_values=True)
    if parts.scheme != "omero" or not parts.hostname or parts.path not in ("", "/"):
        raise InputError(f"an OMERO catalog is named by a URL such as {_EXAMPLE}", value=url)
    unknown = sorted({name for name, _ in query} - {"group"})
    if unknown or parts.fragment or not all(value for _, value in query):
        raise InputError(
            f"an OMERO catalog's URL takes group=NAME only, such as {_EXAMPLE}", value=url
        )
    return Address(parts.hostname, port, tuple(dict.fromkeys(value for _, value in query)))


def account(named: Callable[[str], str | None]) -> Account:
    """The account that the settings name. Raises ConfigurationError when they name none."""
    user, password = named("OMERO_USER"), named("OMERO_PASSWORD")
    key = named("OMERO_SESSION_KEY")
    if not key and not (user and password):
        raise ConfigurationError(
            "who logs in to OMERO? Set OMERO_USER and OMERO_PASSWORD, or OMERO_SESSION_KEY, in the "
            "environment or in the file that BIOBANK_SECRETS_FILE names; in Galaxy: choose your "
            "OMERO account in the tool's form"
        )
    return Account(user or "", password or "", key or None)
