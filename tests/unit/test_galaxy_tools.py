"""What holds for every Galaxy tool: thin, one subcommand, nothing typed reaches a shell."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from biobank_core.cli import cli
from biobank_core.cli.arguments import FORM_ONLY_PREFIX
from biobank_core.cli.arguments import expanded as expanded_arguments

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "galaxy_tools"
TOOLS = sorted(FOLDER.glob("biobank_*.xml"))
MACROS = ElementTree.parse(FOLDER / "macros.xml").getroot()
TOKENS = {str(token.get("name")): token.text or "" for token in MACROS.findall("token")}
CATALOG_FIELD = r"\$choose_catalog\.fields\.(catalog|index|files)"
OUTPUT_UUID = r"\$registered\.dataset\.dataset\.uuid\.hex"
NOT_TYPED = re.compile(
    rf"'(\$inputs|\$__galaxy_url__|\$__history_id__|{CATALOG_FIELD}|{OUTPUT_UUID})'"
)
# For a shell, for Galaxy's templates, for click: all of it is only a text.
ODD = " -x $(touch y) `touch y` ${HOME} #if x 'a' \"b\" \\ é北🧬 ; | & > * --all\n--study=y "

pytestmark = pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)


def command_line(path: Path) -> str:
    text = ElementTree.parse(path).findtext("command") or ""
    for name, value in TOKENS.items():
        text = text.replace(name, value)
    return text.strip()


def macro(name: str) -> ElementTree.Element:
    (found,) = [m for m in MACROS.findall("xml") if m.get("name") == name]
    return found


def expanded(element: ElementTree.Element) -> list[ElementTree.Element]:
    """The element's descendants, those of its macros among them."""
    found = []
    for child in element:
        if child.tag == "expand":
            found += expanded(macro(str(child.get("macro"))))
        found += [child, *expanded(child)]
    return found


def test_it_calls_exactly_one_subcommand_of_biobank(path: Path) -> None:
    line = command_line(path)
    assert line.startswith("biobank --arguments-from '$inputs' ")
    assert line.count("biobank ") == 1
    assert "\n" not in line
    assert not re.search(r"[;|&`#]|\$\(", line)
    name = line.split()[3]
    table = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert f"| `{path.stem}` | `{' '.join(subcommand(line))}` |" in table
    assert cli.get_command(click.Context(cli), name) is not None


def subcommand(line: str) -> list[str]:
    words = line.split()[3:]
    command = cli.get_command(click.Context(cli), words[0])
    return words[: 2 if isinstance(command, click.Group) else 1]


def test_nothing_that_a_person_typed_stands_in_the_command_line(path: Path) -> None:
    tree = ElementTree.parse(path)
    outputs = {
        str(out.get("name"))
        for element in (tree.find("outputs"), *MACROS.iter("outputs"))
        if element is not None
        for out in element
    }
    line = NOT_TYPED.sub("", command_line(path))
    for name in re.findall(r"'\$(\w+)'", line):
        assert name in outputs
    assert "$" not in re.sub(r"'\$\w+'", "", line)


def test_every_parameter_is_one_of_the_subcommand_or_only_steers_the_form(path: Path) -> None:
    command = cli.get_command(click.Context(cli), subcommand(command_line(path))[0])
    for word in subcommand(command_line(path))[1:]:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    assert command is not None
    known = {str(parameter.name) for parameter in command.params}
    known |= {o[2:].replace("-", "_") for p in command.params for o in p.opts if o[:2] == "--"}
    inputs = ElementTree.parse(path).find("inputs")
    assert inputs is not None
    for element in expanded(inputs):
        name = element.get("name") or str(element.get("argument", "")).lstrip("-").replace("-", "_")
        if element.tag == "repeat":
            assert name in known
        if element.tag == "param" and name not in ("name", "value"):
            assert name in known or name.startswith(FORM_ONLY_PREFIX), name


def test_what_is_typed_is_not_changed_on_its_way(path: Path) -> None:
    inputs = ElementTree.parse(path).find("inputs")
    assert inputs is not None
    for element in expanded(inputs):
        if element.tag == "param" and element.get("type") == "text":
            inner = [child.get("macro") for child in element if child.tag == "expand"]
            assert "verbatim" in inner, element.get("name") or element.get("argument")


def typed_form(element: ElementTree.Element, number: int) -> dict[str, Any]:
    """What Galaxy's file holds when every text field holds ODD: in each conditional the case of
    this number is chosen, and each repeat is there once. What is chosen, not typed, is left out.
    """
    form: dict[str, Any] = {}
    for child in element:
        name = child.get("name") or str(child.get("argument", "")).lstrip("-").replace("-", "_")
        if child.tag == "expand":
            form |= typed_form(macro(str(child.get("macro"))), number) | typed_form(child, number)
        elif child.tag == "conditional":
            cases = child.findall("when")
            form[name] = {f"{name}_by": "x"} | typed_form(cases[number % len(cases)], number)
        elif child.tag == "repeat":
            # A value that is no text is a column's number. A name that holds '=' is refused.
            pair = {"value": "1"} | typed_form(child, number)
            form[name] = [pair | {"name": ODD.replace("=", " ").strip()}]
        elif child.tag == "section":
            form[name] = typed_form(child, number)
        elif child.tag == "param" and child.get("type") == "text":
            form[name] = ODD
    return form


def texts_of(form: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The texts of a form by the name of their option or argument."""
    for name, value in form.items():
        if isinstance(value, dict):
            yield from texts_of(value)
        elif isinstance(value, list):
            yield name, "{name}={value}".format_map(value[0])
        elif not name.startswith(FORM_ONLY_PREFIX):
            yield name, value


@pytest.mark.parametrize("number", [0, 1])
def test_what_is_typed_anywhere_in_the_form_is_what_the_command_is_given(
    path: Path, number: int, tmp_path: Path
) -> None:
    inputs = ElementTree.parse(path).find("inputs")
    assert inputs is not None
    form = typed_form(inputs, number)
    typed = list(texts_of(form))
    assert typed or number
    file = tmp_path / "inputs.json"
    file.write_text(json.dumps(form))
    command = cli.get_command(click.Context(cli), subcommand(command_line(path))[0])
    assert command is not None
    rest = subcommand(command_line(path))[1:]
    argv = expanded_arguments(command, rest, str(file))
    for word in rest:
        assert isinstance(command, click.Group)
        command, argv = command.commands[word], argv[1:]
    # As click splits it, before it looks at what the values are.
    given, _, _ = command.make_parser(click.Context(command)).parse_args(argv)
    names = {o[2:].replace("-", "_"): p for p in command.params for o in p.opts if o[:2] == "--"}
    names |= {str(p.name): p for p in command.params}
    for name, text in typed:
        parameter = names[name]
        several = parameter.nargs == -1 or parameter.multiple
        lines = [line.strip() for line in text.splitlines()] if several and text == ODD else [text]
        found = given[str(parameter.name)]
        assert list(found if several else [found]) == lines, name


def test_it_has_what_every_tool_has(path: Path) -> None:
    root = ElementTree.parse(path).getroot()
    assert root.get("profile") == "@PROFILE@"
    assert root.get("version") == "@TOOL_VERSION@+galaxy@VERSION_SUFFIX@"
    command = root.find("command")
    assert command is not None
    assert command.get("detect_errors") == "exit_code"
    used = {element.get("macro") for element in root.findall("expand")}
    assert {"edam", "requirements", "configfiles", "citations"} <= used
    tests = list(root.iter("test"))
    assert [test for test in tests if test.get("expect_failure") == "true"]
    assert len([test for test in tests if test.get("expect_num_outputs")]) >= 2
    help_text = root.findtext("help") or ""
    for title in ("What it does", "Example"):
        assert f"**{title}**" in help_text


def test_who_asks_galaxy_has_the_users_own_key_and_takes_one_that_was_stored(path: Path) -> None:
    used = {element.get("macro") for element in ElementTree.parse(path).iter("expand")}
    asks = "$__galaxy_url__" in command_line(path)
    assert ("environment_galaxy" in used, "galaxy_key" in used) == (asks, asks)
    # Their versions are their own: with the tool's, each upgrade would ask for them anew.
    for credentials in MACROS.iter("credentials"):
        token = str(credentials.get("version"))
        assert token in ("@OMERO_ACCOUNT_VERSION@", "@GALAXY_KEY_VERSION@")
        assert token in TOKENS
        # Without a vault nothing is stored as long as no field but the secret would be enough.
        assert not [field for field in credentials if field.get("optional")]
        assert credentials.findall("secret")


def test_a_list_to_choose_from_says_why_it_is_empty(path: Path) -> None:
    # In the help: Galaxy 26.1 asks no validator where there is nothing to choose.
    inputs = ElementTree.parse(path).find("inputs")
    assert inputs is not None
    for element in expanded(inputs):
        if element.tag == "param" and element.find("options") is not None:
            assert "An empty list: " in str(element.get("help"))


def test_the_version_is_that_of_the_package(path: Path) -> None:
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert f"\nversion = {TOKENS['@TOOL_VERSION@']}\n" in setup
    assert path.stem.startswith("biobank_")
