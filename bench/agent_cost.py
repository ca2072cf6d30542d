"""(c) A tick by stage, (d) the probes, (e) a running agent, (g) from start to the first row."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.measure import Row, Timing, of, ratio

_STATUS = Path("/run/so1/status.json")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@contextmanager
def agent(command: list[str], *options: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A running agent with a database of its own; its modules stay for the next one."""
    parent = Path("/var/lib/so1-bench")
    parent.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(dir=parent))
    config = directory / "agent.toml"
    database = directory / "metrics.db"
    config.write_text(f'[modules]\nkeep = true\n[paths]\ndatabase = "{database}"\n')
    process = subprocess.Popen(
        [*command, "start", "--no-cron", "--no-grafana", "--config", str(config), *options],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process, database
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)
        shutil.rmtree(directory)


def measure_tick(command: list[str], ticks: int) -> list[Row]:
    """The medians of each stage over `ticks` ticks at a second's interval, BPF on."""
    seen: dict[int, dict[str, float]] = {}
    with agent(command, "--interval", "1"):
        _wait_for_bpf()
        while len(seen) < ticks:
            tick = _status().get("tick") or {}
            if tick and tick["number"] not in seen:
                seen[tick["number"]] = {**tick["stages_ms"], "whole tick": tick["tick_ms"]}
            time.sleep(0.2)
    stages = sorted(
        {name for one in seen.values() for name in one}, key=lambda n: n == "whole tick"
    )
    return [
        Row("c", f"tick · {stage}", of([one.get(stage, 0.0) for one in seen.values()]))
        for stage in stages
    ]


def measure_cost(command: list[str], seconds: int, *options: str) -> list[Row]:
    """CPU share, memory and bytes written at the default interval over `seconds`."""
    with agent(command, *options) as (process, database):
        _wait_for_bpf()
        time.sleep(5)
        cpu, began = _cpu_s(process.pid), time.monotonic()
        written = _written(process.pid)
        rows_before = _rows(database)
        time.sleep(seconds)
        spent = _cpu_s(process.pid) - cpu
        elapsed = time.monotonic() - began
        bytes_a_day = (_written(process.pid) - written) / elapsed * 86_400
        rss_mb = _rss_kb(process.pid) / 1024
        ticks = _rows(database) - rows_before
    return [
        Row("e", "CPU share of one core", None, f"{100 * spent / elapsed:.3f} %"),
        Row("e", "resident memory", None, f"{rss_mb:.1f} MB"),
        Row("e", "written a day", None, f"{bytes_a_day / 2**20:.1f} MB ({ticks} ticks seen)"),
    ]


def measure_storm(command: list[str], processes: int, rounds: int) -> list[Row]:
    """A fork-and-exec storm without and with the probes, in turns."""
    quiet: list[float] = []
    watched: list[float] = []
    for _ in range(rounds):
        quiet.append(_storm_ms(processes))
        with agent(command, "--interval", "3600"):
            _wait_for_bpf()
            watched.append(_storm_ms(processes))
    without, with_probes = of(quiet), of(watched)
    slower = 100 * (with_probes.wall_ms / without.wall_ms - 1)
    return [
        Row("d", f"{processes} forks and execs · no probes", without),
        Row("d", f"{processes} forks and execs · probes", with_probes, f"{slower:+.1f} %"),
    ]


def measure_start(command: list[str], repetitions: int) -> list[Row]:
    """From the command to the first stored row; the modules are built and loaded already."""
    times = []
    for _ in range(repetitions):
        began = time.perf_counter()
        with agent(command, "--no-bpf") as (process, database):
            while not _rows(database):
                if process.poll() is not None:
                    raise RuntimeError("the agent ended")
                time.sleep(0.02)
            times.append((time.perf_counter() - began) * 1000)
    return [Row("g", "start to the first row, modules built", of(times))]


def against(rows: list[Row], section: str, what: str, slow: Timing) -> Row | None:
    """How much longer `slow` takes than the row of `section` whose text ends with `what`."""
    for row in rows:
        if row.section == section and row.what.endswith(what) and row.timing:
            return Row(section, f"psutil's snapshot alone against {what}", slow, "",
                       ratio(slow, row.timing), what)  # fmt: skip
    return None


def _storm_ms(processes: int) -> float:
    script = f"i=0; while [ $i -lt {processes} ]; do /bin/true; i=$((i+1)); done"
    began = time.perf_counter()
    subprocess.run(["sh", "-c", script], check=True, stdin=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


def _status() -> dict[str, dict[str, object]]:
    try:
        found: dict[str, dict[str, object]] = json.loads(_STATUS.read_bytes())
    except (OSError, ValueError):
        return {}
    return found


def _wait_for_bpf(timeout_s: float = 300) -> None:
    """Until the probes are there or cannot be had: the compile must not be measured."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if (word := str(_status().get("bpf", ""))) and not word.startswith("starting"):
            return
        time.sleep(0.2)
    raise RuntimeError("BPF neither came up nor said why not")


def _rows(database: Path) -> int:
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5) as connection:
            return int(connection.execute("SELECT count(*) FROM metrics").fetchone()[0])
    except sqlite3.Error:
        return 0


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _rss_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    return 0


def _written(pid: int) -> int:
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    return 0
