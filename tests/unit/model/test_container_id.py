"""The full id of a container: what is one, and where one is found."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.container_id import FullId, ids_in, is_full_id

ONE, OTHER = "0123456789abcdef" * 4, "f" * 64


@pytest.mark.parametrize(
    "value",
    [ONE[:-1], ONE + "0", ONE.upper(), ONE + "\n", " " + ONE, "", None, 7, "٣" * 64, "g" * 64],
)
def test_nothing_but_a_full_id_is_one(value: object) -> None:
    assert not is_full_id(value)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(value, FullId)


def test_a_full_id_is_one() -> None:
    assert is_full_id(ONE)
    assert msgspec.convert(ONE, FullId) == ONE


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (ONE, [ONE]),
        (f"docker-{ONE}.scope", [ONE]),
        (f"/{ONE}/{OTHER}", [ONE, OTHER]),
        (ONE + "0", []),
        (f"x{ONE}y{ONE[:-1]}z", [ONE]),
        (f"0:name=/docker/{ONE}\n", [ONE]),
    ],
)
def test_full_ids_are_found_within_a_text(text: str, found: list[str]) -> None:
    assert ids_in(text) == found


@given(st.text("0123456789abcdefg-/", max_size=200))
def test_what_is_found_is_every_run_of_exactly_64_digits(text: str) -> None:
    runs = [run for run in re.split("[^0-9a-f]", text) if len(run) == 64]
    assert ids_in(text) == runs
