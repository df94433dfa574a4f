"""Fetching files: which, from where, under what names, verified, again, and what is told of it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner, Result

from biobank_core.catalog.port import Save
from biobank_core.catalog.sqlite import open_catalog
from biobank_core.cli import cli
from biobank_core.errors import ConflictError, InputError, UnreachableError
from biobank_core.fetch.fetch import Outcome, fetch
from biobank_core.fetch.names import MAX_NAME_BYTES, FileNames, safe_name
from biobank_core.fetch.sources import Content, LocalFiles, Source, Sources
from biobank_core.fetch.tables import requests_in
from biobank_core.fetch.wanted import Request, wanted
from biobank_core.model.base import Object
from biobank_core.model.galaxy import GalaxyDataset
from biobank_core.model.ids import derived_vid
from biobank_core.model.kinds import DataCollection, DataMember, DataObject, DataSample, Study


def vid(name: str) -> str:
    return derived_vid("test", name)


def sha256(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


STUDY = vid("KPN")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("BIOBANK_", "GALAXY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BIOBANK_CATALOG", "sqlite:///c.db")


class World:
    """A catalog with files beside it."""

    def __init__(self) -> None:
        self.catalog = open_catalog("sqlite:///c.db", create=True)
        self.save(Study(vid=STUDY, label="KPN"))
        Path("store").mkdir()

    def save(self, *objects: Object) -> None:
        known = self.catalog.get(obj.vid for obj in objects)
        changes = [
            Save(object=obj, based_on=known[obj.vid].version if obj.vid in known else 0)
            for obj in objects
        ]
        self.catalog.commit(changes, by="test")

    def data(
        self,
        label: str,
        content: bytes = b">a\nACGT\n",
        *,
        name: str | None = None,
        known: bool = True,
        says: bytes | None = None,
        extension: str | None = None,
    ) -> str:
        """A data sample with a file; the catalog says its sums (`says`: those of other content)."""
        key = name or label
        path = Path("store", f"{vid(key)}.fna").absolute()
        path.write_bytes(content)
        told = content if says is None else says
        galaxy = GalaxyDataset(server="g", extension=extension) if extension else None
        self.save(
            DataSample(vid=vid(key), label=label, study=STUDY, galaxy=galaxy),
            DataObject(
                vid=vid(f"file of {key}"),
                sample=vid(key),
                uri=path.as_uri(),
                size_bytes=len(told) if known else None,
                sha256=sha256(told) if known else None,
            ),
        )
        return vid(key)

    def collection(self, label: str, members: dict[str, str]) -> str:
        items = tuple(DataMember(role=role, object=obj) for role, obj in members.items())
        self.save(DataCollection(vid=vid(label), label=label, study=STUDY, items=items))
        return vid(label)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.catalog.close()


def biobank(*args: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, args, input=stdin)


def fetched(*args: str, stdin: bytes | None = None) -> list[dict[str, str]]:
    result = biobank("fetch", *args, "--to", "out", stdin=stdin)
    assert result.exit_code == 0, result.stderr
    header, *rows = (line.split("\t") for line in result.stdout.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def manifest() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]


def files() -> set[str]:
    return {str(path.relative_to("out")) for path in Path("out").rglob("*") if path.is_file()}


def test_data_come_by_label_and_by_vid_with_what_the_catalog_knows_of_them(world: World) -> None:
    a = world.data("T1.fna", b"one\n")
    b = world.data("T2", b"two\n", extension="fasta")
    first, second = fetched("KPN:T1.fna", b)
    assert first["vid"] == a
    assert first["path"] == "T1.fna"
    assert first["verified"] == "sha256"
    assert second["path"] == "T2.fasta"
    assert Path("out/T1.fna").read_bytes() == b"one\n"
    assert manifest()[1] == {
        "vid": b,
        "object": vid("file of T2"),
        "identifiers": ["T2"],
        "path": "T2.fasta",
        "sha256": sha256(b"two\n"),
        "size_bytes": 4,
        "extension": "fasta",
        "verified": "sha256",
        "element": None,
    }


def test_a_nested_collection_comes_as_folders_named_by_its_identifiers(world: World) -> None:
    a, b, c = (world.data(name, name.encode()) for name in ("a", "b", "c"))
    pair = world.collection("pair", {"forward": a, "reverse": b})
    world.collection("batch", {"T1": pair, "T2": c})
    rows = fetched("KPN:batch")
    assert [row["path"] for row in rows] == [
        "batch/T1/forward.fna",
        "batch/T1/reverse.fna",
        "batch/T2.fna",
    ]
    assert rows[0]["identifier"] == "batch/T1/forward"
    assert Path("out/batch/T1/reverse.fna").read_bytes() == b"b"


def test_a_data_object_stands_for_its_data_in_that_one_file(world: World) -> None:
    world.data("T1", b"one")
    path = Path("store/other.fna").absolute()
    path.write_bytes(b"one")
    world.save(DataObject(vid=vid("copy"), sample=vid("T1"), uri=path.as_uri()))
    fetched(vid("copy"))
    assert [entry["object"] for entry in manifest()] == [vid("copy")]


@pytest.mark.parametrize(
    "label",
    [
        "..",
        ".",
        "a b",
        "/etc/passwd",
        "../../x",
        "a\\b",
        "-rf",
        "~root",
        ".hidden",
        "ä/ö\u202e",
        "$(x)",
    ],
)
def test_whatever_data_are_called_their_file_stays_in_the_folder(world: World, label: str) -> None:
    a = world.data(label, b"x", name="odd")
    (row,) = fetched(a)
    inside = {path for path in Path().rglob("*") if path.is_file() and path.parts[0] != "store"}
    assert {str(path) for path in inside if not path.name.startswith("c.db")} == {
        f"out/{row['path']}",
        "out/manifest.jsonl",
    }
    assert "/" not in row["path"]
    assert row["path"][0] not in "-.~"
    assert manifest()[0]["identifiers"] == [label]


def test_names_that_differ_only_in_case_or_not_at_all_get_files_of_their_own(world: World) -> None:
    vids = [world.data(label, label.encode(), name=f"{n}") for n, label in enumerate("AaA")]
    rows = fetched(*vids)
    assert [row["path"] for row in rows] == ["A.fna", "a (2).fna", "A (3).fna"]
    assert len(files()) == 4


def test_data_called_as_the_manifest_do_not_take_its_place(world: World) -> None:
    world.data("manifest.jsonl", b"x", extension="jsonl")
    fetched("KPN:manifest.jsonl")
    assert files() == {"manifest.jsonl", "manifest (2).jsonl"}


@pytest.mark.parametrize("text", ["ä" * 300, "\U0001f9ec" * 100, "x" * 1000])
def test_a_long_name_is_cut_between_characters_and_keeps_its_extension(text: str) -> None:
    name = safe_name(text, suffix=".fasta")
    assert len(name.encode()) <= MAX_NAME_BYTES
    assert name.endswith(".fasta")
    assert text.startswith(name.removesuffix(".fasta"))


def test_two_long_names_that_are_cut_alike_stay_apart() -> None:
    names = FileNames()
    paths = {names.file((f"{'x' * 500}{n}",), extension="txt") for n in range(3)}
    assert len(paths) == 3


def test_an_extension_that_is_none_is_left_out() -> None:
    assert FileNames().file(("a",), extension="../../x").as_posix() == "a"


def test_what_is_there_and_right_is_not_fetched_again(world: World) -> None:
    world.data("T1", b"one")
    assert [row["what"] for row in fetched("KPN:T1")] == ["fetched"]
    Path("store", f"{vid('T1')}.fna").unlink()
    assert [row["what"] for row in fetched("KPN:T1")] == ["unchanged"]
    assert len(manifest()) == 1


def test_a_file_that_was_changed_since_is_fetched_again(world: World) -> None:
    world.data("T1", b"one")
    fetched("KPN:T1")
    Path("out/T1.fna").write_bytes(b"onE")
    assert [row["what"] for row in fetched("KPN:T1")] == ["fetched"]
    assert Path("out/T1.fna").read_bytes() == b"one"


def test_a_file_of_somebody_else_is_never_overwritten(world: World) -> None:
    world.data("T1", b"one")
    Path("out").mkdir()
    Path("out/T1.fna").write_bytes(b"my thesis")
    result = biobank("fetch", "KPN:T1", "--to", "out")
    assert result.exit_code == 5
    assert "stands already" in result.stderr
    assert Path("out/T1.fna").read_bytes() == b"my thesis"


def test_what_is_not_what_the_catalog_says_is_removed_and_an_error(world: World) -> None:
    good = world.data("good", b"fine")
    bad = world.data("bad", b"changed", says=b"origina")
    result = biobank("fetch", bad, good, "--to", "out")
    assert result.exit_code == 5
    assert sha256(b"changed") in result.stderr
    assert files() == {"good.fna", "manifest.jsonl"}
    assert [entry["vid"] for entry in manifest()] == [good]


def test_a_wrong_size_is_told_as_such(world: World) -> None:
    world.data("T1", b"short", says=b"longer than that")
    result = biobank("fetch", "KPN:T1", "--to", "out")
    assert result.exit_code == 5
    assert "5 bytes came, and the catalog says 16" in result.stderr


def test_that_no_hash_is_known_is_said(world: World) -> None:
    world.data("T1", b"one", known=False)
    result = biobank("fetch", "KPN:T1", "--to", "out")
    assert result.exit_code == 0
    assert "of 1 no SHA-256 was known" in result.stderr
    assert manifest()[0]["verified"] == "no"
    assert manifest()[0]["sha256"] == sha256(b"one")
    assert [row["what"] for row in fetched("KPN:T1")] == ["fetched"]


def test_another_replica_takes_the_place_of_one_that_is_gone_or_damaged(world: World) -> None:
    world.data("T1", b"one")
    Path("store", f"{vid('T1')}.fna").write_bytes(b"two")
    path = Path("store/replica").absolute()
    path.write_bytes(b"one")
    for number in range(3):  # whatever the order of their VIDs
        world.save(
            DataObject(
                vid=vid(f"replica {number}"),
                sample=vid("T1"),
                uri=path.as_uri() if number == 1 else "file:///no/such/file",
                sha256=sha256(b"one"),
            )
        )
    fetched("KPN:T1")
    assert manifest()[0]["object"] == vid("replica 1")
    assert files() == {"T1.fna", "manifest.jsonl"}


def test_data_without_a_file_and_files_nobody_can_read_are_errors(world: World) -> None:
    world.save(DataSample(vid=vid("bare"), label="bare", study=STUDY))
    world.data("T1")
    world.save(DataObject(vid=vid("file of T1"), sample=vid("T1"), uri="omero://h/OriginalFile:1"))
    bare = biobank("fetch", "KPN:bare", "--to", "out")
    assert (bare.exit_code, "knows no file of it" in bare.stderr) == (2, True)
    strange = biobank("fetch", "KPN:T1", "--to", "out")
    assert (strange.exit_code, "omero://" in strange.stderr) == (2, True)


def test_files_outside_of_the_folder_that_may_be_read_are_refused_links_too(world: World) -> None:
    world.data("T1", b"one")
    assert biobank("fetch", "KPN:T1", "--to", "out", "--files-below", "store").exit_code == 0
    Path("closed").mkdir()
    for below in ("", "closed"):
        refused = biobank("fetch", "KPN:T1", "--to", "out2", "--files-below", below)
        assert refused.exit_code == 4
    Path("secret").write_bytes(b"one")
    Path("store", f"{vid('T1')}.fna").unlink()
    Path("store", f"{vid('T1')}.fna").symlink_to(Path("secret").absolute())
    assert biobank("fetch", "KPN:T1", "--to", "out3", "--files-below", "store").exit_code == 4


@pytest.mark.parametrize("uri", ["file://other.host/x", "file:relative", "file:///a%00b"])
def test_a_file_address_that_is_none_is_refused(world: World, uri: str) -> None:
    with (
        pytest.raises(InputError),
        LocalFiles().open(DataObject(vid=vid("x"), sample=vid("y"), uri=uri)),
    ):
        pass


def test_the_table_of_select_names_the_data_by_the_sample(world: World) -> None:
    a, b, c = (world.data(name, name.encode()) for name in ("a", "b", "c"))
    table = f"sample\tlabel\tsources\n-\tT 1\t{a};{b}\n-\t'=x\\\\y\t{c}\n"
    Path("t.tsv").write_text(table)
    rows = fetched("--from", "t.tsv")
    assert [row["path"] for row in rows] == ["T 1.fna", "T 1_2.fna", "'=x_y.fna"]
    assert manifest()[2]["identifiers"] == ["=x\\y"]


def test_a_list_from_stdin_and_a_column_of_choice_work_too(world: World) -> None:
    a, b = world.data("a"), world.data("b")
    assert [row["vid"] for row in fetched("--from", "-", stdin=f"KPN:a\n\n{b}\n".encode())] == [
        a,
        b,
    ]
    Path("t.tsv").write_text("what\tmine\nx\tKPN:b\n")
    assert [row["vid"] for row in fetched("--from", "t.tsv", "--column", "mine")] == [b]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a\tb\n1\t2\n", "line 1"),
        (b"vid\tx\nonly\n\nV\n", "t: has no column 'sources'"),
        (b"x\tvid\nonly\n", "line 2"),
        (b"\xff", "UTF-8"),
    ],
)
def test_a_table_that_is_none_is_refused_with_file_and_line(data: bytes, said: str) -> None:
    if said.startswith("t:"):
        assert requests_in(data, name="t") == [Request("only"), Request("V")]
        return
    with pytest.raises(InputError, match=said):
        requests_in(data, name="t")


def test_nothing_asked_for_is_nothing_fetched(world: World) -> None:
    Path("t.tsv").write_text("sample\tlabel\tsources\n")
    assert fetched("--from", "t.tsv") == []
    assert files() == {"manifest.jsonl"}
    assert manifest() == []


def test_galaxy_is_told_of_a_flat_list_with_unique_identifiers(world: World) -> None:
    a, b = world.data("a", b"a", extension="fasta"), world.data("b", b"b")
    world.collection("batch", {"x/y": a, "z": b})
    fetched("KPN:batch", "--galaxy-json", "galaxy.json", "--manifest", "m.jsonl")
    told = json.loads(Path("galaxy.json").read_text())
    assert told == {
        "files": {
            "elements": [
                {"name": "x/y", "filename": "out/batch/x_y.fasta", "ext": "fasta"},
                {"name": "z", "filename": "out/batch/z.fna", "ext": "fasta"},
            ]
        }
    }
    elements = [json.loads(line)["element"] for line in Path("m.jsonl").read_text().splitlines()]
    assert elements == ["x/y", "z"]
    assert files() == {"batch/x_y.fasta", "batch/z.fna"}


class Breaking(Source):
    """A server that is gone after so many files, or that says what a file's hash is."""

    def __init__(self, whole: int, told: str | None = None) -> None:
        self.left = whole
        self.told = told

    @contextmanager
    def open(self, file: DataObject) -> Iterator[Content]:
        def chunks() -> Iterator[bytes]:
            yield b"on"
            if self.left <= 0:
                raise UnreachableError("gone")
            self.left -= 1
            yield b"e"

        yield Content(chunks(), self.told)


def run(world: World, source: Source, *names: str) -> Outcome:
    return fetch(
        wanted(world.catalog, [Request(vid(name)) for name in names]),
        sources=Sources({"file": lambda: source}),
        folder=Path("out"),
        manifest_file=Path("out/manifest.jsonl"),
    )


def test_when_the_server_goes_what_came_stays_and_the_next_run_goes_on_there(world: World) -> None:
    for name in "abc":
        world.data(name, b"one")
    with pytest.raises(UnreachableError):
        run(world, Breaking(2), "a", "b", "c")
    assert files() == {"a.fna", "b.fna", "manifest.jsonl"}
    outcome = run(world, Breaking(1), "a", "b", "c")
    assert [done.new for done in outcome.files] == [False, False, True]
    assert len(manifest()) == 3


def test_the_hash_that_the_server_tells_counts_where_the_catalog_knows_none(world: World) -> None:
    world.data("a", b"one", known=False)
    (done,) = run(world, Breaking(1, sha256(b"one")), "a").files
    assert done.entry.verified == "sha256"
    (again,) = run(world, Breaking(0), "a").files
    assert not again.new  # verified once, and as it was then
    Path("out/a.fna").unlink()
    outcome = run(world, Breaking(1, sha256(b"two")), "a")
    assert isinstance(outcome.failed[vid("a")], ConflictError)
    assert files() == {"manifest.jsonl"}


def test_a_manifest_that_a_kill_cut_short_is_read_as_far_as_it_goes(world: World) -> None:
    world.data("a", b"one", known=False)
    fetched("KPN:a")
    text = Path("out/manifest.jsonl").read_text()
    Path("out/manifest.jsonl").write_text(text + text[:40])
    assert len(fetched("KPN:a")) == 1
    assert len(manifest()) == 1


def test_two_programs_never_write_one_file(world: World) -> None:
    world.data("a", b"one")
    Path("out").mkdir()
    with Path("out/.a.fna.part").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        result = biobank("fetch", "KPN:a", "--to", "out")
    assert result.exit_code == 5
    assert "another program" in result.stderr


@pytest.fixture
def before_lock(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], object]]:
    """What others do, once, just before we lock a file of this name."""
    others: dict[str, Callable[[], object]] = {}
    real = fcntl.flock

    def flock(file: IO[bytes], operation: int) -> None:
        name = Path(f"/proc/self/fd/{file.fileno()}").readlink().name
        others.pop(name, lambda: None)()
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    return others


def test_a_file_that_another_program_finished_just_before_we_lock_it_is_not_written(
    world: World, before_lock: dict[str, Callable[[], object]]
) -> None:
    world.data("a", b"one")
    part, target = Path("out/.a.fna.part"), Path("out/a.fna")

    def finish() -> None:
        part.write_bytes(b"one")
        part.replace(target)

    before_lock[part.name] = finish
    with pytest.raises(UnreachableError):
        run(world, Breaking(0), "a")
    assert target.read_bytes() == b"one"


def test_what_another_program_begins_when_ours_is_in_place_is_left_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.data("a", b"one")
    part = Path("out/.a.fna.part")
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        done = real(self, target)
        if self == part:
            part.write_bytes(b"its own")
        return done

    monkeypatch.setattr(Path, "replace", replace)
    run(world, Breaking(1), "a")
    assert part.read_bytes() == b"its own"


class Overtaken(Breaking):
    """While its file comes, another program fetches one into the same folder."""

    def __init__(self, other: Callable[[], object]) -> None:
        super().__init__(1)
        self._other = other

    @contextmanager
    def open(self, file: DataObject) -> Iterator[Content]:
        self._other()
        with super().open(file) as content:
            yield content


def test_the_manifest_names_what_two_programs_fetched_at_once(world: World) -> None:
    world.data("a", b"one", known=False)
    world.data("b", b"one", known=False)
    run(world, Overtaken(lambda: run(world, Breaking(1), "b")), "a")
    assert {entry["vid"] for entry in manifest()} == {vid("a"), vid("b")}


def test_two_broken_runs_on_end_leave_a_manifest_that_can_be_read(world: World) -> None:
    for name in "abc":
        world.data(name, b"one", known=False)
    with pytest.raises(UnreachableError):
        run(world, Breaking(1), "a", "b", "c")
    path = Path("out/manifest.jsonl")
    path.write_text(path.read_text() + path.read_text()[:40])
    with pytest.raises(UnreachableError):
        run(world, Breaking(2), "a", "b", "c")
    run(world, Breaking(3), "a", "b", "c")
    assert len(manifest()) == 3


def test_data_are_no_tubes(world: World) -> None:
    result = biobank("fetch", STUDY, "--to", "out")
    assert result.exit_code == 2
    assert "is of kind Study" in result.stderr


def test_a_catalog_in_a_file_keeps_no_files(world: World) -> None:
    told = biobank("store", "KPN:x")
    assert told.exit_code == 2
    assert "keeps no files" in told.stderr
