"""Arguments and stored figures that nobody means: a sentence each, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from agent import __main__ as entry
from agent.actions.notify.webhook import rfc3339
from agent.cli.app import app
from agent.cli.commands import who
from agent.cli.views import moments, status
from agent.config import Config
from tests.unit import builders

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["agent", *words])
        with pytest.raises(SystemExit) as end:
            entry.main()
        assert isinstance(end.value.code, int)
        return end.value.code, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    "words",
    [
        ("who", "99999999999999999999"),
        ("who", "4194305"),
        ("who", "0"),
        ("oom", "99999999999999999999"),
        ("oom", "9223372036854775808"),
        ("oom", "0"),
        ("bpf", "trace", "--pid", "99999999999999999999"),
    ],
)
def test_a_number_that_nothing_has_is_a_usage_error(agent: Call, words: tuple[str, ...]) -> None:
    code, out, err = agent(*words)
    assert (code, out) == (2, "")
    assert "is not in the range" in err
    *command, _ = (word for word in words if not word.startswith("--"))
    assert f"See `agent {' '.join(command)} --help`." in err


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e300"])
def test_a_duration_that_never_ends_is_a_sentence(agent: Call, seconds: str) -> None:
    code, out, err = agent("bpf", "trace", "--duration", seconds)
    assert (code, out) == (2, "")
    assert "is no time to wait." in err


def test_a_name_is_looked_for_as_the_kernel_cuts_it_and_the_sources_read_it(
    agent: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(config: Config, clock: object, pids: list[int], name: str, *, as_json: bool) -> int:
        del config, clock, pids, as_json
        asked.append(name)
        return 0

    monkeypatch.setattr(who, "answer", answer)
    monkeypatch.setattr("agent.sources.host_metrics.require_root", lambda _: None)
    for name in ("\udcff", "é" * 8, "a-long-name-of-a-command"):
        assert agent("who", "--name", name)[0] == 0
    assert asked == ["\ufffd", "é" * 7 + "\ufffd", "a-long-name-of-"]


GROUPS = [group.typer_instance.info.name for group in app.registered_groups if group.typer_instance]


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_without_a_command_prints_its_help(agent: Call, group: str) -> None:
    code, out, err = agent(group)
    assert (code, err) == (2, "")
    assert out.startswith(f"Usage: agent {group} ")
    assert "\\x0a" not in out
    assert agent(group, "--help")[1].strip() == out.strip()


@pytest.mark.parametrize("odd", [99999999999999999, -99999999999999999, 10**30])
def test_a_stored_number_that_is_no_moment_is_shown_as_it_is(odd: int) -> None:
    assert moments.moment(odd) == status.moment(odd) == f"{odd} ms"
    rows = dict(status.status_rows(builders.status(since_wall_ms=odd), 0))
    assert f"since {odd} ms" in rows["agent"]


def test_a_message_of_an_odd_moment_has_the_nearest_that_can_be_written() -> None:
    assert rfc3339(99999999999999999) == "9999-12-31T23:59:59.000Z"
    assert rfc3339(-(10**30)) == "1970-01-01T00:00:00.000Z"
