"""Settings: options, else environment, else the user's config file, else an SQLite file of theirs.

Secrets come from the environment or from the file that BIOBANK_SECRETS_FILE names, nowhere else.
The config file is `config.toml` in the user's config folder (Linux: ~/.config/biobank):

    catalog = "sqlite:////data/lab.db"
    galaxy_url = "https://galaxy.example.org"
"""

from __future__ import annotations

import getpass
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import platformdirs

from biobank_core.errors import ConfigurationError

APPLICATION: Final = "biobank"

# Setting -> the environment variable that may hold it; the names are the config file's keys too.
SETTINGS: Final = {
    "catalog": "BIOBANK_CATALOG",
    "index": "BIOBANK_INDEX",
    "broker": "BIOBANK_BROKER",
    "galaxy_url": "GALAXY_URL",
}
ACCOUNTS: Final = ("OMERO_USER", "NEO4J_USER", "RABBITMQ_USER")
SECRETS: Final = (
    "OMERO_PASSWORD",
    "OMERO_SESSION_KEY",
    "NEO4J_PASSWORD",
    "RABBITMQ_PASSWORD",
    "GALAXY_API_KEY",
)
SECRETS_FILE: Final = "BIOBANK_SECRETS_FILE"
# Where a person finds it who sees a job's message in Galaxy, and no environment.
_IN_GALAXY: Final = {
    "GALAXY_API_KEY": "; in Galaxy: log in, or choose a Galaxy key in the tool's form",
}
OPERATOR: Final = "BIOBANK_OPERATOR"
# A secrets file holds a handful of lines; a huge one is another file named by mistake.
_MAX_SECRETS_FILE_BYTES: Final = 65_536

_SECRET_WORD: Final = re.compile(r"(?i)password|passwd|secret|token|api_?key|session_?key|^key$")


class Secret:
    """A text that is never shown: not by repr, str, format, pickle or a traceback's locals."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """The text itself, for the one call that needs it."""
        return self.__value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __str__(self) -> str:
        return "…"

    def __format__(self, spec: str) -> str:
        return "…"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.reveal() == self.__value

    def __hash__(self) -> int:
        return hash(("Secret", self.__value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a command works with. `index` None: in the catalog's own file."""

    catalog: str
    index: str | None = None
    broker: str | None = None
    galaxy_url: str | None = None
    accounts: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)

    def secret(self, name: str) -> Secret | None:
        """The secret of this name (`GALAXY_API_KEY`), or None."""
        return self.secrets.get(name)

    def account(self, name: str) -> str | None:
        """A user's name or a secret, revealed for the driver that logs in; None: not set."""
        secret = self.secrets.get(name)
        return self.accounts.get(name) if secret is None else secret.reveal()

    def require_secret(self, name: str) -> Secret:
        """The secret of this name. Raises ConfigurationError that says where to put it."""
        secret = self.secrets.get(name)
        if secret is None:
            raise ConfigurationError(
                f"{name} is not set; set it in the environment, or in the file that "
                f"{SECRETS_FILE} names (mode 0600, lines NAME=value){_IN_GALAXY.get(name, '')}"
            )
        return secret

    def require_galaxy_url(self) -> str:
        """The address of the Galaxy server. Raises ConfigurationError that says how to give it."""
        if self.galaxy_url is None:
            raise ConfigurationError("which Galaxy? Give --galaxy URL or set GALAXY_URL")
        return self.galaxy_url


def load_settings(
    *,
    catalog: str | None = None,
    index: str | None = None,
    broker: str | None = None,
    galaxy_url: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of this process; what is given here comes before everything else.

    Raises ConfigurationError for a config or secrets file that can't be used and for an address
    that holds a password.
    """
    env = os.environ if environment is None else environment
    given = {"catalog": catalog, "index": index, "broker": broker, "galaxy_url": galaxy_url}
    file_values = _config_file(config_path())
    chosen: dict[str, str | None] = {}
    for name, variable in SETTINGS.items():
        value = given[name] or env.get(variable) or file_values.get(name)
        chosen[name] = _checked_url(value, name) if value else None
    from_file = _secrets_file(env.get(SECRETS_FILE))
    known = {name: env.get(name) or from_file.get(name) for name in (*ACCOUNTS, *SECRETS)}
    return Settings(
        catalog=_as_url(chosen["catalog"]) if chosen["catalog"] else default_catalog(),
        index=_as_url(chosen["index"]) if chosen["index"] else None,
        broker=chosen["broker"],
        galaxy_url=chosen["galaxy_url"],
        accounts={name: value for name in ACCOUNTS if (value := known[name])},
        secrets={name: Secret(value) for name in SECRETS if (value := known[name])},
    )


def config_path() -> Path:
    """Where the user's config file is looked for."""
    return platformdirs.user_config_path(APPLICATION, appauthor=False) / "config.toml"


def default_catalog() -> str:
    """The SQLite file in the user's data folder, as a URL."""
    return _as_url(str(platformdirs.user_data_path(APPLICATION, appauthor=False) / "biobank.db"))


def operator() -> str:
    """Who is written into the history: BIOBANK_OPERATOR, else the account that runs this process.

    The variable is for services that act for others, such as Galaxy's jobs.
    """
    named = os.environ.get(OPERATOR, "").strip()
    if named and named.isprintable():
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def _config_file(path: Path) -> dict[str, str]:
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path}: can't be read as UTF-8 text ({exc})") from exc
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        # Without the parser's text and without its chain: both may quote the line.
        raise ConfigurationError(f"{path}: not a TOML file") from None
    for name, value in values.items():
        if _SECRET_WORD.search(name):
            raise ConfigurationError(
                f"{path}: {name} looks like a secret; secrets belong in the environment or in "
                f"the file that {SECRETS_FILE} names"
            )
        if name not in SETTINGS:
            raise ConfigurationError(
                f"{path}: unknown setting {name}; known: {', '.join(SETTINGS)}"
            )
        if not isinstance(value, str):
            raise ConfigurationError(f"{path}: {name} must be a text in quotes")
    return values


def _secrets_file(name: str | None) -> dict[str, str]:
    """The names and values of the secrets file. Its content never reaches a message."""
    if not name:
        return {}
    try:
        with Path(name).open("rb") as stream:
            state = os.fstat(stream.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise ConfigurationError(f"{SECRETS_FILE}: {name} is not a regular file")
            if state.st_mode & 0o077:
                raise ConfigurationError(
                    f"{SECRETS_FILE}: {name} can be read or written by others (mode "
                    f"{stat.S_IMODE(state.st_mode):04o}); run: chmod 600 {name}"
                )
            data = stream.read(_MAX_SECRETS_FILE_BYTES + 1)
    except OSError as exc:
        raise ConfigurationError(f"{SECRETS_FILE}: {name}: {exc.strerror}") from exc
    if len(data) > _MAX_SECRETS_FILE_BYTES:
        raise ConfigurationError(f"{SECRETS_FILE}: {name} is too large for a secrets file")
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{SECRETS_FILE}: {name} is not UTF-8 text") from None
    values: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = line.partition("=")
        key = key.strip()
        if not equals or key not in (*SECRETS, *ACCOUNTS):
            raise ConfigurationError(
                f"{SECRETS_FILE}: {name}, line {number}: must be NAME=value with a name of "
                f"{', '.join((*SECRETS, *ACCOUNTS))}"
            )
        values[key] = value.strip()
    return values


def _checked_url(value: str, name: str) -> str:
    """Refuses an address that holds a secret, without showing the address."""
    try:
        parts = urlsplit(value)
        hidden = parts.password is not None or any(
            _SECRET_WORD.search(key) for key, _ in parse_qsl(parts.query, keep_blank_values=True)
        )
    except ValueError:
        raise ConfigurationError(f"{name}: not a URL") from None
    if hidden:
        raise ConfigurationError(
            f"{name}: the URL holds a password or key; leave it out and set it in the environment "
            f"({', '.join(SECRETS)})"
        )
    return value


def _as_url(value: str) -> str:
    """`lab.db` means the SQLite file of that name, `~/lab.db` one in the user's home."""
    if "://" in value:
        return value
    from biobank_core.sqlite_file import url_of_path  # noqa: PLC0415  # only for plain file names

    return url_of_path(Path(value).expanduser())
