"""Registering tables: what is made, what is unchanged, and everything that can be wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from biobank_core import addressing
from biobank_core.catalog.port import Catalog
from biobank_core.catalog.registry import open_catalog
from biobank_core.errors import BiobankError, ConflictError, InputError, NotFoundError
from biobank_core.model.kinds import Action, Consent, SoftwareProgram, Tube, VesselsCollection
from biobank_core.register import Registered, register
from biobank_core.register.service import MAX_REPORTED

Register = Callable[..., list[Registered]]


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with open_catalog(f"sqlite:///{tmp_path}/c.db", create=True) as opened:
        yield opened


@pytest.fixture
def table(catalog: Catalog, tmp_path: Path) -> Register:
    """Registers a table given as text (its path is table.tsv)."""

    def run(
        kind: str, text: str | bytes, study: str | None = "KPN", *, dry_run: bool = False
    ) -> list[Registered]:
        path = tmp_path / "table.tsv"
        path.write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
        return register(catalog, file=str(path), kind=kind, study=study, by="test", dry_run=dry_run)

    return run


@pytest.fixture
def study(table: Register) -> Register:
    """The same, with study KPN, individuals KP-01 and KP-02, and tube T1 of KP-01."""
    table("Study", "label\nKPN\n", None)
    table("Individual", "code\nKP-01\nKP-02\n")
    table("Tube", "label\tsource\tcategory\nT1\tKP-01\tIMPORT\n")
    return table


def tube(catalog: Catalog, label: str) -> Tube:
    found = addressing.resolve(catalog, f"KPN:{label}", kinds=("Tube",)).object
    assert isinstance(found, Tube)
    return found


def maker(catalog: Catalog, label: str) -> Action:
    vid = tube(catalog, label).vid
    (action,) = [
        item.object
        for item in catalog.find("Action")
        if isinstance(item.object, Action) and vid in {port.object for port in item.object.outputs}
    ]
    return action


def refused(register: Register, kind: str, text: str | bytes, study: str | None = "KPN") -> str:
    with pytest.raises(BiobankError) as caught:
        register(kind, text, study)
    return str(caught.value)


def test_a_code_column_enrolls_the_individual_in_the_study(
    study: Register, catalog: Catalog
) -> None:
    enrolled = addressing.enrollment(catalog, "KPN:KP-01")
    assert addressing.resolve(catalog, "KPN:KP-01").object.vid == enrolled.individual


def test_an_individual_of_one_study_is_enrolled_in_another_by_its_vid(
    study: Register, catalog: Catalog
) -> None:
    study("Study", "label\nTWO\n", None)
    vid = addressing.enrollment(catalog, "KPN:KP-01").individual
    done = study("Individual", f"vid\tcode\n{vid}\tX-9\n", "TWO")
    assert [(item.kind, item.new) for item in done] == [("Individual", False), ("Enrollment", True)]
    assert addressing.enrollment(catalog, "TWO:X-9").individual == vid


def test_a_source_and_a_category_make_the_action_that_the_tube_came_by(
    study: Register, catalog: Catalog
) -> None:
    study(
        "Tube",
        "label\tsource\tcategory\tcontent\tvolume_ul\tbegin\n"
        "POOL\tT2; T1\tALIQUOTING\tDNA\t12.5\t2026-03-01\n"
        "T2\tKPN:KP-02\tEXTRACTION\t\t\t2026-02-01T10:00:00+01:00\n",
    )
    action = maker(catalog, "POOL")
    assert [port.object for port in action.inputs] == [
        tube(catalog, "T2").vid,
        tube(catalog, "T1").vid,
    ]
    assert action.begin.isoformat() == "2026-03-01T00:00:00+00:00"
    assert maker(catalog, "T2").begin.isoformat() == "2026-02-01T09:00:00+00:00"
    assert tube(catalog, "POOL").volume_ul == 12.5


def test_a_tube_that_bears_the_code_of_its_individual_comes_from_the_individual(
    study: Register, catalog: Catalog
) -> None:
    text = "label\tsource\tcategory\nKP-02\tKP-02\tIMPORT\n"
    study("Tube", text)
    (port,) = maker(catalog, "KP-02").inputs
    assert port.object == addressing.enrollment(catalog, "KPN:KP-02").individual
    assert not any(item.new for item in study("Tube", text))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("Study", "label\tdescription\nKPN\t\nNEW\tsomething\n"),
        ("Individual", "code\tgender\nKP-01\t\nKP-03\tFEMALE\n"),
        ("Enrollment", "individual\tcode\nKPN:KP-01\tagain\n"),
        ("Consent", "enrollment\tstatus\tfrom\tuntil\nKP-01\tgiven\t2026-01-01\t2030-01-01\n"),
        ("Consent", "enrollment\tstatus\nKP-01\tgiven\n"),
        ("Tube", "label\tsource\tcategory\tbarcode\nA\tT1\tALIQUOTING\t007\nB\tA\tALIQUOTING\t\n"),
        ("Tube", "label\tcategory\nA\tCREATION\n"),
        ("PlateWell", "label\tcontainer\tposition\nW1\tT1\tA01\n"),
        ("SoftwareProgram", "label\trelease\nkleborate\t2.2.0\nkleborate\t3.2.4\nx\t\n"),
        ("VesselsCollection", "label\titems\nbatch\tT1\n"),
        ("SequencingReads", "label\tstatus\nr1.fq\tUSABLE\n"),
        ("Tube", f"label\nV0{'0' * 32}\n"),
    ],
)
def test_registering_the_same_file_twice_changes_nothing(
    study: Register, catalog: Catalog, kind: str, text: str
) -> None:
    first = study(kind, text)
    assert any(item.new for item in first)
    before = catalog.head()
    again = study(kind, text)
    assert [item.vid for item in again] == [item.vid for item in first]
    assert not any(item.new for item in again)
    assert catalog.head() == before


def test_a_collection_is_registered_with_its_members(study: Register, catalog: Catalog) -> None:
    study("VesselsCollection", "label\titems\nbatch\tT1\n")
    found = addressing.resolve(catalog, "KPN:batch").object
    assert isinstance(found, VesselsCollection)
    assert [(item.role, item.object) for item in found.items] == [("T1", tube(catalog, "T1").vid)]


def test_a_dry_run_tells_what_a_run_does_and_saves_nothing(
    study: Register, catalog: Catalog
) -> None:
    text = "label\tsource\tcategory\nT1\tKP-01\tIMPORT\nT2\tT1\tALIQUOTING\n"
    before = catalog.head()
    told = study("Tube", text, dry_run=True)
    assert catalog.head() == before
    did = study("Tube", text)
    assert [(i.line, i.kind, i.label, i.new) for i in told] == [
        (i.line, i.kind, i.label, i.new) for i in did
    ]


@pytest.mark.parametrize(
    "text",
    [
        "\ufefflabel\tcontent\r\nT9\tDNA\r\n",
        "label\tcontent\nT9\tDNA",
        " label \t content \n T9 \t DNA \n\n\t\n",
        "content\tlabel\tvolume_ul\nDNA\tT9\t\n",
    ],
)
def test_marks_line_ends_spaces_and_empty_rows_do_not_matter(
    study: Register, catalog: Catalog, text: str
) -> None:
    study("Tube", text)
    assert tube(catalog, "T9").content.value == "DNA"


def test_quotes_are_part_of_a_cell(study: Register, catalog: Catalog) -> None:
    study("Tube", 'label\n"T\'9" <b>=1+1 ☃\n')
    assert tube(catalog, '"T\'9" <b>=1+1 ☃').label == '"T\'9" <b>=1+1 ☃'


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("Tube", b"label\nT\xff9\n", "line 2, value b'\\xff': is not UTF-8"),
        ("Tube", "label\nT9\n".encode("utf-16"), "is UTF-16"),
        ("Tube", "label\nT\x009\n", "line 2: holds a NUL"),
        ("Tube", "label\rT9\r", "line 1: holds a carriage return"),
        ("Tube", "", "line 1: needs a header"),
        ("Tube", "label\tlabel\nA\tB\n", "line 1, field 'label': the header has this column twice"),
        ("Tube", "label\t\nA\tB\n", "line 1: column 2 has no name"),
        ("Tube", "label\tcolour\nA\tred\n", "line 1, field 'colour'"),
        ("Tube", "label\tgalaxy\nA\tx\n", "line 1, field 'galaxy'"),
        ("Tube", "label\tcontent\nA\n", "line 2: the row has 1 cells, the header has 2"),
        ("Tube", "label\nA\tB\n", "line 2: the row has 2 cells, the header has 1"),
        ("Tube", "content\nDNA\n", "line 2, field 'label': Tube needs this field"),
        ("Tube", "label\tcontent\nA\tdna\n", "line 2, field 'content', value 'dna'"),
        ("Tube", "label\tvolume_ul\nA\t1,5\n", "line 2, field 'volume_ul', value '1,5'"),
        ("Tube", "label\tvolume_ul\nA\tnan\n", "line 2, field 'volume_ul', value 'nan'"),
        ("Tube", "label\tvolume_ul\nA\t-1\n", "line 2, field 'volume_ul', value -1"),
        ("Tube", f"label\n{'x' * 1001}\n", "line 2, field 'label'"),
        ("Tube", "label\tvid\nA\tV0zz\n", "line 2, field 'vid', value 'V0zz'"),
        ("Tube", "label\tkind\nA\tLane\n", "line 2, field 'kind', value 'Lane'"),
        ("Tube", "label\nA\nB\nA\n", "line 4, field 'label', value 'A': this is the label of line"),
        ("Tube", "label\tbarcode\nA\t1\nB\t1\n", "line 3, field 'barcode', value '1'"),
        ("Tube", "label\tsource\nA\tT1\n", "line 2, field 'category'"),
        ("Tube", "label\tbegin\nA\t2026-01-01\n", "line 2, field 'category'"),
        ("Tube", "label\tcategory\nA\tSTOLEN\n", "line 2, field 'category', value 'STOLEN'"),
        (
            "Tube",
            "label\tcategory\tbegin\nA\tCREATION\t2026-02-30\n",
            "line 2, field 'begin', value '2026-02-30'",
        ),
        (
            "Tube",
            "label\tcategory\tbegin\nA\tCREATION\t2026-02-03T10:00:00\n",
            "line 2, field 'begin', value '2026-02-03T10:00:00': needs a time zone",
        ),
        (
            "Tube",
            "label\tsource\tcategory\nA\tA\tALIQUOTING\n",
            "line 2, field 'source', value 'A': a vessel can't be its own source",
        ),
        (
            "Tube",
            "label\tsource\tcategory\nA\tC\tALIQUOTING\nB\tA\tALIQUOTING\nC\tB\tALIQUOTING\n",
            "line 2, field 'source', value 'C': these rows come from each other in a ring",
        ),
        (
            "Tube",
            "label\tcontainer\nA\tB\nB\tA\n",
            "line 2, field 'container', value 'B': these rows",
        ),
        ("Tube", "label\tcontainer\nA\tA\n", "line 2, field 'container'"),
        (
            "Tube",
            "label\tsource\tcategory\nA\tT7\tALIQUOTING\n",
            "line 2, field 'source', value 'T7': no Individual or Vessel",
        ),
        (
            "Tube",
            "label\tsource\tcategory\nA\tNO:T1\tALIQUOTING\n",
            "line 2, field 'source', value 'NO:T1'",
        ),
        (
            "Tube",
            f"label\tsource\tcategory\nA\tV0{'0' * 32}\tALIQUOTING\n",
            "line 2, field 'source', value 'V0000",
        ),
        ("Tube", "label\tstudy\nA\tNOPE\n", "line 2, field 'study', value 'NOPE'"),
        ("Individual", "gender\nMALE\n", "line 2, field 'code'"),
        ("Individual", "code\tgender\nA\tX\n", "line 2, field 'gender', value 'X'"),
        ("Individual", f"code\n{'x' * 1001}\n", "line 2, field 'code'"),
        ("Individual", "code\nA\nA\n", "line 3, field 'code', value 'A'"),
        ("Enrollment", "individual\tcode\nKP-77\tA\n", "line 2, field 'individual', value 'KP-77'"),
        (
            "Consent",
            "enrollment\tstatus\tfrom\nKP-01\tgiven\t2026-13-01\n",
            "line 2, field 'from', value '2026-13-01'",
        ),
        (
            "Consent",
            "enrollment\tstatus\tfrom\tuntil\nKP-01\tgiven\t2026-02-01\t2026-01-01\n",
            "line 2, field 'until', value '2026-01-01'",
        ),
        ("Consent", "enrollment\tstatus\nKP-01\tperhaps\n", "line 2, field 'status'"),
        ("Consent", "enrollment\tstatus\nNOBODY\tgiven\n", "line 2, field 'enrollment'"),
        ("Action", "category\nIMPORT\n", "can't be registered"),
        ("Vessel", "label\nA\n", "can't be registered"),
        ("Tubes", "label\nA\n", "can't be registered"),
        ("SoftwareProgram", "label\trelease\nk\t1\nk\t1\n", "line 3, field 'label', value 'k'"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_of_the_file_is_saved(
    study: Register, catalog: Catalog, kind: str, text: str | bytes, said: str
) -> None:
    before = catalog.head()
    with pytest.raises(InputError) as caught:
        study(kind, text)
    assert said in str(caught.value)
    assert catalog.head() == before


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("Tube", "label\tcontent\nT1\tDNA\n", "line 2, field 'content', value 'DNA'"),
        ("Tube", "label\tsource\tcategory\nT1\tKP-02\tIMPORT\n", "line 2, field 'source'"),
        ("Tube", "label\tsource\tcategory\nT1\tKP-01\tCREATION\n", "line 2, field 'category'"),
        (
            "Tube",
            "label\tsource\tcategory\tbegin\nT1\tKP-01\tIMPORT\t2020-01-01\n",
            "line 2, field 'begin', value '2020-01-01'",
        ),
        ("Lane", "label\nT1\n", "line 2, field 'label', value 'T1': stands already as Tube"),
        ("Individual", "code\tgender\nKP-01\tMALE\n", "line 2, field 'gender', value 'MALE'"),
        ("Study", "label\tdescription\nKPN\tother\n", "line 2, field 'description'"),
        (
            "Enrollment",
            "individual\tcode\nKP-02\tKP-01\n",
            "line 2, field 'individual', value 'KP-02'",
        ),
    ],
)
def test_a_row_that_contradicts_what_stands_is_a_conflict(
    study: Register, catalog: Catalog, kind: str, text: str, said: str
) -> None:
    before = catalog.head()
    with pytest.raises(ConflictError) as caught:
        study(kind, text)
    assert said in str(caught.value)
    assert catalog.head() == before


def test_a_barcode_of_another_vessel_is_a_conflict(study: Register) -> None:
    study("Tube", "label\tbarcode\nA\t77\n")
    assert "field 'barcode', value '77'" in refused(study, "Tube", "label\tbarcode\nB\t77\n")


def test_a_consent_with_another_end_is_a_conflict(study: Register, catalog: Catalog) -> None:
    head = "enrollment\tstatus\tfrom\tuntil\n"
    study("Consent", f"{head}KP-01\tgiven\t2026-01-01\t2030-01-01\n")
    said = refused(study, "Consent", f"{head}KP-01\tgiven\t2026-01-01\t2031-01-01\n")
    assert "field 'until', value '2031-01-01'" in said
    study("Consent", f"{head}KP-01\twithdrawn\t2026-02-01\t\n")
    states = [item.object for item in catalog.find("Consent") if isinstance(item.object, Consent)]
    assert sorted(item.status.value for item in states) == ["given", "withdrawn"]


def test_an_empty_cell_contradicts_nothing(study: Register) -> None:
    study("Tube", "label\tcontent\nA\tDNA\n")
    done = study("Tube", "label\tcontent\tvolume_ul\nA\t\t\n")
    assert [item.new for item in done] == [False]


def test_all_wrong_rows_are_told_up_to_a_limit(study: Register) -> None:
    rows = "".join(f"T{n}\twrong\n" for n in range(MAX_REPORTED + 7))
    said = refused(study, "Tube", f"label\tcontent\n{rows}")
    lines = said.splitlines()
    assert sum("field 'content'" in line for line in lines) == MAX_REPORTED
    assert lines[-2:] == ["and 7 more", f"nothing of {lines[0].split(',')[0]} was saved"]


def test_wrong_rows_of_several_kinds_are_told_in_the_order_of_the_file(study: Register) -> None:
    said = refused(
        study,
        "Tube",
        "label\tcontent\tsource\tcategory\nA\t\tA\tIMPORT\nB\nC\tx\t\t\nT1\tDNA\t\t\n",
    )
    assert [line.split("line ")[1][0] for line in said.splitlines()[:-1]] == ["2", "3", "4", "5"]


def test_a_wrong_row_beside_a_conflict_is_bad_input(study: Register) -> None:
    with pytest.raises(InputError):
        study("Tube", "label\tcontent\nT1\tDNA\nB\twrong\n")


def test_a_study_that_does_not_exist_says_how_to_make_it(study: Register) -> None:
    with pytest.raises(NotFoundError, match="biobank register Study"):
        study("Tube", "label\nA\n", "NOPE")


def test_a_kind_of_a_study_without_a_study_says_what_to_give(study: Register) -> None:
    assert "--study LABEL" in refused(study, "Tube", "label\nA\n", None)


def test_a_missing_file_is_named(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.tsv: can't be read"):
        register(catalog, file=str(tmp_path / "none.tsv"), kind="Study", by="test")


def test_a_cycle_through_what_stands_is_refused_with_its_line(
    study: Register, catalog: Catalog
) -> None:
    study("Tube", "label\nROOT\n")
    study("Tube", "label\tsource\tcategory\nLEAF\tROOT\tALIQUOTING\n")
    before = catalog.head()
    closing = "label\tsource\tcategory\nROOT\tLEAF\tALIQUOTING\n"
    with pytest.raises(InputError) as tried:
        study("Tube", closing, dry_run=True)
    said = refused(study, "Tube", closing)
    assert str(tried.value) == said
    assert "table.tsv" in said
    assert catalog.head() == before


def test_a_device_is_one_for_each_release(study: Register, catalog: Catalog) -> None:
    study("SoftwareProgram", "label\trelease\nkleborate\t2.2.0\n", None)
    done = study("SoftwareProgram", "label\trelease\nkleborate\t2.2.0\nkleborate\t3.2.4\n", None)
    assert [item.new for item in done] == [False, True]
    found = addressing.resolve(catalog, "kleborate:3.2.4", kinds=("Device",)).object
    assert isinstance(found, SoftwareProgram)


def test_thousands_of_tubes_are_registered_and_compared_again(
    study: Register, catalog: Catalog
) -> None:
    rows = "".join(f"N{n}\tKP-0{n % 2 + 1}\tIMPORT\n" for n in range(3_000))
    done = study("Tube", f"label\tsource\tcategory\n{rows}")
    assert len(done) == 6_000
    assert not any(item.new for item in study("Tube", f"label\tsource\tcategory\n{rows}"))
