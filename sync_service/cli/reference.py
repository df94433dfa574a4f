"""The reference of `biobank-sync` as Markdown: `python -m sync_service.cli.reference`.

docs/biobank-sync.md is its output; a test holds the two together.
"""

from __future__ import annotations

import click

from biobank_core.cli.reference import reference as reference_of
from sync_service.cli import cli


def reference() -> str:
    """The whole reference."""
    return reference_of(
        cli,
        program="biobank-sync",
        written_by="python -m sync_service.cli.reference > docs/biobank-sync.md",
    )


if __name__ == "__main__":
    click.echo(reference(), nl=False)
