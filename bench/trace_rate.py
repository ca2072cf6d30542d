"""(h) What `agent bpf trace` holds: a fork storm on all CPUs, and what of it was lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence

from bench.measure import Row
from bench.running import process_cpu_s

_FORKS = "i=0; while [ $i -lt {count} ]; do (exit 0); i=$((i+1)); done"


def measure_rate(command: Sequence[str], forks: int) -> list[Row]:
    """`forks` on each CPU at once, traced as JSON into a file.

    Where nothing was lost the rate seen is the storm's; how many a second the trace could tell
    follows from the CPU that it took for one. Raises RuntimeError where the trace does not begin.
    """
    with tempfile.TemporaryFile() as told:
        trace = subprocess.Popen(
            [*command, "bpf", "trace", "--json"],
            stdin=subprocess.DEVNULL, stdout=told, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert trace.stderr is not None
        if not any("Tracing" in line for line in iter(trace.stderr.readline, "")):
            raise RuntimeError(f"the trace ended with {trace.wait()}")
        cpu_before_s, began = process_cpu_s(trace.pid), time.perf_counter()
        storms = [
            subprocess.Popen(["sh", "-c", _FORKS.format(count=forks)])
            for _ in range(os.cpu_count() or 1)
        ]
        for one in storms:
            one.wait()
        took_s, cpu_s = time.perf_counter() - began, process_cpu_s(trace.pid) - cpu_before_s
        trace.send_signal(signal.SIGINT)
        trace.communicate(timeout=120)
        told.seek(0)
        end = json.loads(told.read().splitlines()[-1])
    events, lost = end["events"], end["lost"]
    return [
        Row(
            "h",
            f"a trace of {forks} forks on each CPU",
            None,
            f"{events} events, {events / took_s:.0f} a second, {lost} lost; "
            f"{1e6 * cpu_s / max(1, events):.0f} us of CPU for one",
        )
    ]
