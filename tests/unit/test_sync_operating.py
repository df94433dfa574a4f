"""State file, health, metrics, log and deployment files of the sync service."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from biobank_core.config import Secret, Settings
from biobank_core.errors import ConfigurationError, StorageError
from sync_service.cli import cli
from sync_service.health import HealthServer, health
from sync_service.logs import JsonLines
from sync_service.metrics import Metrics
from sync_service.service import Options, Service
from sync_service.state import RelayState, default_path
from sync_service.topology import BrokerAddress
from sync_service.vitals import BackOff, Part
from tests.servers.missing import service_is_missing

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_position_is_remembered(tmp_path: Path) -> None:
    state = RelayState(tmp_path / "new" / "state.json", catalog_url="sqlite:///c.db")
    assert state.load() == {}
    state.save({"log": 7})
    state.save({"log": 8, "other": 1})
    assert state.load() == {"log": 8, "other": 1}
    assert [path.name for path in state.path.parent.iterdir()] == ["state.json"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"position": {"log": "x"}}', b"\xff", b'{"format": 2}']
)
def test_a_damaged_state_file_costs_a_reading_from_the_beginning(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    state = RelayState(tmp_path / "state.json", catalog_url="sqlite:///c.db")
    state.path.write_bytes(content)
    assert state.load() == {}
    assert "from its beginning" in caplog.text


def test_another_catalogs_position_is_not_used(tmp_path: Path) -> None:
    RelayState(tmp_path / "s.json", catalog_url="sqlite:///a.db").save({"log": 7})
    assert RelayState(tmp_path / "s.json", catalog_url="sqlite:///b.db").load() == {}
    assert default_path("a", "amqp://one/") != default_path("a", "amqp://two/")


def test_a_state_file_that_can_not_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        RelayState(tmp_path / "file" / "state.json", catalog_url="c").save({})


def test_a_part_is_ill_only_when_something_waits_and_nothing_moves() -> None:
    clock = Clock()
    part = Part("consumer", now=clock)

    def healthy() -> bool:
        return health([part], stalled_after_s=60)[0]

    part.waits(False)
    clock.now_s += 1000
    assert healthy()  # nothing to do
    part.waits(True)
    part.moved()
    clock.now_s += 59
    assert healthy()
    clock.now_s += 2
    assert not healthy()  # something waits
    part.moved()
    assert healthy()
    part.waits(False)
    part.is_held_up("Neo4j is away")
    assert healthy()
    clock.now_s += 61
    part.waits(False)
    well, told = health([part], stalled_after_s=60)
    assert not well
    assert told["parts"]["consumer"]["trouble"] == "Neo4j is away"
    part.moved()
    assert healthy()


def test_a_trouble_is_said_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="sync_service")
    part = Part("relay")
    for _ in range(5):
        part.is_held_up("RabbitMQ is away")
    part.moved()
    part.moved()
    assert [record.getMessage() for record in caplog.records] == [
        "relay waits: RabbitMQ is away",
        "relay goes on",
    ]


def test_pauses_grow_up_to_a_bound_and_end_when_told_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopping, waited = threading.Event(), []
    monkeypatch.setattr(stopping, "wait", waited.append)
    back_off = BackOff(stopping)
    for _ in range(12):
        back_off.pause()
    assert waited[0] <= 0.2
    assert 7 <= waited[-1] <= 15
    back_off.reset()
    back_off.pause()
    assert waited[-1] <= 0.2


@pytest.fixture
def server() -> Iterator[tuple[HealthServer, Part, Clock]]:
    clock = Clock()
    part = Part("relay", now=clock)
    with HealthServer("127.0.0.1:0", parts=[part], metrics=Metrics(), stalled_after_s=60) as made:
        yield made, part, clock


def asked(server: HealthServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_healthz_tells_a_load_balancer_and_a_person(
    server: tuple[HealthServer, Part, Clock],
) -> None:
    made, part, clock = server
    assert asked(made, "/healthz")[0] == 200
    part.is_held_up("RabbitMQ is away")
    clock.now_s += 100
    status, text = asked(made, "/healthz")
    assert status == 503
    assert json.loads(text)["parts"]["relay"]["trouble"] == "RabbitMQ is away"
    assert asked(made, "/secret")[0] == 404


def test_metrics_are_what_prometheus_reads(server: tuple[HealthServer, Part, Clock]) -> None:
    status, text = asked(server[0], "/metrics")
    assert status == 200
    assert "# TYPE biobank_sync_applied_messages_total counter" in text
    assert 'biobank_sync_idle_seconds{part="relay"}' in text
    # The format's own parser, and what promtool asks for beside it: help, and names as they end.
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.documentation
        for sample in family.samples:
            assert (family.type == "counter") == (sample.name == f"{family.name}_total")
    told = {sample.name for family in families for sample in family.samples}
    # Of what has a label nothing is told before it has happened.
    assert Metrics().names() - told == {"biobank_sync_reconnects_total"}


@pytest.mark.parametrize("address", ["8080", "localhost:x", "127.0.0.1:99999", ":-1"])
def test_a_wrong_address_to_listen_at_is_named(address: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(address)):
        HealthServer(address, parts=[], metrics=Metrics())


def test_a_line_of_the_log_is_a_json_object() -> None:
    record = logging.LogRecord("sync_service", logging.INFO, "f", 1, "set %s\naside", ("x",), None)
    record.message_id = "L/V0/1"
    told = json.loads(JsonLines().format(record))
    assert told["message"] == "set x\naside"
    assert told["message_id"] == "L/V0/1"
    assert told["level"] == "info"


SECRET = Secret("swordfish")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://host", ("host", 5672, "/", False)),
        ("amqp://host:1234/", ("host", 1234, "/", False)),
        ("amqps://host/lab%2Fone", ("host", 5671, "lab/one", True)),
    ],
)
def test_where_a_broker_is(url: str, expected: tuple[str, int, str, bool]) -> None:
    settings = Settings(
        catalog="c",
        broker=url,
        accounts={"RABBITMQ_USER": "ada"},
        secrets={"RABBITMQ_PASSWORD": SECRET},
    )
    found = BrokerAddress.of(settings)
    assert (found.host, found.port, found.virtual_host, found.tls) == expected
    assert "swordfish" not in repr(found)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (Settings(catalog="c"), "BIOBANK_BROKER"),
        (Settings(catalog="c", broker="http://host"), "amqp://host"),
        (Settings(catalog="c", broker="amqp://host:x"), "amqp://host"),
        (Settings(catalog="c", broker="amqp://host"), "RABBITMQ_USER"),
        (Settings(catalog="c", broker="amqp://ada@host"), "RABBITMQ_PASSWORD"),
    ],
)
def test_what_is_missing_to_reach_a_broker_is_named(settings: Settings, says: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        BrokerAddress.of(settings)


def test_an_index_in_the_catalogs_file_needs_no_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RABBITMQ_USER", "ada")
    monkeypatch.setenv("RABBITMQ_PASSWORD", "swordfish")
    url = f"sqlite:///{tmp_path}/c.db"
    arguments = ["--catalog", url, "--index", url, "--broker", "amqp://127.0.0.1:1", "run"]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 2
    assert "in step without a service" in done.output


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    queries = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())
    ]
    asked_for = {name for query in queries for name in re.findall(r"biobank_sync_\w+", query)}
    known = Metrics().names()
    assert asked_for <= known, asked_for - known
    # And shows all of them.
    shown = {name.removesuffix("_bucket") for name in asked_for}
    rest = {name for name in known if not any(name.startswith(one) for one in shown)}
    assert not rest
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.service")), ids=lambda path: path.name)
def test_a_unit_starts_a_command_that_exists(path: Path) -> None:
    unit = RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text())
    words = unit["Service"]["ExecStart"].split()
    assert words[0].endswith("/biobank-sync")
    # Click itself says whether it knows all of these options.
    done = CliRunner().invoke(cli, [*words[1:], "--help"])
    assert done.exit_code == 0, done.output
    assert "PASSWORD" not in path.read_text().replace("EnvironmentFile", "")


def test_systemd_itself_finds_no_fault_with_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        service_is_missing("systemd-analyze is not installed: apt-get install systemd")
    units = [tmp_path / path.name for path in DEPLOY.glob("*.service")]
    for unit in units:
        # It wants the program to be there.
        text = (DEPLOY / unit.name).read_text()
        unit.write_text(text.replace("/opt/biobank/bin/biobank-sync", "/bin/true"))

    def told() -> str:
        command = ["systemd-analyze", "verify", "--man=no", *units]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return f"{done.stdout}{done.stderr}{done.returncode or ''}"

    assert told() == ""
    units[0].write_text(units[0].read_text().replace("RestartSec=", "RestartSecs="))
    assert "RestartSecs" in told()


def test_the_compose_file_has_the_three_and_no_secret() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert set(compose["services"]) == {"rabbitmq", "neo4j", "biobank-sync"}
    for service in compose["services"].values():
        for value in service.get("environment", {}).values():
            assert not re.search(r"(?i)password=\w", str(value))
    command = compose["services"]["biobank-sync"]["command"]
    assert CliRunner().invoke(cli, [*command, "--help"]).exit_code == 0


def test_the_operators_readme_names_every_metric_and_command() -> None:
    text = (DEPLOY / "README.md").read_text()
    for name in Metrics().names():
        assert re.sub(r"_(bucket|count|sum)$", "", name) in text, name
    for command in ("run", "status", "dead-letters list", "dead-letters replay"):
        assert f"biobank-sync {command}" in text


def test_the_reference_of_the_commands_is_the_newest() -> None:
    from sync_service.cli.reference import reference

    assert (ROOT / "docs/biobank-sync.md").read_text() == reference(), (
        "run: python -m sync_service.cli.reference > docs/biobank-sync.md"
    )


def test_help_does_not_import_what_it_does_not_need() -> None:
    program = (
        "import sys\nfrom sync_service.cli import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\nprint('LOADED', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = done.stdout.rpartition("LOADED")[2].split()
    assert not {"pika", "prometheus_client", "msgspec"} & set(loaded)


def test_nothing_runs_before_a_broker_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        Service(Settings(catalog="c", index="i"), Options()).run()


def test_a_missing_package_of_the_service_is_named_with_its_extra() -> None:
    code = (
        "import sys; sys.modules['pika'] = None; from sync_service.cli import main; "
        "sys.argv = ['biobank-sync', 'run', '--only', 'recorder']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 2
    assert done.stderr.endswith("needs pika: install 'galaxy-biobank[sync]'\n")
