"""biobank map-ids: labels to VIDs and back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from biobank_core.cli import cli


@pytest.fixture(autouse=True)
def _world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("BIOBANK_", "GALAXY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BIOBANK_CATALOG", "sqlite:///c.db")
    for kind, text, study in (
        ("Study", "label\nKPN\nOTHER\n", ()),
        ("Individual", "code\nKP-01\nKP-02\n", ("--study", "KPN")),
        ("Individual", "code\nX-1\n", ("--study", "OTHER")),
        ("Tube", "label\nT1\n=T2\n", ("--study", "KPN")),
        ("Tube", "label\nT9\n", ("--study", "OTHER")),
        ("SoftwareProgram", "label\trelease\nkleborate\t3\n", ()),
    ):
        Path("in.tsv").write_text(text, encoding="utf-8")
        done = biobank("register", kind, "in.tsv", *study)
        assert done.exit_code == 0, done.stderr


def biobank(*args: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, args, input=stdin)


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()[1:]]


def vid_of(address: str) -> str:
    done = biobank("map-ids", address)
    assert done.exit_code == 0, done.stderr
    return rows(done.stdout)[0][1]


def test_labels_become_vids_and_vids_labels() -> None:
    done = biobank("map-ids", "KPN:T1", "KPN:KP-01")
    assert done.stdout.splitlines()[0] == "given\tvid\tkind\tlabel\tstudy"
    tube, person = rows(done.stdout)
    assert (tube[0], *tube[2:]) == ("KPN:T1", "Tube", "T1", "KPN")
    assert (person[0], *person[2:]) == ("KPN:KP-01", "Individual", "KPN:KP-01", "")
    back = rows(biobank("map-ids", person[1], tube[1]).stdout)
    assert back == [[person[1], *person[1:]], [tube[1], *tube[1:]]]


def test_a_cell_that_a_spreadsheet_would_compute_is_made_harmless() -> None:
    assert rows(biobank("map-ids", "KPN:=T2").stdout)[0][3] == "'=T2"


def test_a_file_or_stdin_holds_one_address_a_line() -> None:
    lines = "\ufeffKPN:T1\r\n\n  \nOTHER:T9".replace("  \n", "").encode()
    Path("a.txt").write_bytes(lines)
    for done in (
        biobank("map-ids", "--from", "a.txt"),
        biobank("map-ids", "--from", "-", stdin=lines),
    ):
        assert done.exit_code == 0, done.stderr
        assert [row[0] for row in rows(done.stdout)] == ["KPN:T1", "OTHER:T9"]


def test_all_of_a_kind_of_a_study_each_with_its_address() -> None:
    tubes = rows(biobank("map-ids", "--study", "KPN", "--kind", "Vessel").stdout)
    assert sorted(row[0] for row in tubes) == ["KPN:=T2", "KPN:T1"]
    people = rows(biobank("map-ids", "--study", "KPN", "--kind", "Individual").stdout)
    assert sorted(row[0] for row in people) == ["KPN:KP-01", "KPN:KP-02"]
    assert all(vid_of(row[0]) == row[1] for row in (*tubes, *people))
    everywhere = rows(biobank("map-ids", "--kind", "Individual").stdout)
    assert sorted(row[3] for row in everywhere) == ["KPN:KP-01", "KPN:KP-02", "OTHER:X-1"]
    studies = rows(biobank("map-ids", "--kind", "Study").stdout)
    assert sorted(row[3] for row in studies) == ["KPN", "OTHER"]


def test_what_names_no_object_is_said_after_the_others_and_exits_2() -> None:
    unknown = "V0" + "0" * 32
    done = biobank("map-ids", "KPN:NOPE", "KPN:T1", unknown)
    assert done.exit_code == 2
    assert [row[0] for row in rows(done.stdout)] == ["KPN:T1"]
    first, second = done.stderr.splitlines()
    assert first.startswith("biobank: unknown: 'KPN:NOPE'")
    assert second == f"biobank: unknown: {unknown} is unknown or may not be read"


def test_unresolved_addresses_go_to_their_file_with_the_reason() -> None:
    # A tube and an individual of one name: the address alone fits both.
    Path("in.tsv").write_text("label\nKP-01\n", encoding="utf-8")
    assert biobank("register", "Tube", "in.tsv", "--study", "KPN").exit_code == 0
    tube = vid_of("KPN:T1")
    done = biobank("map-ids", "KPN:KP-01", "NOPE:T1", "OTHER:T9", "--unresolved", "u.tsv")
    assert (done.exit_code, done.stderr) == (0, "")
    assert [row[0] for row in rows(done.stdout)] == ["OTHER:T9"]
    text = Path("u.tsv").read_text(encoding="utf-8")
    assert text.splitlines()[0] == "given\treason\tdetail"
    assert [row[:2] for row in rows(text)] == [["KPN:KP-01", "ambiguous"], ["NOPE:T1", "unknown"]]
    done = biobank("map-ids", "KPN:KP-01", tube, "--kind", "Individual", "--unresolved", "u.tsv")
    assert [row[2] for row in rows(done.stdout)] == ["Individual"]
    assert rows(Path("u.tsv").read_text(encoding="utf-8"))[0][:2] == [tube, "wrong-kind"]


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("KPN:T1", "--from", "a.txt"),
        ("KPN:T1", "--study", "KPN"),
        ("--study", "KPN"),
        ("--kind", "Nonsense"),
        ("--kind", "Nonsense", "KPN:T1"),
        ("--kind", "Device", "--study", "KPN"),
        ("--kind", "Tube", "--study", "NOPE"),
        ("--from", "missing.txt"),
    ],
)
def test_wrong_usage_exits_2(args: tuple[str, ...]) -> None:
    assert biobank("map-ids", *args).exit_code == 2


_LONG = "longer than an address can be"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\xff\n", "is not UTF-8"),
        (b"x" * 100_000, _LONG),
        (b"KPN:" + "☃".encode() * 2_000, _LONG),
        (b"K" + "☃".encode() * 20_000, _LONG),
    ],
)
def test_a_hostile_line_is_named(line: bytes, reason: str) -> None:
    Path("a.txt").write_bytes(b"KPN:T1\n" + line)
    done = biobank("map-ids", "--from", "a.txt")
    assert done.exit_code == 2
    assert f"a.txt, line 2: {reason}" in done.stderr
