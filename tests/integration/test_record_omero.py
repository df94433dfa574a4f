"""One real Galaxy recorded into a file and into OMERO: the same is known of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from biobank_core.catalog.registry import open_catalog
from tests.integration.campaign_lab import Lab
from tests.integration.omero_settings import settings_in_file, settings_on_omero
from tests.servers.galaxy import GalaxyServer
from tests.servers.galaxy_user import GalaxyUser, hda, hdca, mapped_over

if TYPE_CHECKING:
    from tests.servers.omero.lab import OmeroLab

pytestmark = [pytest.mark.galaxy, pytest.mark.omero]

HOSTILE = "ü \"q\" 's' <b> =1+1 試料 \\ | ; $HOME `id` " + "long " * 600
RECORD = ("record", "--study", "KPN", "--galaxy-name", "galaxy")


def fill(user: GalaxyUser) -> None:
    """Jobs of every shape that the two catalogs keep in different ways."""
    history = user.new_history("equal")
    data = user.upload(history, "one\ntwo\n", name=HOSTILE[:200])
    user.run(history, "one_to_one", {"input": hda(data)})
    user.run(
        history,
        "parameters",
        # Longer than what OMERO's index takes.
        {"input": hda(data), "text": HOSTILE, "api_key": "geheim", "choices": ["x", "z"]},
    )
    genomes = user.upload_collection(history, {"T1": "A\n", "T 2 “ü”": "C\n"}, name="genomes")
    user.run(history, "one_to_one", {"input": mapped_over(genomes)})
    user.run(
        history, "fail_if_asked", {"input": hda(user.upload(history, "FAIL\n"))}, expect="error"
    )
    user.run(
        history,
        "__EXTRACT_DATASET__",
        {"input": hdca(genomes), "which|which_dataset": "first"},
    )


def dumped(lab: Lab) -> list[str]:
    """The lines of a dump without the times of asking and of recording."""
    text = lab.biobank("dump").out
    return sorted(re.sub(r'"as_of":"[^"]*"', '"as_of":"then"', text).splitlines())


def test_one_galaxy_recorded_into_both_catalogs_gives_equal_dumps(
    galaxy: GalaxyServer, galaxy_user: GalaxyUser, omero_lab: OmeroLab, tmp_path: Path
) -> None:
    labs = []
    for name in ("file", "server"):
        folder = tmp_path / name
        folder.mkdir()
        on_server = name == "server"
        settings = settings_on_omero(omero_lab, folder) if on_server else settings_in_file(folder)
        labs.append(Lab(user=galaxy_user, folder=folder, url=galaxy.url, settings=settings))
        labs[-1].biobank("init")
    in_file, on_omero = labs
    # The same objects in both, their random VIDs too.
    in_file.register(["T1", "T 2 “ü”"])
    known = tmp_path / "known.jsonl"
    known.write_text(in_file.biobank("dump").out, encoding="utf-8")
    on_omero.biobank("load", str(known))
    fill(galaxy_user)
    told = [lab.biobank(*RECORD) for lab in labs]
    assert told[0].out == told[1].out
    assert dumped(in_file) == dumped(on_omero)
    assert any('"status":"error"' in line for line in dumped(in_file))
    assert any("long long" in line for line in dumped(in_file))
    # Nothing is new to either, and what comes next is new to both.
    idle = [lab.biobank(*RECORD) for lab in labs]
    assert idle[0].out == idle[1].out
    assert "recorded\t0\n" in idle[0].out
    history = galaxy_user.new_history("later")
    data = galaxy_user.upload(history, "three\n")
    galaxy_user.run(history, "one_to_one", {"input": hda(data)})
    again = [lab.biobank(*RECORD) for lab in labs]
    assert again[0].out == again[1].out
    assert "recorded\t2\n" in again[0].out
    assert dumped(in_file) == dumped(on_omero)
    for lab in labs:
        lab.biobank("verify")
    asked = ("lineage", "KPN:I-T1", "--direction", "downstream")
    assert sorted(in_file.biobank(*asked).out.splitlines()) == sorted(
        on_omero.biobank(*asked).out.splitlines()
    )
    with pytest.MonkeyPatch.context() as environment:
        for name, value in on_omero.settings.items():
            environment.setenv(name, value)
        with open_catalog(on_omero.settings["BIOBANK_CATALOG"]) as catalog:
            assert list(catalog.damage()) == []
            assert list(catalog.drift()) == []
