"""The demonstration on OMERO: `python -m examples.demo.run --omero` (or `make demo-omero`).

The catalog is in a new group of an OMERO server, the lineage index in an SQLite file. The server is
the one that OMERO_TEST_URL names (with OMERO_TEST_USER and OMERO_TEST_PASSWORD, an account that may
make groups and users); without it, our stand-in for OMERO, which is gone at the end.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from examples.demo.run import TUBES, Demo
from tests.contract.omero_groups import OwnGroup, make_group
from tests.servers.omero.lab import Address, OmeroLab, genuine_address
from tests.servers.omero.standin import OmeroStandIn

# Asked as any client of OMERO would ask.
_TUBES = (
    "select mv.value from MapAnnotation a join a.mapValue mv"
    " where a.ns = 'org.biobank/object/Tube' and mv.name = 'label'"
)


class OmeroDemo(Demo):
    """The same steps, with the catalog on OMERO."""

    _group: OwnGroup
    _genuine = False

    def start_services(self) -> None:
        """Start the stand-in, or take the server that is named; make a group of our own there."""
        address = genuine_address()
        self._genuine = address is not None
        if address is None:
            server = OmeroStandIn(Path(tempfile.mkdtemp(prefix="biobank-demo-omero-")))
            self._running.callback(server.remove)
            self._running.callback(server.stop)
            server.start()
            address = Address(server.host, server.port, server.root_user, server.root_password)
            self._terminal.say("OMERO_TEST_URL is not set: this is a stand-in for OMERO, of ours")
        self._group = make_group(OmeroLab(address, filled=False))
        self._terminal.say(f"its catalog is to be at {self._group.url}")
        for name, value in {
            **self._group.members[0].environment,
            "OMERO_SESSION_KEY": "",
            "BIOBANK_CATALOG": self._group.url,
            "BIOBANK_INDEX": f"sqlite:///{self._output}/biobank.db",
        }.items():
            self._terminal.set(name, value)

    def check_services(self) -> None:
        """Check that OMERO holds what its log says, and the index what OMERO holds."""
        self._terminal.biobank("verify")  # fails when it finds something
        self._expect(True, "annotations, log and index agree")
        with self._group.login() as client:
            found = client.query.projection(_TUBES, None)
        names = sorted(row[0].val for row in found)
        self._expect(
            names == sorted(TUBES.values()), f"any OMERO client finds the tubes: {', '.join(names)}"
        )
        held = self._terminal.biobank("omero-uninstall", "--dry-run")
        self._expect("objects" in held, "omero-uninstall tells what it would remove")

    @property
    def catalog_place(self) -> str:
        """Where the catalog is after the demo."""
        if not self._genuine:
            return f"was in a stand-in for OMERO, now gone; its index: {super().catalog_place}"
        return f"{self._group.url} (`biobank omero-uninstall --yes` removes it)"
