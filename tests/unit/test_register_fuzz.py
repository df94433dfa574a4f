"""Whatever a file holds, registering it saves all of it or ends in one of our errors."""

from __future__ import annotations

import string
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biobank_core.catalog.registry import open_catalog
from biobank_core.cli.common import tsv_cell
from biobank_core.errors import BiobankError
from biobank_core.model.kinds import Action
from biobank_core.register import register, registrable_kinds
from biobank_core.register.rows import columns_of, registrable

cells = st.one_of(
    st.sampled_from(["", "A", "B", "C", "KPN", "KPN:A", "V0" + "0" * 32, "IMPORT", "2024-01-31"]),
    st.sampled_from(
        ["DNA", "given", "1", "-1", "1e999", "9" * 30, "nan", "A;B", "KP-01", ";", "="]
    ),
    st.text(max_size=8),
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, bytes]:
    """A kind and a file whose header mostly fits it."""
    kind = draw(st.sampled_from(registrable_kinds()))
    names = columns_of(registrable(kind)).names
    header = draw(st.lists(st.sampled_from(names), min_size=1, max_size=6, unique=True))
    rows = draw(st.lists(st.lists(cells, min_size=len(header), max_size=len(header)), max_size=4))
    lines = ["\t".join(header), *("\t".join(row) for row in rows)]
    return kind, "\n".join(lines).encode("utf-8", "surrogatepass")


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(table=tables() | st.tuples(st.just("Tube"), st.binary(max_size=60)))
def test_any_file_is_saved_whole_or_refused_whole(tmp_path: Path, table: tuple[str, bytes]) -> None:
    kind, content = table
    database = tmp_path / "c.db"
    file = tmp_path / "t.tsv"
    with open_catalog(f"sqlite:///{database}", create=True) as catalog:
        if not catalog.count():
            file.write_text("label\nKPN\n", encoding="utf-8")
            register(catalog, file=str(file), kind="Study", by="test")
            file.write_text("code\nKP-01\n", encoding="utf-8")
            register(catalog, file=str(file), kind="Individual", study="KPN", by="test")
        file.write_bytes(content)
        before, count = catalog.head(), sum(catalog.count().values())
        try:
            done = register(catalog, file=str(file), kind=kind, study="KPN", by="test")
        except BiobankError:
            assert catalog.head() == before
            return
        new = [item for item in done if item.new]
        assert sum(catalog.count().values()) == count + len(new)
        again = register(catalog, file=str(file), kind=kind, study="KPN", by="test")
        assert [(item.vid, item.new) for item in again] == [(item.vid, False) for item in done]
        made = catalog.get(item.vid for item in done)
        assert all(
            not {port.object for port in item.object.inputs}
            & {port.object for port in item.object.outputs}
            for item in made.values()
            if isinstance(item.object, Action)
        )


@given(st.text() | st.text(string.punctuation + "\t\r\n1", min_size=1))
def test_a_cell_stays_one_cell_and_no_formula(text: str) -> None:
    cell = tsv_cell(text)
    assert not set(cell) & set("\t\n\r\x00\x1b\x85\u2028\u2029")
    assert len(f"a{cell}b".splitlines()) == 1
    if cell[:1] in ("=", "+", "-", "@"):
        float(cell)


@given(st.text(min_size=1))
def test_escaping_loses_nothing(text: str) -> None:
    other = text + "\\"
    assert tsv_cell(text) != tsv_cell(other)
