"""The one plain table, and the same on a terminal."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent.cli.views.drawing import draw, folded
from agent.cli.views.tables import Cell, Sheet, aligned, sheet_lines

WORDS = st.text("abc -é", max_size=6)


def test_columns_stand_one_below_the_other_and_figures_end_together() -> None:
    rows = [("NAME", "MB", "WHY"), ("a", "1000.0", "x"), ("longer", "2.5", "")]
    assert aligned(rows, right=frozenset({1})) == [
        "NAME        MB  WHY",
        "a       1000.0  x",
        "longer     2.5",
    ]


def test_a_column_has_the_room_that_it_is_promised_and_more_where_a_value_needs_it() -> None:
    rows = [("PID", "COMM"), ("7", "a"), ("12345678", "b")]
    assert aligned(rows, right=frozenset({0}), least=(5,), gap=1) == [
        "     PID COMM",
        "       7 a",
        "12345678 b",
    ]
    assert aligned(rows[:2], right=frozenset({0}), least=(5,), gap=1) == ["  PID COMM", "    7 a"]


def test_no_rows_are_no_lines() -> None:
    assert aligned([]) == []
    assert aligned([], least=(5, 5)) == []


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=6))
def test_what_fits_the_promised_room_is_as_a_format_of_these_widths(
    rows: list[tuple[str, str, str]],
) -> None:
    lines = aligned(rows, right=frozenset({1}), least=(6, 7), gap=1)
    assert lines == [f"{a:<6} {b:>7} {c}".rstrip() for a, b, c in rows]


SHEET = Sheet(
    "Containers",
    ("NAME", "HELD MB"),
    ((Cell("web", "bold"), Cell("1.5")), (Cell("[red]evil"), Cell("10.0"))),
    frozenset({1}),
    "none was running",
)


def test_a_sheet_has_its_title_and_says_so_where_it_has_no_rows() -> None:
    assert sheet_lines(SHEET) == [
        "Containers",
        "  NAME       HELD MB",
        "  web            1.5",
        "  [red]evil     10.0",
    ]
    empty = Sheet("Containers", ("NAME",), (), empty="none was running")
    assert sheet_lines(empty) == ["Containers", "  none was running"]


def drawn(what: object) -> str:
    console = Console(file=io.StringIO(), width=60)
    console.print(what)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_drawn_sheet_has_the_same_words_and_takes_no_markup() -> None:
    words = [line.split() for line in drawn(draw(SHEET)).splitlines()]
    assert words == [line.split() for line in sheet_lines(SHEET)]


@pytest.mark.parametrize("columns", [(), ("check", "finding")])
def test_a_long_sentence_is_folded_and_none_of_it_is_lost(columns: tuple[str, ...]) -> None:
    sentence = "[b]" + " ".join(f"word{number}" for number in range(40))
    text = drawn(folded([(Cell("docker"), Cell(sentence))], columns))
    assert " ".join(text.split()) == " ".join([*columns, "docker", sentence])


@pytest.mark.allow_subprocess
def test_the_running_agent_does_not_load_what_draws() -> None:
    code = "import sys, agent.daemon.composition; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
