"""The harness itself: what the other integration tests take for granted about their Galaxy."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from bioblend.galaxy import GalaxyInstance

from tests.servers.galaxy import LATER_TOOLS, GalaxyServer
from tests.servers.galaxy_user import GalaxyUser, hda, hdca, mapped_over
from tests.servers.processes import (
    ManagedProcess,
    ServerError,
    child_environment,
    free_port,
    pid_is_alive,
)

# Of a small program, on a machine that is busy with four pytest workers.
_START_TIMEOUT_S = 120

SHA256_OF_HELLO = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"


@pytest.fixture
def history_id(galaxy_user: GalaxyUser) -> str:
    return galaxy_user.new_history("Größe “quoted” 試料")


def test_an_upload_keeps_its_bytes_and_gets_a_sha256(
    galaxy_user: GalaxyUser, history_id: str
) -> None:
    dataset_id = galaxy_user.upload(history_id, "hello\n", name="naïve 'name'")

    assert galaxy_user.content(dataset_id) == "hello\n"
    assert galaxy_user.wait_for_hash(dataset_id) == SHA256_OF_HELLO


def test_the_upload_tool_works_too(galaxy_user: GalaxyUser, history_id: str) -> None:
    answer = galaxy_user.client.tools.paste_content("hello\n", history_id)

    galaxy_user.wait_for_jobs([job["id"] for job in answer["jobs"]])
    assert galaxy_user.content(answer["outputs"][0]["id"]) == "hello\n"


def test_the_simple_tools_run(galaxy_user: GalaxyUser, history_id: str) -> None:
    first = galaxy_user.upload(history_id, "b\na\n")
    second = galaxy_user.upload(history_id, "c\n")

    joined = galaxy_user.run(history_id, "two_to_two", {"first": hda(first), "second": hda(second)})
    reduced = galaxy_user.run(
        history_id, "reduce_many", {"inputs": {"batch": False, "values": [hda(first), hda(second)]}}
    )
    with_input = galaxy_user.run(history_id, "optional_input", {"input": hda(first)})
    without_input = galaxy_user.run(history_id, "optional_input", {})
    on_reference = galaxy_user.run(
        history_id, "uses_reference", {"input": hda(first), "reference": "hg38"}
    )

    assert galaxy_user.content(joined.outputs["joined"]) == "b\na\nc\n"
    assert galaxy_user.content(joined.outputs["reversed"]) == "c\nb\na\n"
    assert galaxy_user.content(reduced.outputs["output"]) == "b\na\nc\n"
    assert galaxy_user.content(with_input.outputs["output"]) == "b\na\n"
    assert galaxy_user.content(without_input.outputs["output"]) == "no input\n"
    assert galaxy_user.content(on_reference.outputs["output"]) == "hg38\t2\n"


def test_a_tool_gets_every_kind_of_parameter(galaxy_user: GalaxyUser, history_id: str) -> None:
    text = "ü 'single' \"double\" <b>&\t試料"
    run = galaxy_user.run(
        history_id,
        "parameters",
        {
            "text": text,
            "choice": "b",
            "choices": ["x", "z"],
            "flag": True,
            "api_key": "canary",
            "mode|kind": "expert",
            "mode|depth": 9,
            "rules_0|pattern": "one",
            "rules_1|pattern": "two",
            "advanced|seed": 1,
        },
    )

    given = json.loads(galaxy_user.content(run.outputs["output"]))
    assert given["text"] == text
    assert given["choice"] == "b"
    assert given["choices"] == ["x", "z"]
    assert given["flag"] is True
    assert given["api_key"] == "canary"
    assert given["mode"]["depth"] == 9
    assert [rule["pattern"] for rule in given["rules"]] == ["one", "two"]
    assert given["advanced"]["seed"] == 1


def test_lists_pairs_and_nested_collections_go_through_the_tools(
    galaxy_user: GalaxyUser, history_id: str
) -> None:
    sample_list = galaxy_user.upload_collection(history_id, {"s1": "a\nb\n", "s2": "c\nd\n"})

    mapped = galaxy_user.run(history_id, "one_to_one", {"input": mapped_over(sample_list)})
    whole = galaxy_user.run(history_id, "list_to_list", {"input": hdca(sample_list)})
    reduced = galaxy_user.run(history_id, "reduce_many", {"inputs": hdca(sample_list)})
    pairs = galaxy_user.run(history_id, "make_pair", {"input": mapped_over(sample_list)})
    pair_list = pairs.collections["pair"]
    joined = galaxy_user.run(
        history_id,
        "paired_input",
        {
            "pair": {
                "batch": True,
                "values": [{**hdca(pair_list), "map_over_type": "paired"}],
            }
        },
    )
    nested = galaxy_user.run(history_id, "nested_input", {"pairs": hdca(pair_list)})

    assert len(mapped.job_ids) == 2
    upper = galaxy_user.elements(mapped.collections["output"])
    assert {name: galaxy_user.content(dataset_id) for name, dataset_id in upper.items()} == {
        "s1": "A\nB\n",
        "s2": "C\nD\n",
    }
    assert len(whole.job_ids) == 1
    assert list(galaxy_user.elements(whole.collections["output"])) == ["s1", "s2"]
    assert galaxy_user.content(reduced.outputs["output"]) == "a\nb\nc\nd\n"
    assert list(galaxy_user.elements(pair_list)["s1"]) == ["forward", "reverse"]
    assert len(joined.job_ids) == 2
    assert galaxy_user.content(nested.outputs["output"]) == "a\nb\nc\nd\n"


def test_nested_and_paired_collections_can_be_uploaded(
    galaxy_user: GalaxyUser, history_id: str
) -> None:
    pair = galaxy_user.upload_collection(
        history_id, {"forward": "a\n", "reverse": "b\n"}, collection_type="paired"
    )
    nested = galaxy_user.upload_collection(
        history_id,
        {"s1": {"forward": "a\n", "reverse": "b\n"}},
        collection_type="list:paired",
    )

    run = galaxy_user.run(history_id, "paired_input", {"pair": hdca(pair)})

    assert galaxy_user.content(run.outputs["output"]) == "a\tb\n"
    assert list(galaxy_user.elements(nested)["s1"]) == ["forward", "reverse"]


def test_outputs_that_are_found_at_run_time_appear(
    galaxy_user: GalaxyUser, history_id: str
) -> None:
    dataset_id = galaxy_user.upload(history_id, "x\ny\n")
    one_line = galaxy_user.upload(history_id, "x\n")
    pair = galaxy_user.run(history_id, "make_pair", {"input": hda(one_line)}).collections["pair"]
    empty_id = galaxy_user.elements(pair)["reverse"]

    found_list = galaxy_user.run(history_id, "discover_list", {"input": hda(dataset_id)})
    of_empty = galaxy_user.run(history_id, "discover_list", {"input": hda(empty_id)})
    found = galaxy_user.run(history_id, "discover_datasets", {"input": hda(dataset_id)})

    elements = galaxy_user.elements(found_list.collections["lines"])
    assert list(elements) == ["line_1", "line_2"]
    assert galaxy_user.elements(of_empty.collections["lines"]) == {}
    outputs = galaxy_user.client.jobs.show_job(found.job_ids[0], full_details=True)["outputs"]
    assert len(outputs) == 3


def test_galaxys_own_collection_tools_run(galaxy_user: GalaxyUser, history_id: str) -> None:
    sample_list = galaxy_user.upload_collection(history_id, {"s1": "a\n", "s2": "b\n"})

    extracted = galaxy_user.run(
        history_id,
        "__EXTRACT_DATASET__",
        {"input": hdca(sample_list), "which|which_dataset": "first"},
    )
    filtered = galaxy_user.run(
        history_id, "__FILTER_FAILED_DATASETS__", {"input": hdca(sample_list)}
    )
    zipped = galaxy_user.run(
        history_id,
        "__ZIP_COLLECTION__",
        {"input_forward": mapped_over(sample_list), "input_reverse": mapped_over(sample_list)},
    )
    flat = galaxy_user.run(
        history_id, "__FLATTEN__", {"input": hdca(next(iter(zipped.collections.values())))}
    )
    names = galaxy_user.upload(history_id, "n1\nn2\n")
    relabelled = galaxy_user.run(
        history_id,
        "__RELABEL_FROM_FILE__",
        {"input": hdca(sample_list), "how|how_select": "txt", "how|labels": hda(names)},
    )
    ordered = galaxy_user.run(
        history_id, "__SORTLIST__", {"input": hdca(sample_list), "sort_type|sort_type": "alpha"}
    )

    assert len(extracted.outputs) == 1
    assert len(galaxy_user.elements(next(iter(filtered.collections.values())))) == 2
    assert len(galaxy_user.elements(next(iter(flat.collections.values())))) == 4
    assert list(galaxy_user.elements(next(iter(relabelled.collections.values())))) == ["n1", "n2"]
    assert len(galaxy_user.elements(next(iter(ordered.collections.values())))) == 2


def test_all_collection_operations_are_loaded(galaxy: GalaxyServer) -> None:
    own = {tool["id"] for tool in galaxy.admin().tools.get_tools() if tool["id"].startswith("__")}
    assert {
        "__APPLY_RULES__",
        "__BUILD_LIST__",
        "__FILTER_EMPTY_DATASETS__",
        "__FILTER_FROM_FILE__",
        "__MERGE_COLLECTION__",
        "__TAG_FROM_FILE__",
        "__UNZIP_COLLECTION__",
    } <= own


def test_a_failing_tool_fails_with_its_message(galaxy_user: GalaxyUser, history_id: str) -> None:
    run = galaxy_user.run(history_id, "failing", {}, expect="error")

    job = galaxy_user.client.jobs.show_job(run.job_ids[0], full_details=True)
    assert job["exit_code"] == 1
    assert "Größe ≠ 0 “quoted” <b> 試料" in job["stderr"]


def test_a_failed_element_pauses_what_depends_on_it(
    galaxy_user: GalaxyUser, history_id: str, tmp_path: Path
) -> None:
    # Galaxy refuses an input that has failed already, so the second job comes while it runs.
    hold = tmp_path / "hold"
    hold.touch()
    failing = galaxy_user.run(history_id, "failing", {"hold": str(hold)}, expect=None)
    depending = galaxy_user.run(
        history_id, "one_to_one", {"input": hda(failing.outputs["output"])}, expect=None
    )
    hold.unlink()

    galaxy_user.wait_for_jobs(failing.job_ids, expect="error")
    galaxy_user.wait_for_jobs(depending.job_ids, expect="paused")


def test_a_running_job_can_be_cancelled(
    galaxy: GalaxyServer, galaxy_user: GalaxyUser, history_id: str
) -> None:
    run = galaxy_user.run(history_id, "slow_sleep", {"seconds": 300}, expect=None)
    job_id = run.job_ids[0]
    galaxy_user.wait_for(
        lambda: galaxy_user.client.jobs.get_state(job_id) == "running", what="the job's start"
    )

    galaxy_user.client.jobs.cancel_job(job_id)

    galaxy_user.wait_for(
        lambda: galaxy_user.client.jobs.get_state(job_id) == "deleted", what="the job's end"
    )


def test_a_tool_is_upgraded_while_the_server_runs(
    galaxy: GalaxyServer, galaxy_user: GalaxyUser, history_id: str
) -> None:
    dataset_id = galaxy_user.upload(history_id, "a b\n")
    inputs = {"input": hda(dataset_id), "prefix": "p"}
    before = galaxy_user.run(history_id, "versioned_tool", inputs, version="1.2.0")

    galaxy.add_tool(LATER_TOOLS / "versioned_tool_2_0_0.xml")

    assert {"1.2.0", "2.0.0+galaxy1"} <= set(galaxy.tool_versions("versioned_tool"))
    after = galaxy_user.run(history_id, "versioned_tool", inputs, version="2.0.0+galaxy1")
    again = galaxy_user.run(history_id, "versioned_tool", inputs, version="1.2.0")
    old_table = galaxy_user.content(before.outputs["output"])
    assert old_table == "name\tlength\npa\t3\n"
    assert galaxy_user.content(after.outputs["output"]) == "name\tlength\ttwice\npa\t3\t6\n"
    assert galaxy_user.content(again.outputs["output"]) == old_table


def test_the_administrators_key_belongs_to_an_administrator(galaxy: GalaxyServer) -> None:
    assert galaxy.admin().users.get_current_user()["is_admin"] is True
    key = galaxy.create_user("repeated@biobank.example")
    assert galaxy.create_user("repeated@biobank.example") == key
    user = GalaxyInstance(galaxy.url, key=key).users.get_current_user()
    assert user["is_admin"] is False


def test_no_secret_stands_in_a_command_line(galaxy: GalaxyServer) -> None:
    config = json.loads((galaxy.folder / "config" / "galaxy.yml").read_text())["galaxy"]
    secrets = [galaxy.admin_key, config["bootstrap_admin_api_key"]]
    secrets.append(config["database_connection"].split(":")[2].partition("@")[0])
    for pid in galaxy.process_ids() or [os.getpid()]:
        # PostgreSQL's own processes come and go.
        with suppress(FileNotFoundError, ProcessLookupError):
            command_line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            assert not [secret for secret in secrets if secret in command_line]


# What a server process owes us, shown on a small one: all its descendants end with it.

STUBBORN = (
    "import os,signal,subprocess,sys,time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
    "print('started', flush=True)\n"
    "time.sleep(1000)\n"
)


def _stubborn(folder: Path) -> ManagedProcess:
    return ManagedProcess(
        "stubborn",
        [sys.executable, "-c", STUBBORN],
        log=folder / "log",
        folder=folder,
        environment=child_environment(home=folder),
        grace_s=0.3,
    )


def _has_started(folder: Path) -> bool:
    return "started" in (folder / "log").read_text()


def test_stop_ends_a_process_that_ignores_sigterm_and_what_it_left_in_other_sessions(
    tmp_path: Path,
) -> None:
    process = _stubborn(tmp_path)
    process.start()
    process.wait_until(lambda: _has_started(tmp_path), timeout_s=_START_TIMEOUT_S)
    pids = process.process_ids()
    assert len(pids) == 3

    process.stop()

    assert not [pid for pid in pids if pid_is_alive(pid)]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_an_owner_that_ends_in_any_way(
    tmp_path: Path, end: signal.Signals
) -> None:
    program = (
        "import time; from pathlib import Path\n"
        "from tests.integration.test_galaxy_server import _stubborn, _has_started\n"
        f"folder = Path({str(tmp_path)!r}); process = _stubborn(folder); process.start()\n"
        f"process.wait_until(lambda: _has_started(folder), timeout_s={_START_TIMEOUT_S})\n"
        "print(*process.process_ids(), flush=True); time.sleep(1000)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert len(pids) == 3
        owner.send_signal(end)

    give_up_at = time.monotonic() + _START_TIMEOUT_S
    while any(pid_is_alive(pid) for pid in pids) and time.monotonic() < give_up_at:
        time.sleep(0.05)
    assert not [pid for pid in pids if pid_is_alive(pid)]


def test_a_process_that_ends_early_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    process = ManagedProcess(
        "early",
        ["sh", "-c", "echo it hurts; exit 3"],
        log=tmp_path / "log",
        folder=tmp_path,
        environment=child_environment(home=tmp_path),
    )
    process.start()
    with pytest.raises(ServerError, match=r"(?s)early ended before it was ready.*it hurts"):
        process.wait_until(lambda: False, timeout_s=_START_TIMEOUT_S)
    process.stop()


def test_a_program_that_is_not_there_is_an_error_at_the_start(tmp_path: Path) -> None:
    process = ManagedProcess(
        "absent",
        [tmp_path / "absent"],
        log=tmp_path / "log",
        folder=tmp_path,
        environment=child_environment(home=tmp_path),
    )
    with pytest.raises(ServerError, match="cannot start absent"):
        process.start()


def test_a_secret_of_the_caller_does_not_reach_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GALAXY_API_KEY", "canary")
    assert "canary" not in child_environment(home=tmp_path).values()


def test_free_ports_differ() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50


def test_a_port_given_to_another_process_is_given_to_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A server takes seconds from being given its port to listening on it.
    holder = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys; from tests.servers.processes import free_port\n"
            "print(free_port(), flush=True); sys.stdin.read()",
        ],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout
        taken, spare = int(holder.stdout.readline()), free_port()
        choices = iter([taken, spare, *range(32000, 32100)])
        monkeypatch.setattr(random, "choice", lambda _ports: next(choices))
        assert free_port() not in (taken, spare)
        assert holder.stdin
        holder.stdin.close()
    monkeypatch.setattr(random, "choice", lambda _ports: taken)
    assert free_port() == taken
