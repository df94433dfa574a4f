"""What a person does with the tools on a real Galaxy, and what the catalog holds afterwards."""

from __future__ import annotations

import pytest

from tests.integration.tools.lab import Lab
from tests.servers.galaxy_user import hda, mapped_over

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
