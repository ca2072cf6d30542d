"""The canary comes at its hours, beside the loop, and what it proved or could not is known."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent.config import Config
from agent.config_outlets import ProofSettings
from agent.daemon.canary_runs import CanaryRuns, canary_command
from agent.model.proof import CanaryResult
from agent.util.subprocess import CommandError
from tests.unit.store.builders import HOUR_NS, SECOND_NS, START_NS, FakeClock

CONFIG = Config(proof=ProofSettings(canary_hours=24))
GOOD = {"what": "processes", "error": 0.0, "is_right": True}
OFF = {"what": "CPU burnt", "error": -0.1, "is_right": False}


class Canary:
    def __init__(self, output: int, errors: int) -> None:
        self.output, self.errors = os.dup(output), os.dup(errors)
        self.status: int | None = None
        self.killed = False

    def poll(self) -> int | None:
        return self.status

    def end(self, status: int, *lines: dict[str, object]) -> None:
        document = json.dumps({"kernel": "x", "right": status == 0, "lines": lines})
        os.write(self.output, document.encode())
        self.fail(status, "")

    def fail(self, status: int, reason: str) -> None:
        os.write(self.errors, reason.encode())
        self.close()
        self.status = status

    def close(self) -> None:
        os.close(self.output)
        os.close(self.errors)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Canary]:
    found: list[Canary] = []

    def begin(_command: object, *, stdout: Any, stderr: Any, **_more: object) -> Canary:
        found.append(Canary(stdout.fileno(), stderr.fileno()))
        return found[-1]

    def kill(process: Any) -> None:
        process.killed = True

    monkeypatch.setattr("agent.daemon.canary_runs.begin", begin)
    monkeypatch.setattr("agent.daemon.canary_runs.kill_session", kill)
    return found


def passes(clock: FakeClock, seconds: float, runs: CanaryRuns) -> None:
    clock.pass_time(int(seconds * SECOND_NS))
    runs.look()


def test_it_runs_with_the_settings_of_the_agent_and_niced() -> None:
    words = canary_command(Path("/etc/other.toml"))
    assert words[:3] == ("nice", "-n", "10")
    assert words[4:] == (
        *("-P", "-m", "agent", "bpf", "check", "--canary", "--json"),
        *("--config", "/etc/other.toml"),
    )


def test_one_that_is_right_is_the_last_for_a_day(begun: list[Canary]) -> None:
    clock = FakeClock()
    runs = CanaryRuns(CONFIG, None, clock, None)
    passes(clock, 119, runs)
    assert begun == []
    passes(clock, 1, runs)
    passes(clock, 60, runs)
    assert len(begun) == 1
    begun[0].end(0, GOOD)
    runs.look()
    assert runs.result == CanaryResult(clock.wall_ns() // 10**6, 0.0)
    passes(clock, 24 * 3600 - 1, runs)
    assert len(begun) == 1
    passes(clock, 1, runs)
    assert len(begun) == 2
    begun[1].end(0)
    runs.close()
    assert begun[1].killed


def test_one_that_is_off_says_by_how_much_and_comes_again_soon(begun: list[Canary]) -> None:
    clock = FakeClock()
    runs = CanaryRuns(CONFIG, None, clock, None)
    passes(clock, 120, runs)
    begun[0].end(1, GOOD, OFF, {"what": "exact", "error": None, "is_right": True})
    runs.look()
    assert runs.result is not None
    assert (runs.result.error, runs.result.line) == (0.1, "CPU burnt")
    passes(clock, 300, runs)
    assert len(begun) == 2
    begun[1].end(1, {"what": "nobody's", "error": None, "is_right": False})
    runs.look()
    assert runs.result.error == 1.0
    runs.close()


def test_one_that_could_not_run_proves_nothing_and_is_a_problem(
    begun: list[Canary], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    kept = CanaryResult((START_NS - 25 * HOUR_NS) // 10**6, 0.0)
    runs = CanaryRuns(CONFIG, None, clock, kept)
    passes(clock, 120, runs)
    begun[0].fail(7, "warning: x\nagent: Docker does not answer.\x1b[2J\n")
    runs.look()
    assert runs.result == kept
    assert runs.problem == (
        "The canary could not be run: it ended with status 7 "
        "(agent: Docker does not answer.\\x1b[2J); run `sudo agent bpf check --canary`."
    )
    passes(clock, 300, runs)
    clock.pass_time(601 * SECOND_NS)
    runs.look()
    assert begun[1].killed
    assert "took longer than 600 s" in runs.problem

    def begin(*_: object, **__: object) -> Canary:
        raise CommandError("nice cannot be run: No such file or directory.")

    monkeypatch.setattr("agent.daemon.canary_runs.begin", begin)
    passes(clock, 300, runs)
    assert "nice cannot be run" in runs.problem
    begun[1].close()


def test_a_restart_does_not_ask_again_what_was_proved_within_its_hours(
    begun: list[Canary],
) -> None:
    clock = FakeClock()
    kept = CanaryResult((START_NS - 23 * HOUR_NS) // 10**6, 0.0)
    runs = CanaryRuns(CONFIG, None, clock, kept)
    assert runs.result == kept
    passes(clock, 3599, runs)
    assert begun == []
    passes(clock, 1, runs)
    assert len(begun) == 1
    begun[0].close()
    runs.close()


def test_one_for_which_no_descriptor_is_left_ends_nothing_and_keeps_none(
    begun: list[Canary], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    runs = CanaryRuns(CONFIG, None, clock, None)
    make = os.memfd_create
    taken: list[int] = []

    def short_of(number: int) -> Any:
        def memfd_create(*words: Any) -> int:
            if len(taken) == number:
                raise OSError(errno.EMFILE, "Too many open files")
            taken.append(make(*words))
            return taken[-1]

        return memfd_create

    for number in (0, 1):
        taken.clear()
        monkeypatch.setattr(os, "memfd_create", short_of(number))
        passes(clock, 300, runs)
        assert runs.problem == "The canary could not be run: Too many open files."
        assert [one for one in taken if Path(f"/proc/self/fd/{one}").exists()] == []
    monkeypatch.setattr(os, "memfd_create", make)
    passes(clock, 300, runs)
    begun[0].end(0, GOOD)
    runs.look()
    assert runs.problem == ""
