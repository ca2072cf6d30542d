"""What docs/policy.md shows can be used as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.config import decode_config

TEXT = (Path(__file__).resolve().parents[3] / "docs/policy.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_example_of_rules_is_taken(example: str) -> None:
    assert decode_config(example, "docs/policy.md").policy.rule
