"""Comparing tables: what changed, cell by cell."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from biobank_core.galaxy.reanalysis.tables import CellChange, Table, compare_tables, parse_table

_names = st.lists(
    st.text(alphabet="abcXYZ =<>&\"'é試", min_size=1, max_size=6),
    min_size=2,
    max_size=6,
    unique=True,
)
_cell = st.text(alphabet="01ab é<", max_size=4)


@st.composite
def _tables(draw: st.DrawFn) -> Table:
    header = draw(_names)
    keys = draw(st.lists(_cell.filter(bool), max_size=6, unique=True))
    rows = [(key, *(draw(_cell) for _ in header[1:])) for key in keys]
    return Table(tuple(header), tuple(rows))


def _as_text(table: Table) -> str:
    return "".join("\t".join(row) + "\n" for row in (table.header, *table.rows))


@settings(deadline=None)
@given(_tables())
def test_a_table_written_and_parsed_is_the_same_table(table: Table) -> None:
    assert parse_table(_as_text(table)) == table


@settings(deadline=None)
@given(_tables())
def test_a_table_is_the_same_as_itself(table: Table) -> None:
    change = compare_tables(table, table)
    assert change.is_same
    assert change.equal_cells == len(table.rows) * len(table.header)


@settings(deadline=None)
@given(_tables(), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_columns_makes_no_change(table: Table, random: object) -> None:
    places = list(range(1, len(table.header)))
    random.shuffle(places)  # type: ignore[attr-defined]
    rows = list(table.rows)
    random.shuffle(rows)  # type: ignore[attr-defined]
    order = [0, *places]
    other = Table(
        tuple(table.header[place] for place in order),
        tuple(tuple(row[place] for place in order) for row in rows),
    )
    assert compare_tables(table, other).is_same


@settings(deadline=None)
@given(_tables(), st.data())
def test_each_changed_cell_is_found_and_no_other(table: Table, data: st.DataObject) -> None:
    wanted = set()
    rows = [list(row) for row in table.rows]
    for row in rows:
        for place in range(1, len(row)):
            if data.draw(st.booleans()):
                wanted.add((row[0], table.header[place]))
                row[place] += "+"
    changed = Table(table.header, tuple(map(tuple, rows)))
    change = compare_tables(table, changed)
    assert {(cell.row, cell.column) for cell in change.cells} == wanted
    assert all(cell.new == cell.old + "+" for cell in change.cells)


@settings(deadline=None)
@given(_tables(), _tables())
def test_comparing_the_other_way_round_is_the_mirror_image(old: Table, new: Table) -> None:
    there, back = compare_tables(old, new), compare_tables(new, old)
    assert there.columns_gone == back.columns_new
    assert set(there.columns_new) == set(back.columns_gone)
    if there.key == back.key and there.key is not None:
        assert len(there.cells) == len(back.cells)
        assert there.equal_cells == back.equal_cells


def test_columns_that_came_and_went_are_apart_from_changed_cells() -> None:
    old = parse_table("strain\tST\twzi\nKP-01\tST11\twzi50\n")
    new = parse_table("strain\tST\tK_locus\nKP-01\tST11-1LV\tKL103\n")
    assert old is not None
    assert new is not None
    change = compare_tables(old, new)
    assert change.key == "strain"
    assert change.cells == (CellChange("KP-01", "ST", "ST11", "ST11-1LV"),)
    assert (change.columns_gone, change.columns_new) == (("wzi",), ("K_locus",))


def test_rows_that_came_and_went_are_named_by_their_key() -> None:
    old = parse_table("gene\tn\na\t1\nb\t2\n")
    new = parse_table("gene\tn\nb\t2\nc\t3\n")
    assert old is not None
    assert new is not None
    change = compare_tables(old, new)
    assert (change.rows_gone, change.rows_new, change.cells) == (("a",), ("c",), ())


def test_a_column_with_doubles_is_no_key() -> None:
    old = parse_table("group\tname\tn\nx\ta\t1\nx\tb\t2\n")
    new = parse_table("group\tname\tn\nx\ta\t1\nx\tb\t3\n")
    assert old is not None
    assert new is not None
    change = compare_tables(old, new)
    assert change.key == "name"
    assert change.cells == (CellChange("b", "n", "2", "3"),)


def test_tables_without_a_shared_column_are_not_compared_by_cells() -> None:
    old = parse_table("a\tb\n1\t2\n")
    new = parse_table("c\td\n1\t2\n")
    assert old is not None
    assert new is not None
    change = compare_tables(old, new)
    assert change.key is None
    assert not change.is_same


def test_a_name_that_stands_twice_in_a_header_gets_a_number() -> None:
    table = parse_table("a\ta\ta (2)\ta\n1\t2\t3\t4\n")
    assert table is not None
    assert len(set(table.header)) == 4
    assert table.header[0] == "a"
    assert table.header[2] == "a (2)"


def test_text_that_is_no_table_is_not_taken_for_one() -> None:
    assert parse_table("") is None
    assert parse_table("just\nlines\n") is None
    assert parse_table("a\tb\n1\t2\t3\n") is None
    assert parse_table("a\tb\tc\td\nfree text\n") is None


def test_lost_trailing_tabs_are_empty_cells() -> None:
    table = parse_table("a\tb\tc\n1\t2\n")
    assert table is not None
    assert table.rows == (("1", "2", ""),)


def test_csv_may_hold_commas_in_quotes() -> None:
    table = parse_table('a,b\n"1,5",2\n', delimiter=",")
    assert table is not None
    assert table.rows == (("1,5", "2"),)
