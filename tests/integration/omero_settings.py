"""A catalog in a new group of OMERO, as the settings of a command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.servers.omero.lab import OmeroLab


def settings_on_omero(lab: OmeroLab, folder: Path) -> dict[str, str]:
    """Environment variables: catalog in a group of its own, index in a file of `folder`."""
    from tests.contract.omero_groups import make_group

    group = make_group(lab)
    return {
        "BIOBANK_CATALOG": group.url,
        "BIOBANK_INDEX": f"sqlite:///{folder}/index.db",
        **group.members[0].environment,
    }
