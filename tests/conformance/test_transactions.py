"""One call is one transaction, and a claimed ExternalInfo row lets exactly one call win."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import omero
import omero.model
import pytest
from omero.rtypes import rlong, rstring

from tests.conformance.annotations import (
    delete,
    map_annotation,
    names,
    namespace,
    pairs_of,
    text,
    tokens,
    with_token,
)
from tests.servers.omero.lab import READ_ONLY, Client, OmeroLab

_WRITERS, _INCREMENTS = 4, 5
_READS = 200


@pytest.fixture
def bob(omero_lab: OmeroLab) -> Iterator[Client]:
    """A member of the read-annotate group."""
    with omero_lab.login("bob") as client:
        yield client


def test_one_wrong_object_takes_the_whole_save_back(omero_lab: OmeroLab, bob: Client) -> None:
    ns = f"{namespace(omero_lab)}-whole"
    nameless = omero.model.ProjectI()
    with pytest.raises(omero.ValidationException, match="not-null property"):
        bob.update.saveArray([map_annotation(ns, "before"), nameless])
    assert names(bob, ns) == []


def test_a_token_is_claimed_once_and_the_second_claim_is_rolled_back_whole(
    omero_lab: OmeroLab, bob: Client
) -> None:
    ns = f"{namespace(omero_lab)}-token"
    (token,) = tokens(bob)
    bob.update.saveArray([with_token(map_annotation(ns, "first"), token)])
    second = [map_annotation(ns, "beside"), with_token(map_annotation(ns, "second"), token)]
    with pytest.raises(omero.ValidationException) as caught:
        bob.update.saveArray(second)
    assert "[annotation_external_id_key]" in text(caught.value)
    assert names(bob, ns) == ["first"]


def test_a_token_that_is_gone_is_said_to_have_no_row(omero_lab: OmeroLab, bob: Client) -> None:
    (token,) = tokens(bob)
    bob.update.deleteObject(omero.model.ExternalInfoI(token, False))
    with pytest.raises(omero.ValidationException, match="No row with the given identifier"):
        bob.update.saveArray([with_token(map_annotation(namespace(omero_lab), "late"), token)])


def test_deleting_a_claimant_deletes_its_token_and_a_claimed_token_alone_stays(
    omero_lab: OmeroLab, bob: Client
) -> None:
    (token,) = tokens(bob)
    claimant = with_token(map_annotation(namespace(omero_lab), "claimant"), token)
    row_id = bob.update.saveAndReturnObject(claimant).id.val
    with pytest.raises(omero.CmdError) as caught:
        delete(bob, ExternalInfo=[token])
    assert "not permitted to update ome.model.annotations.Annotation" in caught.value.err.message
    with pytest.raises(omero.ValidationException, match="fkannotation_external_id_externalinfo"):
        bob.update.deleteObject(omero.model.ExternalInfoI(token, False))
    assert delete(bob, Annotation=[row_id]) == {"MapAnnotation": 1, "ExternalInfo": 1}
    assert bob.ids(f"select e.id from ExternalInfo e where e.id = {token}") == []


def test_the_owner_of_a_claimant_can_let_its_token_go(omero_lab: OmeroLab, bob: Client) -> None:
    (token,) = tokens(bob)
    claimant = with_token(map_annotation(namespace(omero_lab), "clears"), token)
    row_id = bob.update.saveAndReturnObject(claimant).id.val
    found = bob.query.get("MapAnnotation", row_id)
    assert found.details.externalInfo.id.val == token
    found.getDetails().setExternalInfo(None)
    bob.update.saveObject(found)
    assert bob.query.get("MapAnnotation", row_id).details.externalInfo is None
    assert bob.ids(f"select e.id from ExternalInfo e where e.id = {token}") == [token]


@pytest.mark.parametrize("kind", [READ_ONLY, "rwra--"])
def test_a_chain_of_commits_by_racing_users_has_no_gap_and_loses_nothing(
    omero_lab: OmeroLab, kind: str
) -> None:
    ns = f"{namespace(omero_lab)}-chain-{kind}"
    with omero_lab.login("bob", kind) as bob:
        (first,) = tokens(bob)
        start = map_annotation(ns, "000000000000", ("next", str(first)))
        bob.update.saveObject(start)
    errors: list[BaseException] = []

    def write(who: str) -> None:
        try:
            with omero_lab.login(who, kind) as client:
                for _ in range(_INCREMENTS):
                    _commit(client, ns)
        except BaseException as exc:  # noqa: BLE001 - shown by the test's own thread
            errors.append(exc)

    threads = [
        threading.Thread(target=write, args=(("bob", "cleo")[number % 2],))
        for number in range(_WRITERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    count = _WRITERS * _INCREMENTS
    with omero_lab.login("bob", kind) as bob:
        commits = [name for name in names(bob, ns) if name != "object"]
        assert commits == [f"{number:012d}" for number in range(count + 1)]
        assert names(bob, ns).count("object") == count


def _commit(client: Client, ns: str) -> None:
    """Append one commit and one object to the chain, however often others are faster."""
    (following,) = tokens(client)
    given = omero.sys.ParametersI().addString("ns", ns).page(0, 1)
    while True:
        (head,) = client.query.findAllByQuery(
            "select a from MapAnnotation a where a.ns = :ns and a.name <> 'object'"
            " order by a.id desc",
            given,
        )
        token = int(head.getMapValue()[0].value)
        commit = map_annotation(ns, f"{int(head.name.val) + 1:012d}", ("next", str(following)))
        try:
            client.update.saveArray([map_annotation(ns, "object"), with_token(commit, token)])
        except omero.ValidationException as exc:
            if "[annotation_external_id_key]" not in text(exc):
                raise
        else:
            return


def test_what_a_query_fetches_is_of_one_moment(omero_lab: OmeroLab, bob: Client) -> None:
    made = map_annotation(namespace(omero_lab), "0", ("number", "0"))
    row_id = bob.update.saveAndReturnObject(made).id.val
    over = threading.Event()

    def save_again_and_again() -> None:
        number = 0
        with omero_lab.login("bob") as writer:
            while not over.is_set():
                number += 1
                again = map_annotation(namespace(omero_lab), str(number), ("number", str(number)))
                again.setId(rlong(row_id))
                again.unloadDetails()
                writer.update.saveObject(again)

    given = omero.sys.ParametersI().addId(row_id)
    seen = set()
    thread = threading.Thread(target=save_again_and_again)
    thread.start()
    try:
        for _ in range(_READS):
            found = bob.query.findByQuery(
                "select a from MapAnnotation a left outer join fetch a.mapValue where a.id = :id",
                given,
            )
            seen.add((found.name.val, *(pair.value for pair in found.getMapValue())))
    finally:
        over.set()
        thread.join()
    assert len(seen) > 1
    assert [(name, *values) for name, *values in seen if values != [name]] == []


def test_a_stale_object_is_refused_but_one_without_details_is_not_checked(
    omero_lab: OmeroLab, bob: Client
) -> None:
    ns = namespace(omero_lab)
    row_id = bob.update.saveAndReturnObject(map_annotation(ns, "stale")).id.val
    stale = bob.query.get("MapAnnotation", row_id)
    fresh = bob.query.get("MapAnnotation", row_id)
    fresh.setDescription(rstring("fresh"))
    bob.update.saveObject(fresh)
    stale.setDescription(rstring("stale"))
    with pytest.raises(omero.OptimisticLockException):
        bob.update.saveObject(stale)
    stale.unloadDetails()
    bob.update.saveObject(stale)
    assert bob.query.get("MapAnnotation", row_id).description.val == "stale"


def test_saving_none_for_the_pairs_deletes_them_and_the_version_is_no_counter(
    omero_lab: OmeroLab, bob: Client
) -> None:
    made = bob.update.saveAndReturnObject(map_annotation(namespace(omero_lab), "n", ("a", "1")))
    assert made.version is None
    emptied = map_annotation(namespace(omero_lab), "n")
    emptied.setId(rlong(made.id.val))
    emptied.setMapValue(None)
    emptied.unloadDetails()
    bob.update.saveObject(emptied)
    assert pairs_of(bob, made.id.val) == []


def test_saving_one_with_an_unknown_id_and_ids_of_known_ones_are_refused(
    omero_lab: OmeroLab, bob: Client
) -> None:
    ns = namespace(omero_lab)
    unknown = map_annotation(ns, "unknown")
    unknown.setId(rlong(2**40))
    with pytest.raises(omero.ValidationException, match="no longer exists"):
        bob.update.saveObject(unknown)
    known = map_annotation(ns, "known")
    known.setId(rlong(bob.update.saveAndReturnObject(map_annotation(ns, "known")).id.val))
    with pytest.raises(omero.ApiUsageException, match="INSERTs only"):
        bob.update.saveAndReturnIds([known])
    assert bob.update.saveAndReturnIds([]) == []


def test_the_naive_lock_loses_updates_when_writers_race(omero_lab: OmeroLab) -> None:
    ns = f"{namespace(omero_lab)}-naive"
    with omero_lab.login("bob") as bob:
        made = bob.update.saveAndReturnObject(map_annotation(ns, "counter"))
        row_id = made.id.val
        start = bob.query.get("MapAnnotation", row_id)
        start.setDescription(rstring("0"))
        bob.update.saveObject(start)
    reported = []

    def count() -> None:
        with omero_lab.login("bob") as client:
            done = 0
            while done < 10:
                found = client.query.get("MapAnnotation", row_id)
                found.setDescription(rstring(str(int(found.description.val) + 1)))
                try:
                    client.update.saveObject(found)
                except (omero.OptimisticLockException, omero.ConcurrencyException):
                    continue
                done += 1
            reported.append(done)

    for _ in range(5):  # a race: at least one round in five loses something
        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with omero_lab.login("bob") as bob:
            counter = int(bob.query.get("MapAnnotation", row_id).description.val)
        if counter < sum(reported):
            return
    raise AssertionError(f"all {sum(reported)} updates are there: is this lock not naive?")
