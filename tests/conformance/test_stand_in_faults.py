"""The faults that the stand-in can be told to have; these tests are about nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import Glacier2
import Ice
import omero
import psycopg
import pytest

from tests.conformance.annotations import map_annotation, names
from tests.servers.omero.faults import Fault
from tests.servers.omero.lab import READ_ANNOTATE, Address, Client, OmeroLab
from tests.servers.omero.standin import OmeroStandIn


@pytest.fixture(scope="module")
def lab(omero_stand_in: OmeroStandIn) -> OmeroLab:
    """A lab on the stand-in, whatever genuine server is at hand."""
    server = omero_stand_in
    return OmeroLab(Address(server.host, server.port, server.root_user, server.root_password))


@pytest.fixture
def bob(lab: OmeroLab) -> Iterator[Client]:
    """A member of the read-annotate group."""
    with lab.login("bob") as client:
        yield client


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("try-again", omero.TryAgain),
        ("optimistic-lock", omero.OptimisticLockException),
        ("namespace-race", omero.ValidationException),
    ],
)
def test_an_error_strikes_once_and_nothing_is_saved(
    omero_stand_in: OmeroStandIn, lab: OmeroLab, bob: Client, kind: str, error: type[Exception]
) -> None:
    ns = f"fault-{kind}-{lab.tag}"
    with omero_stand_in.faults(Fault(kind)):
        with pytest.raises(error):
            bob.update.saveObject(map_annotation(ns, "first"))
        bob.update.saveObject(map_annotation(ns, "second"))
    assert names(bob, ns) == ["second"]


@pytest.mark.parametrize(
    ("kind", "saved"),
    [("drop-before-commit", []), ("drop-after-commit", ["x"]), ("drop-then-commit", ["x"])],
)
def test_a_dropped_connection_leaves_the_outcome_open(
    omero_stand_in: OmeroStandIn, lab: OmeroLab, kind: str, saved: list[str]
) -> None:
    ns = f"fault-{kind}-{lab.tag}"
    with (
        omero_stand_in.faults(Fault(kind, "IUpdate.saveObject", seconds=0.5)),
        lab.login("bob") as client,
        pytest.raises(Ice.LocalException),
    ):
        client.update.saveObject(map_annotation(ns, "x"))
    with lab.login("bob") as again:
        if kind == "drop-then-commit":
            deadline = time.monotonic() + 20
            while names(again, ns) != saved and time.monotonic() < deadline:
                time.sleep(0.1)
        assert names(again, ns) == saved


def test_a_removed_session_is_an_object_that_is_not_there(
    omero_stand_in: OmeroStandIn, lab: OmeroLab
) -> None:
    with lab.login("bob") as client:
        with (
            omero_stand_in.faults(Fault("remove-session", "IQuery.*", skip=1)),
        ):
            client.ids("select max(e.id) from EventLog e")
            with pytest.raises(Ice.ObjectNotExistException):
                client.ids("select max(e.id) from EventLog e")
        with pytest.raises(Ice.ObjectNotExistException):
            client.update.saveObject(map_annotation("fault", "x"))


def test_a_late_event_log_has_smaller_ids_than_what_was_seen_before_it(
    omero_stand_in: OmeroStandIn, lab: OmeroLab, bob: Client
) -> None:
    ns = f"fault-late-{lab.tag}"
    bob.update.saveObject(map_annotation(ns, "first"))  # or they would race for the namespace

    def save_late() -> None:
        with lab.login("cleo") as cleo:
            cleo.update.saveObject(map_annotation(ns, "late"))

    def logged(name: str) -> list[int]:
        given = omero.sys.ParametersI().addString("ns", ns).addString("name", name)
        rows = bob.query.projection(
            "select e.id from EventLog e, MapAnnotation a where e.entityId = a.id and a.ns = :ns"
            " and a.name = :name and e.entityType = 'ome.model.annotations.MapAnnotation'",
            given,
        )
        return [row[0].val for row in rows]

    with omero_stand_in.faults(Fault("late-event-log", "IUpdate.saveObject", seconds=6)):
        thread = threading.Thread(target=save_late)
        thread.start()
        omero_stand_in.wait_until_struck()
        time.sleep(0.2)  # its ids are taken right after
        bob.update.saveArray([map_annotation(ns, "early")])
        (early,) = logged("early")
        assert logged("late") == []
        thread.join()
    (late,) = logged("late")
    assert late < early


def test_a_server_without_its_database_denies_the_login_as_a_wrong_password_does(
    omero_stand_in: OmeroStandIn, lab: OmeroLab
) -> None:
    with (
        omero_stand_in.faults(Fault("login-internal-error", "createSession")),
        pytest.raises(Glacier2.PermissionDeniedException) as caught,
        lab.login("bob"),
    ):
        pass
    assert caught.value.reason == "internal server error"


def test_a_fault_that_strikes_nothing_fails_the_test(omero_stand_in: OmeroStandIn) -> None:
    with pytest.raises(AssertionError, match="never struck"), omero_stand_in.faults(Fault("delay")):
        pass


def test_a_killed_server_comes_back_with_its_data_and_without_its_sessions(
    omero_stand_in: OmeroStandIn, lab: OmeroLab
) -> None:
    ns = f"fault-kill-{lab.tag}"
    with lab.login("bob") as client:
        client.update.saveObject(map_annotation(ns, "kept"))
        omero_stand_in.kill()
        omero_stand_in.start()
        # Whether the client has noticed yet that its connection went is a matter of time.
        with pytest.raises((Ice.ConnectionLostException, Ice.ObjectNotExistException)):
            client.update.saveObject(map_annotation(ns, "lost"))
        with pytest.raises(Ice.ObjectNotExistException):
            client.update.saveObject(map_annotation(ns, "lost"))
    with lab.login("bob") as again:
        assert names(again, ns) == ["kept"]


def test_what_is_not_implemented_says_so(bob: Client) -> None:
    with pytest.raises(omero.InternalException, match=r"does not implement IQuery\.find"):
        bob.query.findByExample(map_annotation("x", "y"))
    with pytest.raises(omero.InternalException, match="does not implement"):
        bob.factory.getScriptService()
    with pytest.raises(omero.CmdError) as caught:
        bob.submit(omero.cmd.Chown2())
    assert caught.value.err.name == "not-implemented"


def test_the_next_call_works_after_the_database_dropped_its_connections(
    omero_stand_in: OmeroStandIn, bob: Client
) -> None:
    bob.ids("select max(e.id) from EventLog e")
    with psycopg.connect(omero_stand_in.database_url(), autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
    bob.ids("select max(e.id) from EventLog e")


_KILLED = """
import json, sys
import omero.clients
from tests.conformance.annotations import map_annotation
order = json.load(sys.stdin)
client = omero.client(order["host"], order["port"])
update = client.createSession(order["user"], order["password"]).getUpdateService()
print("calling", flush=True)
update.saveArray([map_annotation(order["ns"], "sent")], {"omero.group": order["group"]})
"""


def test_a_client_killed_in_the_middle_of_its_call_is_saved_for_all_the_same(
    omero_stand_in: OmeroStandIn, lab: OmeroLab, bob: Client
) -> None:
    ns = f"fault-client-{lab.tag}"
    account = lab.account("bob")
    order = {
        "host": lab.address.host,
        "port": lab.address.port,
        "user": account.name,
        "password": account.password,
        "ns": ns,
        "group": str(lab.groups[READ_ANNOTATE]),
    }
    with omero_stand_in.faults(Fault("delay", "IUpdate.saveArray", seconds=2)):
        client = subprocess.Popen(
            [sys.executable, "-c", _KILLED],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(json.dumps(order))
        client.stdin.close()
        assert client.stdout.readline() == "calling\n"
        omero_stand_in.wait_until_struck()
        client.kill()
        client.wait()
        client.stdout.close()
        deadline = time.monotonic() + 20
        while names(bob, ns) == [] and time.monotonic() < deadline:
            time.sleep(0.1)
    assert names(bob, ns) == ["sent"]
