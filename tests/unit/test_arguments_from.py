"""`biobank --arguments-from FILE`: a form's values reach the command as they are, never a shell."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from biobank_core.cli import COMMANDS, cli
from biobank_core.cli.arguments import expanded
from biobank_core.errors import InputError

ODD = "a b'\"`$(touch x);\n\t-é\\|&<>*\u202e"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("BIOBANK_", "GALAXY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BIOBANK_CATALOG", "sqlite:///c.db")


@click.command()
@click.argument("objects", nargs=-1)
@click.option("--study")
@click.option("--param", multiple=True)
@click.option("--since-day")
@click.option("--all", "everything", is_flag=True)
@click.option("--depth", type=int)
def one(**_values: Any) -> None:
    """A command."""


@click.group()
def several() -> None:
    """A group of commands."""


several.add_command(one)


def told(values: Any, *args: str, command: click.Command = one) -> dict[str, Any]:
    """What the command's parameters are, by click's own reading."""
    Path("a.json").write_text(json.dumps(values))
    argv = expanded(command, list(args), "a.json")
    while isinstance(command, click.Group):
        command, argv = command.commands[argv[0]], argv[1:]
    return command.make_context("one", argv).params


def test_values_of_every_sort_reach_the_command() -> None:
    params = told(
        {
            "study": ODD,
            "param": [{"name": "k", "value": 31}, {"name": "mode", "value": "a=b"}],
            "choose_filter": {"since_day": "2026-01-01", "choose_by": "x", "in": {"depth": 3}},
            "all": True,
            "objects": "KPN:T1\r\n\n  KPN:-x \n",
        }
    )
    assert params == {
        "study": ODD,
        "param": ("k=31", "mode=a=b"),
        "since_day": "2026-01-01",
        "everything": True,
        "depth": 3,
        "objects": ("KPN:T1", "KPN:-x"),
    }


def test_what_a_form_leaves_empty_is_not_given() -> None:
    params = told({"study": "", "depth": None, "all": False, "param": [], "objects": "\n \n"})
    assert params["study"] is params["depth"] is None
    assert (params["everything"], params["param"], params["objects"]) == (False, (), ())


@pytest.mark.parametrize("value", ["--all", "-h", "--", "--study=x", "=x"])
def test_a_value_that_looks_like_an_option_is_a_value(value: str) -> None:
    params = told({"study": value, "objects": [value]})
    assert params["study"] == value
    assert params["objects"] == (value,)
    assert not params["everything"]


def test_the_command_line_wins_and_arguments_add_up() -> None:
    params = told({"study": "file", "objects": [{"object": "b"}]}, "--study", "line", "a")
    assert params["study"] == "line"
    assert params["objects"] == ("a", "b")


def test_arguments_come_in_the_order_of_the_command_not_of_the_file() -> None:
    Path("b.tsv").write_text("label\nKPN\n")
    Path("a.json").write_text(json.dumps({"file": "b.tsv", "kind": "Study"}))
    result = biobank("--arguments-from", "a.json", "register")
    assert result.exit_code == 0, result.stderr


def test_a_command_of_a_group_takes_them_too() -> None:
    assert told({"depth": 1}, "one", "x", command=several)["depth"] == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "one JSON object"),
        ({"shape": 1}, "it takes all, depth, everything, objects, param, since_day, study"),
        ({"study": ["a", "b"]}, "takes one value, not 2"),
        ({"study": True}, "not true or false"),
        ({"all": "yes"}, "true or false"),
        ({"study": "a\x00"}, "NUL"),
        ({"param": [{"name": "a=b", "value": "c"}]}, "'='"),
        ({"param": [{"name": "a", "value": "c", "x": 1}]}, "must be a text"),
        ({"param": [["a", "b"]]}, "must be a text"),
    ],
)
def test_what_no_form_would_say_is_refused_by_name(values: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        told(values)


@pytest.mark.parametrize("text", ["{", '{"a": ' * 100_000, "\ufeff", '{"a": "\udcff"}'])
def test_a_file_that_is_not_json_is_refused(text: str) -> None:
    Path("a.json").write_text(text, errors="surrogateescape")
    with pytest.raises(InputError, match="not JSON"):
        expanded(one, [], "a.json")


def biobank(*args: str) -> Result:
    return CliRunner().invoke(cli, args)


def test_a_label_that_a_shell_would_obey_reaches_the_catalog_unchanged() -> None:
    label = 'it\'s `$(touch x)` "é" -rf'
    Path("s.tsv").write_text(f"label\n{label}\n")
    assert biobank("register", "Study", "s.tsv").exit_code == 0
    Path("a.json").write_text(json.dumps({"study": label, "format": "json"}))
    result = biobank("--arguments-from", "a.json", "summarize")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["study"]["label"] == label
    assert not Path("x").exists()


def test_a_wrong_value_exits_as_a_wrong_option_does_and_a_missing_file_is_named() -> None:
    Path("a.json").write_text(json.dumps({"study": "X", "format": "pdf"}))
    wrong = biobank("--arguments-from", "a.json", "summarize")
    assert (wrong.exit_code, "'pdf' is not one of" in wrong.stderr) == (2, True)
    missing = biobank("--arguments-from", "none.json", "summarize")
    assert (missing.exit_code, "none.json" in missing.stderr) == (2, True)


@pytest.mark.parametrize("name", list(COMMANDS))
def test_no_option_of_a_command_is_one_that_only_steers_a_form(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    parts = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    for part in parts:
        assert not [p for p in part.params if (p.name or "").startswith("choose_")]
