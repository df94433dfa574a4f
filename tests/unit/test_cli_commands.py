"""init, status, schema, load, dump, register and consent, as they are called."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from biobank_core.cli import cli

STUDY = '{"kind":"Study","vid":"V0' + "A" * 32 + '","label":"KPN"}\n'
OTHER = STUDY.replace("KPN", "OTHER")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("BIOBANK_", "GALAXY_")):
            monkeypatch.delenv(name)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("BIOBANK_CATALOG", "sqlite:///c.db")


def biobank(*args: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, args, input=stdin)


def write(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def done(*args: str, stdin: str | None = None) -> str:
    result = biobank(*args, stdin=stdin)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def enrolled() -> None:
    done("register", "Study", write("s.tsv", "label\nKPN\n"))
    done("register", "Individual", write("i.tsv", "code\nKP-01\n"), "--study", "KPN")


def test_init_may_be_run_again_and_keeps_what_is_there() -> None:
    assert done("init") == "sqlite:///c.db\n"
    done("load", write("a.jsonl", STUDY))
    assert done("init") == "sqlite:///c.db\n"
    assert "Study" in done("status")


def test_init_refuses_a_file_of_another_program() -> None:
    write("c.db", "this is no database at all, just a text that is long enough\n" * 20)
    result = biobank("init")
    assert result.exit_code == 2
    assert "c.db" in result.stderr
    assert Path("c.db").read_text(encoding="utf-8").startswith("this is no database")


def test_status_counts_by_kind_as_text_and_as_json() -> None:
    enrolled()
    status = json.loads(done("status", "--format", "json"))
    assert status["catalog"]["counts"] == {"Enrollment": 1, "Individual": 1, "Study": 1}
    assert status["catalog"]["schema_version"] >= 1
    assert status["index"]["in_step"] is True
    assert status["index"]["nodes"] == 1
    text = done("status")
    assert "in step with the catalog" in text
    assert "Individual" in text


def test_an_index_in_a_file_of_its_own_is_brought_up_to_date_when_opened() -> None:
    enrolled()
    status = json.loads(done("--index", "sqlite:///i.db", "status", "--format", "json"))
    assert status["index"]["url"] == "sqlite:///i.db"
    assert (status["index"]["nodes"], status["index"]["in_step"]) == (1, True)


def test_the_schema_is_json_and_needs_no_catalog() -> None:
    schema = json.loads(done("schema"))
    assert "Tube" in schema["$defs"]
    assert not Path("c.db").exists()


def test_what_is_dumped_loads_into_a_new_catalog_and_dumps_the_same() -> None:
    enrolled()
    done("dump", "--output", "one.jsonl")
    done("--catalog", "copy.db", "load", "one.jsonl")
    assert done("--catalog", "copy.db", "dump") == Path("one.jsonl").read_text(encoding="utf-8")


def test_load_reads_stdin_and_says_what_it_did_on_stderr() -> None:
    result = biobank("load", "-", stdin=STUDY)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "1 created, 0 updated, 0 deleted, 0 unchanged\n"
    assert biobank("load", "-", stdin=STUDY).stderr.startswith("0 created")


def test_other_content_is_a_conflict_unless_update_says_so() -> None:
    done("load", write("a.jsonl", STUDY))
    result = biobank("load", write("b.jsonl", OTHER))
    assert result.exit_code == 5
    assert "b.jsonl, line 1" in result.stderr
    assert "label" in result.stderr
    assert "OTHER" not in done("dump")
    done("load", "b.jsonl", "--update")
    assert "OTHER" in done("dump")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"kind":"Studdy"}\n', "line 1, field 'kind', value 'Studdy'"),
        (f"{STUDY}nonsense\n", "line 2"),
        (STUDY.replace("}", ',"x":1}'), "line 1, field 'x'"),
    ],
)
def test_a_wrong_line_exits_2_and_saves_nothing(text: str, said: str) -> None:
    result = biobank("load", write("a.jsonl", text))
    assert result.exit_code == 2
    assert f"a.jsonl, {said}" in result.stderr
    assert done("dump") == ""


def test_register_writes_a_table_of_what_it_did() -> None:
    done("init")
    write("s.tsv", "label\nKPN\n=1+1\n")
    dry = done("register", "Study", "s.tsv", "--dry-run").splitlines()
    assert dry[0] == "line\tkind\tvid\tlabel\twhat"
    assert dry[1:] == ["2\tStudy\t\tKPN\twould create", "3\tStudy\t\t'=1+1\twould create"]
    rows = [line.split("\t") for line in done("register", "Study", "s.tsv").splitlines()[1:]]
    assert [(row[0], row[3], row[4]) for row in rows] == [
        ("2", "KPN", "created"),
        ("3", "'=1+1", "created"),
    ]
    again = biobank("register", "Study", "s.tsv")
    assert again.stderr == "0 created, 2 unchanged\n"


def test_a_study_given_with_a_kind_that_has_none_does_not_matter() -> None:
    done("register", "Study", write("s.tsv", "label\nKPN\n"), "--study", "KPN")
    done("register", "SoftwareProgram", write("d.tsv", "label\nx\n"), "--study", "KPN")


def test_register_tells_bad_input_from_conflicts_by_exit_code() -> None:
    enrolled()
    bad = biobank("register", "Tube", write("t.tsv", "label\tcontent\nA\tx\n"), "--study", "KPN")
    assert bad.exit_code == 2
    assert "t.tsv, line 2, field 'content', value 'x'" in bad.stderr
    conflict = biobank(
        "register", "Individual", write("i.tsv", "code\tgender\nKP-01\tMALE\n"), "--study", "KPN"
    )
    assert conflict.exit_code == 5
    unknown = biobank("register", "Tube", write("t.tsv", "label\nA\n"), "--study", "NOPE")
    assert unknown.exit_code == 2
    assert "biobank register Study" in unknown.stderr


def test_a_consent_is_given_and_withdrawn_and_each_again_changes_nothing() -> None:
    enrolled()
    give = ("consent", "give", "KPN:KP-01", "--date", "2020-01-01")
    withdraw = ("consent", "withdraw", "KPN:KP-01", "--date", "2020-02-01")
    assert done(*give) == "KPN:KP-01: research given from 2020-01-01; today: given\n"
    assert "already given from 2020-01-01" in done(*give)
    assert done(*withdraw).endswith("withdrawn from 2020-02-01; today: withdrawn\n")
    assert "already withdrawn" in done(*withdraw)
    assert json.loads(done("status", "--format", "json"))["catalog"]["counts"]["Consent"] == 2


def test_a_consent_of_a_past_day_says_where_it_stands_today() -> None:
    enrolled()
    done("consent", "give", "KPN:KP-01", "--date", "2020-01-01", "--until", "2020-12-31")
    said = done("consent", "give", "KPN:KP-01", "--date", "2020-01-01", "--until", "2020-12-31")
    assert said.endswith("until 2020-12-31; today: expired\n")


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("consent", "withdraw", "KPN:KP-01"), 2),
        (("consent", "give", "KPN:NOBODY"), 2),
        (("consent", "give", "KP-01"), 2),
        (("consent", "give", "KPN:KP-01", "--date", "yesterday"), 2),
        (("consent", "give", "KPN:KP-01", "--scope", ""), 2),
    ],
)
def test_a_consent_that_can_t_be_changes_nothing(args: tuple[str, ...], code: int) -> None:
    enrolled()
    assert biobank(*args).exit_code == code
    assert "Consent" not in done("status")
