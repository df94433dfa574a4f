"""What a person does with the tools on a real Galaxy, and what the catalog holds afterwards."""

from __future__ import annotations

import pytest

from tests.integration.tools.lab import Lab
from tests.servers.galaxy_user import hda, hdca, mapped_over

pytestmark = pytest.mark.timeout(900)


def test_what_is_computed_from_fetched_data_comes_from_their_tube_and_no_other(lab: Lab) -> None:
    user = lab.user
    first = user.new_history("first")
    data = {name: user.upload(first, f">{name}\n", name=f"{name}.fna") for name in ("T1", "T2")}
    lab.biobank("record", "--history", first, "--study", "KPN")
    for tube, dataset in data.items():
        lab.biobank("link", lab.vid(dataset), f"KPN:{tube}")
    second = user.new_history("second")
    fetched = lab.run(
        second,
        "biobank_fetch_data",
        {
            "choose_data|choose_data_by": "text",
            "choose_data|addresses": "\n".join(map(lab.vid, data.values())),
        },
    )
    assert set(user.elements(fetched.collections["files"])) == {"T1.fna", "T2.fna"}
    typed = lab.run(second, "one_to_one", {"input": mapped_over(fetched.collections["files"])})
    lab.biobank("record", "--history", second, "--study", "KPN")
    results = user.elements(next(iter(typed.collections.values())))
    assert lab.tubes(results["T1.fna"]) == {"T1"}
    assert lab.tubes(results["T2.fna"]) == {"T2"}
    assert "recorded\t0" in lab.biobank("record", "--history", second, "--study", "KPN")


def test_a_history_is_recorded_from_inside_and_only_the_tools_own_job_is_new_the_second_time(
    lab: Lab,
) -> None:
    user = lab.user
    history = user.new_history("recorded")
    name = "a 'quoted' $(name)"
    source = user.upload(history, "x\n", name=name)
    inputs = {"study": "KPN"}
    first = lab.run(history, "biobank_record_history", inputs | {"choose_after": hda(source)})
    told = lab.report(first)
    assert (told["recorded"], told["failed to record"]) == ("1", "0")
    second = lab.run(history, "biobank_record_history", inputs)
    told = lab.report(second)
    assert (told["recorded"], told["unchanged"]) == ("1", "0")
    assert name in lab.biobank("map-ids", lab.vid(source))


def test_data_are_tied_to_their_tubes_once_whether_they_were_recorded_before_or_are_afterwards(
    lab: Lab,
) -> None:
    user = lab.user
    history = user.new_history("tied")
    genomes = user.upload_collection(history, {"T1": ">T1\n", "T2": ">T2\n"}, ext="fasta")
    early = user.upload(history, ">T2\n", name="T2", ext="fasta")
    lab.biobank("record", "--history", history)
    named = {"choose_sample|choose_sample_by": "name", "choose_sample|study": "KPN"}
    chosen = {"choose_data|choose_data_by": "collection", "choose_data|choose_items": hdca(genomes)}
    for expected in ("tied", "unchanged"):
        run = lab.run(history, "biobank_register_data", chosen | named)
        rows = user.content(run.outputs["registered"]).splitlines()[1:]
        assert [(row.split("\t")[0], row.split("\t")[-1]) for row in rows] == [
            ("T1", expected),
            ("T2", expected),
        ]
    chosen = {"choose_data|choose_data_by": "datasets", "choose_data|choose_items": hda(early)}
    lab.run(history, "biobank_register_data", chosen | named)
    typed = lab.run(history, "one_to_one", {"input": mapped_over(genomes)})
    told = lab.biobank("record", "--history", history, "--study", "KPN")
    assert "failed to record\t0" in told
    results = user.elements(next(iter(typed.collections.values())))
    assert lab.tubes(results["T1"]) == {"T1"}
    assert lab.tubes(results["T2"]) == {"T2"}
    assert lab.tubes(early) == {"T2"}
    (data,) = [n for n in lab.upstream(early)["nodes"] if n["vid"] == lab.vid(early)]
    assert data["study"] == lab.upstream(results["T1"])["nodes"][0]["study"]
