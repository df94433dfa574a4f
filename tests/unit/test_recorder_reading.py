"""What Galaxy says, read: versions, inputs by parameter, parameters without noise and secrets."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biobank_core.galaxy import identity, wire
from biobank_core.galaxy.client import GalaxyFaultError, server_key
from biobank_core.galaxy.live_inputs import grouped_inputs
from biobank_core.galaxy.live_version import exact_version
from biobank_core.galaxy.parameters import REDACTED, setup_parameters
from biobank_core.galaxy.records import VersionSource

HDCA = "0ddfe3eaab14a540"
DCE = "c3b6e5a585f9e5b5"
UUIDS = [f"00000000-0000-0000-0000-00000000000{number}" for number in range(6)]


def ends(**numbers: int) -> dict[str, wire.End]:
    return {
        name: wire.End(id=f"{number:016x}", src="hda", uuid=UUIDS[number])
        for name, number in numbers.items()
    }


def nothing(_element: str) -> None:
    raise AssertionError("nobody should ask")


def test_a_tool_shed_id_ends_in_the_exact_version() -> None:
    tool = "toolshed.g2.bx.psu.edu/repos/iuc/kleborate/kleborate/2.2.0+galaxy1"
    found = exact_version(tool, wire.Rerun(version="9", message=""))
    assert found == ("2.2.0+galaxy1", VersionSource.TOOL_SHED_ID)


def test_the_loaded_version_is_the_jobs_unless_the_message_says_otherwise() -> None:
    newer = "There is a newer version of this tool available."
    for message in ("", None, newer):
        found = exact_version("t", wire.Rerun(version="1.2.0", message=message))
        assert found == ("1.2.0", VersionSource.BUILD_FOR_RERUN)


@pytest.mark.parametrize(
    "message",
    [
        'This job was run with tool version "1.2.0", which is not available. '
        "You can re-run the job with the selected tool or choose another version of the tool. ",
        'This job was run with <a href="https://x/" target="_blank">tool id "a/b"</a>, '
        'version "1.2.0", which is not available. ',
    ],
)
def test_after_an_upgrade_the_version_stands_in_the_message(message: str) -> None:
    found = exact_version("t", wire.Rerun(version="2.0.0", message=message))
    assert found == ("1.2.0", VersionSource.BUILD_FOR_RERUN_MESSAGE)


@pytest.mark.parametrize(
    "rerun",
    [
        None,
        wire.Rerun(version=None, message=""),
        wire.Rerun(version="2.0.0", message="This job was run with a tool nobody remembers"),
        wire.Rerun(
            version="2.0.0",
            message='This job was run with tool version "None", which is not available. ',
        ),
    ],
)
def test_an_unknown_version_is_not_guessed(rerun: wire.Rerun | None) -> None:
    assert exact_version("t", rerun) == (None, None)


def test_a_multiple_input_is_grouped_and_its_repetition_dropped() -> None:
    state = {"inputs": {"values": [{"id": HDCA, "src": "hdca"}]}}
    found, collections = grouped_inputs(ends(inputs1=1, inputs=1, inputs2=2), state, {}, nothing)
    assert [(end.role, end.uuid) for end in found] == [("inputs", UUIDS[1]), ("inputs", UUIDS[2])]
    assert [(end.role, end.key) for end in collections] == [("inputs", HDCA)]


def test_the_same_dataset_given_twice_to_a_multiple_input_stays() -> None:
    found, _ = grouped_inputs(ends(x1=1, x2=1, x=1), {"x": None}, {}, nothing)
    assert [end.uuid for end in found] == [UUIDS[1], UUIDS[1]]


def test_parameters_whose_names_end_in_digits_are_parameters() -> None:
    state = {
        "input1": {"values": [{"id": "0" * 16, "src": "hda"}]},
        "input2": {"values": [{"id": "1" * 16, "src": "hda"}]},
    }
    found, _ = grouped_inputs(ends(input1=1, input2=2), state, {}, nothing)
    assert [(end.role, end.uuid) for end in found] == [("input1", UUIDS[1]), ("input2", UUIDS[2])]


def test_inputs_in_conditionals_and_repeats_have_galaxys_flat_names() -> None:
    data = {"values": [{"id": HDCA, "src": "hdca"}]}
    state = {"mode": {"__current_case__": 1, "other": data}, "rows": [{"__index__": 0, "x": data}]}
    found, collections = grouped_inputs(
        ends(**{"mode|other1": 1, "mode|other2": 2, "rows_0|x1": 3}), state, {}, nothing
    )
    assert [end.role for end in found] == ["mode|other", "mode|other", "rows_0|x"]
    assert [end.role for end in collections] == ["mode|other", "rows_0|x"]


def test_without_the_state_inputs_are_grouped_by_the_jobs_own_parameters() -> None:
    parameters = {"input": {"values": [{"id": 1, "src": "hdca"}]}}
    found, collections = grouped_inputs(ends(input1=1, input2=2), {}, parameters, nothing)
    assert [end.role for end in found] == ["input", "input"]
    assert collections == ()


def test_an_element_of_a_collection_is_asked_what_it_is() -> None:
    state = {"pair": {"values": [{"id": DCE, "src": "dce"}]}}
    answer = wire.CollectionElement(
        id=DCE, element_identifier="s1", object=wire.ElementObject(collection_type="paired")
    )
    _, collections = grouped_inputs(ends(pair1=1, pair2=2), state, {}, lambda _: answer)
    [end] = collections
    assert (end.inner_type, [member.uuid for member in end.members]) == ("paired", UUIDS[1:3])


def test_noise_is_removed_and_equal_choices_are_one_setup() -> None:
    first = {
        "text": 'ü "q" <b> =1',
        "chromInfo": "/x/?.len",
        "dbkey": "?",
        "__input_ext": "input",
        "__use_cached_job__": True,
        "input": {"values": [{"id": 4, "src": "hda"}]},
        "empty": None,
        "mode": {"__current_case__": 1, "kind": "expert", "other": {"values": []}},
        "rules": [{"__index__": 0, "pattern": "p"}],
    }
    kept = setup_parameters(first, tool_id="t")
    assert kept == {
        "mode": {"kind": "expert"},
        "rules": [{"pattern": "p"}],
        "text": 'ü "q" <b> =1',
    }
    second = {**first, "input": {"values": [{"id": 5, "src": "hda"}]}, "chromInfo": "/y"}
    assert identity.setup_vid(setup_parameters(second, tool_id="t")) == identity.setup_vid(kept)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_key", "geheim"),
        ("password", "geheim"),
        ("Token", {"value": "geheim"}),
        ("text", "AKIAABCDEFGHIJKLMNOP"),
        ("text", "-----BEGIN RSA PRIVATE KEY-----\ngeheim"),
    ],
)
def test_what_looks_like_a_secret_is_redacted(name: str, value: object) -> None:
    kept = setup_parameters({"outer": {name: value}, name: value}, tool_id="t")
    assert kept[name] == REDACTED
    assert kept["outer"] == {name: REDACTED}


def test_a_password_in_a_url_is_redacted_and_a_count_of_tokens_is_not() -> None:
    kept = setup_parameters(
        {"url": "https://ada:geheim@host/x", "max_tokens": "100", "password_given": True},
        tool_id="t",
    )
    assert kept == {
        "url": f"https://{REDACTED}@host/x",
        "max_tokens": "100",
        "password_given": True,
    }


def test_what_was_uploaded_is_no_parameter() -> None:
    request = json.dumps({"targets": [{"elements": [{"paste_content": "geheim"}]}]})
    kept = setup_parameters({"request_json": request, "dbkey": "hg38"}, tool_id="__DATA_FETCH__")
    assert kept == {"dbkey": "hg38"}


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), _json, max_size=5))
def test_any_parameters_make_a_setup(parameters: dict[str, object]) -> None:
    kept = setup_parameters(parameters, tool_id="t")
    assert identity.setup_vid(kept) == identity.setup_vid(setup_parameters(kept, tool_id="t"))


@pytest.mark.parametrize(
    "answer",
    [None, 1, "x", [], {"id": "../../x"}, {"id": "0" * 16, "tool_id": 5}, {"id": "a\nb"}],
)
def test_an_answer_of_another_shape_is_one_clear_error(answer: object) -> None:
    with pytest.raises(GalaxyFaultError, match="job x"):
        wire.read(answer, wire.JobDetail, "job x")


def test_uuids_are_spelled_one_way() -> None:
    assert wire.canonical_uuid(UUIDS[1].upper()) == UUIDS[1]
    assert wire.canonical_uuid(UUIDS[1].replace("-", "")) == UUIDS[1]
    assert wire.canonical_uuid("no uuid") is None


def test_the_server_key_is_the_host() -> None:
    assert server_key("https://UseGalaxy.eu/x/") == "usegalaxy.eu"
