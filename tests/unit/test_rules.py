"""Rules: patterns, files that are wrong, and the JSON Schema that is kept beside the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from biobank_core.errors import InputError
from biobank_core.galaxy import rules as module
from biobank_core.galaxy.records import HistoryRecord
from biobank_core.galaxy.rules import Rules, SampleRule, json_schema, load_rules, values_of
from biobank_core.model.kinds import ActionCategory

EXAMPLE = """
version: 1
studies:
  - history_tag: "study:{study}"
  - dataset_tag: "typing"
    study: TYPING
  - history_name: "Klebsiella *"
    study: KPN
samples:
  - tag: "biobank:{sample}"
  - sample_sheet: tube
  - labels: {SRR1: T7, SRR2: T8}
  - element_identifier: "{sample}_assembly"
references:
  - tool: bwa_mem
    parameter: reference_source.ref_file
    value: "/data/{reference}.fa"
    study: references
  - parameter: dbkey
tools:
  - tool: kleborate_typing
    category: MEASUREMENT
    outputs: {"*": TypingResult}
include:
  users: ["*@example.org"]
exclude:
  tag: no-biobank
"""


def written(folder: Path, text: str) -> str:
    path = folder / "rules.yml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def history(name: str = "", *tags: str) -> HistoryRecord:
    return HistoryRecord(id="h", name=name, tags=tags)


def test_the_first_study_rule_that_fits_decides(tmp_path: Path) -> None:
    rules = load_rules(written(tmp_path, EXAMPLE))
    assert rules.study_of(history("Klebsiella 1", "study:X"), ["typing"]) == "X"
    assert rules.study_of(history("Klebsiella 1"), ["typing"]) == "TYPING"
    assert rules.study_of(history("Klebsiella 1"), []) == "KPN"
    assert rules.study_of(history("other"), []) is None
    assert rules.study_of(None, []) is None


def test_patterns_fit_the_whole_text_and_mean_nothing_else(tmp_path: Path) -> None:
    rules = load_rules(written(tmp_path, EXAMPLE))
    assert rules.sample_labels([], ["T1_assembly"]) == ((False, ("T1",)),)
    assert rules.sample_labels([], ["T1_assembly2", "_assembly"]) == ()
    assert rules.sample_labels(['biobank:ü "q" <b>'], []) == ((True, ('ü "q" <b>',)),)


def test_without_a_file_the_rules_are_tag_and_element_identifier() -> None:
    rules = load_rules(None)
    assert rules.sample_labels(["biobank:A"], ["B"]) == ((True, ("A",)), (False, ("B",)))
    assert rules.study_of(history("x", "study:X"), []) is None
    assert rules.wants(tool_id="t", user=None, history=None)


def test_a_sample_is_named_by_tag_sheet_column_or_element_identifier(tmp_path: Path) -> None:
    rules = load_rules(written(tmp_path, EXAMPLE))
    found = rules.sample_labels(
        ["biobank:T1"], ["SRR2", "T9_assembly", "forward"], [("tube", "T3"), ("lane", "4")]
    )
    assert found == ((True, ("T1",)), (True, ("T3",)), (True, ("T8",)), (False, ("T9",)))
    assert rules.sample_labels([], ["other"], [("lane", "4")]) == ()
    assert rules.reads_sheets
    assert not Rules().reads_sheets


def test_a_sheet_beside_the_rules_names_samples_by_element_identifier(tmp_path: Path) -> None:
    (tmp_path / "run.tsv").write_text("lane\tfile\ttube\n1\tf1\tT1\n2\tf2\t\n3\tf1\tT1\n")
    text = "samples:\n  - {sheet: run.tsv, identifier: file, sample: tube}\n"
    rules = load_rules(written(tmp_path, text))
    assert rules.sample_labels([], ["f1"]) == ((True, ("T1",)),)
    assert rules.sample_labels([], ["f2"]) == ()
    before = rules.fingerprint()
    (tmp_path / "run.tsv").write_text("file\ttube\nf1\tT2\n")
    assert load_rules(written(tmp_path, text)).fingerprint() != before


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ("file\ttube\nf1\tT1\nf1\tT2\n", "line 3.*another sample than before"),
        ("file\tother\nf1\tT1\n", "no such column"),
        ("file\ttube\n", "no row"),
        ("file\ttube\nf1\n", "line 2.*1 cells"),
        (None, "can't be read"),
    ],
)
def test_a_sheet_that_is_wrong_is_an_error_that_names_it(
    tmp_path: Path, table: str | None, word: str
) -> None:
    if table is not None:
        (tmp_path / "run.tsv").write_text(table)
    text = "samples:\n  - {sheet: run.tsv, identifier: file, sample: tube}\n"
    with pytest.raises(InputError, match=rf"run\.tsv.*{word}"):
        load_rules(written(tmp_path, text))


def test_parameters_name_references_at_any_depth_and_in_lists(tmp_path: Path) -> None:
    rules = load_rules(written(tmp_path, EXAMPLE))
    ref_file, dbkey = rules.references
    nested = {"reference_source": {"ref_file": "/data/hg38.fa"}, "dbkey": "hg19"}
    assert ref_file.labels_of("toolshed/repos/x/bwa/bwa_mem/0.7", nested) == ("hg38",)
    assert ref_file.labels_of("bowtie2", nested) == ()
    assert dbkey.labels_of("anything", nested) == ("hg19",)
    assert dbkey.labels_of("anything", {"dbkey": ["a", "b", "a"]}) == ("a", "b")
    assert dbkey.labels_of("anything", {"dbkey": "?"}) == ()
    repeats = {"genomes": [{"dbkey": "x"}, {"dbkey": None}, {"dbkey": "y"}]}
    assert list(values_of(repeats, "genomes.dbkey")) == ["x", "y"]
    assert list(values_of({"a.b": {"c": "1"}}, "a.b.c")) == ["1"]
    assert list(values_of(nested, "reference_source")) == []


def test_tools_are_named_as_people_do(tmp_path: Path) -> None:
    rules = load_rules(written(tmp_path, EXAMPLE))
    for tool in ("kleborate_typing", "host/repos/iuc/kleborate/kleborate_typing/3.2.4"):
        rule = rules.tool(tool)
        assert rule is not None
        assert rule.category is ActionCategory.MEASUREMENT
        assert rule.kind_of("output|a[1]") == "TypingResult"
    assert rules.tool("kleborate") is None


def test_users_are_included_and_a_tag_opts_out(tmp_path: Path) -> None:
    rules = load_rules(written(tmp_path, EXAMPLE))
    wants = {
        (user, tags): rules.wants(tool_id="t", user=user, history=history("x", *tags))
        for user in ("ada@example.org", "eve@other.org", None)
        for tags in ((), ("no-biobank",))
    }
    assert [key for key, wanted in wants.items() if wanted] == [("ada@example.org", ())]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("studies: [", "line 1"),
        ("version: 2", "version"),
        ("studys: []", "studys"),
        ("studies:\n  - history_tag: x", "{study}"),
        ("studies:\n  - {history_tag: x, history_name: y, study: z}", "one of"),
        ("samples:\n  - tag: '{sample}{sample}'", "once"),
        ("samples:\n  - tag: '*{sample}******'", "stars"),
        ("tools:\n  - {tool: x, outputs: {o: Tube}}", "TypingResult"),
        ("tools:\n  - {tool: x, category: DANCING}", "DANCING"),
        ("a: &a [1]\nb: *a", "aliases"),
        ("version: 1\nversion: 1", "line 2.*twice"),
        ("- 1", "object"),
        ("!!python/object/apply:os.system ['x']", "not the YAML"),
    ],
)
def test_a_file_that_is_wrong_is_one_error_that_says_where(
    tmp_path: Path, text: str, said: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=said) as caught:
        load_rules(path)
    assert path in str(caught.value)


def test_a_file_that_is_no_text_or_not_there_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    with pytest.raises(InputError, match=r"rules\.yml"):
        load_rules(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        load_rules(str(path))
    path.write_bytes(b"#" * (module.MAX_FILE_BYTES + 1))
    with pytest.raises(InputError, match="larger"):
        load_rules(str(path))


def test_an_empty_file_is_the_default_rules(tmp_path: Path) -> None:
    assert load_rules(written(tmp_path, "")) == Rules()


def test_the_json_schema_beside_the_code_is_that_of_the_code() -> None:
    kept = Path(module.__file__).with_name("rules.schema.json")
    assert json.loads(kept.read_text(encoding="utf-8")) == json_schema()


def test_the_json_schema_takes_the_example_and_refuses_what_is_wrong() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(EXAMPLE), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"studys": []}, schema)


def test_equal_rules_have_equal_fingerprints(tmp_path: Path) -> None:
    one = load_rules(written(tmp_path, EXAMPLE))
    other = load_rules(written(tmp_path, EXAMPLE + "# a comment\n"))
    assert one.fingerprint() == other.fingerprint() != Rules().fingerprint()


def test_the_documented_rules_are_rules(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```yaml\n(.*?)```", text, re.S)
    rules = load_rules(written(tmp_path, example))
    jsonschema.validate(yaml.safe_load(example), json_schema())
    for name in Rules.__struct_fields__:
        assert name == "version" or f"**{name}**" in text, name
        assert getattr(rules, name) != getattr(Rules(), name) or name == "version", name
    for name in SampleRule.__struct_fields__:
        assert f"`{name}`" in text, name
