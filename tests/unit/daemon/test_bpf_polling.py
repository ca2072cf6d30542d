"""How the loop sees the BPF witness as it starts, works in part, or never comes."""

from __future__ import annotations

from typing import Any

import pytest

from agent.clock import SystemClock
from agent.daemon.bpf_polling import BpfPolling
from agent.errors import SourceError
from agent.sources.bpf.witness import BpfState

STARTING = BpfState("starting")


class ScriptedWitness:
    """One whose states are given, the last of them for good."""

    def __init__(self, *states: BpfState) -> None:
        self.states = list(states)
        self.error: SourceError | None = None

    def poll(self) -> BpfState:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def read(self) -> str:
        if self.error is not None:
            raise self.error
        return "a view"


def polling(*states: BpfState) -> tuple[BpfPolling, ScriptedWitness, list[str]]:
    said: list[str] = []
    witness: Any = ScriptedWitness(*states)
    say: Any = said.append
    return BpfPolling(witness, SystemClock(), say), witness, said


def test_probes_that_are_still_compiled_are_awaited_in_silence() -> None:
    one, _, said = polling(STARTING, BpfState("ready"))
    first, second = one.read(), one.read()
    assert (first.value, first.pending) == (None, True)
    assert (second.value, said) == ("a view", [])


def test_what_is_missing_of_the_probes_is_told_once_and_the_rest_is_read() -> None:
    one, _, said = polling(STARTING, BpfState("ready", "OOM kills are not seen.", "Update."))
    assert [one.read().value for _ in range(4)] == [None, "a view", "a view", "a view"]
    assert said == ["bpf: OOM kills are not seen. Update."]


def test_probes_that_never_come_are_told_once_with_what_it_means() -> None:
    one, _, said = polling(STARTING, BpfState("off", "The compiler is missing.", ""))
    parts = [one.read() for _ in range(3)]
    assert [(part.value, part.pending) for part in parts] == [
        (None, True),
        (None, False),
        (None, False),
    ]
    assert parts[-1].missing == "The compiler is missing."
    assert said == ["bpf: The compiler is missing. Rows are unverified."]


def test_a_reading_that_fails_costs_this_look_alone(caplog: pytest.LogCaptureFixture) -> None:
    one, witness, said = polling(BpfState("ready"))
    witness.error = SourceError("bpf(mmap) failed: Cannot allocate memory.")
    assert one.read().missing == "bpf(mmap) failed: Cannot allocate memory."
    witness.error = None
    assert one.read().value == "a view"
    assert (caplog.text.count("bpf=unreadable"), said) == (1, [])
