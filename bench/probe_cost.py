"""(p) What the witness's programs cost, by the kernel's own account of each program's run time.

The kernel times every run (BPF_ENABLE_STATS), which is in the figures: a program that returns at
once reads some 70 ns.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable

from agent.clock import SystemClock
from agent.sources.bpf.syscall import ProgramRuns, enable_statistics, program_runs
from agent.sources.bpf.witness import Witness
from agent.sources.cgroup import reader
from bench.measure import IncompleteError, Row, Timing, of

_SWITCH = "on_switch"
_AIMED_SWITCHES = 100_000


def measure_probes(storm: int, rounds: int) -> list[Row]:
    """A process's whole way (fork, exec, exit, free) and a switch, medians over the rounds.

    Raises IncompleteError where the probes are not there.
    """
    statistics_on = enable_statistics()
    witness = Witness.start(reader.detect().hierarchy, SystemClock())
    try:
        while (state := witness.poll()).status == "starting":
            time.sleep(0.05)
        if witness.probes is None:
            raise IncompleteError(f"the probes were not there ({state.status} {state.reason})", [])
        programs = list(witness.probes.programs.values())
        switch = [_switch_ns(programs) for _ in range(rounds)]
        plain = statistics.median(ns for ns, _ in switch)
        lives = [_life_ns(programs, storm, plain) for _ in range(rounds)]
    finally:
        witness.close()
        os.close(statistics_on)
    share = 100 * plain * _AIMED_SWITCHES / 10**9
    rate = statistics.median(rate for _, rate in switch)
    rows = [
        Row(
            "p",
            "a switch in which nobody ends",
            None,
            f"{_spread(of([ns for ns, _ in switch]))}, at {rate:,.0f} switches a second; "
            f"{share:.2f} % of one core at {_AIMED_SWITCHES:,}",
        ),
        Row(
            "p",
            "fork, exec, exit and free of one process, its last switch included",
            None,
            _spread(of([sum(one.values()) for one in lives])),
        ),
    ]
    names = sorted({name for one in lives for name in one})
    rows += [
        Row("p", f"of it {name}", None, _spread(of([one.get(name, 0.0) for one in lives])))
        for name in names
    ]
    return rows


def _spread(ns: Timing) -> str:
    return f"{ns.wall_ms:.0f} ns ({ns.wall_min_ms:.0f} to {ns.wall_max_ms:.0f})"


def _spent(fds: list[int], work: Callable[[], object]) -> dict[str, ProgramRuns]:
    """Runs and nanoseconds of each program while `work` ran, whoever caused them."""
    before = [program_runs(fd) for fd in fds]
    work()
    after = [program_runs(fd) for fd in fds]
    return {
        b.name: ProgramRuns(b.name, b.run_count - a.run_count, b.run_ns - a.run_ns, 0)
        for a, b in zip(before, after, strict=True)
    }


def _switch_ns(fds: list[int]) -> tuple[float, float]:
    """Nanoseconds a run, and runs a second, while two processes hand a byte to and fro."""
    began = time.monotonic()
    runs = _spent(fds, _hand_to_and_fro)[_SWITCH]
    return runs.run_ns / runs.run_count, runs.run_count / (time.monotonic() - began)


def _hand_to_and_fro() -> None:
    there, back = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        for _ in range(50_000):
            os.read(there[0], 1)
            os.write(back[1], b"x")
        os._exit(0)
    for _ in range(50_000):
        os.write(there[1], b"x")
        os.read(back[0], 1)
    os.waitpid(child, 0)
    for fd in (*there, *back):
        os.close(fd)


def _life_ns(fds: list[int], storm: int, plain_ns: float) -> dict[str, float]:
    """Nanoseconds by program of each process that ended; of the switch only what is above a plain
    one's cost."""
    script = f"i=0; while [ $i -lt {storm} ]; do /bin/true; i=$((i+1)); done"
    runs = _spent(fds, lambda: subprocess.run(["sh", "-c", script], check=True))
    ended = runs["on_free"].run_count
    return {
        name: (one.run_ns - (one.run_count * plain_ns if name == _SWITCH else 0)) / ended
        for name, one in runs.items()
        if one.run_count
    }
