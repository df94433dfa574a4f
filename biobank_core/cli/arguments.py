"""Options and arguments of a subcommand from a JSON file: `biobank --arguments-from FILE COMMAND`.

For programs that hold what people typed (a Galaxy tool's form): no shell ever sees a value, and a
value that starts with `-` is a value. The file is one JSON object:

    {"study": "KPN", "release": "<3", "all": true, "param": [{"name": "k", "value": "31"}],
     "objects": "KPN:T1\\nKPN:T2", "filter": {"since": "2026-01-01"}, "choose_mode": "x"}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from biobank_core.errors import InputError

# A form is some kilobytes; pasted lists of identifiers may be some megabytes.
MAX_FILE_BYTES: Final = 32 * 1024 * 1024
# A name with this prefix only steers a form (a Galaxy conditional's own parameter).
FORM_ONLY_PREFIX: Final = "choose_"
_MAX_DEPTH: Final = 20


def expanded(command: click.Command, args: list[str], file: str) -> list[str]:
    """`args` of the command, which win, with what the file says beside them.

    Names are those of the long options (`-` or `_`), or of the values that the command's usage and
    its code give them. null and empty texts are left out; true is a flag, false none. A list
    repeats an option; an object in a list is NAME=VALUE when it holds `name` and `value`, or stands
    for its one member. Where several values are taken, a text means one a line. Any other object is
    a group of names. What is no object and has a name with FORM_ONLY_PREFIX is left out. Raises
    InputError.
    """
    names: list[str] = []
    while isinstance(command, click.Group) and args:
        inner = command.get_command(click.Context(command), args[0])
        if inner is None:
            return names + args
        names.append(args[0])
        command, args = inner, args[1:]
    options: list[str] = []
    positional: dict[str, list[str]] = {}
    known = _parameters(command)
    for name, value in _flat(_read(file), file):
        parameter = known.get(name.replace("-", "_"))
        if parameter is None:
            told = ", ".join(sorted(known))
            raise _wrong(f"the command takes no such thing; it takes {told}", file, name)
        if isinstance(parameter, click.Argument):
            several = parameter.nargs == -1
            found = _texts(value, several=several, file=file, name=name)
            positional.setdefault(str(parameter.name), []).extend(found)
            continue
        option = parameter.opts[-1]
        if isinstance(parameter, click.Option) and parameter.is_flag:
            if value not in (True, False, None):
                raise _wrong("must be true or false", file, name)
            options += [option] if value else []
        else:
            several = parameter.multiple
            found = _texts(value, several=several, file=file, name=name)
            options += [f"{option}={text}" for text in found]
    # In the command's order, whatever that of the file is.
    ordered = [
        text for parameter in command.params for text in positional.get(str(parameter.name), ())
    ]
    separator = ["--"] if ordered and "--" not in args else []
    return [*names, *options, *args, *separator, *ordered]


def _parameters(command: click.Command) -> dict[str, click.Parameter]:
    found: dict[str, click.Parameter] = {}
    for parameter in command.params:
        found[str(parameter.name)] = parameter
        if isinstance(parameter, click.Option):
            for option in parameter.opts:
                if option.startswith("--"):
                    found[option[2:].replace("-", "_")] = parameter
    return found


def _read(file: str) -> Mapping[str, Any]:
    import msgspec  # noqa: PLC0415  # not needed for --help

    with Path(file).open("rb") as stream:
        data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise _wrong("is too large for the arguments of a command", file)
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _wrong(f"is not JSON: {exc}", file) from exc
    if not isinstance(found, dict):
        raise _wrong("must hold one JSON object", file)
    return found


def _flat(values: Mapping[str, Any], file: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if depth > _MAX_DEPTH:
        raise _wrong("holds objects within objects without an end", file)
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, file, depth + 1)
        elif not name.startswith(FORM_ONLY_PREFIX):
            yield name, value


def _texts(value: Any, *, several: bool, file: str, name: str) -> list[str]:
    if isinstance(value, str) and several:
        value = value.splitlines()
        found = [line.strip() for line in value]
    elif isinstance(value, list):
        found = [_text(part, file, name) for part in value]
    else:
        found = [_text(value, file, name)]
    found = [text for text in found if text]
    if len(found) > 1 and not several:
        raise _wrong(f"takes one value, not {len(found)}", file, name)
    return found


def _text(value: Any, file: str, name: str) -> str:
    match value:
        case None:
            return ""
        case bool():
            raise _wrong("takes a value, not true or false", file, name)
        case str() | int() | float():
            text = str(value)
            if "\x00" in text:
                raise _wrong("must not hold a NUL character", file, name)
            return text
        case [inner]:
            return _text(inner, file, name)  # how Galaxy tells of one column of a table
        case {"name": str(key), "value": inner, **others} if not others:
            if "=" in key or not key.strip():
                raise _wrong("a name must not be empty or hold '='", file, name, key)
            return f"{key.strip()}={_text(inner, file, name)}"
        case dict() if len(value) == 1:
            return _text(next(iter(value.values())), file, name)
    raise _wrong("must be a text, a number, or a list of such", file, name)


def _wrong(reason: str, file: str, field: str | None = None, value: object = None) -> InputError:
    from biobank_core.errors import InputError  # noqa: PLC0415

    return InputError(reason, file=file, field=field, value=value)
