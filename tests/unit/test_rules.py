"""Rules: patterns, files that are wrong, and the JSON Schema that is kept beside the code."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from biobank_core.errors import InputError
from biobank_core.galaxy import rules as module
from biobank_core.galaxy.records import HistoryRecord
from biobank_core.galaxy.rules import Rules, json_schema, load_rules
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
  - element_identifier: "{sample}_assembly"
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
