"""A catalog in a new group of OMERO, or in a file, as the settings of a command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

if TYPE_CHECKING:
    from tests.servers.omero.lab import OmeroLab

# Given a folder: environment variables that name an empty catalog.
NewCatalog: TypeAlias = Callable[[Path], Mapping[str, str]]

# A test of the recorder or of campaigns that runs on either, whatever BIOBANK_TEST_CATALOG says.
on_both = pytest.mark.parametrize(
    "new_catalog", ["sqlite", pytest.param("omero", marks=pytest.mark.omero)], indirect=True
)


def settings_in_file(folder: Path) -> dict[str, str]:
    """Environment variables: catalog and index in one file of `folder`."""
    return {"BIOBANK_CATALOG": f"sqlite:///{folder}/catalog.db"}


def settings_on_omero(lab: OmeroLab, folder: Path) -> dict[str, str]:
    """Environment variables: catalog in a group of its own, index in a file of `folder`."""
    from tests.contract.omero_groups import make_group

    group = make_group(lab)
    return {
        "BIOBANK_CATALOG": group.url,
        "BIOBANK_INDEX": f"sqlite:///{folder}/index.db",
        **group.members[0].environment,
    }
