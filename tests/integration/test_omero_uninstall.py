"""`biobank omero-uninstall` removes all that is ours in a group, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from biobank_core.catalog.port import Delete, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.cli import cli
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import Study, Tube

if TYPE_CHECKING:
    from tests.servers.omero.lab import OmeroLab


def test_all_of_ours_is_removed_and_nothing_else(
    omero_lab: OmeroLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    import omero.model
    from omero.rtypes import rstring

    from tests.contract.omero_groups import make_group

    group, other = make_group(omero_lab, members=2), make_group(omero_lab)
    with group.login() as client:
        foreign = omero.model.MapAnnotationI()
        foreign.setNs(rstring("org.example/notes"))
        foreign.setMapValue([omero.model.NamedValue("a", "b")])
        foreign_id = client.update.saveAndReturnObject(foreign).id.val
    study = Study(vid=new_vid(), label="KPN", description="é" * 5000)
    for owned in (other, group):
        for name, value in owned.members[0].environment.items():
            monkeypatch.setenv(name, value)
        with open_catalog(owned.url, create=True) as catalog:
            catalog.commit([Save(object=study)], by="test")
            tubes = [Tube(vid=new_vid(), label=f"T{n}", study=study.vid) for n in range(600)]
            catalog.commit([Save(object=one) for one in tubes], by="test")
            catalog.commit([Save(object=study, based_on=1)], by="test")
            catalog.commit([Delete(vid=tubes[0].vid, based_on=1)], by="test")

    def run(*options: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["--catalog", group.url, "omero-uninstall", *options])
        return done.exit_code, done.output

    assert run()[0] == 2
    code, told = run("--dry-run")
    assert (code, "600\tobjects" in told, "1\ttombstones" in told) == (0, True, True)
    with open_catalog(group.url) as catalog:
        assert catalog.count()["Tube"] == 599
    assert run("--yes")[0] == 0
    with group.login() as client:
        left = client.query.projection("select a.id from Annotation a", None)
        assert [row[0].val for row in left] == [foreign_id]
        tokens = "select e.id from ExternalInfo e where e.details.group.id = " + str(group.id)
        assert client.query.projection(tokens, None) == []
    assert run("--dry-run")[0] == 2  # no catalog any more
    for name, value in other.members[0].environment.items():
        monkeypatch.setenv(name, value)
    with open_catalog(other.url) as catalog:
        assert catalog.count()["Tube"] == 599
        assert list(catalog.drift()) == []
