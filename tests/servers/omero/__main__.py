"""Run the stand-in until Ctrl-C: `python -m tests.servers.omero --keep-running`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
from pathlib import Path

from tests.servers.omero.standin import OmeroStandIn


def main() -> None:
    """Start the stand-in, print where it is as JSON, and wait."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers.omero", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where its data go; default: a temporary one")
    parser.add_argument("--info", type=Path, help="also write the JSON to this file (mode 0600)")
    parser.add_argument("--keep-running", action="store_true", required=True)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="omero-stand-in-"))
    server = OmeroStandIn(folder)
    server.start()
    info = {
        "url": f"omero://{server.host}:{server.port}/",
        "host": server.host,
        "port": server.port,
        "insecure_port": server.insecure_port,
        "user": server.root_user,
        "password": server.root_password,
        "folder": str(folder),
    }
    print(json.dumps(info, indent=1), flush=True)
    if arguments.info:
        with os.fdopen(
            os.open(arguments.info, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w"
        ) as handle:
            json.dump(info, handle)
    waited_for = {signal.SIGINT, signal.SIGTERM}
    # Only now: what the servers inherited, they could not be stopped with.
    signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    try:
        signal.sigwait(waited_for)
    finally:
        server.stop()
        if not arguments.folder:
            server.remove()


if __name__ == "__main__":
    main()
