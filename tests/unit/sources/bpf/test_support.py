"""Why the probes cannot work here, in one sentence each, and what to do about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from agent.clock import SystemClock
from agent.model.container import Hierarchy
from agent.sources.bpf import witness as bpf
from agent.sources.bpf.support import BpfSupport, probe_support

ALL = BpfSupport(
    root=True,
    btf=True,
    bcc=True,
    python="/usr/bin/python3",
    lockdown="none",
    sources=True,
    machine="x86_64",
)

LACKS: list[tuple[dict[str, Any], str, str]] = [
    ({"root": False}, "root", "sudo"),
    ({"btf": False}, "type information", "CONFIG_DEBUG_INFO_BTF"),
    ({"bcc": False}, "BCC cannot be imported", "python3-bpfcc"),
    ({"lockdown": "confidentiality"}, "locked down", "lockdown=confidentiality"),
    ({"sources": False}, "not in", "Install the agent again"),
]


def test_a_host_with_everything_has_no_problem() -> None:
    assert ALL.problem is None


def test_lockdown_that_only_guards_integrity_and_an_unknown_one_are_no_problem() -> None:
    assert replace(ALL, lockdown="integrity").problem is None
    assert replace(ALL, lockdown=None).problem is None


@pytest.mark.parametrize(("lacking", "cause", "mend"), LACKS, ids=lambda value: str(value)[:20])
def test_what_is_missing_is_said_with_what_mends_it(
    lacking: dict[str, Any], cause: str, mend: str
) -> None:
    problem = replace(ALL, **lacking).problem
    assert problem is not None
    assert cause in problem[0]
    assert mend in problem[1]


@pytest.mark.parametrize(("lacking", "cause", "mend"), LACKS, ids=lambda value: str(value)[:20])
def test_a_witness_on_such_a_host_is_off_at_once_and_starts_nothing(
    lacking: dict[str, Any], cause: str, mend: str
) -> None:
    witness = bpf.Witness.start(Hierarchy.DEFAULT, SystemClock(), replace(ALL, **lacking))
    state = witness.poll()
    assert state.status == "off"
    assert cause in state.reason
    assert mend in state.hint
    witness.close()
    witness.close()


def test_probing_this_host_answers_whatever_it_has() -> None:
    support = probe_support()
    assert support.sources
    assert support.python
