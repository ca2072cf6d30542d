"""What the canary's table says, and when it says that something is off."""

from __future__ import annotations

import pytest

from agent.selftest.lines import Line, is_alive, text


@pytest.mark.parametrize(
    ("asked", "measured", "tolerance", "right"),
    [
        (3, 3, 0.0, True),
        (3, 2, 0.0, False),
        (0, 0, 0.0, True),
        (0, 1, 0.0, False),
        (1000.0, 1019.0, 0.02, True),
        (1000.0, 1021.0, 0.02, False),
        (1000.0, 979.0, 0.02, False),
    ],
)
def test_a_figure_is_right_within_its_tolerance_to_both_sides(
    asked: float, measured: float, tolerance: float, right: bool
) -> None:
    assert Line("x", asked, measured, "ms", tolerance).is_right is right


def test_a_figure_that_nothing_was_asked_of_is_only_told() -> None:
    line = Line("compile", None, 250.0, "ms")
    assert line.is_right
    assert line.error is None


def test_one_line_that_is_off_is_enough() -> None:
    good, bad = Line("a", 1, 1, ""), Line("b", 2, 1, "")
    assert is_alive([good])
    assert not is_alive([good, bad])
    table = text([good, bad])
    assert "ok" in table[1]
    assert "OFF" in table[2]
    assert "-50.00%" in table[2]


def test_the_columns_stand_one_below_the_other() -> None:
    table = text([Line("a", 1, 1, "", note="note"), Line("b" * 34, 1e6, 12.345, "MB")])
    assert table[0].index("MEASURED") + len("MEASURED") == table[2].rindex("MB") + 2
    assert table[1].endswith("note")
