"""The reference of the command line as Markdown: `python -m biobank_core.cli.reference`.

docs/cli.md is its output; a test holds the two together.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from biobank_core.cli import cli


def reference(
    group: click.Group = cli,
    *,
    program: str = "biobank",
    written_by: str = "python -m biobank_core.cli.reference > docs/cli.md",
) -> str:
    """The whole reference: every command with its help, its arguments and its options."""
    lines = [
        f"# The command line of {program}",
        "",
        f"Written by `{written_by}`; do not edit by hand.",
        "",
    ]
    root = click.Context(group, info_name=program)
    lines += _described(group, root)
    for name in group.list_commands(root):
        command = group.get_command(root, name)
        if command is not None:
            lines += _with_subcommands(command, click.Context(command, info_name=name, parent=root))
    return "\n".join(lines).rstrip() + "\n"


def _with_subcommands(command: click.Command, ctx: click.Context) -> Iterator[str]:
    yield from _described(command, ctx)
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            part = command.get_command(ctx, name)
            if part is not None:
                inner = click.Context(part, info_name=name, parent=ctx)
                yield from _with_subcommands(part, inner)


def _described(command: click.Command, ctx: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(ctx))
    yield f"## {ctx.command_path}"
    yield ""
    yield f"    {ctx.command_path} {usage}".rstrip()
    yield ""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield paragraph.replace("\b\n", "").strip()
        yield ""
    rows = [
        record
        for parameter in command.get_params(ctx)
        if isinstance(parameter, click.Option)
        and "--help" not in parameter.opts
        and (record := parameter.get_help_record(ctx)) is not None
    ]
    if rows:
        yield "| option | |"
        yield "|---|---|"
        for option, text in rows:
            yield f"| `{_cell(option)}` | {_cell(text)} |"
        yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    click.echo(reference(), nl=False)
