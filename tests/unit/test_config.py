"""Where settings come from, and that secrets are never shown."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from biobank_core.config import Secret, Settings, config_path, load_settings
from biobank_core.errors import ConfigurationError

CANARY = "canary-7f3d-never-show"


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))


def write_config(text: str) -> Path:
    path = config_path()
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return path


def secrets_file(tmp_path: Path, text: str, mode: int = 0o600) -> dict[str, str]:
    path = tmp_path / "secrets"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return {"BIOBANK_SECRETS_FILE": str(path)}


def test_without_any_setting_the_catalog_is_a_file_in_the_users_data_folder(tmp_path: Path) -> None:
    settings = load_settings(environment={})
    assert settings.catalog == f"sqlite:///{tmp_path}/data/biobank/biobank.db"
    assert settings.index is None


def test_an_option_comes_before_the_environment_and_that_before_the_config_file() -> None:
    write_config('catalog = "sqlite:///from-file.db"\nindex = "sqlite:///index-from-file.db"\n')
    env = {"BIOBANK_CATALOG": "sqlite:///from-env.db"}
    assert load_settings(environment={}).catalog == "sqlite:///from-file.db"
    assert load_settings(environment=env).catalog == "sqlite:///from-env.db"
    given = load_settings(catalog="sqlite:///given.db", environment=env)
    assert given.catalog == "sqlite:///given.db"
    assert given.index == "sqlite:///index-from-file.db"


def test_an_empty_environment_variable_counts_as_not_set() -> None:
    write_config('galaxy_url = "https://galaxy.example.org"\n')
    assert load_settings(environment={"GALAXY_URL": ""}).galaxy_url == "https://galaxy.example.org"


def test_a_plain_file_name_means_an_sqlite_file() -> None:
    assert load_settings(catalog="lab 1.db", environment={}).catalog == "sqlite:///lab 1.db"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('catalogue = "x"\n', "unknown setting catalogue"),
        ("catalog = 7\n", "catalog must be a text"),
        ("catalog = \n", "not a TOML file"),
        (f'galaxy_api_key = "{CANARY}"\n', "looks like a secret"),
        (f'galaxy_api_key = "{CANARY}\n', "not a TOML file"),
    ],
)
def test_a_config_file_that_is_wrong_is_named_with_what_is_wrong(text: str, said: str) -> None:
    path = write_config(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environment={})
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"omero://ada:{CANARY}@omero.example.org",
        f"https://galaxy.example.org/?key={CANARY}",
        f"https://galaxy.example.org/?api_key={CANARY}",
        f"amqp://ada:{CANARY}@[broken",
    ],
)
@pytest.mark.parametrize("name", ["catalog", "index", "broker", "galaxy_url"])
def test_a_url_with_a_secret_in_it_is_refused_without_being_shown(url: str, name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**{name: url}, environment={})
    assert name in str(caught.value)
    assert CANARY not in str(caught.value)


def test_secrets_come_from_the_file_that_the_environment_names(tmp_path: Path) -> None:
    env = secrets_file(tmp_path, f"# lab\n\nGALAXY_API_KEY={CANARY}=x\nOMERO_USER = ada\n")
    settings = load_settings(environment=env)
    assert settings.require_secret("GALAXY_API_KEY").reveal() == f"{CANARY}=x"
    assert settings.accounts["OMERO_USER"] == "ada"


def test_a_secret_in_the_environment_comes_before_the_file(tmp_path: Path) -> None:
    env = secrets_file(tmp_path, "GALAXY_API_KEY=old\n") | {"GALAXY_API_KEY": "new"}
    assert load_settings(environment=env).require_secret("GALAXY_API_KEY").reveal() == "new"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o601])
def test_a_secrets_file_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    env = secrets_file(tmp_path, f"GALAXY_API_KEY={CANARY}\n", mode)
    with pytest.raises(ConfigurationError, match="chmod 600") as caught:
        load_settings(environment=env)
    assert CANARY not in str(caught.value)


def test_a_read_only_secrets_file_of_ones_own_is_taken(tmp_path: Path) -> None:
    env = secrets_file(tmp_path, "GALAXY_API_KEY=k\n", 0o400)
    assert load_settings(environment=env).secret("GALAXY_API_KEY") == Secret("k")


@pytest.mark.parametrize(
    "line", [f"GALAXY_KEY={CANARY}", CANARY, f"export GALAXY_API_KEY={CANARY}"]
)
def test_a_wrong_line_of_a_secrets_file_is_named_by_its_number_only(
    tmp_path: Path, line: str
) -> None:
    env = secrets_file(tmp_path, f"\n{line}\n")
    with pytest.raises(ConfigurationError, match="line 2") as caught:
        load_settings(environment=env)
    assert CANARY not in str(caught.value)


def test_a_missing_secrets_file_is_an_error_and_not_an_absence_of_secrets(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load_settings(environment={"BIOBANK_SECRETS_FILE": str(tmp_path / "none")})


def test_a_secret_shows_itself_in_no_way() -> None:
    secret = Secret(CANARY)
    settings = Settings(catalog="sqlite:///x.db", secrets={"GALAXY_API_KEY": secret})
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", repr(settings)):
        assert CANARY not in text
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_a_missing_secret_is_asked_for_with_the_two_places_it_may_stand_in() -> None:
    with pytest.raises(ConfigurationError, match="GALAXY_API_KEY is not set") as caught:
        load_settings(environment={}).require_secret("GALAXY_API_KEY")
    assert "BIOBANK_SECRETS_FILE" in str(caught.value)
