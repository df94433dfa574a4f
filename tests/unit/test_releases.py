"""Releases of tools: their order, ranges, and the names of tools."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from biobank_core.errors import InputError
from biobank_core.selection import tools
from biobank_core.selection.releases import matches, parse_range, sort_key

numbers = st.lists(st.integers(0, 12), min_size=1, max_size=3).map(
    lambda parts: ".".join(map(str, parts))
)
pep440 = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "", "v", "1!"]),
        numbers,
        st.sampled_from(["", "", "a1", "b2", "rc1"]),
        st.sampled_from(["", "", ".post1", "-2"]),
        st.sampled_from(["", "", ".dev3"]),
    ),
)
odd = st.one_of(
    st.builds(lambda a, b: a + b, numbers, st.sampled_from(["w", "-r7", "_p10", "-SNAPSHOT", "h"])),
    st.sampled_from(["latest", "r12", "r9", "master", "1.0-rc-x", "", "9" * 5000]),
    st.text(min_size=1, max_size=8),
)
releases = st.builds(
    lambda base, revision: base + revision,
    st.one_of(pep440, odd),
    st.sampled_from(["", "", "+galaxy0", "+galaxy1", "+galaxy10"]),
)
signs = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])


@given(releases, releases, releases)
@example("latest", "1", "1w")
def test_the_order_is_total(one: str, two: str, three: str) -> None:
    first, second, third = map(sort_key, (one, two, three))
    assert (first < second) + (first == second) + (first > second) == 1
    if first <= second and second <= third:
        assert first <= third


@given(pep440, pep440)
def test_pep_440_versions_are_ordered_as_packaging_orders_them(one: str, two: str) -> None:
    assert (sort_key(one) < sort_key(two)) == (Version(one) < Version(two))
    assert (sort_key(one) == sort_key(two)) == (Version(one) == Version(two))


@given(pep440, st.lists(st.tuples(signs, pep440), min_size=1, max_size=3))
def test_pep_440_ranges_mean_what_they_mean_to_packaging(
    release: str, clauses: list[tuple[str, str]]
) -> None:
    spec = ",".join(sign + version for sign, version in clauses)
    named = any(Version(version).is_prerelease for sign, version in clauses if sign != "!=")
    expected = SpecifierSet(spec).contains(release, prereleases=named)
    assert matches(release, spec) == expected


@given(releases, signs, releases)
def test_a_clause_with_a_galaxy_revision_agrees_with_the_order(
    release: str, sign: str, version: str
) -> None:
    wanted = f"{version.strip()}+galaxy3"
    assume(not set(version) & set("<>=!~,;|* \t\n\r\x0b\x0c") and wanted.isprintable())
    assume(not any(char.isspace() for char in version) and release.strip())
    assume(len(wanted) < 1000)
    one, two = sort_key(release), sort_key(wanted)
    order = {
        "<": one < two,
        "<=": one <= two,
        ">": one > two,
        ">=": one >= two,
        "==": one == two,
        "!=": one != two,
    }
    if matches(release, f"{sign}{wanted}"):
        assert order[sign]


@given(st.text(max_size=30), st.text(max_size=12))
def test_any_text_is_a_range_or_a_clear_error(release: str, spec: str) -> None:
    with suppress(InputError):
        matches(release, spec)


@pytest.mark.parametrize(
    ("ordered"),
    [
        ["2.0rc1", "2.0", "2.0.post1", "2.0w", "2.0.1"],
        ["1.1.2", "1.1.2w", "1.1.2w2", "1.1.2w10", "1.1.3"],
        ["2.2.0", "2.2.0+galaxy0", "2.2.0+galaxy2", "2.2.0+galaxy10", "2.2.1"],
        ["latest", "r9", "r12", "0.1"],
        ["0.9", "1.0", "v1.1", "1.10", "1!0.1"],
    ],
)
def test_releases_come_in_this_order(ordered: list[str]) -> None:
    backwards = list(reversed(ordered))
    assert sorted(backwards, key=sort_key) == ordered
    assert len({sort_key(release) for release in ordered}) == len(ordered)


@pytest.mark.parametrize(
    ("release", "spec", "expected"),
    [
        ("2.2.0", "<3", True),
        ("3.2.4", "<3", False),
        ("3", "<3", False),
        ("2.2.0", ">=2,<3", True),
        ("1.9", ">=2,<3", False),
        ("2.2", "==2.2.0", True),
        ("2.2.0", "2.2.0", True),
        ("2.2.1", "2.2.0", False),
        ("2.2.0", "!=2.2.0", False),
        ("2.2.1", " != 2.2.0 , < 3 ", True),
        ("2.2.0", "==2.*", True),
        ("2.2.5", "~=2.2.0", True),
        ("2.3", "~=2.2.0", False),
        # A pre-release only where the range names one.
        ("3.0rc1", "<3", False),
        ("2.5rc1", "<3", False),
        ("2.5.dev1", "<3", False),
        ("2.5rc1", ">=2.5rc1,<3", True),
        ("2.5rc1", "2.5rc1", True),
        ("2.5rc1", "!=2.5rc2", False),
        # Without a revision of the wrapper, none is looked at.
        ("2.2.0+galaxy1", "<3", True),
        ("2.2.0+galaxy1", "2.2.0", True),
        ("2.2.0+galaxy1", "<=2.2.0", True),
        ("2.2.0+galaxy1", ">2.2.0", False),
        ("3.0+galaxy0", "<3", False),
        ("2.2.0+galaxy1", "<2.2.0+galaxy2", True),
        ("2.2.0+galaxy10", "<2.2.0+galaxy2", False),
        ("2.2.0", "<2.2.0+galaxy0", True),
        ("2.2.0+galaxy1", "==2.2.0+galaxy2", False),
        ("2.2.0+galaxy1", "!=2.2.0+galaxy2", True),
        # What PEP 440 can't read.
        ("1.1.2w", "<1.1.3", True),
        ("1.1.2w", "==1.1.2w", True),
        ("1.1.2w", "!=1.1.2", True),
        ("4.1-alpha-x", "<3", False),
        ("latest", "<3", False),
        ("latest", ">3", False),
        ("latest", "!=3", True),
        ("latest", "latest", True),
        ("r9", "<r12", True),
        # Unknown.
        (None, "!=3", False),
        (None, ">=0", False),
        ("", "!=3", False),
        (" ", "!=3", False),
    ],
)
def test_a_release_is_in_a_range(release: str | None, spec: str, expected: bool) -> None:
    assert matches(release, spec) is expected


@pytest.mark.parametrize(
    "spec",
    ["", " ", ",", "<", "<3,", ",<3", "=3", "=<3", "=>3", "===3", "<>3", "<3 4", "<3;>1", "~=2",
     "<2.*", "2.*+galaxy1", "*", "<*", "3<", "<" + "3" * 1001],
)  # fmt: skip
def test_a_malformed_range_is_refused_saying_what_is_allowed(spec: str) -> None:
    with pytest.raises(InputError, match=r"<, <=, >, >=, ==, !=, ~= and a version"):
        parse_range(spec)


SHED = "toolshed.g2.bx.psu.edu/repos/iuc/kleborate/kleborate_typing"


@pytest.mark.parametrize(
    ("tool", "wanted", "expected"),
    [
        (SHED, SHED, True),
        (SHED, f"{SHED}/2.2.0+galaxy1", True),
        (f"{SHED}/2.2.0+galaxy1", SHED, True),
        (f"{SHED}/2.2.0+galaxy1", "kleborate_typing", True),
        (SHED, "kleborate_typing", True),
        (SHED, "kleborate", False),
        (SHED, "typing", False),
        (SHED, "Kleborate_typing", False),
        (SHED, "iuc/kleborate/kleborate_typing", False),
        (SHED, SHED.replace("iuc", "devteam"), False),
        ("localhost:9009/shed/repos/a/b/c", "c", True),
        ("kleborate_typing", "kleborate_typing", True),
        ("kleborate_typing", SHED, False),
        ("a tool (Müller's)", "a tool (Müller's)", True),
        (None, "kleborate_typing", False),
        ("", "", True),
    ],
)
def test_a_tool_goes_by_full_id_id_without_version_or_last_part(
    tool: str | None, wanted: str, expected: bool
) -> None:
    assert tools.matches(tool, wanted) is expected


def test_the_version_of_a_full_tool_id_is_known() -> None:
    assert tools.version_of(f"{SHED}/2.2.0+galaxy1") == "2.2.0+galaxy1"
    assert tools.version_of(SHED) is None
    assert tools.version_of("kleborate_typing") is None
