"""Archives that a stranger made: refused with file, member and limit, and nothing is saved."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from biobank_core.cli import cli
from biobank_core.errors import InputError
from biobank_core.galaxy.archive import open_archive
from biobank_core.galaxy.archive_container import Limits
from tests.unit import archives
from tests.unit.archives import SMALL, encoded, history, tar_bytes, tar_gz, zipped


def refused(path: Path, match: str, *, limits: Limits | None = SMALL) -> str:
    with pytest.raises(InputError, match=match) as caught:
        open_archive(path, limits=limits)
    assert str(path) in str(caught.value)
    return str(caught.value)


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/passwd",
        "datasets/../../evil",
        "a//b",
        "C:evil",
        "a\\..\\evil",
        "line\nbreak",
        "./../jobs_attrs.txt",
    ],
)
@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_a_name_that_leads_out_of_the_archive_is_refused(
    tmp_path: Path, name: str, pack: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    path = pack(tmp_path / "a", {**encoded(history()), name: b"x"})
    assert repr(name.removeprefix("./")) in refused(path, "leads out of the archive")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a special file"),
        (tarfile.BLKTYPE, "a special file"),
        (tarfile.FIFOTYPE, "a special file"),
        (tarfile.GNUTYPE_SPARSE, "a special file"),
    ],
)
def test_links_devices_and_sparse_files_are_refused(tmp_path: Path, kind: bytes, said: str) -> None:
    extra = (special("datasets/x", kind, "/etc/passwd"),)
    path = tar_gz(tmp_path / "a.tgz", encoded(history()), extra=extra)
    assert "'datasets/x'" in refused(path, said)


def test_a_link_in_the_place_of_a_member_that_is_read_is_refused(tmp_path: Path) -> None:
    members = encoded(history())
    del members["jobs_attrs.txt"]
    extra = (special("jobs_attrs.txt", tarfile.SYMTYPE, "/etc/passwd"),)
    refused(tar_gz(tmp_path / "a.tgz", members, extra=extra), "'jobs_attrs.txt': a link")
    path = zipped(tmp_path / "a.zip", members)
    with zipfile.ZipFile(path, "a") as out:
        info = zipfile.ZipInfo("jobs_attrs.txt")
        info.external_attr = 0o120777 << 16
        out.writestr(info, "/etc/passwd")
    refused(path, "'jobs_attrs.txt': a link")


def test_a_folder_in_the_place_of_a_member_is_refused(tmp_path: Path) -> None:
    extra = (special("jobs_attrs.txt", tarfile.DIRTYPE),)
    refused(tar_gz(tmp_path / "a.tgz", {}, extra=extra), "a folder")


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_too_many_members_are_refused(
    tmp_path: Path, pack: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    path = pack(tmp_path / "a", encoded(history()) | {f"datasets/{n}": b"" for n in range(60)})
    refused(path, r"more than 50 members \(limit\)")


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_bombs_are_refused_by_ratio_and_by_size(
    tmp_path: Path, pack: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    bomb = pack(tmp_path / "a", {**encoded(history()), "datasets/zeros": bytes(3_000_000)})
    refused(bomb, r"over 20 times its size \(limit\)")
    large = pack(tmp_path / "b", {**encoded(history()), "datasets/zeros": bytes(5_000_000)})
    limits = Limits(unpacked_bytes=4_000_000)
    refused(large, r"over 4000000 bytes unpacked \(limit\)", limits=limits)
    # The same content within the limits is read.
    assert len(open_archive(large).jobs_by_id) == 2


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_huge_json_is_refused(
    tmp_path: Path, pack: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    members = encoded(history())
    members["jobs_attrs.txt"] = b"[" + b" " * 300_000 + b"]"
    path = pack(tmp_path / "a", members)
    refused(path, r"'jobs_attrs.txt': over 200000 bytes of JSON \(limit\)")


@pytest.mark.parametrize("levels", [200, 500_000])
def test_deep_json_is_refused(tmp_path: Path, levels: int) -> None:
    members = encoded(history())
    deep = b'{"p": ' + b"[" * levels + b"]" * levels + b"}"
    job = json.dumps(archives.job(archives.JOB, 1, params="HERE")).encode()
    members["jobs_attrs.txt"] = b"[" + job.replace(b'"HERE"', deep) + b"]"
    refused(tar_gz(tmp_path / "a.tgz", members), "'jobs_attrs.txt'.*nested", limits=None)


def test_deeply_nested_collections_are_refused(tmp_path: Path) -> None:
    content = history()
    inner: dict[str, Any] = {"type": "list", "elements": [archives.element("a", archives.FIRST)]}
    for _ in range(21):
        inner = {"type": "x", "elements": [{"element_identifier": "i", "child_collection": inner}]}
    content["collections_attrs.txt"][0]["collection"] = inner
    path = tar_gz(tmp_path / "a.tgz", encoded(content))
    refused(path, r"'collections_attrs.txt': a collection nested deeper than 20 levels \(limit\)")


def test_a_header_that_never_ends_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x" * 300_000)
    path = tar_gz(tmp_path / "a.tgz", {}, extra=(info,))
    refused(path, r"a header over 100000 bytes \(limit\)")


def test_a_member_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    whole = tar_bytes({"jobs_attrs.txt": b"[]"})
    header = bytearray(whole[:512])
    header[124:136] = b"00000777777\0"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(bytes(header) + whole[512:]))
    refused(path, "truncated or damaged|said to have")


@pytest.mark.parametrize("said", [1, 10_000])
def test_a_zip_member_that_lies_about_its_size_is_refused(tmp_path: Path, said: int) -> None:
    path = zipped(tmp_path / "a.zip", encoded(history()))
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, place + 24, said)
    path.write_bytes(data)
    refused(path, "truncated or damaged|said to have")


def test_an_encrypted_or_oddly_packed_zip_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", encoded(history()))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    refused(path, "encrypted")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as out:
        for name, member in encoded(history()).items():
            out.writestr(name, member)
    refused(path, "packed in a way")


def test_a_zip_with_a_huge_directory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    members = {f"datasets/{n:090}": b"" for n in range(1000)}
    refused(zipped(tmp_path / "a.zip", members), r"directory has over 100000 bytes \(limit\)")


def test_a_checksum_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = archives.good(tmp_path / "a.tgz")
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    refused(path, "truncated or damaged")


def test_headers_in_headers_and_unknown_versions_are_refused(tmp_path: Path) -> None:
    one = tarfile.TarInfo("x").create_pax_global_header({"a": "b"})
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(one * 1500 + tar_bytes(encoded(history()))))
    refused(path, "truncated or damaged", limits=Limits(header_bytes=10**9))
    refused(path, r"a header over 100000 bytes \(limit\)")
    path = zipped(tmp_path / "a.zip", encoded(history()))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = 255
    path.write_bytes(data)
    refused(path, "truncated or damaged")


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_has_no_utc_is_refused(tmp_path: Path, time: str) -> None:
    content = history()
    content["jobs_attrs.txt"][0]["update_time"] = time
    refused(tar_gz(tmp_path / "a.tgz", encoded(content)), "'jobs_attrs.txt': no such time")
    content = history()
    content["datasets_attrs.txt"][0]["create_time"] = time
    refused(tar_gz(tmp_path / "a.tgz", encoded(content)), "'datasets_attrs.txt': no such time")


def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", encoded(history()))
    with zipfile.ZipFile(path, "a") as out, pytest.warns(UserWarning, match="Duplicate"):
        out.writestr("jobs_attrs.txt", "[]")
    refused(path, "'jobs_attrs.txt': there twice")
    members = encoded(history())
    both = {**members, **{f"bag/data/{name}": data for name, data in members.items()}}
    refused(tar_gz(tmp_path / "a.tgz", both), "several members export_attrs.txt")


@pytest.mark.parametrize(
    "content", [b"", b"text", b"PK", b"\x1f\x8b", b"\x89PNG\r\n", b"ustar" * 99]
)
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(content)
    refused(path, "not an archive|truncated or damaged")


def test_what_is_not_there_or_not_galaxys_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.tgz", "no such file")
    refused(tmp_path, "truncated or damaged|not an archive")
    refused(tar_gz(tmp_path / "a.tgz", {"readme.txt": b"x"}), "not an export of Galaxy's")
    for name in ("jobs_attrs.txt", "datasets_attrs.txt", "datasets_attrs.txt.provenance"):
        members = encoded(history())
        del members[name]
        refused(tar_gz(tmp_path / "b.tgz", members), f"no member {name}")
    content = history() | {"export_attrs.txt": {"galaxy_export_version": "3"}}
    refused(tar_gz(tmp_path / "c.tgz", encoded(content)), "format that is not known")


@pytest.mark.parametrize("suffix", ["tgz", "zip"])
def test_an_archive_that_was_cut_off_is_refused_wherever(tmp_path: Path, suffix: str) -> None:
    pack = tar_gz if suffix == "tgz" else zipped
    whole = pack(tmp_path / "whole", encoded(history())).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    for length in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:length])
        refused(path, "truncated or damaged|not an archive|not an export")


@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("jobs_attrs.txt", b"{}"),
        ("jobs_attrs.txt", b"[{}]"),
        ("jobs_attrs.txt", b"[1"),
        ("jobs_attrs.txt", b"\xff\xfe"),
        ("datasets_attrs.txt", b'[{"encoded_id": 1}]'),
        ("collections_attrs.txt", b'[{"encoded_id": "../x"}]'),
        ("export_attrs.txt", b"null"),
    ],
)
def test_json_of_another_shape_is_refused(tmp_path: Path, member: str, content: bytes) -> None:
    members = {**encoded(history()), member: content}
    refused(tar_gz(tmp_path / "a.tgz", members), f"member '{member}'")


def test_the_command_saves_nothing_of_a_refused_archive(tmp_path: Path) -> None:
    path = tar_gz(tmp_path / "a.tgz", {**encoded(history()), "../evil": b"x"})
    catalog = f"sqlite:///{tmp_path / 'c.db'}"
    words = ["record", "--catalog", catalog, "--archive", str(path)]
    done = CliRunner().invoke(cli, [*words, "--galaxy-name", "g"])
    assert done.exit_code == 2
    assert "leads out of the archive" in done.stderr
    assert not (tmp_path / "c.db").exists()
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 2
    assert "--galaxy-name" in done.stderr


def test_what_the_test_spoils_is_good(tmp_path: Path) -> None:
    assert io.BytesIO(archives.good(tmp_path / "a.tgz").read_bytes()).read(2) == b"\x1f\x8b"
    assert len(open_archive(tmp_path / "a.tgz", limits=SMALL).jobs_by_id) == 2
