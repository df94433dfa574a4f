"""`biobank schema`."""

from __future__ import annotations

import click

from biobank_core.cli.common import open_output, output_option


@click.command()
@output_option
def command(output: str | None) -> None:
    """Print the JSON Schema of the lines that load and dump use.

    Kinds of installed plug-ins are part of it.
    """
    import json  # noqa: PLC0415

    from biobank_core.interchange import json_schema  # noqa: PLC0415

    with open_output(output) as stream:
        stream.write(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")
