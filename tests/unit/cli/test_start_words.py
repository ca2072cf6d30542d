"""`agent start` without the command line's library: its words mean the same as with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.cli import app
from agent.cli.commands import start as command
from agent.config import Scope, SourceChoice

if TYPE_CHECKING:
    from collections.abc import Sequence

_ALL = [
    *("--interval", "2.5", "--once", "--dry-run", "--scope", "all", "--source", "psutil"),
    *("--no-cron", "--no-bpf", "--no-grafana", "--keep-grafana"),
    *("--config", "/etc/x.toml", "--database", "x.db"),
]


def library_gives(monkeypatch: pytest.MonkeyPatch, words: Sequence[str]) -> dict[str, object]:
    """What `start` is called with where the library parses, without what nobody named."""
    called: list[dict[str, Any]] = []

    def take(**options: object) -> int:
        called.append(options)
        return 0

    monkeypatch.setattr(command, "start", take)
    assert app.run(["start", *words]) == 0
    (options,) = called
    return {name: value for name, value in options.items() if value not in (None, False)}


@pytest.mark.parametrize(
    "words",
    [
        [],
        _ALL,
        ["--once"],
        ["--interval", "1e1"],
        ["--interval", " 7 "],
        ["--source", "modules", "--scope", "managed"],
        ["--database", ""],
        ["--config", "a b"],
    ],
)
def test_plain_words_are_what_the_library_makes_of_them(
    monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    plain = command.plain_options(words)
    assert plain is not None
    assert plain == library_gives(monkeypatch, words)


def test_every_option_of_the_library_is_a_plain_one() -> None:
    assert command.plain_options(_ALL) == {
        "interval": 2.5,
        "once": True,
        "dry_run": True,
        "scope": Scope.ALL,
        "source": SourceChoice.PSUTIL,
        "no_cron": True,
        "no_bpf": True,
        "no_grafana": True,
        "keep_grafana": True,
        "config": Path("/etc/x.toml"),
        "database": "x.db",
    }


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--nonsense"],
        ["once"],
        ["--"],
        ["--interval"],
        ["--interval", "soon"],
        ["--interval", "-5"],
        ["--interval=5"],
        ["--scope", "nobody"],
        ["--source", "PSUTIL"],
        ["--once", "--once"],
        ["--database", "--config"],
        ["--config", "a", "--config", "b"],
        ["--no-cro"],
    ],
)
def test_all_other_words_are_left_to_the_library(words: list[str]) -> None:
    assert command.plain_options(words) is None
