"""How the demo shows what a command said."""

from __future__ import annotations

from examples.demo.terminal import _aligned


def test_a_command_that_says_nothing_shows_nothing() -> None:
    assert _aligned([]) == []


def test_lines_of_a_table_stand_under_each_other() -> None:
    assert _aligned(["kind\tlabel", "Tube\tT1"]) == ["kind  label", "Tube  T1"]


def test_lines_without_tabs_are_left_as_they_are() -> None:
    assert _aligned(["one two"]) == ["one two"]
