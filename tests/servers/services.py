"""RabbitMQ and Neo4j for a developer, until Ctrl-C: `python -m tests.servers.services`.

Prints what to put into the environment of `biobank` and `biobank-sync`. `--folder` keeps the data
for the next time.
"""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from pathlib import Path

from tests.servers.neo4j import Neo4jServer
from tests.servers.rabbitmq import RabbitMQServer
from tests.servers.serving import until_interrupted, watch


def main() -> None:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="kept afterwards; default: temporary ones")
    folder: Path | None = parser.parse_args().folder

    os.umask(0o077)
    with until_interrupted(), ExitStack() as running:
        rabbitmq = running.enter_context(
            RabbitMQServer(folder.absolute() / "rabbitmq" if folder else None)
        )
        neo4j = running.enter_context(Neo4jServer(folder.absolute() / "neo4j" if folder else None))
        environment = {
            **rabbitmq.environment,
            **neo4j.environment,
            "BIOBANK_INDEX": neo4j.url,
        }
        for name, value in environment.items():
            print(f"export {name}={value}")
        print(f"# Neo4j {neo4j.url}, RabbitMQ {rabbitmq.url}; Ctrl-C stops both", flush=True)
        watch(rabbitmq, neo4j)


if __name__ == "__main__":
    main()
