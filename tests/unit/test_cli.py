"""The command line's frame: exit codes, errors, output, and secrets that never show."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from biobank_core import errors
from biobank_core.cli import COMMANDS, cli
from biobank_core.cli.common import open_output, tsv_cell, tsv_writer
from biobank_core.config import SECRETS
from biobank_core.errors import BiobankError

CANARY = "canary-51c2-never-show"
ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "biobank_core.cli")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("BIOBANK_", "GALAXY_", "OMERO_")):
            monkeypatch.delenv(name)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def biobank(*args: str) -> Result:
    return CliRunner().invoke(cli, args)


def process(*args: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *args],
        env={**os.environ, **extra},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def study(label: str = "KPN") -> None:
    Path("s.tsv").write_text(f"label\n{label}\n", encoding="utf-8")
    assert biobank("register", "Study", "s.tsv").exit_code == 0


def test_help_names_every_command_and_exits_0() -> None:
    done = process("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_in_the_list_is_the_first_sentence_of_the_commands_help(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    first = (command.help or "").split("\n\n")[0].replace("\n", " ")
    assert first == COMMANDS[name]


@pytest.mark.parametrize(
    "args",
    [
        ("nonsense",),
        ("register",),
        ("register", "Study"),
        ("status", "--format", "xml"),
        ("--no-such-option",),
        ("consent", "give", "S:P", "--date", "2026-02-30"),
        ("consent", "lend", "S:P"),
    ],
)
def test_wrong_usage_exits_2_and_says_so_on_stderr_only(args: tuple[str, ...]) -> None:
    done = biobank(*args)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("status",),
        ("dump",),
        ("consent", "--help", "status"),
        ("lineage", "S:P"),
        ("register", "Study", "s.tsv", "--dry-run"),
    ],
)
def test_a_reading_command_makes_no_catalog(args: tuple[str, ...], tmp_path: Path) -> None:
    done = biobank("--catalog", "new.db", *args)
    if "--help" not in args:
        assert done.exit_code == 2
        assert "biobank init" in done.stderr
    assert not Path("new.db").exists()


def test_a_writing_command_makes_the_catalog_in_the_users_data_folder(tmp_path: Path) -> None:
    study()
    made = tmp_path / "home" / "biobank" / "biobank.db"
    assert made.exists()
    assert made.stat().st_mode & 0o777 == 0o600


def test_the_catalog_may_be_named_before_or_after_the_command() -> None:
    assert biobank("--catalog", "a.db", "init").exit_code == 0
    assert biobank("init", "--catalog", "sqlite:///b.db").exit_code == 0
    assert biobank("--catalog", "a.db", "init", "--catalog", "c.db").stdout == "sqlite:///c.db\n"
    assert sorted(path.name for path in Path().glob("*.db")) == ["a.db", "b.db", "c.db"]


# Those of the one module that holds the tree: whatever else was imported, these are the cases.
ALL_ERRORS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, BiobankError)
]


@pytest.mark.parametrize("kind", ALL_ERRORS, ids=lambda kind: kind.__name__)
def test_each_error_of_the_tree_is_one_message_on_stderr_and_its_exit_code(
    kind: type[BiobankError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise kind("something is wrong")

    monkeypatch.setattr("biobank_core.stores.open_stores", fail)
    done = biobank("status")
    assert (done.exit_code, done.stdout) == (kind.exit_code, "")
    assert done.stderr == "biobank: error: something is wrong\n"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.InputError, 2),
        (errors.NotFoundError, 2),
        (errors.AmbiguousError, 2),
        (errors.UnreachableError, 3),
        (errors.TimeoutExceededError, 3),
        (errors.NotPermittedError, 4),
        (errors.ConflictError, 5),
        (errors.StaleVersionError, 5),
        (errors.DuplicateError, 5),
    ],
)
def test_exit_codes_are_those_of_the_design(kind: type[BiobankError], code: int) -> None:
    assert kind.exit_code == code


def test_a_bug_says_how_to_get_its_traceback_and_is_no_finding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise ZeroDivisionError(CANARY)

    monkeypatch.setattr("biobank_core.stores.open_stores", fail)
    done = biobank("status")
    assert done.exit_code == 70
    assert "BIOBANK_DEBUG=1" in done.stderr
    assert "Traceback" not in done.stderr
    monkeypatch.setenv("BIOBANK_DEBUG", "1")
    assert "Traceback" in biobank("status").stderr


def test_a_file_that_is_a_folder_is_bad_input_and_no_bug() -> None:
    Path("folder.tsv").mkdir()
    done = biobank("register", "Study", "folder.tsv")
    assert done.exit_code == 2
    assert "folder.tsv" in done.stderr


def test_an_output_in_a_folder_that_is_missing_is_named() -> None:
    study()
    done = biobank("status", "-o", "nowhere/x.txt")
    assert done.exit_code == 2
    assert "nowhere" in done.stderr


def test_a_reader_that_goes_away_makes_no_traceback() -> None:
    rows = "".join(f"S{n}\n" for n in range(20_000))
    Path("s.tsv").write_text(f"label\n{rows}", encoding="utf-8")
    running = subprocess.Popen(
        [*PROGRAM, "register", "Study", "s.tsv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout is not None
    running.stdout.close()
    assert running.stderr is not None
    said = running.stderr.read().decode()
    running.stderr.close()
    assert running.wait(timeout=60) == 141
    assert "Traceback" not in said
    assert "Exception" not in said


def test_ctrl_c_ends_with_130_and_saves_nothing() -> None:
    assert biobank("--catalog", "c.db", "init").exit_code == 0
    # The command waits at the open file until the other end writes: a sure moment to interrupt.
    os.mkfifo("s.tsv")
    running = subprocess.Popen(
        [*PROGRAM, "--catalog", "c.db", "register", "Study", "s.tsv"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    with Path("s.tsv").open("wb") as stream:
        stream.write(b"label\nS1\n")
        stream.flush()
        time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        said = running.stderr.read().decode()
    running.stderr.close()
    assert running.wait(timeout=60) == 130
    assert said.strip() == "biobank: interrupted"
    assert "Study" not in biobank("--catalog", "c.db", "status").stdout


def test_a_progress_bar_is_shown_on_a_terminal_and_nowhere_else() -> None:
    biobank("init")
    lines = (f'{{"kind":"Study","vid":"V0{n:032X}","label":"S{n}"}}\n' for n in range(500))
    Path("a.jsonl").write_text("".join(lines), encoding="utf-8")
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*PROGRAM, "load", "a.jsonl"],
        env={**os.environ, "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=theirs,
        timeout=60,
        check=True,
    )
    os.close(theirs)
    shown = b""
    # The end of a terminal whose other side is closed reads as an error on Linux.
    with contextlib.suppress(OSError):
        while piece := os.read(ours, 65_536):
            shown += piece
    os.close(ours)
    assert b"\x1b[" in shown
    assert b"500 created" in shown
    assert done.stdout == b""
    assert process("load", "a.jsonl").stderr == ("0 created, 0 updated, 0 deleted, 500 unchanged\n")


def test_an_output_file_is_replaced_only_when_all_went_well() -> None:
    Path("out.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), open_output("out.txt") as stream:
        stream.write(f"half {1 / 0}")
    assert Path("out.txt").read_text() == "old"
    with open_output("out.txt") as stream:
        stream.write("new ☃\n")
    assert Path("out.txt").read_bytes() == "new ☃\n".encode()
    assert [path.name for path in Path().iterdir()] == ["out.txt"]


def test_an_output_that_is_a_device_stays_one() -> None:
    study()
    assert biobank("status", "-o", "/dev/null").exit_code == 0
    assert Path("/dev/null").is_char_device()


def test_stdout_is_utf_8_whatever_the_locale() -> None:
    study("Größe ☃")
    done = subprocess.run(
        [*PROGRAM, "register", "Study", "s.tsv"],
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        check=True,
    )
    assert "Größe ☃" in done.stdout.decode("utf-8")


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, ""),
        (True, "true"),
        (-1.5, "-1.5"),
        ("-1e5", "-1e5"),
        ("+3", "+3"),
        ("-1+1", "'-1+1"),
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\\t=1"),
        ("a\tb\nc\\d\r", "a\\tb\\nc\\\\d\\r"),
        ("\x1b[31mred\x00\x85\u2028", "\\x1b[31mred\\x00\\x85\\u2028"),
        (datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "2026-01-02T03:04:00Z"),
        (date(2026, 1, 2), "2026-01-02"),
        ("ünï ☃ <b>", "ünï ☃ <b>"),
    ],
)
def test_a_cell_never_starts_a_formula_nor_breaks_its_row(value: object, cell: str) -> None:
    assert tsv_cell(value) == cell


def test_a_row_of_the_wrong_length_is_refused() -> None:
    with open_output("t.tsv") as stream, pytest.raises(ValueError, match="1 cells for 2"):
        tsv_writer(stream, ["a", "b"]).row(["x"])


SECRET_ENVIRONMENT = {name: f"{CANARY}-{name}" for name in SECRETS}


@pytest.mark.parametrize(
    "args",
    [
        ("--help",),
        ("status",),
        ("status", "--format", "json"),
        ("dump",),
        ("schema",),
        ("register", "Study", "missing.tsv"),
        ("lineage", "KPN:nobody"),
        ("--catalog", f"omero://ada:{CANARY}@localhost", "status"),
        ("--catalog", "omero://localhost:4064/", "status"),
        ("--index", "bolt://localhost", "status"),
        ("record", "--galaxy", f"http://ada:{CANARY}@127.0.0.1:9"),
        ("record", "--galaxy", "not a url"),
    ],
)
def test_no_secret_shows_in_any_output_not_even_in_tracebacks(args: tuple[str, ...]) -> None:
    study()
    done = process("-v", *args, BIOBANK_DEBUG="1", **SECRET_ENVIRONMENT)
    # What stands in argv is shown by the shell's history already; it must not be repeated.
    assert CANARY not in done.stdout + done.stderr


class _Echo(BaseHTTPRequestHandler):
    """A server that is no Galaxy, or a hostile one: it sends back the key that it was given."""

    def do_GET(self) -> None:
        key = self.headers.get("x-api-key")
        body = f'{{"err_msg":"key {key} of {self.path} is wrong"}}'.encode()
        self.send_response(int(self.server.status))  # type: ignore[attr-defined]
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Nothing on the test's stderr."""


@pytest.mark.parametrize(("status", "code"), [(401, 4), (403, 4), (404, 3), (500, 3), (200, 3)])
def test_a_server_that_echoes_the_key_makes_it_show_nowhere(status: int, code: int) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        server.status = status  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = process("-v", "record", "--galaxy", url, BIOBANK_DEBUG="1", **SECRET_ENVIRONMENT)
        server.shutdown()
    assert done.returncode == code, done.stderr
    assert url in done.stderr
    assert CANARY not in done.stdout + done.stderr


def test_no_secret_reaches_a_file_that_is_written(tmp_path: Path) -> None:
    study()
    process("status", "-o", "status.txt", **SECRET_ENVIRONMENT)
    process("-v", "init", **SECRET_ENVIRONMENT)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert CANARY.encode() not in path.read_bytes(), path


def test_a_secrets_file_that_others_can_read_stops_the_command() -> None:
    path = Path("secrets")
    path.write_text(f"GALAXY_API_KEY={CANARY}\n")
    path.chmod(0o644)
    done = process("init", BIOBANK_SECRETS_FILE="secrets")
    assert done.returncode == 2
    assert "chmod 600" in done.stderr
    assert CANARY not in done.stderr + done.stdout
