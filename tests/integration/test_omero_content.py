"""Files kept in OMERO: put there only when asked, verified, read back, gone with their data."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from biobank_core.catalog.omero.names import CONTENT
from biobank_core.catalog.port import Catalog, KeepsContent, Save
from biobank_core.catalog.registry import open_catalog
from biobank_core.cli import cli
from biobank_core.model.ids import new_vid
from biobank_core.model.kinds import DataCollection, DataMember, DataObject, DataSample, Study

if TYPE_CHECKING:
    from tests.contract.omero_groups import OwnGroup
    from tests.servers.omero.lab import OmeroLab
    from tests.servers.omero.standin import OmeroStandIn

# More than two calls' worth, and no multiple of one.
LARGE = random.Random(5).randbytes(9_500_001)
COUNT = "select a.name from FileAnnotation a where a.ns = :ns"


class World:
    """A catalog in a group of its own, and files beside it."""

    def __init__(self, group: OwnGroup, folder: Path, catalog: Catalog) -> None:
        self.group = group
        self.folder = folder
        self.catalog = catalog
        self.study = Study(vid=new_vid(), label="KPN")
        catalog.commit([Save(object=self.study)], by="test")

    def data(self, label: str, content: bytes, *, sha256: str | None = None) -> DataSample:
        """Data whose one file is on this machine; `sha256` is what the catalog says of it."""
        sample = DataSample(vid=new_vid(), label=label, study=self.study.vid)
        path = self.folder / f"{sample.vid}.fna"
        path.write_bytes(content)
        file = DataObject(
            vid=new_vid(),
            sample=sample.vid,
            uri=path.as_uri(),
            size_bytes=len(content),
            sha256=sha256 or hashlib.sha256(content).hexdigest(),
        )
        self.catalog.commit([Save(object=one) for one in (sample, file)], by="test")
        return sample

    def lose(self, sample: DataSample) -> None:
        """The file on this machine goes."""
        (self.folder / f"{sample.vid}.fna").unlink()

    def files(self, number: int = 0) -> list[str]:
        """The objects whose files any OMERO client finds there."""
        with self.group.login(number) as client:
            return _texts(client, COUNT, CONTENT)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(
            cli,
            ["--catalog", self.group.url, "--index", f"sqlite:///{self.folder}/i.db", *arguments],
        )


def _texts(client: object, hql: str, ns: str) -> list[str]:
    import omero.sys

    given = omero.sys.ParametersI()
    given.addString("ns", ns)
    return [row[0].val for row in client.query.projection(hql, given)]  # type: ignore[attr-defined]


def _world(lab: OmeroLab, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    from tests.contract.omero_groups import make_group

    group = make_group(lab, members=2)
    for name, value in group.members[0].environment.items():
        monkeypatch.setenv(name, value)
    with open_catalog(group.url, create=True) as catalog:
        yield World(group, folder, catalog)


@pytest.fixture
def world(omero_lab: OmeroLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield from _world(omero_lab, tmp_path, monkeypatch)


@pytest.fixture
def faulty(
    omero_stand_in: OmeroStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """The same on the stand-in, whatever server the other tests use."""
    from tests.servers.omero.lab import Address, OmeroLab

    server = omero_stand_in
    lab = OmeroLab(
        Address(server.host, server.port, server.root_user, server.root_password), filled=False
    )
    yield from _world(lab, tmp_path, monkeypatch)


def test_what_is_stored_is_fetched_when_the_file_itself_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {"large": LARGE, "empty": b"", "“ü” 試料": b"ACGT\n"}
    samples = {label: world.data(label, content) for label, content in contents.items()}
    items = tuple(DataMember(role=label, object=one.vid) for label, one in samples.items())
    batch = DataCollection(vid=new_vid(), label="batch", study=world.study.vid, items=items)
    world.catalog.commit([Save(object=batch)], by="test")
    assert world.files() == []  # nothing is uploaded unless asked
    done = world.run("store", "KPN:batch")
    assert done.exit_code == 0, done.output
    rows = [line.split("\t") for line in done.stdout.splitlines()[1:]]
    assert [row[-2:] for row in rows] == [["sha256", "stored"]] * 3
    assert len(world.files()) == 3
    again = world.run("store", "KPN:batch")
    assert again.stdout.count("\tunchanged") == 3
    assert len(world.files()) == 3
    for sample in samples.values():
        world.lose(sample)
    # The other member of the group reads them, too.
    for name, value in world.group.members[1].environment.items():
        monkeypatch.setenv(name, value)
    fetched = world.run("fetch", "KPN:batch", "--to", str(world.folder / "out"))
    assert fetched.exit_code == 0, fetched.output
    found = {path.stem: path.read_bytes() for path in (world.folder / "out/batch").iterdir()}
    assert sorted(found.values()) == sorted(contents.values())


def test_what_is_not_what_the_catalog_says_is_not_kept(world: World) -> None:
    wrong = world.data("wrong", b"ACGT\n", sha256="0" * 64)
    right = world.data("right", b"ACGT\n")
    done = world.run("store", wrong.vid, right.vid)
    assert done.exit_code == 5
    assert "SHA-256" in done.stderr
    assert world.files() == [
        found.vid for found in _kept(world.catalog) if found.sample == right.vid
    ]
    assert len(world.files()) == 1


def test_a_stored_file_goes_with_its_data_and_with_the_catalog(world: World) -> None:
    one, other = world.data("one", b"A"), world.data("other", b"C")
    assert world.run("store", one.vid, other.vid).exit_code == 0
    ids = "select f.id from OriginalFile f where f.path = :ns"
    with world.group.login() as client:
        assert len(_texts(client, ids, CONTENT)) == 2
    assert world.run("delete", one.vid, "--cascade").exit_code == 0
    with world.group.login() as client:
        assert len(_texts(client, ids, CONTENT)) == 1
    assert world.run("verify").exit_code == 0
    assert "1\tstored files" in world.run("omero-uninstall", "--dry-run").stdout
    assert world.run("omero-uninstall", "--yes").exit_code == 0
    with world.group.login() as client:
        assert _texts(client, ids, CONTENT) == []


def test_data_that_an_image_shows_are_stored_all_the_same(world: World) -> None:
    sample = world.data("shown", b"A")
    image = DataObject(vid=new_vid(), sample=sample.vid, uri="omero://somewhere/Image/7")
    world.catalog.commit([Save(object=image)], by="test")
    done = world.run("store", sample.vid)
    assert done.exit_code == 0, done.output
    assert "\tstored" in done.stdout
    assert len(world.files()) == 1


def test_what_a_killed_store_left_over_is_removed_by_a_repair(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from biobank_core.catalog.omero import content

    kept, other = world.data("kept", b"A"), world.data("other", b"C")
    assert world.run("store", kept.vid).exit_code == 0
    assert isinstance(world.catalog, KeepsContent)
    # As after a kill between the upload and the unit that names it.
    world.catalog.content.put(
        new_vid(), beside=other.vid, name="C", mimetype=None, chunks=[b"C"], advance=lambda _: None
    )
    assert world.run("verify", "--repair").exit_code == 0
    assert len(world.files()) == 2  # it may be on its way still
    monkeypatch.setattr(content, "LEFT_OVER_AFTER_MS", -60_000)
    assert world.run("verify", "--repair").exit_code == 0
    assert world.files() == [found.vid for found in _kept(world.catalog)]


def test_data_of_another_server_are_not_looked_for_here(world: World) -> None:
    sample = world.data("here", b"A")
    world.lose(sample)
    file = DataObject(
        vid=new_vid(),
        sample=sample.vid,
        uri="omero://6d1f0c9e-0000-4000-8000-000000000000/OriginalFile/1",
        sha256=hashlib.sha256(b"A").hexdigest(),
    )
    world.catalog.commit([Save(object=file)], by="test")
    done = world.run("fetch", file.vid, "--to", str(world.folder / "out"))
    assert done.exit_code == 2
    assert "another OMERO server" in done.stderr


def test_short_reads_and_lost_sessions_lose_no_byte(
    faulty: World, omero_stand_in: OmeroStandIn
) -> None:
    from tests.servers.omero.faults import Fault

    sample = faulty.data("large", LARGE)
    with omero_stand_in.faults(
        Fault("remove-session", call="RawFileStore.write", skip=1),
        Fault("remove-session", call="RawFileStore.save"),
    ):
        done = faulty.run("store", sample.vid)
    assert done.exit_code == 0, done.output
    faulty.lose(sample)
    with omero_stand_in.faults(
        Fault("short-read", call="RawFileStore.read", count=3),
        Fault("remove-session", call="RawFileStore.read", skip=2),
    ):
        done = faulty.run("fetch", sample.vid, "--to", str(faulty.folder / "out"))
    assert done.exit_code == 0, done.output
    [path] = (faulty.folder / "out").glob("large*")
    assert path.read_bytes() == LARGE


def _kept(catalog: Catalog) -> list[DataObject]:
    found = [item.object for item in catalog.find("DataObject")]
    return [one for one in found if isinstance(one, DataObject) and one.uri.startswith("omero:")]
