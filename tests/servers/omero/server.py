"""The stand-in's own process: Ice over TLS and plain TCP, and a control port for the tests.

Started by `standin.OmeroStandIn`, which hands it its settings in the environment.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socketserver
import subprocess
import threading
import uuid
from pathlib import Path
from typing import Any

import Ice
import omero
import omero.clients
import omero.ObjectFactoryRegistrar
import omero.rtypes
import psycopg

from tests.servers.omero.database import Database
from tests.servers.omero.faults import Fault
from tests.servers.omero.router import ROUTER_IDENTITY, Locator, Router
from tests.servers.omero.world import World, fill_database, log

SETTINGS = "OMERO_STAND_IN"  # the environment variable with them, as JSON
_MESSAGE_SIZE_MAX_KB = 65_536  # omero.constants.MESSAGESIZEMAX, which its clients use too
_THREADS, _MOST_THREADS = 16, 32


def certificate(folder: Path) -> Path:
    """Return a self-signed certificate with its key in one file, made if it is not there."""
    path = folder / "certificate.pem"
    if not path.exists():
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "365"),
                *("-subj", "/CN=127.0.0.1", "-keyout", str(path), "-out", f"{path}.crt"),
            ],
            check=True,
            capture_output=True,
        )
        with path.open("a") as handle:
            handle.write(Path(f"{path}.crt").read_text())
    return path


def communicator(folder: Path) -> Any:
    """Return an Ice communicator that knows OMERO's classes and can do TLS."""
    made = Ice.InitializationData()
    made.properties = Ice.createProperties()
    pem = str(certificate(folder))
    for name, value in {
        "Ice.Plugin.IceSSL": "IceSSL:createIceSSL",
        "IceSSL.CertFile": pem,
        "IceSSL.VerifyPeer": "0",
        "Ice.MessageSizeMax": str(_MESSAGE_SIZE_MAX_KB),
        "Ice.ThreadPool.Server.Size": str(_THREADS),
        "Ice.ThreadPool.Server.SizeMax": str(_MOST_THREADS),
        "Ice.ACM.Server.Heartbeat": "2",  # a client that only listens is not cut off
        "Ice.Warn.Dispatch": "0",
        "Ice.CacheMessageBuffers": "0",
    }.items():
        made.properties.setProperty(name, value)
    ice = Ice.initialize(made)
    omero.ObjectFactoryRegistrar.registerObjectFactory(ice, None)
    for factory in omero.rtypes.ObjectFactories.values():
        factory.register(ice)
    return ice


class _ControlServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True  # a restarted server takes the port that it had
    daemon_threads = True


class _Control(socketserver.StreamRequestHandler):
    """One JSON line with the token and what to do, one JSON line for an answer."""

    def handle(self) -> None:
        order = json.loads(self.rfile.readline())
        world: World = self.server.world  # type: ignore[attr-defined]
        token: str = self.server.token  # type: ignore[attr-defined]
        answer: Any = {"error": "wrong token"}
        if secrets.compare_digest(str(order.get("token")), token):
            answer = self._do(world, order)
        self.wfile.write(json.dumps(answer).encode() + b"\n")

    @staticmethod
    def _do(world: World, order: dict[str, Any]) -> Any:
        match order["do"]:
            case "fault":
                world.faults.add(Fault(**order["fault"]))
                return {}
            case "clear":
                return {"struck": [[fault.kind, fault.struck] for fault in world.faults.clear()]}
            case "struck":
                return {"struck": world.faults.struck()}
            case "sessions":
                return {"sessions": [[each.uuid, each.user_name] for each in world.sessions.all()]}
            case "end-session":
                return {"ended": world.sessions.remove(order["uuid"]) is not None}
            case other:
                return {"error": f"no such order: {other}"}


def serve(settings: dict[str, Any]) -> None:
    """Serve until SIGTERM."""
    folder = Path(settings["folder"])
    (folder / "Files").mkdir(parents=True, exist_ok=True)
    with psycopg.connect(settings["database"]) as connection:
        fill_database(connection, settings["root_password"])
    host, port, insecure = settings["host"], settings["port"], settings["insecure_port"]
    world = World(
        Database(settings["database"]),
        folder,
        {
            "omero.router.insecure": f"OMERO.Glacier2/router:tcp -p {insecure} -h {host}",
            "omero.db.uuid": str(uuid.uuid5(uuid.NAMESPACE_OID, str(folder))),
        },
        login_delay_s=settings["login_delay_s"],
    )
    ice = communicator(folder)
    adapter = ice.createObjectAdapterWithEndpoints(
        "stand-in", f"ssl -h {host} -p {port}:tcp -h {host} -p {insecure}"
    )
    router = Router(world)
    adapter.addServantLocator(Locator(world, router), "")
    adapter.add(router, ROUTER_IDENTITY)
    control = _ControlServer((host, settings["control_port"]), _Control)
    control.world, control.token = world, settings["token"]  # type: ignore[attr-defined]
    threading.Thread(target=control.serve_forever, daemon=True).start()
    adapter.activate()
    log(f"the stand-in for OMERO listens on {host}: {port} (TLS), {insecure} (plain)")
    signal.signal(signal.SIGTERM, lambda *_: ice.shutdown())
    while not ice.isShutdown():
        signal.sigtimedwait([], 0.2)
    ice.destroy()


if __name__ == "__main__":
    serve(json.loads(os.environ.pop(SETTINGS)))
