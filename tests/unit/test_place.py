"""Where the code is installed decides what people are told, and what settings default to."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import place
from agent.config import Config


def installed(prefix: Path) -> Path:
    (prefix / "venv").mkdir(parents=True)
    (prefix / "src/agent").mkdir(parents=True)
    return prefix / "src/agent"


def test_an_installation_is_known_by_its_layout(tmp_path: Path) -> None:
    assert place.prefix_of(installed(tmp_path / "usr/lib/so1-agent")) == str(
        tmp_path / "usr/lib/so1-agent"
    )


@pytest.mark.parametrize("layout", ["checkout/agent", "src/agent"])
def test_a_checkout_is_none_wherever_it_lies(tmp_path: Path, layout: str) -> None:
    code = tmp_path / layout
    code.mkdir(parents=True)
    assert place.prefix_of(code) == "/opt/so1"


def test_from_this_checkout_the_clones_places_are_named() -> None:
    assert place.INSTALL == "./bash/start.sh --install-only"
    assert place.SCRIPTS == "/opt/so1/src/bash"
    assert (Config().paths.install, Config().fleet.environment) == ("/opt/so1", "/opt/so1/fleet")
