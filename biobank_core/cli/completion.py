"""`biobank completion`."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, *, shell: str) -> None:
    """Print the script that makes a shell complete commands and options.

    For bash put into ~/.bashrc: eval "$(biobank completion bash)"; for zsh into ~/.zshrc: eval
    "$(biobank completion zsh)"; for fish: biobank completion fish >
    ~/.config/fish/completions/biobank.fish
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    completion = get_completion_class(shell)
    assert completion is not None  # click has one for each of the choices
    made = completion(ctx.find_root().command, {}, "biobank", "_BIOBANK_COMPLETE")
    # Not `source()`: that starts bash to look at its version, and this may be another machine.
    click.echo(made.source_template % made.source_vars())
