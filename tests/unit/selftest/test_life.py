"""The canary's known life does what it is asked and says what it did; the kernel is the oracle.

`hold` is left to the docker layer: it writes to paths that only the canary's container has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.selftest import life

pytestmark = pytest.mark.allow_subprocess


class Life:
    """The program on its two FIFOs, as the canary's container runs it."""

    def __init__(self, directory: Path) -> None:
        for name in ("ask", "done"):
            os.mkfifo(directory / name)
        self.process = subprocess.Popen([sys.executable, str(life.__file__), str(directory)])
        self._asked = (directory / "ask").open("w")
        self._done = (directory / "done").open()

    def ask(self, what: str, **more: int) -> dict[str, Any]:
        self.tell(what, **more)
        answer: dict[str, Any] = json.loads(self._done.readline())
        return answer

    def tell(self, what: str, **more: int) -> None:
        self._asked.write(json.dumps({"do": what, **more}) + "\n")
        self._asked.flush()

    def close(self) -> None:
        if self.process.poll() is None and not self._asked.closed:
            self.tell("end")
            self.process.wait(60)
        self._asked.close()
        self._done.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)


@pytest.fixture
def alive(tmp_path: Path) -> Iterator[Life]:
    made = Life(tmp_path)
    yield made
    made.close()


def test_a_sleeper_is_a_child_that_stays_until_it_is_killed(alive: Life) -> None:
    pid = alive.ask("sleeper")["pid"]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    try:
        assert int(fields[1]) == alive.process.pid
        assert fields[0] != "Z"
    finally:
        os.kill(pid, 9)


def test_children_have_ended_when_they_are_answered_for(alive: Life) -> None:
    answer = alive.ask("children", count=3)
    assert answer["count"] == 3
    assert answer["elapsed_ns"] > 0
    children = Path(f"/proc/{alive.process.pid}/task/{alive.process.pid}/children").read_text()
    assert children == ""


def test_a_burn_takes_at_least_the_cpu_that_was_asked_for_and_says_what_it_took(
    alive: Life,
) -> None:
    wanted_ns = 30_000_000
    told_ns = alive.ask("burn", cpu_ns=wanted_ns)["cpu_ns"]
    fields = Path(f"/proc/{alive.process.pid}/stat").read_text().rpartition(")")[2].split()
    reaped_s = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    assert told_ns >= wanted_ns
    # The kernel's own account of ended children, to its clock tick.
    assert reaped_s == pytest.approx(told_ns / 1e9, abs=2 / os.sysconf("SC_CLK_TCK"))


def test_any_other_request_and_the_end_of_requests_end_it_well(tmp_path: Path) -> None:
    for number, end in enumerate((lambda one: one.tell("end"), lambda one: one._asked.close())):
        place = tmp_path / str(number)
        place.mkdir()
        one = Life(place)
        try:
            end(one)
            assert one.process.wait(60) == 0
        finally:
            one.close()
