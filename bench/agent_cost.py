"""(c) A tick by stage, (d) the probes, (e) a running agent, (g) from start to the first row."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.clock import SystemClock
from agent.sources.bpf.witness import Witness
from agent.sources.cgroup import reader
from bench import processes
from bench.measure import IncompleteError, Row, Timing, of, ratio, timed
from bench.running import running_agent

_USUAL = 300
"""So many processes a host of the aim's kind has."""


def measure_tick(command: list[str], wanted: int, ticks: int) -> list[Row]:
    """Each stage's median with `wanted` processes, BPF on, and what one could do instead.

    The ticks come a second apart, or one after another where they take longer. They are those of
    an agent that has been up for a while: as long as SQLite's log grows, each tick's sync has to
    commit the file's new size as well. Raises IncompleteError where modules or probes were missing.
    """
    with processes.crowd(wanted):
        present = processes.count()
        stages, whole, cpu_ms, bpf = _stages(command, ticks)
        name = f"{present} processes · "
        rows = [Row("c", f"{name}tick · {stage}", one) for stage, one in stages.items()]
        rows.append(Row("c", f"{name}whole tick", whole, f"CPU {cpu_ms:.1f} ms a tick"))
        if processes.SYSINFO.exists():
            cat = timed(processes.read_modules, 3)
            rows.append(_against(f"{name}cat of the modules' files", cat, whole))
        few = present > 1_500
        by_psutil = timed(processes.psutil_snapshot, 2 if few else 5, warm=not few)
        rows.append(_against(f"{name}psutil's snapshot alone", by_psutil, whole))
    return _with(rows, "" if processes.SYSINFO.exists() else processes.NOT_LOADED, _without(bpf))


def _without(bpf: str) -> str:
    """What is missing where the probes are not there, by the state that the agent tells."""
    return "" if bpf == "ready" else f"the probes were not there ({bpf})"


def _with(rows: list[Row], *missing: str) -> list[Row]:
    """The rows. Raises IncompleteError with them where something is missing."""
    if said := "; ".join(one for one in missing if one):
        raise IncompleteError(said, rows)
    return rows


def _against(what: str, other: Timing, tick: Timing) -> Row:
    return Row("c", what, other, "", ratio(other, tick), "the whole tick")


def _stages(command: list[str], ticks: int) -> tuple[dict[str, Timing], Timing, float, str]:
    """Timings of the stages and of the whole, the agent's CPU a tick in milliseconds, and BPF's
    state."""
    seen: dict[int, dict[str, float]] = {}
    wholes: dict[int, float] = {}
    with running_agent(command, "--interval", "1") as agent:
        bpf = agent.wait_for_bpf()
        agent.wait_for_checkpoint()
        first, cpu_s = agent.rows(), agent.cpu_s()
        while len(seen) < ticks:
            agent.check_alive()
            tick = agent.status().get("tick")
            if tick and tick["number"] > first and tick["number"] not in seen:
                seen[tick["number"]] = tick["stages_ms"]
                wholes[tick["number"]] = tick["tick_ms"]
            time.sleep(0.2)
        cpu_ms = 1000 * (agent.cpu_s() - cpu_s) / max(1, agent.rows() - first)
    names = list(dict.fromkeys(name for one in seen.values() for name in one))
    stages = {name: of([one.get(name, 0.0) for one in seen.values()]) for name in names}
    return stages, of(list(wholes.values())), cpu_ms, bpf


def measure_cost(command: list[str], seconds: int) -> list[Row]:
    """CPU share, memory and bytes written at the default interval over `seconds`, BPF on."""
    with processes.crowd(_USUAL), running_agent(command) as agent:
        bpf = agent.wait_for_bpf()
        # The compile's garbage and the first rows are of the start.
        time.sleep(5)
        present = processes.count()
        cpu, written, rows_before = agent.cpu_s(), agent.written_bytes(), agent.rows()
        began = time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - began
        spent = agent.cpu_s() - cpu
        bytes_a_day = (agent.written_bytes() - written) / elapsed * 86_400
        ticks = agent.rows() - rows_before
        rss_mb = agent.rss_kb() / 1024
        own_mb = (agent.proc_number("smaps_rollup", "Anonymous:")) / 1024
    name = f"{present} processes, interval 20 s, BPF {bpf} · "
    rows = [
        Row("e", f"{name}CPU share of one core", None, f"{100 * spent / elapsed:.3f} %"),
        Row("e", f"{name}resident memory", None, f"{rss_mb:.1f} MB ({own_mb:.1f} anonymous)"),
        Row(
            "e", f"{name}written a day", None, f"{bytes_a_day / 2**20:.0f} MB ({ticks} ticks seen)"
        ),
    ]
    return _with(rows, _without(bpf))


def measure_storm(storm: int, pairs: int, idle_s: float) -> list[Row]:
    """A fork-and-exec storm without and with the probes, in pairs, and an idle host likewise.

    The median of the pairs' ratios leaves out what other work did to single storms.
    """
    quiet: list[tuple[float, float]] = []
    watched: list[tuple[float, float]] = []
    _storm(storm // 4)
    for _ in range(pairs):
        quiet.append(_storm(storm))
        with _probes() as bpf:
            watched.append(_storm(storm))
    idle = {"without": _busy_percent(idle_s)}
    with _probes() as bpf:
        idle["with"] = _busy_percent(idle_s)
    ratios = [
        (after[0] / before[0], after[1] / before[1])
        for before, after in zip(quiet, watched, strict=True)
    ]
    slower, dearer = (100 * (statistics.median(part) - 1) for part in zip(*ratios, strict=True))
    shares = " · ".join(f"{value:.2f} % {name}" for name, value in idle.items())
    rows = [
        Row("d", f"{storm} forks and execs · no probes", of(*zip(*quiet, strict=True))),
        Row(
            "d",
            f"{storm} forks and execs · probes ({bpf})",
            of(*zip(*watched, strict=True)),
            f"wall {slower:+.1f} %, CPU {dearer:+.1f} % (median of {pairs} pairs)",
        ),
        Row("d", f"idle host over {idle_s:g} s, all CPUs busy", None, shares),
    ]
    return _with(rows, _without(bpf))


@contextmanager
def _probes() -> Iterator[str]:
    """The witness's probes while the block runs; gives whether they are there."""
    witness = Witness.start(reader.detect().hierarchy, SystemClock())
    try:
        while (state := witness.poll()).status == "starting":
            time.sleep(0.05)
        yield f"{state.status} {state.reason}".strip()
    finally:
        witness.close()


def measure_start(command: list[str], repetitions: int, *, cold: bool) -> list[Row]:
    """From the command to the first stored row, the modules built.

    Warm: loaded, everything in the page cache. Cold: modules unloaded, caches dropped; it slows
    whoever shares the host for a moment.
    """
    _start_ms(command)
    rows = [
        Row(
            "g",
            "start to the first row, warm",
            of([_start_ms(command) for _ in range(repetitions)]),
        )
    ]
    if cold:
        times = []
        for _ in range(max(2, repetitions // 2)):
            for module in ("continfo", "sysinfo"):
                if Path(f"/sys/module/{module}").exists():
                    subprocess.run(["rmmod", module], check=True)
            os.sync()
            Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")
            times.append(_start_ms(command))
        rows.append(Row("g", "start to the first row, cold (built modules)", of(times)))
    return rows


def _start_ms(command: list[str]) -> float:
    began = time.perf_counter()
    with running_agent(command) as agent:
        agent.wait_for_first_row()
        return (time.perf_counter() - began) * 1000


def _storm(count: int) -> tuple[float, float]:
    """Wall and CPU milliseconds of a storm; a busy machine moves the first, not the second."""
    script = f"i=0; while [ $i -lt {count} ]; do /bin/true; i=$((i+1)); done"
    before, began = _children_cpu_s(), time.perf_counter()
    subprocess.run(["sh", "-c", script], check=True, stdin=subprocess.DEVNULL)
    wall_s = time.perf_counter() - began
    return wall_s * 1000, (_children_cpu_s() - before) * 1000


def _children_cpu_s() -> float:
    """Of the ended children, to the microsecond; `os.times` has it in steps of ten milliseconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _busy_percent(seconds: float) -> float:
    """How much of all CPUs was busy."""
    busy, whole = _cpu_ticks()
    time.sleep(seconds)
    busy_after, whole_after = _cpu_ticks()
    return 100 * (busy_after - busy) / max(1, whole_after - whole)


def _cpu_ticks() -> tuple[int, int]:
    line = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0]
    values = [int(word) for word in line.split()[1:9]]
    return sum(values) - values[3] - values[4], sum(values)
