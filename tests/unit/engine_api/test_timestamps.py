"""Docker's moments, to the nanosecond; the oracle is the calendar of the standard library."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engine_api.timestamps import parse_time_ns


@given(st.integers(0, 4_000_000_000), st.integers(0, 10**9 - 1))
def test_a_moment_is_read_to_the_nanosecond(second: int, fraction: int) -> None:
    text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    assert parse_time_ns(f"{text}.{fraction:09}Z") == second * 10**9 + fraction


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.5Z", 500_000_000),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T02:00:00.000000001+02:00", 1),
        ("1970-01-01T00:00:00.1234567899999Z", 123_456_789),
        ("1969-12-31T23:00:00.000000001-01:00", 1),
        ("0001-01-01T00:00:00Z", -62135596800 * 10**9),
    ],
)
def test_zones_and_short_fractions(text: str, ns: int) -> None:
    assert parse_time_ns(text) == ns


@pytest.mark.parametrize(
    "text",
    [
        *("", "yesterday", "now", "1970-01-01", "1970-01-01T00:00:00Z\n"),
        *("\u0661" * 20, "\u0662\u0660\u0662\u0666-01-01T00:00:00Z"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a time"):
        parse_time_ns(text)


def test_a_month_that_no_year_has_is_refused() -> None:
    with pytest.raises(ValueError, match="month"):
        parse_time_ns("1970-13-01T00:00:00Z")


def test_a_date_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError):
        parse_time_ns("2026-02-30T00:00:00Z")
